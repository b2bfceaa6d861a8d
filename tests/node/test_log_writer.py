"""The log-writer's handler: what it groups, in which order it works, and that it never confirms what failed.

It runs here over the log in memory, driven as the loop drives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from snapshot_store import CHAIN, CLUSTER, add, names, opened, spoil

from danube_raft.config import Config
from danube_raft.errors import Corrupt, DiskFailed
from danube_raft.node.handler import CONSENSUS, KV, Handler
from danube_raft.node.log_writer import GROUP_SHARE, LogWriter
from danube_raft.node.snapshot_stage import IDLE_MS, SnapshotStage
from danube_raft.storage.durable_mark import Mark
from danube_raft.storage.mark_keeper import newest
from danube_raft.storage.memory_log import AFTER, BEFORE, MemoryLog
from danube_raft.storage.memory_mark import MemoryMark
from danube_raft.storage.memory_snapshots import MemoryFolder, MemorySnapshots
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.storage.snapshot_store import SnapshotStore
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire.entry import KIND_CONFIGURATION, Entry, HardState
from danube_raft.wire.local import (
    Applied,
    Durable,
    InstallPoint,
    LeftSuspect,
    LogChunk,
    Piece,
    PointRead,
    Purge,
    ReadLog,
    ReadPiece,
    ReadPoint,
    Recovered,
    Staged,
    StagePiece,
    Write,
)

ALL = 1 << 30
MIB = 1 << 20


class CountingLog(MemoryLog):
    """Remembers the writes of each sync; its mark lies beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[int]] = []
        self.mark = MemoryMark()

    def write(self, writes: Sequence[Write]) -> None:
        self.groups.append([write.seq for write in writes])
        super().write(writes)


def entry(index: int, term: int = 1, payload: bytes = b"v") -> Entry:
    return Entry(index, term, 1, index * 10, 7, (1, 1, index), payload)


def write(seq: int, *held: Entry, truncate_from: int = 0, hard_state: HardState | None = None) -> Write:
    return Write(seq, truncate_from, held, hard_state)


@pytest.fixture
def log() -> CountingLog:
    return CountingLog()


def over(
    log: CountingLog, snapshots: SnapshotStore | None = None, config: Config | None = None, pid: int = 42
) -> LogWriter:
    stage = SnapshotStage(snapshots or MemorySnapshots(MemoryFolder(), CLUSTER), CLUSTER)
    return LogWriter(log, log.mark, stage, config or Config(), pid)


def started(
    log: CountingLog, config: Config | None = None, snapshots: SnapshotStore | None = None
) -> LogWriter:
    writer = over(log, snapshots, config)
    writer.start(1_000)
    writer.outbox.clear()
    return writer


def turn(writer: LogWriter, *messages: Any, now: int = 1_001) -> list[Any]:
    """What one turn sends to consensus."""
    for message in messages:
        writer.receive(CONSENSUS, message, now)
    writer.turn(now)
    sent, writer.outbox = writer.outbox, []
    assert all(edge == CONSENSUS for edge, _ in sent)
    return [message for _, message in sent]


FIRST = write(1, entry(1), hard_state=HardState(1, 5))


def test_it_is_a_handler_and_ready_once_recovered(log: CountingLog) -> None:
    writer: Handler = over(log)
    assert not writer.ready
    writer.start(1)
    assert writer.ready


def test_the_first_message_tells_what_the_disk_holds(log: CountingLog) -> None:
    writer = started(log)
    configuration = entry(3, 2, b"conf")._replace(kind=KIND_CONFIGURATION)
    turn(
        writer,
        write(1, entry(1), entry(2), configuration, entry(4, 2), hard_state=HardState(2, 5)),
        Purge(1, 50, b"members"),
    )
    writer.close()
    again = over(log, pid=43)
    again.start(2_000)
    assert again.outbox == [
        (
            CONSENSUS,
            Recovered(
                hard_state=HardState(2, 5),
                purged_index=1,
                purged_term=1,
                last_index=4,
                last_stamp_ms=50,
                runs=((2, 1), (3, 2)),
                configurations=((1, b"members"), (3, b"conf")),
                suspect="",
                pid=43,
            ),
        )
    ]


def test_a_damaged_log_ends_the_start_without_a_word(log: CountingLog) -> None:
    writer = started(log)
    turn(writer, FIRST)
    writer.close()
    log.damage(1, log.stored(1)[:-1])
    writer = over(log)
    with pytest.raises(Corrupt):
        writer.start(1)
    assert writer.outbox == []
    assert not writer.ready


def test_all_waiting_writes_share_one_sync_and_one_answer(log: CountingLog) -> None:
    writer = started(log)
    assert turn(writer, FIRST, write(2, entry(2)), write(3, entry(3))) == [Durable(3)]
    assert log.groups == [[1, 2, 3]]
    assert log.unsynced == 0
    assert turn(writer) == []


def test_nothing_is_written_before_the_turn(log: CountingLog) -> None:
    writer = started(log)
    writer.receive(CONSENSUS, FIRST, 1)
    assert log.groups == []
    assert writer.outbox == []


def test_a_group_is_closed_at_its_byte_bound_and_the_rest_follows_at_once(log: CountingLog) -> None:
    """One group per turn, so that its answer leaves while the next is written."""
    writer = started(log, Config(unacked_write_max_bytes=GROUP_SHARE * MIB))
    half = bytes(MIB // 2)
    writes = [write(1, entry(1, payload=half), hard_state=HardState(1, 5))]
    writes += [write(seq, entry(seq, payload=half)) for seq in range(2, 6)]
    assert turn(writer, *writes) == [Durable(2)]
    assert writer.next_timer() == 1_001
    assert turn(writer, now=1_002) == [Durable(4)]
    assert turn(writer, now=1_003) == [Durable(5)]
    assert writer.next_timer() == 1_051, "the mark follows later"
    assert log.groups == [[1, 2], [3, 4], [5]]


def test_a_write_above_the_bound_goes_alone(log: CountingLog) -> None:
    writer = started(log, Config(unacked_write_max_bytes=GROUP_SHARE * MIB))
    big = write(1, entry(1, payload=bytes(3 * MIB)), hard_state=HardState(1, 5))
    assert turn(writer, big, write(2, entry(2))) == [Durable(1)]
    assert turn(writer) == [Durable(2)]


def test_a_read_sees_the_writes_before_it_and_none_after_it(log: CountingLog) -> None:
    writer = started(log)
    messages = (
        FIRST,
        write(2, entry(2)),
        ReadLog(1, 9, ALL),
        write(3, entry(2, 3), truncate_from=2, hard_state=HardState(3, 0)),
        ReadLog(2, 9, ALL),
    )
    assert turn(writer, *messages) == [
        Durable(2),
        LogChunk(1, (entry(1), entry(2))),
        Durable(3),
        LogChunk(2, (entry(2, 3),)),
    ]


def test_reading_what_is_purged_or_not_there_yet_gives_an_empty_chunk(log: CountingLog) -> None:
    writer = started(log)
    messages = (FIRST, write(2, entry(2), entry(3)), Purge(2, 0, b""), ReadLog(2, 3, ALL), ReadLog(3, 3, ALL))
    assert turn(writer, *messages, ReadLog(4, 9, ALL)) == [
        Durable(2),
        LogChunk(2, ()),
        LogChunk(3, (entry(3),)),
        LogChunk(4, ()),
    ]


def test_reads_end_a_turn_at_the_byte_bound_too(log: CountingLog) -> None:
    writer = started(log, Config(unacked_write_max_bytes=GROUP_SHARE * MIB))
    turn(writer, write(1, entry(1, payload=bytes(MIB)), hard_state=HardState(1, 5)))
    assert len(turn(writer, *[ReadLog(1, 1, ALL)] * 3)) == 1
    assert writer.next_timer() is not None


def test_an_install_keeps_its_place_among_the_writes(log: CountingLog) -> None:
    writer = started(log)
    messages = (FIRST, InstallPoint(2, 10, 1, CHAIN, 0, b""), write(3, entry(11)), ReadLog(1, 20, ALL))
    assert turn(writer, *messages, ReadLog(11, 20, ALL)) == [
        Durable(1),
        Durable(2),
        Durable(3),
        LogChunk(1, ()),
        LogChunk(11, (entry(11),)),
    ]
    log.crash()
    assert log.open().snapshot.index == 10


@pytest.mark.parametrize("seqs", [(2,), (1, 3), (1, 1)])
def test_writes_out_of_their_row_are_a_bug(log: CountingLog, seqs: tuple[int, ...]) -> None:
    writer = started(log)
    messages = [write(seq, hard_state=HardState(1, 5)) for seq in seqs]
    with pytest.raises(AssertionError, match="came after write"):
        turn(writer, *messages)
    assert log.groups == []


@pytest.mark.parametrize("when", [BEFORE, AFTER])
def test_a_failed_write_ends_the_turn_and_is_never_confirmed(log: CountingLog, when: str) -> None:
    writer = started(log)
    assert turn(writer, FIRST) == [Durable(1)]
    log.fail_next_write(when)
    with pytest.raises(DiskFailed):
        turn(writer, write(2, entry(2)), ReadLog(1, 2, ALL), write(3, entry(3)))
    assert writer.outbox == []
    with pytest.raises(DiskFailed):
        writer.turn(2_000)
    assert writer.outbox == []


def test_a_failed_install_is_never_confirmed(log: CountingLog) -> None:
    writer = started(log)
    turn(writer, FIRST)
    log.fail_next_write()
    with pytest.raises(DiskFailed):
        turn(writer, InstallPoint(2, 10, 1, CHAIN, 0, b""))
    assert writer.outbox == []


def test_messages_from_elsewhere_or_of_another_kind_are_a_bug(log: CountingLog) -> None:
    writer = started(log)
    with pytest.raises(AssertionError):
        writer.receive(KV, FIRST, 1)
    with pytest.raises(AssertionError):
        writer.receive(CONSENSUS, Applied(1), 1)


def test_close_lets_go_of_the_store(log: CountingLog) -> None:
    writer = started(log)
    turn(writer, FIRST)
    writer.close()
    assert log.open().last.index == 1


# ---------------------------------------------------------------- the durable mark


def marked(log: CountingLog) -> Mark:
    slots = log.mark.read()
    assert slots is not None
    known = newest(slots)
    assert known is not None
    return known[2]


def test_no_answer_leaves_before_term_and_vote_are_in_the_mark(log: CountingLog) -> None:
    """Else a log that comes back without them would vote twice in one term."""
    writer = started(log)
    writer.receive(CONSENSUS, write(1, hard_state=HardState(3, 2)), 1_001)
    log.mark.fail_next_write()
    with pytest.raises(DiskFailed):
        writer.turn(1_001)
    assert writer.outbox == []
    assert log.unsynced == 0, "the log has it, and nobody was told"


def test_a_stream_of_puts_pays_one_mark_in_its_interval(log: CountingLog) -> None:
    """Each write of the mark is a sync that a put may have to wait for."""
    writer = started(log, Config(mark_interval_ms=50))
    turn(writer, FIRST)
    marks = {log.mark.read()}
    for number in range(2, 202):
        turn(writer, write(number, entry(number)), now=1_001 + number)
        marks.add(log.mark.read())
    assert len(marks) == 1 + 200 // 50
    due = writer.next_timer()
    assert due is not None
    turn(writer, now=due)
    assert marked(log).point == log.last
    assert writer.next_timer() is None


def test_the_answer_leaves_before_the_mark_is_written(log: CountingLog) -> None:
    """A put that comes alone does not wait for a second sync."""
    writer = started(log)
    turn(writer, FIRST, now=2_000)
    before = log.mark.read()
    assert turn(writer, write(2, entry(2)), now=3_000) == [Durable(2)]
    assert log.mark.read() == before
    due = writer.next_timer()
    assert due is not None
    assert due <= 3_000
    turn(writer, now=3_000)
    assert marked(log).point.index == 2


def test_what_was_lost_is_told_with_the_newest_vote_that_is_known(log: CountingLog) -> None:
    writer = started(log)
    turn(writer, FIRST, write(2, hard_state=HardState(4, 2)))
    writer.close()
    forgetful = CountingLog()
    forgetful.mark = log.mark
    writer = over(forgetful)
    writer.start(1)
    ((_, told),) = writer.outbox
    assert told.suspect == "the log is gone: it held entries up to 1 and term 4"
    assert told.hard_state == (4, 2)
    assert not told.forgot_term


def test_that_terms_may_be_forgotten_is_told_as_long_as_the_node_is_suspect(log: CountingLog) -> None:
    turn(started(log), FIRST)
    log.mark.lose()
    for _ in range(2):
        log.close()
        writer = over(log)
        writer.start(1)
        ((_, told),) = writer.outbox
        assert told.suspect
        assert told.forgot_term
    turn(writer, LeftSuspect())
    log.close()
    writer = over(log)
    writer.start(1)
    ((_, told),) = writer.outbox
    assert not told.forgot_term


def test_suspect_ends_when_consensus_says_so(log: CountingLog) -> None:
    writer = started(log)
    turn(writer, FIRST)
    writer.close()
    log.mark.lose()
    writer = started(log)
    turn(writer, write(1, entry(2)), now=5_000)
    assert marked(log).suspect
    turn(writer, LeftSuspect())
    assert marked(log) == Mark(log.last, HardState(1, 5))


def test_on_a_full_disk_the_mark_is_read_and_never_written(log: CountingLog) -> None:
    """The write would fail and end the node again. What is lost is still to be noticed."""
    writer = started(log)
    turn(writer, FIRST)
    turn(writer, now=5_000)
    writer.close()
    before = log.mark.read()
    forgetful = CountingLog()
    forgetful.mark = log.mark
    stage = SnapshotStage(MemorySnapshots(MemoryFolder(), CLUSTER), CLUSTER)
    writer = LogWriter(forgetful, log.mark, stage, Config(), 42, read_only=True)
    writer.start(9_000)
    ((_, recovered),) = writer.outbox
    assert isinstance(recovered, Recovered)
    assert "the log is gone" in recovered.suspect
    assert recovered.hard_state == HardState(1, 5)
    writer.turn(60_000)
    assert writer.next_timer() is None
    assert log.mark.read() == before


@pytest.mark.parametrize("change", [write(1, entry(1)), LeftSuspect()], ids=["write", "left suspect"])
def test_on_a_full_disk_it_takes_no_changes(log: CountingLog, change: Any) -> None:
    stage = SnapshotStage(MemorySnapshots(MemoryFolder(), CLUSTER), CLUSTER)
    writer = LogWriter(log, log.mark, stage, Config(), 42, read_only=True)
    writer.start(1_000)
    with pytest.raises(AssertionError, match="changes nothing"):
        writer.receive(CONSENSUS, change, 1_001)


def test_the_mark_follows_an_install_and_a_purge_at_once(log: CountingLog) -> None:
    """One that points behind what is left could not be compared with anything."""
    writer = started(log)
    turn(writer, FIRST, write(2, entry(2), entry(3)))
    turn(writer, Purge(3, 0, b""))
    assert marked(log).point.index == 3
    assert turn(writer, InstallPoint(3, 9, 2, CHAIN, 0, b"")) == [Durable(3)]
    assert marked(log).point == (9, 2, CHAIN)


# ---------------------------------------------------------------- points and snapshots


def test_a_point_is_the_chain_that_the_next_entry_continues(log: CountingLog) -> None:
    writer = started(log)
    turn(writer, write(1, entry(1), entry(2), entry(3), hard_state=HardState(1, 5)))
    assert turn(writer, ReadPoint(2)) == [PointRead(*log.point(2))]
    turn(writer, Purge(2, 0, b""))
    assert turn(writer, ReadPoint(2)) == [PointRead(*log.point(2))], "also where the log begins"


def stage(meta: SnapshotMeta, whole: bytes, first: int, last: int) -> StagePiece:
    return StagePiece(meta.index, meta.term, meta.chain, meta.size, meta.sha256, first, whole[first:last])


@pytest.fixture
def source(tmp_path: Path) -> tuple[Snapshots, SnapshotMeta, bytes]:
    """Another node's snapshot and its bytes."""
    source = opened(tmp_path / "source")
    meta = add(source, 9)
    return source, meta, source.path(meta).read_bytes()


def test_pieces_of_an_own_snapshot_are_read(
    log: CountingLog, source: tuple[Snapshots, SnapshotMeta, bytes]
) -> None:
    store, meta, whole = source
    writer = started(log, snapshots=store)
    assert turn(writer, ReadPiece(9, 1, 10, 20)) == [Piece(9, 1, 10, whole[10:30])]
    assert turn(writer, ReadPiece(9, 1, meta.size - 5, 20)) == [Piece(9, 1, meta.size - 5, whole[-5:])]
    writer.close()


def test_a_snapshot_that_is_gone_has_an_empty_piece(
    log: CountingLog, source: tuple[Snapshots, SnapshotMeta, bytes]
) -> None:
    """The kv-server deletes old ones while they may still be on their way to somebody."""
    store, meta, _ = source
    writer = started(log, snapshots=store)
    store.delete_before(meta._replace(term=meta.term + 1))
    assert turn(writer, ReadPiece(9, 1, 0, 20)) == [Piece(9, 1, 0, b"")]


@pytest.mark.parametrize("memory", [False, True])
def test_a_snapshot_that_is_being_sent_is_read_to_its_end_though_it_is_deleted(
    log: CountingLog, source: tuple[Snapshots, SnapshotMeta, bytes], memory: bool
) -> None:
    """A slow receiver would else never get one whole, while newer ones are made; in the end its room is given back."""
    store: Snapshots = source[0]
    if memory:
        store = MemorySnapshots(MemoryFolder(), CLUSTER)
        add(store, 9)
    whole = store.read_piece(source[1], 0, 1 << 20)
    stage_ = SnapshotStage(store, CLUSTER)
    writer = LogWriter(log, log.mark, stage_, Config(space_check_ms=100), 42, free_bytes=lambda: 1 << 40)
    writer.start(1_000)
    turn(writer, ReadPiece(9, 1, 0, 20), now=1_000)
    store.delete_before(source[1]._replace(term=2))
    assert store.newest().candidates == []
    for now in (5_000, 1_000 + IDLE_MS, 2 * IDLE_MS):
        assert Piece(9, 1, 20, whole[20:]) in turn(writer, ReadPiece(9, 1, 20, 1 << 20), now=now)
        last = now
    turn(writer, now=last + IDLE_MS)
    assert Piece(9, 1, 20, b"") in turn(writer, ReadPiece(9, 1, 20, 1 << 20), now=last + IDLE_MS)


def test_pieces_are_put_together_in_order_and_the_whole_has_its_name(
    log: CountingLog, source: tuple[Snapshots, SnapshotMeta, bytes], tmp_path: Path
) -> None:
    _, meta, whole = source
    store = opened(tmp_path / "target")
    writer = started(log, snapshots=store)
    half = meta.size // 2
    assert turn(writer, stage(meta, whole, half, meta.size)) == [Staged(9, 1, 0, False)], "not the next one"
    assert turn(writer, stage(meta, whole, 0, half)) == [Staged(9, 1, half, False)]
    assert store.newest().candidates == []
    assert turn(writer, stage(meta, whole, 0, half)) == [Staged(9, 1, half, False)], "that is here"
    for _ in range(2):
        last = stage(meta, whole, half, meta.size)
        assert turn(writer, last) == [Staged(9, 1, meta.size, True)], "a repeat does not begin it anew"
    assert store.newest().candidates == [meta]


def test_another_log_writer_goes_on_where_the_last_one_has_stopped(
    log: CountingLog, source: tuple[Snapshots, SnapshotMeta, bytes], tmp_path: Path
) -> None:
    _, meta, whole = source
    store = opened(tmp_path / "target")
    writer = started(log, snapshots=store)
    turn(writer, stage(meta, whole, 0, 50))
    writer.close()
    writer = started(log, snapshots=store)
    assert turn(writer, stage(meta, whole, 0, 20)) == [Staged(9, 1, 50, False)]


def test_a_snapshot_that_proves_bad_is_wanted_again_from_its_beginning(
    log: CountingLog, source: tuple[Snapshots, SnapshotMeta, bytes], tmp_path: Path
) -> None:
    """PITFALLS 30."""
    origin, meta, whole = source
    spoil(origin.path(meta))
    bad = origin.path(meta).read_bytes()
    store = opened(tmp_path / "target")
    writer = started(log, snapshots=store)
    turn(writer, stage(meta, bad, 0, 100))
    assert turn(writer, stage(meta, bad, 100, meta.size)) == [Staged(9, 1, 0, False)]
    assert names(store) == []
    turn(writer, stage(meta, whole, 0, 100))
    assert turn(writer, stage(meta, whole, 100, meta.size)) == [Staged(9, 1, meta.size, True)]


def test_of_two_snapshots_the_last_one_announced_is_put_together(
    log: CountingLog, source: tuple[Snapshots, SnapshotMeta, bytes], tmp_path: Path
) -> None:
    """What nobody will go on with must not take room until the next start."""
    origin, meta, whole = source
    newer = add(origin, 12)
    store = opened(tmp_path / "target")
    writer = started(log, snapshots=store)
    turn(writer, stage(meta, whole, 0, 50))
    turn(writer, stage(newer, origin.path(newer).read_bytes(), 0, 50))
    assert len(names(store)) == 1
    assert names(store)[0].startswith(newer.name)


def test_a_disk_that_fails_under_a_snapshot_ends_the_turn(
    log: CountingLog, source: tuple[Snapshots, SnapshotMeta, bytes], tmp_path: Path
) -> None:
    _, meta, whole = source
    writer = started(log, snapshots=Snapshots(tmp_path / "nowhere", CLUSTER))
    with pytest.raises(DiskFailed):
        turn(writer, stage(meta, whole, 0, 50))


def test_proving_a_whole_snapshot_is_progress(
    log: CountingLog, source: tuple[Snapshots, SnapshotMeta, bytes], tmp_path: Path
) -> None:
    """A log-writer that reads a large file for longer than the watchdog waits must not be taken for a dead one."""
    _, meta, whole = source
    reports: list[None] = []
    stage_ = SnapshotStage(opened(tmp_path / "target"), CLUSTER, lambda: reports.append(None))
    writer = LogWriter(log, log.mark, stage_, Config(), 42)
    writer.start(1)
    turn(writer, stage(meta, whole, 0, meta.size))
    assert reports
