"""The RocksDB log on a real disk: damage, death and misuse.

The bar for damage: a store either refuses, or holds a prefix of what was written. It never holds anything else.
"""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import rocksdict
from real_node import until

from danube_raft.errors import Corrupt, DataDirInUse, DiskFailed, DiskFull, Fatal, NewerFormat
from danube_raft.storage.entry_format import ZERO_CHAIN, chain_after, encode
from danube_raft.storage.log_store import RocksLogStore
from danube_raft.storage.recovery import Beginning, Point, recover
from danube_raft.wire.entry import KIND_BATCH, KIND_CONFIGURATION, Entry, HardState
from danube_raft.wire.local import Write

ALL = 1 << 30
MIB = 1 << 20
ROOM_MIB = 24
"""What RocksDB may take beside the entries that are kept, once it has done its work."""
TERM = HardState(1, 5)
BEGINNING = Beginning(90, b"members")


def entry(index: int, term: int = 1, payload: bytes = b"value", kind: int = KIND_BATCH) -> Entry:
    return Entry(index, term, kind, index * 10, 77, (1, 1, index), payload)


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(entry(index, term, b"%d" % index * 20) for index in range(first, last + 1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def store(path: Path) -> Iterator[RocksLogStore]:
    store = RocksLogStore(path)
    store.open()
    yield store
    store.close()


def reopened(path: Path) -> tuple[Any, tuple[Entry, ...]]:
    """(recovery, all entries) of the log in `path`; always closed again."""
    store = RocksLogStore(path)
    try:
        found = store.open()
        return found, store.read(found.purged.index + 1, ALL, ALL)
    finally:
        store.close()


def edit(path: Path, family: str, key: bytes, value: bytes | None) -> None:
    """Change one stored value behind the store's back."""
    options = rocksdict.Options(raw_mode=True)
    families = {name: rocksdict.Options(raw_mode=True) for name in ("default", "log", "meta")}
    database = rocksdict.Rdict(str(path), options, column_families=families)
    columns = database.get_column_family(family)
    if value is None:
        columns.delete(key)
    else:
        columns.put(key, value)
    del columns
    database.close()


# ---------------------------------------------------------------- what is written is there


def test_a_new_log_is_empty_and_stays_so(path: Path) -> None:
    for _ in range(2):
        found, held = reopened(path)
        assert (found.hard_state, found.last, held) == (HardState(), Point(), ())
        assert (found.runs, found.configurations, found.last_stamp_ms) == ((), (), 0)


def test_recovery_tells_runs_configurations_and_the_last_stamp(store: RocksLogStore, path: Path) -> None:
    held = (entry(1), entry(2, kind=KIND_CONFIGURATION, payload=b"conf"), entry(3, 4), entry(4, 4))
    store.write([Write(1, 0, held, HardState(4, 2))])
    store.close()
    found, read = reopened(path)
    assert read == held
    assert found.runs == ((1, 1), (3, 4))
    assert found.configurations == ((2, b"conf"),)
    assert (found.hard_state, found.last_stamp_ms, found.last.index) == (HardState(4, 2), 40, 4)


def test_cut_append_and_hard_state_are_one_record_of_the_wal(store: RocksLogStore, path: Path) -> None:
    """Cutting the WAL anywhere inside the last write brings back the state before it, whole."""
    store.write([Write(1, 0, entries(1, 6), TERM)])
    wal = max(path.glob("*.log"))
    before = wal.stat().st_size
    store.write([Write(2, 4, entries(4, 5, 3), HardState(3, 1)), Write(3, 5, entries(5, 9, 3), None)])
    after = wal.stat().st_size
    assert after > before
    old = entries(1, 6)
    new = entries(1, 3) + entries(4, 9, 3)
    for size in [*range(before, after, 29), after]:
        copy = path.parent / f"cut{size}"
        shutil.copytree(path, copy)
        with (copy / wal.name).open("r+b") as file:
            file.truncate(size)
        found, read = reopened(copy)
        expected = (new, HardState(3, 1)) if size == after else (old, TERM)
        assert (read, found.hard_state) == expected
        shutil.rmtree(copy)


def test_a_read_stops_at_the_byte_bound_but_gives_one_entry(store: RocksLogStore) -> None:
    store.write([Write(1, 0, tuple(entry(i, payload=bytes(1000)) for i in range(1, 6)), TERM)])
    assert [e.index for e in store.read(2, 5, 1)] == [2]
    assert [e.index for e in store.read(2, 5, 2_200)] == [2, 3]
    assert [e.index for e in store.read(2, 3, ALL)] == [2, 3]
    assert store.read(6, 9, ALL) == ()


def test_purged_entries_are_gone_and_the_chain_goes_on(store: RocksLogStore, path: Path) -> None:
    store.write([Write(1, 0, entries(1, 9), TERM)])
    store.purge(9, BEGINNING)
    store.purge(4, BEGINNING)
    assert store.read(9, 9, ALL) == ()
    store.write([Write(2, 0, entries(10, 11), None)])
    store.close()
    found, read = reopened(path)
    assert (found.purged.index, found.purged.term, read) == (9, 1, entries(10, 11))


def test_what_a_purged_log_has_said_of_members_and_time_stays_with_it(
    store: RocksLogStore, path: Path
) -> None:
    """PITFALLS 29: a node votes before it has loaded its snapshot, and must know of whom."""
    conf = entry(6, payload=b"newer", kind=KIND_CONFIGURATION)
    store.write([Write(1, 0, (*entries(1, 5), conf), TERM)])
    store.purge(4, Beginning(40, b"older"))
    store.close()
    found, _ = reopened(path)
    assert (found.configurations, found.last_stamp_ms) == (((4, b"older"), (6, b"newer")), 60)
    again = RocksLogStore(path)
    again.open()
    again.install_point(9, 1, ZERO_CHAIN, BEGINNING)
    again.close()
    found, _ = reopened(path)
    assert (found.configurations, found.last_stamp_ms) == (((9, b"members"),), 90)


@pytest.mark.parametrize("damage", [b"", bytes(8), bytes(12), struct.pack(">I", 0)])
def test_a_damaged_beginning_is_refused(store: RocksLogStore, path: Path, damage: bytes) -> None:
    store.write([Write(1, 0, entries(1, 5), TERM)])
    store.purge(4, BEGINNING)
    store.close()
    edit(path, "meta", b"beginning", damage)
    with pytest.raises(Corrupt, match="beginning"):
        reopened(path)


def test_a_log_of_the_format_before_has_no_beginning_and_is_brought_up(
    store: RocksLogStore, path: Path
) -> None:
    store.write([Write(1, 0, entries(1, 5), TERM)])
    store.close()
    edit(path, "meta", b"format", struct.pack(">I", 1) + struct.pack(">I", crc32(struct.pack(">I", 1))))
    for _ in range(2):
        found, read = reopened(path)
        assert (found.configurations, found.last_stamp_ms, read) == ((), 50, entries(1, 5))


def test_an_install_keeps_what_follows_its_very_entry(store: RocksLogStore, path: Path) -> None:
    store.write([Write(1, 0, entries(1, 5), TERM)])
    chain = ZERO_CHAIN
    for each in entries(1, 3):
        chain = chain_after(each, chain)
    store.install_point(3, 1, chain, BEGINNING)
    store.close()
    found, read = reopened(path)
    assert found.purged == found.snapshot == Point(3, 1, chain)
    assert read == entries(4, 5)


@pytest.mark.parametrize("index", [3, 8])
def test_an_install_over_another_term_or_past_the_end_begins_anew(
    store: RocksLogStore, path: Path, index: int
) -> None:
    store.write([Write(1, 0, entries(1, 5), HardState(2, 0))])
    store.install_point(index, 2, bytes(range(16)), BEGINNING)
    store.write([Write(3, 0, entries(index + 1, index + 2, 2), None)])
    store.close()
    found, read = reopened(path)
    assert found.purged == found.snapshot == Point(index, 2, bytes(range(16)))
    assert read == entries(index + 1, index + 2, 2)


def test_nothing_of_a_conflicting_log_is_left_behind_an_install(store: RocksLogStore, path: Path) -> None:
    """Entries behind the snapshot's index would come back at the next start, from another history."""
    store.write([Write(1, 0, entries(1, 9), HardState(2, 0))])
    store.install_point(3, 2, bytes(range(16)), BEGINNING)
    store.close()
    found, read = reopened(path)
    assert (found.last, read) == (Point(3, 2, bytes(range(16))), ())


def test_an_install_with_another_chain_for_the_same_entry_is_corruption(store: RocksLogStore) -> None:
    store.write([Write(1, 0, entries(1, 5), TERM)])
    with pytest.raises(Corrupt, match="log entry 3 differs"):
        store.install_point(3, 1, bytes(range(16)), BEGINNING)


@pytest.mark.parametrize(
    "write",
    [
        Write(2, 0, (entry(7),), None),
        Write(2, 0, (entry(5),), None),
        Write(2, 7, (), None),
        Write(2, 2, (), None),
        Write(2, 0, (entry(6, 2),), None),
        Write(2, 0, (), HardState(0, 0)),
    ],
    ids=["gap", "overlap", "cut past the end", "cut into the purged", "term above own", "term falls"],
)
def test_a_write_that_breaks_an_invariant_is_a_bug_and_leaves_no_trace(
    store: RocksLogStore, write: Write
) -> None:
    store.write([Write(1, 0, entries(1, 5), TERM)])
    store.purge(2, BEGINNING)
    with pytest.raises(AssertionError):
        store.write([write])
    store.write([Write(2, 0, entries(6, 6), None)])
    assert store.read(3, 9, ALL) == entries(3, 6)


# ---------------------------------------------------------------- damage


def test_a_missing_entry_is_named(store: RocksLogStore, path: Path) -> None:
    store.write([Write(1, 0, entries(1, 5), TERM)])
    store.close()
    edit(path, "log", struct.pack(">Q", 3), None)
    with pytest.raises(Corrupt, match="log entry 3 is missing"):
        reopened(path)


def test_an_entry_that_was_replaced_breaks_the_chain_behind_it(store: RocksLogStore, path: Path) -> None:
    store.write([Write(1, 0, entries(1, 5), TERM)])
    store.close()
    edit(path, "log", struct.pack(">Q", 1), encode(entry(1, payload=b"forged"), ZERO_CHAIN))
    with pytest.raises(Corrupt, match="log entry 2 does not follow"):
        reopened(path)


def test_a_log_ahead_of_its_term_says_that_the_hard_state_was_lost(store: RocksLogStore, path: Path) -> None:
    store.write([Write(1, 0, entries(1, 5, 3), HardState(3, 1))])
    store.close()
    edit(path, "meta", b"hard_state", None)
    with pytest.raises(Corrupt, match="hard state was lost"):
        reopened(path)


def test_a_damaged_hard_state_and_a_lost_format_are_refused(store: RocksLogStore, path: Path) -> None:
    store.write([Write(1, 0, entries(1, 2), TERM)])
    store.close()
    edit(path, "meta", b"format", None)
    with pytest.raises(Corrupt, match="no format"):
        reopened(path)
    edit(path, "meta", b"hard_state", bytes(20))
    with pytest.raises(Corrupt, match="hard_state"):
        reopened(path)


def test_a_database_of_a_later_format_is_left_alone(store: RocksLogStore, path: Path) -> None:
    store.close()
    edit(path, "meta", b"format", struct.pack(">I", 3) + struct.pack(">I", crc32(struct.pack(">I", 3))))
    with pytest.raises(NewerFormat, match="format 3"):
        reopened(path)


def test_a_database_without_its_current_file_is_not_begun_anew(store: RocksLogStore, path: Path) -> None:
    store.write([Write(1, 0, entries(1, 5), TERM)])
    store.close()
    (path / "CURRENT").unlink()
    with pytest.raises(Corrupt, match="CURRENT"):
        reopened(path)


def test_terms_that_fall_are_refused() -> None:
    first = encode(entry(1, 2), ZERO_CHAIN)
    second = encode(entry(2, 1), chain_after(entry(1, 2), ZERO_CHAIN))
    with pytest.raises(Corrupt, match="log entry 2 has term 1 after term 2"):
        recover(HardState(2, 0), Point(), Point(), Beginning(), [(1, first), (2, second)])


def flipped(source: Path, target: Path, name: str, bit: int) -> None:
    shutil.copytree(source, target)
    data = bytearray((target / name).read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    (target / name).write_bytes(data)


@pytest.mark.parametrize("kind", ["wal", "sst"])
def test_a_flipped_bit_is_refused_or_costs_a_tail_but_changes_nothing(
    store: RocksLogStore, path: Path, kind: str
) -> None:
    """A WAL is copied while the store is open, as after a kill; closing turns it into SST files.

    A flip in the length of a WAL record looks like a torn tail to RocksDB, wherever it is: it then recovers what is
    before. So any prefix must be expected here; that it is too short is for the durable mark to notice.
    """
    for index in range(1, 13):
        store.write([Write(index, 0, entries(index, index), TERM if index == 1 else None)])
    if kind == "sst":
        store.close()
    refused = 0
    for file in path.glob("*.log" if kind == "wal" else "*.sst"):
        size = file.stat().st_size * 8
        for bit in range(3, size, max(1, size // 40)):
            copy = path.parent / "copy"
            flipped(path, copy, file.name, bit)
            try:
                found, read = reopened(copy)
                assert read == entries(1, len(read))
                assert found.hard_state == (TERM if read else HardState())
                assert kind == "wal" or len(read) == 12
            except Fatal:
                refused += 1
            shutil.rmtree(copy)
    assert refused > 20


def test_every_file_of_the_database_may_be_garbage_or_empty(store: RocksLogStore, path: Path) -> None:
    """Each must end in an error of ours or in the true log, or in an empty one where the whole WAL was lost."""
    store.write([Write(1, 0, entries(1, 12), TERM)])
    for name in sorted(file.name for file in path.iterdir() if file.name != "LOCK"):
        for garbage in (b"", b"\xff\x00garbage\n" * 9):
            copy = path.parent / "copy"
            shutil.copytree(path, copy)
            (copy / name).write_bytes(garbage)
            try:
                _, read = reopened(copy)
                assert read in (entries(1, 12), ())
            except Fatal:
                pass
            shutil.rmtree(copy)


# ---------------------------------------------------------------- failure, locks, death


def test_after_a_failure_the_store_refuses_everything_but_close(
    store: RocksLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([Write(1, 0, entries(1, 2), TERM)])
    database = store._database()

    class Failing:
        def write(self, batch: rocksdict.WriteBatch) -> None:
            database.write(batch)

        def flush_wal(self, sync: bool) -> None:
            raise Exception("IO error: While fdatasync: 000004.log: Input/output error")  # noqa: TRY002 -- as rocksdict does

        def close(self) -> None:
            database.close()

    with monkeypatch.context() as patched:
        patched.setattr(store, "_db", Failing())
        with pytest.raises(DiskFailed, match=r"cannot write the log in .*check the disk"):
            store.write([Write(2, 0, entries(3, 3), None)])
    for use in (
        lambda: store.write([Write(2, 0, entries(3, 3), None)]),
        lambda: store.read(1, 1, ALL),
        lambda: store.purge(1, BEGINNING),
        lambda: store.install_point(9, 1, ZERO_CHAIN, BEGINNING),
    ):
        with pytest.raises(DiskFailed, match="failed before"):
            use()


@pytest.mark.parametrize("said", ["No space left on device", "Disk quota exceeded"])
def test_a_full_disk_says_so(store: RocksLogStore, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    class Full:
        def write(self, batch: object) -> None:
            raise Exception(f"IO error: {said}: While appending to file: 000004.log")  # noqa: TRY002 -- as rocksdict does

        def close(self) -> None:
            pass

    with monkeypatch.context() as patched:
        patched.setattr(store, "_db", Full())
        with pytest.raises(DiskFull, match="make room"):
            store.write([Write(1, 0, entries(1, 1), TERM)])


def directory_mib(path: Path) -> int:
    size = 0
    for file in path.iterdir():
        with suppress(FileNotFoundError):
            size += file.stat().st_blocks * 512
    return size // MIB


def test_what_was_purged_is_soon_given_back(store: RocksLogStore, path: Path) -> None:
    """After some MiB more, which bring about a compaction: RocksDB left to itself lets hundreds gather first."""

    def write(first: int, last: int) -> None:
        for index in range(first, last + 1):
            store.write([Write(index, 0, (entry(index, payload=bytes(MIB)),), TERM)])

    write(1, 100)
    assert directory_mib(path) >= 100
    store.purge(98, BEGINNING)
    write(101, 124)
    until(lambda: directory_mib(path) <= 26 + ROOM_MIB, "the room of what was purged")


def test_a_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFailed, match=r"cannot use .*file/log"):
        RocksLogStore(tmp_path / "file" / "log").open()


def test_a_second_opener_is_refused_and_close_releases_the_lock(store: RocksLogStore, path: Path) -> None:
    store.write([Write(1, 0, entries(1, 3), TERM)])
    store.read(1, 3, ALL)
    with pytest.raises(DataDirInUse):
        RocksLogStore(path).open()
    store.close()
    store.close()
    assert reopened(path)[1] == entries(1, 3)


def test_a_refused_open_releases_the_lock_while_its_error_is_still_held(
    store: RocksLogStore, path: Path
) -> None:
    store.write([Write(1, 0, entries(1, 5), TERM)])
    store.close()
    good = encode(entries(3, 3)[0], chain_after(entries(2, 2)[0], chain_after(entries(1, 1)[0], ZERO_CHAIN)))
    edit(path, "log", struct.pack(">Q", 3), b"\x01garbage")
    with pytest.raises(Corrupt, match="log entry 3") as kept:
        RocksLogStore(path).open()
    edit(path, "log", struct.pack(">Q", 3), good)
    assert reopened(path)[1] == entries(1, 5)
    assert kept.value.exit_code == Corrupt.exit_code


WRITER = """
import sys
from danube_raft.storage.log_store import RocksLogStore
from danube_raft.wire.entry import Entry, HardState
from danube_raft.wire.local import Write
store = RocksLogStore(sys.argv[1])
last = store.open().last.index
while True:
    group = []
    for _ in range(3):
        last += 1
        entry = Entry(last, 1, 1, last * 10, 77, (1, 1, last), b"%d" % last * 20)
        group.append(Write(last, 0, (entry,), HardState(1, 5)))
    store.write(group)
    print(last, flush=True)
"""


def test_what_a_killed_process_had_confirmed_is_there(path: Path) -> None:
    confirmed = 0
    for lines in (2, 40, 150):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            for _ in range(lines):
                confirmed = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
        process.wait()
        confirmed = max([confirmed, *map(int, rest)])
        found, read = reopened(path)
        assert found.last.index >= confirmed
        assert read == entries(1, found.last.index)
        assert found.hard_state == TERM
        # Three writes are one batch: a part of a group is never there.
        assert found.last.index % 3 == 0
