"""A snapshot that rots while its node runs: who needs it gets another one, and nothing goes on for ever."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from consensus_snapshots import (
    SILENCE_MS,
    TINY,
    done,
    leading,
    read,
    recovered,
    take_snapshots,
    wait,
)
from kv_snapshots import whole
from lone_consensus import FOUNDING, Alone
from snapshot_store import CLUSTER, add, opened, spoil
from stepped_cluster import ClusterNode, SteppedCluster
from stepped_kv import SteppedKv, planted, puts

from danube_raft.config import Config
from danube_raft.kv.machine import Machine
from danube_raft.node.handler import KV, LOG
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.node.snapshot_stage import SnapshotStage
from danube_raft.storage.memory_snapshots import MemoryFolder, MemorySnapshots
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import local, peer

PAUSE_MS = TINY.snapshot_rest_max_ms


def sent(node: Alone) -> list[tuple[int, int]]:
    """(index, offset) of the pieces that have left, taken."""
    found = [(message.index, message.offset) for _, message in read(node, b"x" * 250)]
    node.sent.clear()
    return found


def instead(index: int, term: int = 2) -> local.SnapshotDone:
    """It takes the place of one in doubt."""
    return done(index, term)._replace(instead=True)


def refuse(node: Alone, index: int) -> None:
    """Node 3 gets all of it, piece by piece, and says that it wants it from its beginning."""
    assert sent(node)[-1:] == [(index, 0)]
    term = 1 if index == 9 else 2
    node.hear(3, peer.InstallSnapshotReply(index, term, 100, False))
    assert sent(node) == [(index, 100), (index, 200)]
    for offset in (200, 0):
        node.hear(3, peer.InstallSnapshotReply(index, term, offset, False))


def with_one() -> Alone:
    """Node 2 leads; its log begins behind the only snapshot that it has, and node 3 has nothing."""
    node = Alone(config=TINY, recovered=recovered(purged=9, last=9), points=((9, 1),), load=False)
    node.receive(KV, done(9, 1))
    node.receive(KV, local.Applied(9))
    node.turn()
    node.lead()
    node.hear(1, peer.AppendReply(True, 10, 0, 0, True))
    node.hear(3, peer.AppendReply(False, 9, 0, 0, True))
    return node


# ---------------------------------------------------------------- consensus


def test_one_that_is_refused_is_told_once_and_the_one_before_it_is_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = leading()
    refuse(node, 15)
    assert node.take(KV, local.WantSnapshot) == [local.WantSnapshot(15, instead=True)]
    assert (
        "the snapshot of index 15 seems to be damaged: node 3 has got all of it, and refuses it"
        in caplog.text
    )
    assert "another one is made in its place" in caplog.text
    assert len(caplog.records) == 1
    assert sent(node) == [(10, 0)]
    node.receive(KV, instead(20))
    node.turn()
    node.hear(3, peer.InstallSnapshotReply(10, 2, 100, False))
    assert sent(node) == [(10, 100), (10, 200)], "what is under way goes on"


def test_one_that_cannot_be_read_is_none_to_send(caplog: pytest.LogCaptureFixture) -> None:
    node = leading()
    assert read(node, b"") == []
    assert node.take(KV, local.WantSnapshot) == [local.WantSnapshot(15, instead=True)]
    assert "the snapshot of index 15 seems to be damaged: it cannot be read" in caplog.text
    assert sent(node) == [(10, 0)]


def test_a_small_one_that_is_refused_is_in_doubt_too() -> None:
    """Of one piece; it is wanted from its beginning before and after."""
    node = leading(size=90)
    assert sent(node) == [(15, 0)]
    node.hear(3, peer.InstallSnapshotReply(15, 2, 0, False))
    assert node.take(KV, local.WantSnapshot) == [local.WantSnapshot(15, instead=True)]


def test_one_that_two_newer_ones_have_replaced_is_gone_and_not_in_doubt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = leading(snapshots=(5, 10))
    sent(node)
    node.hear(3, peer.InstallSnapshotReply(10, 2, 100, False))
    take_snapshots(node, 15, 20)
    node.receive(LOG, local.Piece(10, 2, 100, b""))
    node.turn()
    assert node.take(KV, local.WantSnapshot) == []
    node.sent.clear()
    wait(node, SILENCE_MS + 1)
    assert sent(node) == [(20, 0)]
    assert caplog.text == ""


def test_without_another_one_it_rests_until_there_is_one_be_it_of_the_same_entry() -> None:
    """Nothing more may be applied for days."""
    node = with_one()
    refuse(node, 9)
    assert node.take(KV, local.WantSnapshot) == [local.WantSnapshot(9, instead=True)]
    node.sent.clear()
    wait(node, PAUSE_MS - 1_000, 10)
    assert node.take(LOG, local.ReadPiece) == []
    assert node.take(KV, local.WantSnapshot) == []
    node.receive(KV, instead(9, 1))
    node.turn()
    assert sent(node) == [(9, 0)]


def test_a_newer_one_is_begun_with_as_soon_as_there_is_one() -> None:
    node = with_one()
    refuse(node, 9)
    node.sent.clear()
    node.receive(KV, instead(10))
    node.turn()
    assert sent(node) == [(10, 0)]


def test_if_there_never_is_another_one_the_same_is_tried_again_with_patience(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = with_one()
    for _ in range(3):
        refuse(node, 9)
        node.sent.clear()
        wait(node, PAUSE_MS - 1, 10)
        assert node.take(LOG, local.ReadPiece) == []
        wait(node, 2, 10)
        assert node.take(KV, local.WantSnapshot) == [local.WantSnapshot(9, instead=True)]
    assert len(caplog.records) == 1


def test_a_peer_that_refuses_whatever_it_gets_does_not_keep_this_node_busy() -> None:
    """Its own disk may be the bad one. What has taken the place of one in doubt is not replaced in its turn."""
    node = with_one()
    begun = wished = 0
    end = node.now + 10 * PAUSE_MS
    while node.now < end:
        if node.take(LOG, local.ReadPiece):
            begun += 1
            refuse(node, 9)
        if node.take(KV, local.WantSnapshot):
            wished += 1
            node.receive(KV, instead(9, 1))
        node.sent.clear()
        wait(node, 1_000, 10)
    assert wished == 1
    assert 5 <= begun <= 12


def test_the_log_is_forgotten_though_a_peer_refuses_whatever_it_gets() -> None:
    """A bad disk of somebody else's must not fill this one."""
    node = with_one()
    purged, last, doubted = [9], 10, 0
    for _ in range(8):
        found = node.take(LOG, local.ReadPiece)
        if found:
            refuse(node, found[-1].index)
        wished = bool(node.take(KV, local.WantSnapshot))
        for index in range(last + 1, last + 5):
            node.receive(KV, local.Propose(index, b"batch"))
            node.turn()
        last += 4
        node.hear(1, peer.AppendReply(True, last, 0, 0, True))
        node.receive(KV, local.Applied(last))
        node.receive(KV, instead(last) if wished else done(last))
        node.turn()
        doubted += wished
        purged += [message.index for message in node.take(LOG, local.Purge)]
        wait(node, PAUSE_MS, 10)
    assert doubted >= 3
    assert purged[-1] >= last - 12


def test_nothing_is_forgotten_of_the_log_for_one_that_takes_the_place_of_another() -> None:
    """The one in doubt is no way back: that is the older one still."""
    node = leading()
    refuse(node, 15)
    node.receive(KV, instead(20))
    assert take_snapshots(node, 20) == [], "told again"
    node.hear(3, peer.HeartbeatReply(0, 20, 2, True))
    for index in (21, 22):
        node.receive(KV, local.Propose(index, b"batch"))
        node.turn()
    node.hear(1, peer.AppendReply(True, 22, 0, 0, True))
    node.receive(KV, local.Applied(22))
    assert take_snapshots(node, 22) == [local.Purge(20, 200, FOUNDING.configuration)]


# ---------------------------------------------------------------- kv-server


def grown(directory: Path, *lasts: int) -> SteppedKv:
    """A node that has made a snapshot at each of these indexes, and has applied no more."""
    node = SteppedKv(directory, replace(Config(), snapshot_log_bytes=1 << 30))
    node.hear(local.LoadSnapshot(0, 0))
    first = 1
    for last in lasts:
        node.commit(*puts(first, last))
        node.make()
        first = last + 1
    return node


def test_another_one_of_the_same_entry_takes_its_place_byte_for_byte(tmp_path: Path) -> None:
    node = grown(tmp_path, 10, 20)
    (newest,) = tmp_path.glob("*-*20.snap")
    before = newest.read_bytes()
    spoil(newest, len(before) // 2)
    node.hear(local.WantSnapshot(10, instead=True))
    assert node.take(local.AskPoint) == [], "there is a newer one by now"
    node.hear(local.WantSnapshot(20, instead=True))
    made = node.snapshot()
    assert (made.index, made.size_bytes) == (20, len(before))
    assert newest.read_bytes() == before
    assert node.held() == [(20, 1), (10, 1)]
    node.kv._taking.request(node.now)
    node.turn()
    assert node.take(local.AskPoint) == [], "once"


def test_one_of_what_was_applied_since_takes_its_place_and_nothing_is_deleted(tmp_path: Path) -> None:
    node = grown(tmp_path, 10, 20)
    node.commit(*puts(21, 25))
    node.hear(local.WantSnapshot(10, instead=True))
    assert node.take(local.AskPoint) == [], "that one was replaced"
    node.hear(local.WantSnapshot(20, instead=True))
    made = node.snapshot()
    assert (made.index, made.instead) == (25, True)
    assert node.held() == [(25, 1), (20, 1), (10, 1)]
    node.commit(*puts(26, 30))
    assert not node.make().instead
    assert node.held() == [(30, 1), (25, 1)]


def test_files_do_not_pile_up_though_each_is_doubted(tmp_path: Path) -> None:
    node = grown(tmp_path, 10, 20)
    for last in range(22, 42, 2):
        node.commit(*puts(last - 1, last))
        newest = node.held()[0][0]
        node.hear(local.WantSnapshot(newest, instead=True))
        if any(isinstance(message, local.AskPoint) for _, message in node.sent):
            node.snapshot()
    assert node.held() == [(22, 1), (20, 1), (10, 1)]
    assert node.make().index == 40
    assert node.held() == [(40, 1), (22, 1)]
    node.hear(local.WantSnapshot(40, instead=True))
    assert node.snapshot().instead, "another one may rot too"


def test_a_doubt_that_comes_while_one_is_made_changes_nothing(tmp_path: Path) -> None:
    """The child that makes it knows nothing of it, and deletes what is older than the two that stay."""
    node = grown(tmp_path, 10, 20)
    node.commit(*puts(21, 25))
    node.kv._taking.request(node.now)
    node.turn()
    node.hear(local.WantSnapshot(20, instead=True))
    assert not node.snapshot().instead
    assert node.held() == [(25, 1), (20, 1)]


def test_a_doubt_ends_with_the_leaders_snapshot(tmp_path: Path) -> None:
    node = grown(tmp_path, 10)
    node.kv._taking.stop(node.now)
    node.hear(local.WantSnapshot(10, instead=True))
    later = Machine()
    for entry in puts(1, 90):
        later.apply(entry)
    planted(tmp_path, later, whole(later))
    node.hear(local.InstallSnapshot(90, 1))
    assert node.kv._shelf.next_index == 91


def test_the_child_that_makes_it_deletes_nothing_either(tmp_path: Path) -> None:
    grown(tmp_path, 10, 20)
    shelf = Shelf(Snapshots(tmp_path, 7), Counter())
    shelf.open()
    shelf.load(20, 1)
    assert shelf.doubt(20)
    shelf.tidy()
    assert len(list(tmp_path.iterdir())) == 2
    shelf.made(shelf.store.newest().candidates[0])
    shelf.tidy()
    assert len(list(tmp_path.iterdir())) == 1


# ---------------------------------------------------------------- log-writer


def test_one_that_has_been_cut_short_cannot_be_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(tmp_path)
    meta = add(store, 9)
    with store.path(meta).open("r+b") as file:
        file.truncate(80)
    stage = SnapshotStage(store, CLUSTER)
    found = [stage.read(local.ReadPiece(9, 1, offset, 50), 1_000).data for offset in (0, 50, 80)]
    stage.close()
    assert list(map(len, found)) == [50, 30, 0]
    assert "cannot be sent: it ends before byte 80" in caplog.text


@pytest.mark.parametrize("memory", [False, True])
def test_who_begins_gets_the_one_that_was_made_in_place_of_another(tmp_path: Path, memory: bool) -> None:
    store = MemorySnapshots(folder := MemoryFolder(), CLUSTER) if memory else opened(tmp_path)
    meta = add(store, 9)
    good = store.read_piece(meta, 0, 1 << 20)
    if memory:
        folder.flip(meta.name, 70)
    else:
        spoil(store.path(meta), 70)
    stage = SnapshotStage(store, CLUSTER)
    ask = local.ReadPiece(9, 1, 0, 1 << 20)
    assert stage.read(ask, 1_000).data != good
    assert add(store, 9) == meta
    assert stage.read(ask, 1_000).data == good
    store.delete_before(meta._replace(term=2))
    assert stage.read(ask, 1_000).data == good, "it is held open, and the next transfer may begin with it"
    stage.close()


# ---------------------------------------------------------------- three nodes

SMALL = replace(
    Config(),
    snapshot_log_bytes=2_000,
    snapshot_tail_entries=2,
    snapshot_piece_bytes=400,
    digest_ms=0,
)


def spoilt(node: ClusterNode, how: str) -> None:
    """Something happens to all snapshots of a node that runs."""
    folder = node.left().folder
    assert len(folder.whole) == 2
    for name in folder.whole:
        if how == "flip":
            folder.flip(name, len(folder.files[name]) // 2)
        else:
            folder.cut(name, len(folder.files[name]) // 2)


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_a_node_is_brought_up_though_all_snapshots_of_an_idle_leader_have_rotted(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = SteppedCluster([ClusterNode(number, SMALL, 1_000) for number in (1, 2, 3)], 1_000)
    leader = cluster.await_leader()
    behind = next(node for number, node in sorted(cluster.nodes.items()) if node is not leader)
    cluster.cut.add(behind.node_id)
    for number in range(60):
        assert cluster.ask(leader, "put", f"/k{number % 7}", b"%300d" % number)[0] == 0
        cluster.advance(150)
    last = leader.status()["commit_index"]
    assert leader.status()["purged_index"] > behind.status()["last_index"]
    spoilt(leader, how)
    caplog.clear()
    cluster.cut.clear()
    end = cluster.now + 60_000
    while behind.machine.applied_index < last:
        assert cluster.now < end, "it is never brought up"
        cluster.advance(200)
    assert cluster.leader() is leader
    assert behind.machine.applied_index >= last
    assert whole(behind.machine) == whole(leader.machine)
    warned = [
        record.getMessage() for record in caplog.records if "seems to be damaged" in record.getMessage()
    ]
    assert 1 <= len(warned) <= 2
