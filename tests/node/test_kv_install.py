"""A snapshot of the leader's takes the place of the state: what becomes of everybody who waits at this node."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kv_snapshots import whole
from stepped_kv import SteppedKv, batch, planted, put, puts

from danube_raft.errors import Compacted, Corrupt, DiskFailed, Uncertain
from danube_raft.kv.machine import Machine
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.storage.entry_format import ZERO_CHAIN
from danube_raft.storage.memory_snapshots import READ, MemoryFolder, MemorySnapshots
from danube_raft.wire import local
from danube_raft.wire.client import pack_request
from danube_raft.wire.entry import Entry


def leader(directory: Path, *entries: Entry) -> Machine:
    """The leader's state after these entries, whose snapshot has arrived in the directory."""
    machine = Machine()
    for entry in entries:
        machine.apply(entry)
    planted(directory, machine, whole(machine))
    return machine


def follower(directory: Path) -> SteppedKv:
    """A node that has applied five entries, and serves."""
    node = SteppedKv(directory)
    node.serve()
    node.commit(*puts(1, 5))
    node.sent.clear()
    return node


def install(node: SteppedKv, machine: Machine) -> None:
    node.hear(local.InstallSnapshot(machine.applied_index, machine.applied_term))


def test_the_state_is_the_leaders_and_what_is_behind_it_follows(tmp_path: Path) -> None:
    """Entries that were under way before are in it already."""
    node = follower(tmp_path)
    machine = leader(tmp_path, *puts(1, 20))
    install(node, machine)
    assert [type(message) for _, message in node.sent[:2]] == [local.SnapshotDone, local.Applied]
    assert node.take(local.SnapshotDone)[0].index == 20
    assert node.take(local.Applied)[0] == local.Applied(20)
    node.commit(*puts(19, 22))
    for entry in puts(21, 22):
        machine.apply(entry)
    assert whole(node.machine) == whole(machine)
    assert node.settled == 2, "once at its start"


def test_a_disk_that_fails_while_it_is_read_is_told_and_it_is_there_at_the_next_start() -> None:
    """Said to be gone, it would keep the node down: a damaged node is not started again, one with a worn disk is, once."""
    folder, machine = MemoryFolder(), Machine()
    for entry in puts(1, 20):
        machine.apply(entry)
    store = MemorySnapshots(folder, 77)
    writer = store.writer(machine.applied_index, machine.applied_term, ZERO_CHAIN)
    writer.write(whole(machine))
    meta = writer.commit()
    shelf = Shelf(store, Counter())
    for before in range(3):
        folder.fail_next(READ, before=before)
        with pytest.raises(DiskFailed):
            shelf.install(meta.index, meta.term)
    assert not folder.failing
    assert whole(shelf.install(meta.index, meta.term)) == whole(machine)
    with pytest.raises(Corrupt, match="which is not there"):
        shelf.install(meta.index + 1, meta.term)
    folder.flip(meta.name, 0)
    with pytest.raises(Corrupt, match="header"):
        shelf.install(meta.index, meta.term)


def test_a_state_never_goes_back(tmp_path: Path) -> None:
    """More may be applied by the time that the snapshot is in the log; it is one to begin with all the same."""
    node = follower(tmp_path)
    node.commit(*puts(6, 30))
    node.sent.clear()
    install(node, leader(tmp_path, *puts(1, 20)))
    (done,) = node.take(local.SnapshotDone)
    assert (done.index, done.stamp_ms) == (20, 200)
    assert set(node.take(local.Applied)) == {local.Applied(30)}
    node.commit(*puts(31, 31))
    assert whole(node.machine) == whole(leader(tmp_path / "other", *puts(1, 31)))


def test_waiting_writes_hear_what_the_snapshot_knows_of_them(tmp_path: Path) -> None:
    """A batch that it covers was applied or never can be: nobody will apply it here. The next one may be lost."""
    node = follower(tmp_path)
    node.ask("put", 1, "/a", b"a", client_id=8, serial=3)
    node.ask("put", 2, "/b", b"b")
    node.ask("put", 3, "/c", b"c", client_id=8, serial=5, low_water=3)
    first, second, third = node.take(local.Propose)
    install(
        node,
        leader(
            tmp_path,
            *puts(1, 6),
            batch(7, first.payload, (1, 1, first.seq)),
            batch(8, second.payload, (1, 1, second.seq)),
            *puts(9, 20),
        ),
    )
    assert node.replies(1) == [(0, 8, 8, 1, None)]
    assert node.replies(2)[0][0] == Uncertain.code
    assert node.replies(3) == []
    assert node.take(local.Propose) == [third]
    assert node.kv._proposals.waiting_commands == 1
    node.commit(batch(21, third.payload, (1, 1, third.seq)))
    assert node.replies(3)[0][0] == 0
    assert [len(node.replies(number)) for number in (1, 2, 3)] == [1, 1, 1]


def test_a_batch_that_the_snapshot_skipped_is_not_called_applied(tmp_path: Path) -> None:
    """Its seq is below the highest, and its session has no result: it may have been skipped, or forgotten."""
    node = follower(tmp_path)
    node.ask("put", 1, "/a", b"a", client_id=8, serial=3)
    node.ask("put", 2, "/b", b"b", client_id=9, serial=1)
    _, second = node.take(local.Propose)
    install(node, leader(tmp_path, *puts(1, 6), batch(7, second.payload, (1, 1, second.seq))))
    assert node.replies(1)[0][0] == Uncertain.code
    assert node.replies(2)[0][0] == 0


def test_batches_of_an_earlier_boot_say_nothing_about_these(tmp_path: Path) -> None:
    """Seqs begin anew with each boot."""
    node = SteppedKv(tmp_path, boot_epoch=3)
    node.serve()
    node.ask("put", 1, "/a", b"a")
    (proposed,) = node.take(local.Propose)
    install(node, leader(tmp_path, put(1, "/x", origin=(1, 2, 50))))
    assert node.replies(1) == []
    node.commit(batch(2, proposed.payload, (1, 3, proposed.seq)))
    assert node.replies(1)[0][0] == 0


def test_housekeeping_that_the_snapshot_covers_is_proposed_again_when_due(tmp_path: Path) -> None:
    """Nobody waits for it, but the leader's kv-server has one of a kind in flight only."""
    node = follower(tmp_path)
    node.hear(local.Role("leader", 2, 1, 0, node.now, 0))
    node.ask("put_with_ttl", 1, "/t", b"v", 100)
    node.commit(batch(6, node.take(local.Propose)[0].payload, (1, 1, 1)))
    node.advance(3_000)
    (expire,) = node.take(local.Propose)[:1]
    node.hear(local.Role("follower", 3, 9, 0, node.now, 0))
    node.sent.clear()
    machine = leader(tmp_path, *puts(1, 5), batch(6, pack_request("put_with_ttl", 1, "/t", b"v", 100)),
                     batch(7, expire.payload, (1, 1, expire.seq)))  # fmt: skip
    install(node, machine)
    assert len(node.machine.leases) == len(machine.leases)
    node.hear(local.Role("leader", 4, 1, machine.cluster_ms, node.now, 0))
    node.advance(3_000)
    assert any(b"expire" in proposed.payload for proposed in node.take(local.Propose))


# ---------------------------------------------------------------- watches and reads


def events(node: SteppedKv, number: int) -> list[Any]:
    frames = [reply for reply in node.replies(number) if reply[0] == 0 and reply[2] == 0]
    return [record[3] for frame in frames for _, record, _ in frame[3]]


def test_watches_go_on_from_where_they_are(tmp_path: Path) -> None:
    """With every event once, as if the entries had been applied one by one."""
    node = follower(tmp_path)
    node.ask("watch", 1, "/", 2, 1 << 20, False, False, True, True)
    node.ask("watch_poll", 2, "/", 6, 60_000, False, False, True, True)
    assert events(node, 1) == [2, 3, 4, 5, 6]
    install(node, leader(tmp_path, *puts(1, 20)))
    assert events(node, 1) == list(range(2, 22))
    assert [record[3] for _, record, _ in node.replies(2)[0][2]] == list(range(7, 22))
    node.commit(*puts(21, 22))
    assert events(node, 1) == list(range(2, 24))


def test_watches_that_lost_events_hear_it(tmp_path: Path) -> None:
    """Never silence, and never a gap."""
    node = follower(tmp_path)
    node.ask("watch", 1, "/", 2, 1 << 20, False, False, True, True)
    node.ask("watch_poll", 2, "/", 6, 60_000, False, False, True, True)
    compacted = batch(20, pack_request("compact", 1, 15))
    install(node, leader(tmp_path, *puts(1, 19), compacted))
    assert node.replies(1)[-1][0] == Compacted.code
    assert node.replies(2)[-1][0] == Compacted.code


@pytest.mark.parametrize("level", ["linearizable", "session"])
def test_reads_that_wait_for_the_state_are_answered_from_the_new_one(tmp_path: Path, level: str) -> None:
    node = follower(tmp_path)
    minimum = {"min_revision": (7, 18)} if level == "session" else {}
    node.ask("get", 1, "/k0", consistency=level, **minimum)
    for asked in node.take(local.ReadIndex):
        node.hear(local.ReadReady(asked.id, 20))
    assert node.replies(1) == []
    install(node, leader(tmp_path, *puts(1, 20)))
    assert node.replies(1)[0][2][3] == 21


def test_a_node_catches_up_by_a_snapshot(tmp_path: Path) -> None:
    """What the leader had committed may all be in it."""
    node = SteppedKv(tmp_path)
    node.hear(local.LoadSnapshot(0, 0), local.Role("follower", 1, 9, 0, 0, 0))
    node.hear(local.FreshAnswer(0, node.now, 20))
    node.ask("get", 1, "/k0")
    assert not node.kv.ready
    install(node, leader(tmp_path, *puts(1, 20)))
    assert node.kv.ready
    assert node.replies(1)[0][0] == 0


# ---------------------------------------------------------------- own snapshots


def test_an_own_snapshot_that_is_being_made_is_given_up(tmp_path: Path) -> None:
    """It is of a state that the log does not go back to."""
    node = follower(tmp_path)
    node.kv._taking.request(node.now)
    node.turn()
    (asked,) = node.take(local.AskPoint)
    install(node, leader(tmp_path, *puts(1, 20)))
    node.take(local.SnapshotDone)
    node.hear(local.PointRead(asked.index, 1, bytes(16)))
    node.advance(100)
    assert node.take(local.SnapshotDone) == []
    assert node.held() == [(20, 1)]
    node.commit(*puts(21, 40))
    assert node.make().index == 40
    assert node.held() == [(40, 1), (20, 1)]


def test_a_given_up_snapshot_takes_nothing_of_the_leaders_with_it(tmp_path: Path) -> None:
    """Both may be of the same entry, and have the same name; also when the own one fails before it is replaced."""
    node = follower(tmp_path)
    node.kv._taking.request(node.now)
    node.turn()
    install(node, leader(tmp_path, *puts(1, 5)))
    node.advance(100)
    assert node.held() == [(5, 1)]
