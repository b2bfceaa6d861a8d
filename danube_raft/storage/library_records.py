"""The records in RocksDB's write-ahead log and MANIFEST, walked before the library reads them.

    CRC32C 4 | length 2 | type 1 | payload      little-endian, in blocks of 32 KiB; a block's last 6 bytes may be unused

The library never comes back from a record of a type that only files which are used again have (`_USED_AGAIN`), behind
any other record: it spins for ever where it should say Corruption, or treat the end of the file as torn (seen in RocksDB
9.8.4). Nobody writes such files here. So one of those types is a flipped bit, or the garbage that a power failure has
left behind what was synced, and has to be found first.

Everything else, the CRCs above all, is the library's business, which stops at the first record that it cannot prove.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from danube_raft.errors import Corrupt
from danube_raft.storage.entry_format import WAY_OUT

BLOCK_BYTES = 32 << 10
HEADER_BYTES = 7
_LENGTH_AT, _TYPE_AT = 4, 6
_ZERO = 0
_USED_AGAIN = frozenset((5, 6, 7, 8, 11))


def torn_ends(directory: Path) -> list[tuple[str, int]]:
    """The files that end in a record which they are too short for and which the library must not see: their names, and
    where it begins. Raises Corrupt for such a record that is whole, and OSError."""
    found = []
    for path in sorted((*directory.glob("*.log"), *directory.glob("MANIFEST-*"))):
        at = _torn_at(path)
        if at is not None:
            found.append((path.name, at))
    return found


def _torn_at(path: Path) -> int | None:
    with path.open("rb") as file:
        # An empty file cannot be mapped.
        if not path.stat().st_size:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _walk(path, data)


def _walk(path: Path, data: mmap.mmap) -> int | None:
    at, size = 0, len(data)
    while at + HEADER_BYTES <= size:
        rest = BLOCK_BYTES - at % BLOCK_BYTES
        kind = data[at + _TYPE_AT] if rest >= HEADER_BYTES else _ZERO
        if kind == _ZERO:
            # Space that was not used, or was zeroed: the next block may go on.
            at += rest
            continue
        end = at + HEADER_BYTES + int.from_bytes(data[at + _LENGTH_AT : at + _TYPE_AT], "little")
        if kind in _USED_AGAIN:
            if end > size:
                return at
            raise Corrupt(
                f"{path} has a record of type {kind} at byte {at}, which is never written; {WAY_OUT}"
            )
        at = end
    return None
