"""Consensus and snapshots: which one a node begins with, how far it forgets its log, how one gets to another node.

The handler alone is stepped; the test plays its kv-server, its log-writer and its peers.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from dataclasses import replace

import pytest
from consensus_snapshots import (
    CHAIN,
    OTHERS,
    SHA,
    SILENCE_MS,
    TINY,
    done,
    entries,
    leading,
    led,
    piece,
    read,
    recovered,
    sent_to,
    stage,
    take_snapshots,
    wait,
)
from lone_consensus import CLUSTER, FOUNDING, Alone

from danube_raft.config import Config
from danube_raft.errors import Corrupt, DiskFailed, NewerFormat
from danube_raft.node.consensus import Consensus
from danube_raft.node.endpoints import ToPeer, Unsent
from danube_raft.node.handler import KV, LINKS, LOG
from danube_raft.node.identity import Identity
from danube_raft.wire import local, peer
from danube_raft.wire.entry import (
    NO_ORIGIN,
    Entry,
)

# ---------------------------------------------------------------- the start


@pytest.mark.parametrize(
    ("points", "chosen"),
    [
        ((), (0, 0)),
        (((8, 1), (4, 1)), (8, 1)),
        (((12, 1), (8, 1)), (8, 1)),
        (((8, 2), (4, 1)), (4, 1)),
        (((12, 1),), (0, 0)),
    ],
    ids=["none", "newest", "ahead of the log", "of another history", "none of the log"],
)
def test_a_node_begins_with_the_newest_snapshot_from_which_its_log_goes_on(
    points: tuple[tuple[int, int], ...], chosen: tuple[int, int]
) -> None:
    """A snapshot that a crash kept from being installed may know what the log does not."""
    node = Alone(recovered=recovered(), points=points, load=False)
    assert node.take(KV, local.LoadSnapshot) == [local.LoadSnapshot(*chosen)]


def test_the_kv_server_that_is_first_waits_for_the_log() -> None:
    identity = Identity(2, CLUSTER, 4)
    handler = Consensus(TINY, identity, FOUNDING, random.Random(1), lambda: 5, Counter(), 2)
    handler.receive(KV, local.SnapshotsFound(((8, 1),)), 1)
    handler.turn(1)
    assert handler.outbox == []
    handler.receive(LOG, recovered(), 2)
    handler.turn(2)
    assert (KV, local.LoadSnapshot(8, 1)) in handler.outbox


def test_a_damaged_snapshot_is_passed_over_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    node = Alone(recovered=recovered(purged=4), points=((8, 1), (4, 1)), load=False)
    node.sent.clear()
    with caplog.at_level(logging.WARNING):
        node.receive(KV, local.SnapshotsFound(((4, 1),)))
        node.turn()
    assert node.take(KV, local.LoadSnapshot) == [local.LoadSnapshot(4, 1)]
    assert "snapshot of index 8 cannot be used" in caplog.text
    assert "older one of index 4" in caplog.text
    node.receive(KV, done(4, 1))
    node.receive(KV, local.Applied(4))
    node.follow(1)
    node.hear(1, peer.AppendEntries(9, 1, 9, 0, ()))
    node.receive(LOG, local.LogChunk(5, entries(5, 9, 1)))
    node.turn()
    committed = [entry.index for message in node.take(KV, local.Committed) for entry in message.entries]
    assert committed == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("points", [(), ((8, 2),), ((3, 1),)])
def test_without_a_snapshot_a_purged_log_is_nothing_to_begin_with(
    points: tuple[tuple[int, int], ...],
) -> None:
    """PITFALLS 28: never with a gap, never with nothing; the message says the way out."""
    with pytest.raises(Corrupt, match="move log/ out of it and start the node again"):
        Alone(recovered=recovered(purged=4), points=points)


@pytest.mark.parametrize("points", [(), ((8, 2),)])
def test_what_a_later_version_has_written_is_no_damage(points: tuple[tuple[int, int], ...]) -> None:
    """Whoever is told to move the log away loses what that version could go on with."""
    found = local.SnapshotsFound(points, newer="newer.snap")
    node = Alone(recovered=recovered(purged=4), points=((8, 1), (4, 1)), load=False)
    node.receive(KV, found)
    with pytest.raises(NewerFormat, match=r"newer\.snap is of a later one; start the version that wrote it"):
        node.turn()
    node = Alone(recovered=recovered(purged=4), points=((8, 1), (4, 1)), load=False)
    node.receive(KV, found._replace(unreadable="bad.snap"))
    with pytest.raises(DiskFailed, match=r"the disk could not read bad\.snap"):
        node.turn()  # The next start may read it.
    node = Alone(recovered=recovered(purged=4), points=((8, 1), (4, 1)), load=False)
    node.sent.clear()
    node.receive(KV, found._replace(points=((4, 1),)))
    node.turn()
    assert node.take(KV, local.LoadSnapshot) == [local.LoadSnapshot(4, 1)]


def test_an_installed_snapshot_alone_is_enough() -> None:
    node = Alone(recovered=recovered(purged=9), points=((9, 1), (4, 1)), load=False)
    assert node.take(KV, local.LoadSnapshot) == [local.LoadSnapshot(9, 1)]


# ---------------------------------------------------------------- purging


def test_nothing_is_forgotten_with_one_snapshot() -> None:
    assert take_snapshots(led(), 10) == []


def test_the_log_goes_back_to_the_older_snapshot() -> None:
    """Should the newest one prove damaged, the one before it is loaded, and needs what follows."""
    node = led()
    assert take_snapshots(node, 10, 15) == [local.Purge(10, 100, FOUNDING.configuration)]
    assert node.handler.status(node.now)["purged_index"] == 10
    assert node.handler.status(node.now)["snapshot_index"] == 15
    assert take_snapshots(node, 20) == [local.Purge(15, 150, FOUNDING.configuration)]


def test_a_tail_is_kept_before_the_newest_snapshot() -> None:
    node = led(replace(TINY, snapshot_tail_entries=7))
    assert take_snapshots(node, 10, 15) == [local.Purge(8, 0, FOUNDING.configuration)]


def test_a_tail_of_large_entries_is_a_short_one() -> None:
    node = led(replace(TINY, snapshot_tail_entries=100, snapshot_tail_bytes=3_000), size=10)
    assert take_snapshots(node, 10, 15) == [], "where sizes are not known entries count"
    for first in range(21, 31):
        node.hear(1, peer.AppendEntries(first - 1, 2, first, 0, entries(first, first, size=1_000)))
    node.receive(KV, local.Applied(30))
    assert [purge.index for purge in take_snapshots(node, 26, 30)] == [15, 26]
    for first in range(31, 41):
        node.hear(1, peer.AppendEntries(first - 1, 2, first, 0, entries(first, first, size=1_000)))
    node.receive(KV, local.Applied(40))
    assert [purge.index for purge in take_snapshots(node, 39, 40)] == [30, 37]


def test_what_is_not_known_to_be_applied_is_purged_later() -> None:
    """The kv-server returns credit in its own time; a snapshot of it may be told of before."""
    node = led()
    node.hear(1, peer.AppendEntries(20, 2, 30, 0, entries(21, 30)))
    assert [purge.index for purge in take_snapshots(node, 25, 30)] == [20]
    node.receive(KV, local.Applied(30))
    node.turn()
    assert [purge.index for purge in sent_to(node, LOG, local.Purge)] == [25]


def test_the_configuration_of_the_place_is_purged_with_it() -> None:
    """PITFALLS 29: not the newest one, which may be uncommitted or come after it."""
    node = led()
    newer = Entry(21, 2, 2, 210, 0, NO_ORIGIN, OTHERS)
    node.hear(1, peer.AppendEntries(20, 2, 25, 0, (newer, *entries(22, 25))))
    node.receive(KV, local.Applied(25))
    assert take_snapshots(node, 18, 25) == [local.Purge(18, 180, FOUNDING.configuration)]
    node.hear(1, peer.AppendEntries(25, 2, 30, 0, entries(26, 30)))
    node.receive(KV, local.Applied(30))
    assert take_snapshots(node, 30) == [local.Purge(25, 250, OTHERS)]


def test_a_point_of_the_log_is_asked_and_told() -> None:
    node = led()
    node.receive(KV, local.AskPoint(20))
    node.turn()
    assert sent_to(node, LOG, local.ReadPoint) == [local.ReadPoint(20)]
    node.receive(LOG, local.PointRead(20, 2, CHAIN))
    node.turn()
    assert sent_to(node, KV, local.PointRead) == [local.PointRead(20, 2, CHAIN)]


# ---------------------------------------------------------------- sending


def offsets(node: Alone) -> list[int]:
    return [message.offset for _, message in read(node, b"x" * 250)]


def reply(node: Alone, offset: int, *, installed: bool = False, index: int = 15, boot_epoch: int = 1) -> None:
    node.hear(3, peer.InstallSnapshotReply(index, 2, offset, installed), boot_epoch=boot_epoch)


def test_a_peer_that_needs_what_was_purged_gets_the_newest_snapshot() -> None:
    node = leading()
    assert node.take(LOG, local.ReadPiece) == [local.ReadPiece(15, 2, 0, 100)]
    ((to, message),) = read(node, b"x" * 250)
    assert to == 3
    assert message == peer.InstallSnapshot(15, 2, CHAIN, 250, SHA, 150, FOUNDING.configuration, 0, b"x" * 100)
    (row,) = [row for row in node.handler.status(node.now)["members"] if row["node_id"] == 3]
    assert row["progress"] == "snapshot"


def test_pieces_follow_what_the_receiver_wants_within_the_window() -> None:
    node = leading()
    assert offsets(node) == [0], "one piece until it has spoken"
    reply(node, 100)
    assert offsets(node) == [100, 200]
    reply(node, 200)
    assert offsets(node) == []
    reply(node, 250)
    assert offsets(node) == []


def test_a_receiver_that_has_a_part_already_gets_the_rest() -> None:
    """It may have come from another leader."""
    node = leading()
    assert offsets(node) == [0]
    reply(node, 200)
    assert offsets(node) == [200]


def test_silence_means_that_something_was_lost() -> None:
    node = leading()
    assert offsets(node) == [0]
    reply(node, 100)
    assert offsets(node) == [100, 200]
    wait(node, SILENCE_MS - 1)
    assert offsets(node) == []
    wait(node, 2)
    assert offsets(node) == [100], "one piece again"


def test_a_piece_that_did_not_leave_is_not_repeated_before_the_silence_is_over() -> None:
    """A link that is down takes nothing: it must not keep this leader busy."""
    node = leading()
    (item,) = [ToPeer(peer.Header(7, 2, 3, 2, 4), message) for _, message in read(node, b"x" * 250)]
    node.sent.clear()
    node.receive(LINKS, Unsent(*item))
    node.turn()
    assert offsets(node) == []
    wait(node, SILENCE_MS + 1)
    assert offsets(node) == [0]


@pytest.mark.parametrize("offset", [100, 250])
def test_a_receiver_that_begins_anew_gets_all_of_it_again(
    offset: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It has restarted, be it with the last pieces under way, or with all of them proven."""
    node = leading()
    offsets(node)
    reply(node, offset)
    offsets(node)
    reply(node, 0, boot_epoch=2)
    assert offsets(node) == []
    wait(node, SILENCE_MS + 1)
    assert [(message.index, message.offset) for _, message in read(node)] == [(15, 0)]
    assert caplog.text == ""


def test_a_whole_snapshot_that_is_not_said_to_be_installed_is_asked_about() -> None:
    node = leading()
    offsets(node)
    reply(node, 250)
    assert offsets(node) == []
    wait(node, SILENCE_MS + 1)
    assert offsets(node) == [249]
    reply(node, 250, installed=True)
    wait(node, 50)
    assert offsets(node) == []


def test_a_peer_that_has_installed_it_gets_entries_again() -> None:
    """PITFALLS 21: also when there is nothing behind the snapshot but what is proposed later."""
    node = leading()
    offsets(node)
    reply(node, 250, installed=True)
    node.sent.clear()
    node.hear(3, peer.HeartbeatReply(0, 15, 2, True))
    appends = [message for to, message in node.take(LINKS, peer.AppendEntries) if to == 3]
    assert [message.prev_index for message in appends] == [15]
    assert node.handler.next_timer() is not None
    wait(node, 3 * SILENCE_MS)
    assert offsets(node) == []


def test_a_snapshot_that_is_gone_is_begun_again_with_the_newest() -> None:
    node = leading()
    offsets(node)
    reply(node, 100)
    node.receive(KV, done(20))
    node.turn()
    assert read(node, b"") == [], "it was deleted"
    wait(node, SILENCE_MS + 1)
    assert [message.index for _, message in read(node)] == [20]


def overtaken(config: Config = TINY) -> Alone:
    """Two more snapshots were made while one was sent; its receiver has that, and nothing behind it."""
    node = leading(snapshots=(5, 10), config=config)
    offsets(node)
    node.sent.clear()
    assert take_snapshots(node, 15, 20) == [local.Purge(10, 100, FOUNDING.configuration)]
    reply(node, 250, installed=True, index=10)
    node.hear(3, peer.HeartbeatReply(0, 10, 2, True))
    return node


def test_the_log_behind_a_snapshot_that_was_sent_is_kept_until_its_receiver_has_caught_up() -> None:
    """Else it would need the next one as soon as it has this one, and so on."""
    node = overtaken()
    wait(node, 3 * SILENCE_MS)
    assert [append.prev_index for to, append in node.take(LINKS, peer.AppendEntries) if to == 3][:1] == [10]
    assert node.take(LOG, local.ReadPiece) == []
    assert node.take(LOG, local.Purge) == []
    for match in (12, 19):
        node.hear(3, peer.AppendReply(True, match, 0, 0, True))
        assert node.take(LOG, local.Purge) == [], "the newest snapshot ends behind that"
    node.hear(3, peer.AppendReply(True, 20, 0, 0, True))
    assert [purge.index for purge in node.take(LOG, local.Purge)] == [15]


def test_a_log_is_not_kept_for_ever_for_one_that_never_catches_up() -> None:
    node = overtaken(replace(TINY, snapshot_pin_ms=2_000))
    wait(node, 1_900)
    assert node.take(LOG, local.Purge) == []
    wait(node, 200)
    assert [purge.index for purge in node.take(LOG, local.Purge)] == [15]


def test_nothing_is_kept_for_what_it_has_lost_again() -> None:
    node = overtaken()
    node.hear(3, peer.AppendReply(False, 10, 0, 0, True))
    assert [purge.index for purge in node.take(LOG, local.Purge)] == [15]
    assert [message.index for _, message in read(node)] == [20]


def test_nothing_is_kept_for_one_that_does_not_belong_to_this_leader_any_more() -> None:
    node = overtaken()
    node.term = 3
    node.hear(1, peer.Heartbeat(0, 0, 0))
    assert [purge.index for purge in node.take(LOG, local.Purge)] == [15]


def test_a_log_is_not_kept_for_ever_for_one_that_never_gets_through() -> None:
    node = leading(snapshots=(5, 10), config=replace(TINY, snapshot_pin_ms=2_000))
    take_snapshots(node, 15, 20)
    wait(node, 1_900)
    assert sent_to(node, LOG, local.Purge) == []
    wait(node, 200)
    assert [purge.index for purge in node.take(LOG, local.Purge)] == [15]
    assert [message.index for _, message in read(node)] == [20], "it begins with one that can be of use"


def test_a_log_is_kept_once_for_one_that_is_away_and_again_when_it_is_back() -> None:
    """Each snapshot that overtakes the one for it would else keep the log for as long again."""
    node = leading(config=replace(TINY, snapshot_pin_ms=2_000))
    last = 20

    def snapshot() -> list[int]:
        nonlocal last
        last += 10
        for index in range(last - 9, last + 1):
            node.receive(KV, local.Propose(index, b"b"))
            node.turn()
        node.hear(1, peer.AppendReply(True, last, 0, 0, True))
        node.receive(KV, local.Applied(last))
        return [purge.index for purge in take_snapshots(node, last)]

    assert snapshot() == [15], "what is behind the one that is sent is kept"
    wait(node, 1_900, last)
    assert snapshot() == []
    wait(node, 200, last)
    assert [purge.index for purge in sent_to(node, LOG, local.Purge)] == [30]
    assert [snapshot() for _ in range(3)] == [[40], [50], [60]]
    assert node.handler._snapshots._sender._transfers[3].snapshot.index == 60
    reply(node, 10, index=60)
    assert [snapshot() for _ in range(2)] == [[], []]


def test_a_log_is_kept_up_to_so_many_bytes() -> None:
    node = leading(snapshots=(5, 10), config=replace(TINY, snapshot_pin_bytes=1_024, snapshot_tail_bytes=64))
    for number in range(30, 40):
        node.receive(KV, local.Propose(number, bytes(500)))
        node.turn()
    node.hear(1, peer.AppendReply(True, 30, 0, 0, True))
    node.receive(KV, local.Applied(30))
    assert [purge.index for purge in take_snapshots(node, 15, 30)] == [10, 15]


def test_a_leader_that_is_none_any_more_sends_nothing() -> None:
    node = leading()
    offsets(node)
    node.term = 3
    node.hear(1, peer.Heartbeat(0, 0, 0))
    reply(node, 100)
    assert offsets(node) == []


# ---------------------------------------------------------------- receiving


def replies(node: Alone) -> list[tuple[int, peer.InstallSnapshotReply]]:
    found: list[tuple[int, peer.InstallSnapshotReply]] = node.take(LINKS, peer.InstallSnapshotReply)
    return found


def test_pieces_go_to_the_log_writer_and_what_it_wants_to_the_leader() -> None:
    node = led()
    node.hear(1, piece())
    assert node.take(LOG, local.StagePiece) == [local.StagePiece(30, 2, CHAIN, 100, SHA, 0, b"p" * 50)]
    assert replies(node) == []
    stage(node, 50)
    assert replies(node) == [(1, peer.InstallSnapshotReply(30, 2, 50, False))]
    assert node.handler.status(node.now)["arriving_snapshot_index"] == 30


def whole(node: Alone, index: int = 30, term: int = 2) -> local.InstallPoint:
    node.hear(1, piece(index, term=term))
    node.sent.clear()
    stage(node, 100, complete=True, index=index, term=term)
    (point,) = node.take(LOG, local.InstallPoint)
    assert isinstance(point, local.InstallPoint)
    return point


def test_a_whole_snapshot_is_installed_between_what_came_before_and_what_comes_after() -> None:
    """PITFALLS 25: what the kv-server gets is one history, and the leader hears when it is safe."""
    node = led()
    node.hear(1, peer.AppendEntries(20, 2, 22, 0, entries(21, 22)))
    point = whole(node)
    assert point[1:] == (30, 2, CHAIN, 300, OTHERS)
    assert (node.take(KV, local.InstallSnapshot), replies(node)) == (
        [],
        [(1, peer.InstallSnapshotReply(30, 2, 100, False))],
    )
    node.sent.clear()
    node.receive(LOG, local.Durable(point.seq))
    node.turn()
    assert replies(node) == [(1, peer.InstallSnapshotReply(30, 2, 100, True))]
    node.hear(1, peer.AppendEntries(30, 2, 31, 0, entries(31, 31)))
    told = [message for edge, message in node.sent if edge == KV]
    kinds = [type(message) for message in told]
    assert kinds == [local.InstallSnapshot, local.Committed]
    assert [entry.index for entry in told[1].entries] == [31]
    node.receive(KV, done(30))
    node.receive(KV, local.Applied(31))
    node.turn()
    status = node.handler.status(node.now)
    assert (status["snapshot_index"], status["purged_index"], status["commit_index"]) == (30, 30, 31)
    assert len(status["members"]) == 4, "the configuration came with it"


def test_nothing_is_handed_over_of_a_log_that_is_about_to_be_replaced() -> None:
    """The purge must not overtake what the kv-server applies."""
    node = led()
    node.hear(1, peer.AppendEntries(20, 2, 20, 0, entries(21, 40)))
    point = whole(node)
    node.hear(1, peer.Heartbeat(0, 35, 0))
    assert node.take(KV, local.Committed) == []
    node.receive(LOG, local.Durable(point.seq))
    node.turn()
    told = [message for edge, message in node.sent if edge == KV]
    assert [type(message) for message in told] == [local.InstallSnapshot, local.Committed]
    assert [entry.index for entry in told[1].entries] == [31, 32, 33, 34, 35]


def test_the_log_begins_anew_only_when_the_kv_server_has_loaded_its_own_snapshot() -> None:
    node = Alone(recovered=recovered(purged=4), points=((4, 1),), load=False, config=TINY)
    node.follow(1)
    node.hear(1, piece())
    stage(node, 100, complete=True)
    assert node.take(LOG, local.InstallPoint) == []
    node.receive(KV, done(4, 1))
    node.receive(KV, local.Applied(4))
    node.turn()
    assert len(node.take(LOG, local.InstallPoint)) == 1


def test_pieces_wait_until_the_kv_server_has_tidied_up() -> None:
    """It removes what a boot before has left unfinished, by name."""
    node = Alone(recovered=recovered(), load=False)
    node.handler._snapshots._heard_kv = False
    node.follow(1)
    node.hear(1, piece())
    assert node.take(LOG, local.StagePiece) == []


@pytest.mark.parametrize("index", [15, 20])
def test_what_is_committed_here_is_said_to_be_installed(index: int) -> None:
    """PITFALLS 26: a stale snapshot is late, not needed."""
    node = led()
    node.hear(1, piece(index))
    assert node.take(LOG, local.StagePiece) == []
    assert replies(node) == [(1, peer.InstallSnapshotReply(index, 2, 100, True))]


def test_a_snapshot_that_was_overtaken_while_it_arrived_is_not_installed() -> None:
    node = led()
    node.hear(1, piece())
    node.hear(1, peer.AppendEntries(20, 2, 32, 0, entries(21, 32)))
    stage(node, 100, complete=True)
    assert node.take(LOG, local.InstallPoint) == []
    node.sent.clear()
    node.hear(1, piece())
    assert replies(node) == [(1, peer.InstallSnapshotReply(30, 2, 100, True))]


def test_pieces_of_others_than_the_leader_are_refused() -> None:
    node = led()
    node.hear(3, piece())
    node.hear(1, piece(), term=1)
    node.hear(1, piece(), term=3)
    node.hear(1, piece(chain=b"short"))
    node.hear(1, piece(configuration=b"\xc1"))
    node.hear(1, piece(offset=-1))
    assert node.take(LOG, local.StagePiece) == []
    assert node.refused == 6


def test_a_piece_is_no_sign_of_life() -> None:
    """Snapshots travel on a lane of their own, for minutes; what is queued there proves nothing."""
    node = led()
    before = node.handler.next_timer()
    node.now += 300
    node.hear(1, piece())
    assert node.handler.next_timer() == before


def test_a_candidate_installs_nothing_and_the_next_leader_goes_on() -> None:
    node = led()
    node.hear(1, piece())
    node.now = node.handler.next_timer() or 0
    node.turn()
    assert node.handler.status(node.now)["role"] == "pre-candidate"
    node.sent.clear()
    stage(node, 100, complete=True)
    assert node.take(LOG, local.InstallPoint) == []
    node.follow(3, 3)
    node.hear(3, piece())
    assert len(node.take(LOG, local.StagePiece)) == 1
    stage(node, 100, complete=True)
    assert len(node.take(LOG, local.InstallPoint)) == 1


def test_a_second_snapshot_waits_until_the_first_one_is_in_the_log() -> None:
    """PITFALLS 25: two in a short time."""
    node = led()
    point = whole(node)
    node.hear(1, piece(40))
    assert node.take(LOG, local.StagePiece) == []
    node.receive(LOG, local.Durable(point.seq))
    node.turn()
    second = whole(node, 40)
    assert second.seq == point.seq + 1
    node.receive(LOG, local.Durable(second.seq))
    node.turn()
    assert node.take(KV, local.InstallSnapshot) == [local.InstallSnapshot(40, 2)]


def test_snapshots_from_before_an_installation_count_for_nothing() -> None:
    """The log does not reach back to them: they are no second one to fall back on."""
    node = led()
    node.receive(KV, done(15))
    point = whole(node)
    node.receive(KV, done(20))
    node.receive(LOG, local.Durable(point.seq))
    node.receive(KV, done(22))
    node.turn()
    assert node.handler.status(node.now)["snapshot_index"] == 0
    node.hear(1, peer.AppendEntries(30, 2, 40, 0, entries(31, 40)))
    node.receive(KV, local.Applied(40))
    assert take_snapshots(node, 30, 36) == []
    assert [purge.index for purge in take_snapshots(node, 40)] == [36]


def test_a_point_that_is_about_to_go_is_not_asked_for() -> None:
    node = led()
    whole(node)
    node.receive(KV, local.AskPoint(20))
    node.turn()
    assert node.take(LOG, local.ReadPoint) == []


# ---------------------------------------------------------------- a disk that was found full


def test_where_the_disk_was_found_full_nothing_is_staged_or_said_to_be_there() -> None:
    """It could not be written, and a reply would be a promise."""
    node = Alone(recovered=recovered(), read_only=True)
    node.follow(1)
    for each in (piece(), piece(offset=50), piece(index=1)):
        node.hear(1, each)
    assert node.take(LOG, local.StagePiece) == []
    assert replies(node) == []
    assert node.refused == 3


def test_where_the_disk_was_found_full_nothing_is_purged() -> None:
    node = Alone(config=TINY, recovered=recovered(), points=((8, 1),), read_only=True)
    for index in (4, 8):
        node.receive(KV, done(index, term=1))
    node.turn()
    assert node.take(LOG, local.Purge) == []
