"""The log-writer's handler: what it groups, in which order it works, and that it never confirms what failed.

It runs here over the log in memory, driven as the loop drives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from danube_raft.config import Config
from danube_raft.errors import Corrupt, DiskFailed
from danube_raft.node.handler import CONSENSUS, KV, Handler
from danube_raft.node.log_writer import GROUP_SHARE, LogWriter
from danube_raft.storage.memory_log import AFTER, BEFORE, MemoryLog
from danube_raft.storage.memory_mark import MemoryMark
from danube_raft.wire.entry import KIND_CONFIGURATION, Entry, HardState
from danube_raft.wire.local import (
    Applied,
    Durable,
    InstallPoint,
    LogChunk,
    Purge,
    ReadLog,
    Recovered,
    Write,
)

ALL = 1 << 30
MIB = 1 << 20
CHAIN = bytes(range(16))


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


def started(log: CountingLog, config: Config | None = None) -> LogWriter:
    writer = LogWriter(log, log.mark, config or Config(), 42)
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
    writer: Handler = LogWriter(log, log.mark, Config(), 42)
    assert not writer.ready
    writer.start(1)
    assert writer.ready


def test_the_first_message_tells_what_the_disk_holds(log: CountingLog) -> None:
    writer = started(log)
    configuration = entry(3, 2, b"conf")._replace(kind=KIND_CONFIGURATION)
    turn(
        writer,
        write(1, entry(1), entry(2), configuration, entry(4, 2), hard_state=HardState(2, 5)),
        Purge(1, 0, b""),
    )
    writer.close()
    again = LogWriter(log, log.mark, Config(), 43)
    again.start(2_000)
    assert again.outbox == [
        (
            CONSENSUS,
            Recovered(
                hard_state=HardState(2, 5),
                purged_index=1,
                purged_term=1,
                last_index=4,
                last_stamp_ms=40,
                runs=((2, 1), (3, 2)),
                configurations=((3, b"conf"),),
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
    writer = LogWriter(log, log.mark, Config(), 42)
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
    assert writer.next_timer() is None
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
