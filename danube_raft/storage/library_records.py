"""The records in RocksDB's write-ahead log and MANIFEST, walked before the library reads them.

    CRC32C 4 | length 2 | type 1 | payload      little-endian, in blocks of 32 KiB; a block's last 6 bytes may be unused

The library never comes back from a record of a type that only files which are used again have (`_USED_AGAIN`), behind
any other record: it spins for ever where it should say Corruption, or treat the end of the file as torn (seen in RocksDB
9.8.4). Nobody writes such files here. So one of those types is a flipped bit, or the garbage that a power failure has
left behind what was synced, and has to be found first. Which of the two it is depends on the length, so the walk must
not have gone astray by then: all records before it are proven by their CRCs. (That takes some 0.1 s for a MiB; where
nothing is found nothing is proven.) A torn end is cut off only behind records that are whole.

Everything else is the library's business, which stops at the first record that it cannot prove.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from danube_raft.errors import Corrupt
from danube_raft.storage.entry_format import WAY_OUT

BLOCK_BYTES = 32 << 10
HEADER_BYTES = 7
_LENGTH_AT, _TYPE_AT = 4, 6
_ZERO = 0
_USED_AGAIN = frozenset((5, 6, 7, 8, 11))
_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_ALL = 0xFFFFFFFF


def torn_ends(directory: Path) -> list[tuple[str, int]]:
    """The files that end in a record which they are too short for and which the library must not see: their names, and
    where it begins. Raises Corrupt for such a record that is whole or comes behind a damaged one, and OSError."""
    found = []
    for path in sorted((*directory.glob("*.log"), *directory.glob("MANIFEST-*"))):
        at = _torn_at(path)
        if at is not None:
            found.append((path.name, at))
    return found


def _torn_at(path: Path) -> int | None:
    data = path.read_bytes()
    for kind, at, end in _records(data):
        if kind not in _USED_AGAIN:
            continue
        _prove(path, data, at)
        if end > len(data):
            return at
        raise Corrupt(f"{path} has a record of type {kind} at byte {at}, which is never written; {WAY_OUT}")
    return None


def _records(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, begin and end of each."""
    at, size = 0, len(data)
    while at + HEADER_BYTES <= size:
        rest = BLOCK_BYTES - at % BLOCK_BYTES
        kind = data[at + _TYPE_AT] if rest >= HEADER_BYTES else _ZERO
        if kind == _ZERO:
            # Space that was not used, or was zeroed: the next block may go on.
            at += rest
            continue
        end = at + HEADER_BYTES + int.from_bytes(data[at + _LENGTH_AT : at + _TYPE_AT], "little")
        yield kind, at, end
        at = end


def _prove(path: Path, data: bytes, upto: int) -> None:
    """Raises Corrupt if a record before `upto` does not match its CRC."""
    for _, at, end in _records(data[:upto]):
        if int.from_bytes(data[at : at + _LENGTH_AT], "little") != masked_crc(data[at + _TYPE_AT : end]):
            raise Corrupt(f"{path} has a damaged record at byte {at}; {WAY_OUT}")


def masked_crc(data: bytes) -> int:
    """CRC32C as the library stores it: turned by 15 bits, and a constant added."""
    crc = _ALL
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= _ALL
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _ALL


def _table_entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(map(_table_entry, range(256)))
