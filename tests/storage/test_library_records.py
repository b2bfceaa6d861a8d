"""What RocksDB never comes back from: a record type of files that are used again, behind any other record (found by
`scripts/corruption`).

Without the walk before it, opening such a log spins for ever: the node in a loop of watchdog and restart, `node verify`
without an answer. Both openings are tried in a process that can be ended.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from danube_raft.errors import Corrupt, DiskFailed
from danube_raft.storage import library_records
from danube_raft.storage.log_store import RocksLogStore
from danube_raft.wire.entry import KIND_BATCH, NO_ORIGIN, Entry, HardState
from danube_raft.wire.local import Write

LIMIT_S = 30
LAST = 8
USED_AGAIN = (5, 6, 7, 8, 11)
OPEN = """
import sys
from danube_raft.errors import Corrupt
from danube_raft.storage.inspection import InspectedLog
from danube_raft.storage.log_store import RocksLogStore

for kind in (InspectedLog, RocksLogStore):
    log = kind(sys.argv[1])
    try:
        print(log.open().last.index)
    except Corrupt as error:
        print(error.message)
    log.close()
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of small entries."""
    return killed(tmp_path, [b"%d" % index * 50 for index in range(LAST)])


def killed(tmp_path: Path, payloads: list[bytes]) -> Path:
    """The log as a killed node leaves it: all in the write-ahead log, a record for each entry."""
    store = RocksLogStore(tmp_path / "alive")
    store.open()
    for index, payload in enumerate(payloads, 1):
        entry = Entry(index, 1, KIND_BATCH, 0, 0, NO_ORIGIN, payload)
        store.write([Write(index, 0, (entry,), HardState(1, 1))])
    shutil.copytree(tmp_path / "alive", tmp_path / "log")
    store.close()
    return tmp_path / "log"


def wal(log: Path) -> Path:
    (found,) = log.glob("*.log")
    return found


def manifest(log: Path) -> Path:
    (found,) = log.glob("MANIFEST-*")
    return found


def records(data: bytes | bytearray) -> list[int]:
    """Where each begins; all are in the first block."""
    found, at = [], 0
    while at < len(data):
        found.append(at)
        at += 7 + int.from_bytes(data[at + 4 : at + 6], "little")
    return found


def opened(log: Path) -> list[str]:
    """What the two openings say, the reading one first."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(log)], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", [wal, manifest])
def test_a_flipped_bit_in_the_type_of_a_record_is_damage(log: Path, kind: object) -> None:
    assert callable(kind)
    file: Path = kind(log)
    data = bytearray(file.read_bytes())
    middle = records(data)[len(records(data)) // 2]
    assert data[middle + 6] == 1
    data[middle + 6] ^= 4
    file.write_bytes(data)
    for said in opened(log):
        assert f"{file.name} has a record of type 5 at byte {middle}" in said
        assert "keep a copy of its data directory" in said


@pytest.mark.parametrize("kind", [wal, manifest])
@pytest.mark.parametrize("type_", USED_AGAIN)
def test_garbage_behind_what_was_synced_is_a_torn_end(log: Path, kind: object, type_: int) -> None:
    """As with garbage of any other type: a power failure leaves such ends."""
    assert callable(kind)
    file: Path = kind(log)
    data = file.read_bytes()
    torn = b"????\xff\xff" + bytes((type_,)) + b"?" * 40
    file.write_bytes(data + torn)
    assert library_records.torn_ends(log) == [(file.name, len(data))]
    assert opened(log) == [str(LAST)] * 2


def test_a_flipped_length_never_costs_what_comes_behind_it(tmp_path: Path) -> None:
    """The walk goes on within payloads then, which may look like the beginning of any record."""
    log = killed(tmp_path, [bytes((5 + index % 4,)) * 300 for index in range(60)])
    file = wal(log)
    whole = file.read_bytes()
    found = 0
    for at in records(whole[: library_records.BLOCK_BYTES])[10:40]:
        for bit in range(16):
            data = bytearray(whole)
            data[at + 4 + bit // 8] ^= 1 << bit % 8
            file.write_bytes(data)
            said = ""
            try:
                assert library_records.torn_ends(log) == []
            except Corrupt as error:
                said = error.message
            assert not said or f"damaged record at byte {at};" in said
            found += bool(said)
    assert found > 100


def test_a_file_that_cannot_be_read_is_the_disks_failure(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DiskFailed, match="Input/output error"):
        RocksLogStore(log).open()


def test_looking_changes_nothing(log: Path) -> None:
    file = wal(log)
    left = file.read_bytes() + b"????\xff\xff\x05" + b"?" * 40
    file.write_bytes(left)
    reading = OPEN.replace("(InspectedLog, RocksLogStore)", "(InspectedLog,)")
    subprocess.run([sys.executable, "-c", reading, str(log)], timeout=LIMIT_S, check=True)
    assert file.read_bytes() == left


def record(payload: bytes) -> bytes:
    crc = library_records.masked_crc(b"\x01" + payload)
    return crc.to_bytes(4, "little") + len(payload).to_bytes(2, "little") + b"\x01" + payload


def test_blocks_are_walked_as_the_library_does(tmp_path: Path) -> None:
    """The end of a block that no header fits into is skipped, as is the rest of one from a zero on."""
    whole = library_records.BLOCK_BYTES
    length = whole - 7 - 5
    first = record(bytes(length)) + bytes(5)
    zeroed = record(b"?") + bytes(whole - 8)
    bad = b"????\xff\xff\x08"
    path = tmp_path / "000001.log"
    path.write_bytes(first + zeroed + bad)
    assert library_records.torn_ends(tmp_path) == [("000001.log", 2 * whole)]
    path.write_bytes(first + zeroed)
    assert library_records.torn_ends(tmp_path) == []
    path.write_bytes(b"")
    assert library_records.torn_ends(tmp_path) == []


def test_a_log_of_many_records_is_no_concern_of_the_walk(tmp_path: Path) -> None:
    """None of those that a real store writes is taken for damage, in records over several blocks either."""
    log = killed(tmp_path, [bytes((index,)) * (index * 997) for index in range(1, 40)])
    assert wal(log).stat().st_size > 20 * library_records.BLOCK_BYTES
    assert library_records.torn_ends(log) == []
