"""A disk that is nearly full: who notices, who is told, which commands are refused, and to whom leadership goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from lone_consensus import FOUNDING, Alone
from stepped import SteppedNode

from danube_raft.config import MIB, Config
from danube_raft.errors import NoSpace
from danube_raft.node.handler import CONSENSUS, KV, LINKS, LOG
from danube_raft.node.log_writer import LogWriter
from danube_raft.node.snapshot_stage import SnapshotStage
from danube_raft.node.space import HAND_OVER_MS, TRY_AGAIN_MS, DiskSpace
from danube_raft.storage.memory_log import MemoryLog
from danube_raft.storage.memory_mark import MemoryMark
from danube_raft.storage.memory_snapshots import MemoryFolder, MemorySnapshots
from danube_raft.wire import local, peer

LOW = local.FreeSpace(511 * MIB)
ROOM = local.FreeSpace(10_000 * MIB)


# ---------------------------------------------------------------- measuring


def test_the_log_writer_looks_now_and_then_and_sleeps_in_between() -> None:
    free = [3 * MIB, 2 * MIB, 1 * MIB]
    stage = SnapshotStage(MemorySnapshots(MemoryFolder(), 7), 7)
    writer = LogWriter(MemoryLog(), MemoryMark(), stage, Config(), 1, free_bytes=lambda: free[0])
    writer.start(1_000)
    writer.turn(1_000)
    assert writer.outbox[1:] == [(CONSENSUS, local.FreeSpace(3 * MIB))]
    assert writer.next_timer() == 6_000
    free.pop(0)
    writer.turn(5_999)
    assert len(writer.outbox) == 2
    writer.turn(6_000)
    assert writer.outbox[2:] == [(CONSENSUS, local.FreeSpace(2 * MIB))]


def space(low_space_bytes: int = 800) -> DiskSpace:
    return DiskSpace(replace(Config(), low_space_bytes=low_space_bytes))


def test_low_begins_at_the_limit_and_ends_an_eighth_above() -> None:
    """A disk that hovers around the limit must not flap."""
    seen = space()
    states = []
    for free in (800, 799, 800, 899, 900, 800):
        seen.measured(free)
        states.append(seen.low)
    assert states == [False, True, True, True, False, False]


def test_room_for_two_more_snapshots_is_wanted() -> None:
    """The next one is written before the oldest is deleted."""
    seen = space()
    seen.snapshot_bytes = 500
    seen.measured(999)
    assert seen.low
    seen.measured(1_125)
    assert not seen.low


def test_consensus_knows_how_large_the_last_snapshot_is() -> None:
    node = Alone()
    room = local.FreeSpace(3_000 * MIB)
    node.receive(LOG, room)
    node.turn()
    node.receive(KV, local.SnapshotDone(1, 1, bytes(16), 1_501 * MIB, bytes(32), 10, FOUNDING.configuration))
    node.receive(LOG, room)
    node.turn()
    assert told(node) == [True]


def test_the_limit_is_a_setting_and_zero_is_none() -> None:
    seen = space(0)
    seen.measured(0)
    assert not seen.low


# ---------------------------------------------------------------- consensus


def told(node: Alone) -> list[bool]:
    return [message.low for edge, message in node.sent if edge == KV and isinstance(message, local.Space)]


def handed_to(node: Alone) -> list[int]:
    return [to for to, _ in node.take(LINKS, peer.TimeoutNow)]


def leading() -> Alone:
    """Node 2 leads; nodes 1 and 3 have everything."""
    node = Alone()
    node.lead()
    for other in (1, 3):
        node.hear(other, peer.AppendReply(True, 2, 0, 0, True))
    node.sent.clear()
    return node


def test_the_kv_server_hears_of_each_change_once() -> None:
    node = Alone()
    for message in (ROOM, LOW, LOW, ROOM, ROOM):
        node.receive(LOG, message)
        node.turn()
    assert told(node) == [True, False]


def beat(node: Alone, times: int) -> None:
    """So many heartbeats, which nodes 1 (with room) and 3 (without) answer."""
    for _ in range(times):
        node.now += 100
        node.turn()
        node.hear(1, peer.HeartbeatReply(0, 2, 2, True))
        node.hear(3, peer.HeartbeatReply(0, 2, 2, True, low_space=True))


def test_a_leader_hands_over_to_a_member_with_room_and_once_a_minute() -> None:
    """Two nodes that are low must not pass leadership to and fro, with no writes in between."""
    node = leading()
    beat(node, 1)
    node.receive(LOG, LOW)
    node.turn()
    assert handed_to(node) == [1]
    beat(node, 11)
    node.sent.clear()
    beat(node, HAND_OVER_MS // 100 - 12)
    assert handed_to(node) == []
    beat(node, 2)
    assert set(handed_to(node)) == {1}


def test_a_fresh_leader_waits_for_what_the_others_say_of_their_disks() -> None:
    """It has their acks only. What it does not know it does not tell either, or clients would be refused for it."""
    node = leading()
    node.receive(LOG, LOW)
    node.turn()
    assert handed_to(node) == []
    node.now += 100
    node.turn()
    assert [message.low_space for _, message in node.take(LINKS, peer.Heartbeat)] == [False, False]
    beat(node, TRY_AGAIN_MS // 100)
    assert set(handed_to(node)) == {1}


def test_a_leader_that_finds_nobody_keeps_leading_and_says_so_in_its_heartbeats() -> None:
    """Or the others would go on taking what fills its disk."""
    node = leading()
    for other in (1, 3):
        node.hear(other, peer.HeartbeatReply(0, 2, 2, True, low_space=True))
    node.receive(LOG, LOW)
    node.turn()
    assert handed_to(node) == []
    node.now += 100
    node.turn()
    assert [message.low_space for _, message in node.take(LINKS, peer.Heartbeat)] == [True, True]
    node.sent.clear()
    node.hear(1, peer.HeartbeatReply(0, 2, 2, True))
    node.now += TRY_AGAIN_MS
    node.hear(1, peer.HeartbeatReply(0, 2, 2, True))
    assert handed_to(node) == [1]


def test_a_follower_refuses_too_while_its_leader_has_no_room_and_nobody_to_hand_over_to() -> None:
    node = Alone()
    node.follow(1)
    node.hear(1, peer.Heartbeat(0, 0, 0, low_space=True))
    node.hear(1, peer.Heartbeat(0, 0, 0))
    node.hear(1, peer.Heartbeat(0, 0, 0, low_space=True))
    assert told(node) == [True, False, True]
    assert node.handler.report(node.now)["low_space"] is False, "its own disk is fine"
    node.follow(3, term=3)
    node.receive(KV, local.StatusRequest(1))
    node.turn()
    assert node.handler._core is not None
    assert not node.handler._core.leader_low_space, "another leader says it for itself"


def test_a_follower_says_in_its_answers_that_it_is_low() -> None:
    node = Alone()
    node.follow(1)
    node.receive(LOG, LOW)
    node.turn()
    node.hear(1, peer.Heartbeat(0, 0, 0))
    assert [message.low_space for _, message in node.take(LINKS, peer.HeartbeatReply)] == [True]


def test_a_node_that_is_low_goes_on_acknowledging() -> None:
    """What is written already needs every quorum that it can get."""
    node = Alone()
    node.follow(1)
    node.receive(LOG, LOW)
    node.turn()
    node.hear(1, peer.AppendEntries(1, 1, 0, 0, ()))
    assert [message.success for _, message in node.take(LINKS, peer.AppendReply)] == [True]


# ---------------------------------------------------------------- clients


@pytest.fixture
def full() -> SteppedNode:
    """A node of one with a few records, whose disk is nearly full now."""
    node = SteppedNode()
    node.ask("put", "/old", b"v")
    node.ask("put_with_ttl", "/lease", b"v", 60_000)
    node.consensus.receive(LOG, LOW, node.now)
    node.settle()
    return node


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("put", ("/new", b"v")),
        ("put_with_ttl", ("/lease", b"other", 60_000)),
        ("put_with_ttl", ("/old", b"v", 60_000)),
        ("compare_and_swap", ("/new", None, b"v")),
        ("allocate_id", ("counter",)),
    ],
)
def test_commands_that_grow_the_state_are_refused_before_they_are_proposed(
    full: SteppedNode, op: str, arguments: tuple[Any, ...]
) -> None:
    """Not when they are applied: replicas would come to different results."""
    last = full.kv._machine.applied_index
    assert full.ask(op, *arguments)[0] == NoSpace.code
    assert full.kv._machine.applied_index == last


def test_what_frees_room_or_keeps_leases_alive_is_taken(full: SteppedNode) -> None:
    assert full.ask("put_with_ttl", "/lease", b"v", 90_000)[0] == 0
    assert full.ask("get", "/old")[0] == 0
    assert full.ask("delete", "/old")[0] == 0
    assert full.ask("delete_prefix", "/none")[0] == 0
    assert full.ask("compact", 3)[0] == 0
    full.advance(95_000)
    assert full.ask("get", "/lease")[2] is None, "leases expire all the same"


def test_writes_are_taken_again_when_there_is_room(full: SteppedNode) -> None:
    full.consensus.receive(LOG, ROOM, full.now)
    full.settle()
    assert full.ask("put", "/new", b"v")[0] == 0


def test_a_read_only_node_serves_what_it_has_and_refuses_every_write() -> None:
    """A node of one knows all of its log to be committed; nobody leads, so linearizable reads get no answer."""
    node = SteppedNode()
    node.ask("put", "/old", b"v")
    last = node.kv._machine.applied_index
    node.read_only = True
    node.power_loss()
    assert node.ask("get", "/old", consistency="stale")[2][1] == b"v"
    assert node.ask("get", "/old", consistency="session")[2][1] == b"v"
    for op, arguments in (("put", ("/new", b"v")), ("delete", ("/old",)), ("compact", (1,))):
        assert node.ask(op, *arguments)[0] == NoSpace.code
    unanswered = node.send("get", "/old", timeout_ms=1_000, consistency="linearizable")
    node.advance(2_000)
    assert [reply[2] == 0 for reply in node.take(unanswered)] == [False]
    assert node.kv._machine.applied_index == last
    assert node.consensus.report(node.now)["read_only"] is True
    node.read_only = False
    node.power_loss()
    assert node.ask("put", "/new", b"v")[0] == 0
