"""What a disk may do to one file of a node: which files there are by kind, and each way to damage one.

A damage is drawn from a random source and tells in words what it did. Bit flips are aimed: a file has *places*, parts
that mean something to whoever reads it, and each gets flips of its own. What changes no byte is drawn again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from danube_raft.storage.durable_mark import SLOT_BYTES, SLOT_PLACES
from danube_raft.storage.snapshot_file import FOOTER_BYTES, HEADER_BYTES, SHA_BYTES

PAGE_BYTES = 4_096
SST_FOOTER_BYTES = 53
SST_META_BYTES = 1_200
"""About so much before the footer: index, properties, and what says where they are."""
WAL_HEADER_BYTES = 7
WAL_BLOCK_BYTES = 32 << 10

WAL, SST, MANIFEST = "log: WAL", "log: SST", "log: MANIFEST"
MARK, NEWEST, OLDER = "mark", "newest snapshot", "older snapshot"
LOG_DIR, SNAPSHOTS_DIR, LOG_AND_MARK = "log/, all of it", "snapshots/, all of it", "log/ and mark"

_IN_LOG = {
    "CURRENT": "log: CURRENT",
    "IDENTITY": "log: IDENTITY",
    "LOCK": "log: LOCK",
    "LOG": "log: LOG",
    "rocksdict-config.json": "log: rocksdict-config.json",
}

Places = dict[str, range]
_Change = Callable[[bytes, Random], tuple[bytes, str]]


WHOLE = (LOG_DIR, SNAPSHOTS_DIR, LOG_AND_MARK)
DELETED, OLD_COPY = "deleted", "old copy"


def kinds(data_dir: Path) -> dict[str, list[Path]]:
    """The files and directories that can be damaged, by kind; relative paths. Those of one kind are drawn from."""
    found: dict[str, list[Path]] = {}
    for path in sorted(path.relative_to(data_dir) for path in data_dir.rglob("*") if path.is_file()):
        found.setdefault(_kind(path), []).append(path)
    snapshots = sorted(found.pop("snapshots", []))
    found |= {NEWEST: snapshots[-1:], OLDER: snapshots[-2:-1]} if snapshots else {}
    found |= {
        LOG_DIR: [Path("log")],
        SNAPSHOTS_DIR: [Path("snapshots")],
        LOG_AND_MARK: [Path("log"), Path(MARK)],
    }
    return found


def _kind(path: Path) -> str:
    name = path.name
    if path.parent == Path("snapshots"):
        return "snapshots"
    if path.parent != Path("log"):
        return name
    if name in _IN_LOG:
        return _IN_LOG[name]
    if name.startswith("LOG.old"):
        return _IN_LOG["LOG"]
    return {".log": WAL, ".sst": SST}.get(path.suffix) or f"log: {name.split('-')[0]}"


# ---------------------------------------------------------------- places


def places(kind: str, data: bytes) -> Places:
    """The parts of such a file by name; those that are empty are left out."""
    size = len(data)
    found: Places = {}
    if kind in (WAL, MANIFEST):
        found = _records(data)
    elif kind == SST:
        meta = max(size - SST_FOOTER_BYTES - SST_META_BYTES, 0)
        found = {
            "data": range(meta),
            "index": range(meta, size - SST_FOOTER_BYTES),
            "footer": range(size - SST_FOOTER_BYTES, size),
        }
    elif kind in (NEWEST, OLDER):
        found = {
            "header": range(HEADER_BYTES),
            "frame head": range(HEADER_BYTES, HEADER_BYTES + 8),
            "payload": range(HEADER_BYTES + 8, size - FOOTER_BYTES),
            "footer": range(size - FOOTER_BYTES, size - SHA_BYTES),
            "SHA-256": range(size - SHA_BYTES, size),
        }
    elif kind == MARK:
        first, second = SLOT_PLACES
        found = {
            "first slot": range(first, first + SLOT_BYTES),
            "second slot": range(second, second + SLOT_BYTES),
            "gap": range(first + SLOT_BYTES, second),
        }
    else:
        found = {"anywhere": range(size)}
    return {name: place for name, place in found.items() if len(place) > 0}


def _records(data: bytes) -> Places:
    """Of RocksDB's log format: CRC 4 | length 2 | type 1 | payload, in blocks of 32 KiB. A record somewhere in the
    middle, whose parts are told apart, and the last one."""
    starts, at = [], 0
    while at + WAL_HEADER_BYTES <= len(data):
        if WAL_BLOCK_BYTES - at % WAL_BLOCK_BYTES < WAL_HEADER_BYTES:
            at += WAL_BLOCK_BYTES - at % WAL_BLOCK_BYTES
            continue
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        if data[at + 6] == 0:
            break
        starts.append(at)
        at += WAL_HEADER_BYTES + length
    if not starts:
        return {"anywhere": range(len(data))}
    middle, last = starts[len(starts) // 2], starts[-1]
    after = [*starts, at][len(starts) // 2 + 1]
    return {
        "first record": range(starts[0], [*starts, at][1]),
        "record's CRC": range(middle, middle + 4),
        "record's length": range(middle + 4, middle + 6),
        "record's type": range(middle + 6, middle + 7),
        "record's payload": range(middle + 7, after),
        "last record": range(last, at),
        "anywhere": range(at),
    }


# ---------------------------------------------------------------- damages


class Damage(NamedTuple):
    """One way; `do(data, random)` returns the content after it, and what was done in words."""

    name: str
    do: _Change


def damages(kind: str, data: bytes) -> list[Damage]:
    """Every way to change the content of a file of that kind which holds `data`."""
    found = [Damage(f"bit flip: {name}", _flipping(place)) for name, place in places(kind, data).items()]
    if data:
        found += [
            Damage("cut to 0", lambda _data, _random: (b"", "cut to 0 bytes")),
            Damage("cut in half", _cut_in_half),
            Damage("cut by a few", _cut_by_a_few),
        ]
    if any(data):
        found += [Damage("page zeroed", _zeroed)]
    found += [Damage("garbage appended", _appended)]
    return found


def _flipping(place: range) -> _Change:
    def flip(data: bytes, random: Random) -> tuple[bytes, str]:
        at, bit = random.choice(place), random.randrange(8)
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        return bytes(changed), f"bit {bit} of byte {at} flipped"

    return flip


def _cut_in_half(data: bytes, _random: Random) -> tuple[bytes, str]:
    return data[: len(data) // 2], f"cut to {len(data) // 2} of {len(data)} bytes"


def _cut_by_a_few(data: bytes, random: Random) -> tuple[bytes, str]:
    length = max(len(data) - random.randint(1, 16), 0)
    return data[:length], f"cut to {length} of {len(data)} bytes"


def _zeroed(data: bytes, random: Random) -> tuple[bytes, str]:
    pages = [at for at in range(0, len(data), PAGE_BYTES) if any(data[at : at + PAGE_BYTES])]
    at = random.choice(pages)
    page = bytes(len(data[at : at + PAGE_BYTES]))
    return data[:at] + page + data[at + PAGE_BYTES :], f"page at byte {at} zeroed"


def _appended(data: bytes, random: Random) -> tuple[bytes, str]:
    garbage = random.randbytes(random.choice((1, 7, 64, PAGE_BYTES)))
    return data + garbage, f"{len(garbage)} bytes appended to {len(data)}"


def names(kind: str, paths: list[Path], data_dir: Path, old: Path) -> list[str]:
    """The damages of a kind of file by name. `old`: the directory at an earlier time."""
    found: dict[str, None] = {DELETED: None}
    if kind in WHOLE:
        # All that a disk knows may be old: then nothing on it tells so.
        if kind != LOG_AND_MARK and (old / paths[0]).exists():
            found[OLD_COPY] = None
        return list(found)
    for path in paths:
        data = (data_dir / path).read_bytes()
        found |= dict.fromkeys(each.name for each in damages(kind, data))
        if (old / path).exists() and (old / path).read_bytes() != data:
            found[OLD_COPY] = None
    return list(found)


def damage(kind: str, name: str, data_dir: Path, old: Path, random: Random) -> str:
    """Do it to one file of that kind below `data_dir`; what was done, in words."""
    paths = kinds(data_dir)[kind]
    if kind not in WHOLE:
        paths = [random.choice([path for path in paths if name in names(kind, [path], data_dir, old)])]
    if name in (DELETED, OLD_COPY):
        for path in paths:
            _remove(data_dir / path)
            if name == OLD_COPY:
                _copy(old / path, data_dir / path)
        return f"{' and '.join(map(str, paths))}: {name}"
    (path,) = paths
    data = (data_dir / path).read_bytes()
    (chosen,) = [each for each in damages(kind, data) if each.name == name]
    changed, said = chosen.do(data, random)
    assert changed != data, f"{name} changed nothing in {path}"
    (data_dir / path).write_bytes(changed)
    return f"{path}: {said}"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
