"""The kv-server and its snapshots: with which it begins, when it makes one, which it keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kv_snapshots import whole
from snapshot_store import spoil
from stepped_kv import CLUSTER_ID, FOLLOWER, TINY, SteppedKv, chain, members, planted, put, puts

from danube_raft.config import Config
from danube_raft.errors import Corrupt, DiskFailed
from danube_raft.kv.machine import Machine
from danube_raft.node.handler import CONSENSUS
from danube_raft.node.snapshot_jobs import Failed
from danube_raft.storage.entry_format import ZERO_CHAIN
from danube_raft.storage.memory_snapshots import READ, MemoryFolder, MemorySnapshots
from danube_raft.storage.snapshot_file import MAGIC
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import local

NEVER_DUE = replace(Config(), snapshot_log_bytes=1 << 30)


def state(*entries: object) -> Machine:
    """What a replica has after these entries."""
    machine = Machine()
    for entry in entries:
        machine.apply(entry)  # type: ignore[arg-type]
    return machine


def grown(directory: Path, *lasts: int) -> SteppedKv:
    """A node that has made a snapshot at each of these indexes."""
    node = SteppedKv(directory, NEVER_DUE)
    node.hear(local.LoadSnapshot(0, 0))
    first = 1
    for last in lasts:
        node.commit(*puts(first, last))
        node.make()
        first = last + 1
    return node


# ---------------------------------------------------------------- beginning


def test_it_says_first_what_is_there_and_nothing_else_before_consensus_has_chosen(tmp_path: Path) -> None:
    """An Applied before that would say that the state machine is loaded."""
    node = SteppedKv(tmp_path)
    assert [message for edge, message in node.sent if edge == CONSENSUS] == [local.SnapshotsFound(())]
    node.sent.clear()
    node.hear(local.LoadSnapshot(0, 0))
    assert node.sent == [(CONSENSUS, local.Applied(0))]


def test_a_node_begins_with_the_snapshot_that_consensus_chose(tmp_path: Path) -> None:
    """What follows is what replaying the whole log would have led to."""
    done = [grown(tmp_path, 10, 20).held(), [(20, 1), (10, 1)]]
    assert done[0] == done[1]
    node = SteppedKv(tmp_path, boot_epoch=2)
    assert node.take(local.SnapshotsFound) == [local.SnapshotsFound(((20, 1), (10, 1)))]
    node.hear(local.LoadSnapshot(20, 1))
    assert [type(message) for _, message in node.sent] == [local.SnapshotDone, local.Applied]
    (loaded,) = node.take(local.SnapshotDone)
    assert (loaded.index, loaded.term, loaded.chain, loaded.stamp_ms) == (20, 1, chain(20), 200)
    assert node.take(local.Applied) == [local.Applied(20)]
    assert node.settled == 1
    node.commit(*puts(21, 25))
    assert whole(node.machine) == whole(state(*puts(1, 25)))


def test_entries_that_the_snapshot_holds_are_left_out(tmp_path: Path) -> None:
    """Consensus may have handed them over while nothing was loaded."""
    grown(tmp_path, 10)
    node = SteppedKv(tmp_path, boot_epoch=2)
    node.hear(local.LoadSnapshot(10, 1), local.Committed(tuple(puts(8, 12))))
    assert node.machine.applied_index == 12
    assert whole(node.machine) == whole(state(*puts(1, 12)))


def test_a_damaged_snapshot_is_named_and_the_one_before_it_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole is only known to be good when its end was read: consensus chooses again."""
    grown(tmp_path, 10, 20)
    (newest,) = tmp_path.glob("*-*20.snap")
    spoil(newest, newest.stat().st_size // 2)
    node = SteppedKv(tmp_path, NEVER_DUE, boot_epoch=2)
    node.take(local.SnapshotsFound)
    node.hear(local.LoadSnapshot(20, 1))
    assert [message for _, message in node.sent] == [local.SnapshotsFound(((10, 1),))]
    assert newest.name in caplog.text
    assert "checksum" in caplog.text
    assert node.counters["snapshots_damaged"] == 1
    node.hear(local.LoadSnapshot(10, 1))
    node.commit(*puts(11, 30))
    assert whole(node.machine) == whole(state(*puts(1, 30)))
    node.make()
    assert node.store.path(node.store.newest().candidates[0]).exists()
    again = SteppedKv(tmp_path, boot_epoch=3)
    again.hear(local.LoadSnapshot(30, 1))
    assert again.machine.applied_index == 30


def test_a_file_that_is_damaged_at_its_end_is_not_offered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grown(tmp_path, 10, 20)
    (newest,) = tmp_path.glob("*-*20.snap")
    newest.write_bytes(newest.read_bytes()[:-1])
    node = SteppedKv(tmp_path, boot_epoch=2)
    assert node.take(local.SnapshotsFound) == [local.SnapshotsFound(((10, 1),))]
    assert newest.name in caplog.text


def test_one_that_a_later_version_has_written_is_named_as_such(tmp_path: Path) -> None:
    """Be it another format of the file, which shows at once, or of the state in it, which shows when it is loaded."""
    grown(tmp_path, 10, 20)
    (newest,) = tmp_path.glob("*-*20.snap")
    data = bytearray(newest.read_bytes())
    data[len(MAGIC)] += 1
    newest.write_bytes(data)
    node = SteppedKv(tmp_path, boot_epoch=2)
    assert node.take(local.SnapshotsFound) == [local.SnapshotsFound(((10, 1),), newest.name)]
    assert node.counters["snapshots_damaged"] == 0
    encoded = whole(state(*puts(1, 30)))
    planted(tmp_path, state(*puts(1, 30)), bytes((encoded[0] + 1,)) + encoded[1:])
    node = SteppedKv(tmp_path, boot_epoch=3)
    assert node.take(local.SnapshotsFound) == [local.SnapshotsFound(((30, 1), (10, 1)), newest.name)]
    node.hear(local.LoadSnapshot(30, 1))
    (newest,) = tmp_path.glob("*-*30.snap")
    assert node.take(local.SnapshotsFound) == [local.SnapshotsFound(((10, 1),), newest.name)]
    assert node.counters["snapshots_damaged"] == 0


def test_one_that_the_disk_could_not_read_is_named_as_such() -> None:
    """The next start may read it; one that is damaged stays so."""
    folder = MemoryFolder()
    store = MemorySnapshots(folder, CLUSTER_ID)
    for index in (10, 20):
        writer = store.writer(index, 1, ZERO_CHAIN)
        writer.write(whole(state(*puts(1, index))))
        writer.commit()
    name = store.newest().candidates[0].name
    folder.fail_next(READ)
    node = SteppedKv(Path(), boot_epoch=2, store=store)
    assert node.take(local.SnapshotsFound) == [local.SnapshotsFound(((10, 1),), unreadable=name)]
    node = SteppedKv(Path(), boot_epoch=3, store=store)
    assert node.take(local.SnapshotsFound) == [local.SnapshotsFound(((20, 1), (10, 1)))]
    folder.fail_next(READ)
    node.hear(local.LoadSnapshot(20, 1))
    assert node.take(local.SnapshotsFound) == [local.SnapshotsFound(((10, 1),), unreadable=name)]
    assert node.counters["snapshots_damaged"] == 0


def test_a_snapshot_of_another_entry_than_its_name_says_is_damaged(tmp_path: Path) -> None:
    """Its checksums are right: only the state in it can tell."""
    planted(tmp_path, state(*puts(1, 10)), whole(state(*puts(1, 9))))
    node = SteppedKv(tmp_path)
    node.take(local.SnapshotsFound)
    node.hear(local.LoadSnapshot(10, 1))
    assert node.take(local.SnapshotsFound) == [local.SnapshotsFound(())]


def test_reads_wait_until_a_snapshot_is_loaded_and_caught_up_with(tmp_path: Path) -> None:
    grown(tmp_path, 10)
    node = SteppedKv(tmp_path, boot_epoch=2)
    node.ask("get", 1, "/k0", consistency="stale")
    assert node.replies(1) == []
    node.hear(local.LoadSnapshot(10, 1), FOLLOWER)
    node.hear(local.FreshAnswer(0, node.now, 11))
    assert node.replies(1) == []
    node.commit(put(11, "/k0", b"new"))
    assert node.replies(1)[0][2][1] == b"new"


# ---------------------------------------------------------------- making


def test_a_snapshot_is_of_the_index_where_it_began_though_the_state_goes_on(tmp_path: Path) -> None:
    node = SteppedKv(tmp_path)
    node.hear(local.LoadSnapshot(0, 0))
    node.commit(*puts(1, 10))
    node.advance(TINY.snapshot_rest_max_ms)
    assert node.take(local.AskPoint) == [local.AskPoint(10)]
    node.commit(*puts(11, 12))
    node.advance(300)
    assert node.take(local.SnapshotDone) == [], "without its point it cannot be written"
    node.hear(local.PointRead(10, 1, chain(10)))
    node.commit(*puts(13, 14))
    node.advance(20)
    (done,) = node.take(local.SnapshotDone)
    (meta,) = node.store.newest().candidates
    assert done == local.SnapshotDone(10, 1, chain(10), meta.size, meta.sha256, 100, b"")
    assert b"".join(node.store.read(meta)) == whole(state(*puts(1, 10)))


def test_one_is_due_by_the_log_since_the_last_and_not_before_its_time(tmp_path: Path) -> None:
    node = SteppedKv(tmp_path)
    node.hear(local.LoadSnapshot(0, 0))
    node.commit(*puts(1, 20))
    node.advance(TINY.snapshot_rest_max_ms - 1)
    assert node.take(local.AskPoint) == [], "the node has only just started"
    node.advance(1)
    size = node.snapshot().size_bytes
    assert size > TINY.snapshot_log_bytes, "or the next line proves nothing"
    node.advance(10 * TINY.snapshot_rest_max_ms)
    assert node.take(local.AskPoint) == [], "nothing was written"
    node.commit(*puts(21, 26))
    assert node.take(local.AskPoint) == [], "that was more than the least, and less than the last snapshot"
    node.commit(*puts(27, 50))
    node.snapshot()
    assert node.held() == [(50, 1), (20, 1)]


@pytest.mark.parametrize(("node_id", "wait_ms"), [(1, 0), (5, 200), (9, 400)])
def test_the_nodes_take_turns(tmp_path: Path, node_id: int, wait_ms: int) -> None:
    """All apply the same log at the same time, and encoding takes a core of each machine."""
    node = SteppedKv(tmp_path, node_id=node_id)
    node.hear(local.LoadSnapshot(0, 0))
    node.advance(2 * TINY.snapshot_rest_max_ms)
    node.commit(members(1, 5, 1, 9), *puts(2, 20))
    if wait_ms:
        node.advance(wait_ms - 1)
        assert node.take(local.AskPoint) == []
        node.advance(1)
    node.snapshot()
    # The next turn is counted from when this one was due: the nodes stay as far apart as they are.
    node.commit(*puts(21, 60))
    node.advance(TINY.snapshot_rest_max_ms - 21)
    assert node.take(local.AskPoint) == []
    node.advance(1)
    assert node.take(local.AskPoint) == [local.AskPoint(60)]


def test_nothing_is_made_of_a_state_that_is_in_a_snapshot(tmp_path: Path) -> None:
    node = grown(tmp_path, 10)
    node.kv._taking.request(node.now)
    node.turn()
    assert node.take(local.AskPoint) == []
    assert node.kv.next_timer() is None or node.kv.next_timer() > node.now  # type: ignore[operator]


def test_two_are_kept(tmp_path: Path) -> None:
    assert grown(tmp_path, 10, 20, 30, 40).held() == [(40, 1), (30, 1)]


def test_one_that_does_not_belong_to_the_log_counts_for_nothing_and_goes(tmp_path: Path) -> None:
    """An install that a crash cut short left it. Counted, it would push out what the next start needs."""
    grown(tmp_path, 10, 20)
    planted(tmp_path, state(*puts(1, 90)), whole(state(*puts(1, 90))), term=5)
    node = SteppedKv(tmp_path, NEVER_DUE, boot_epoch=2)
    node.hear(local.LoadSnapshot(20, 1))
    assert len(list(tmp_path.iterdir())) == 3, "it may be all that is left of what a log has lost"
    node.commit(*puts(21, 30))
    node.make()
    assert node.held() == [(90, 5), (30, 1), (20, 1)], "or the leader's, on its way into the log"
    for index in (31, 32):
        node.commit(put(index, "/k", term=6))
        node.make(term=6)
    assert node.held() == [(32, 6), (31, 6)]


def test_a_refused_snapshot_that_is_installed_after_all_stays(tmp_path: Path) -> None:
    grown(tmp_path, 10)
    planted(tmp_path, state(*puts(1, 90)), whole(state(*puts(1, 90))))
    node = SteppedKv(tmp_path, NEVER_DUE, boot_epoch=2)
    node.hear(local.LoadSnapshot(10, 1))
    node.hear(local.InstallSnapshot(90, 1))
    assert node.held() == [(90, 1)]


# ---------------------------------------------------------------- failing


class FullDisk(Snapshots):
    """Takes nothing while it is full."""

    full = True

    def writer(self, index: int, term: int, chain: bytes) -> object:  # type: ignore[override]
        if self.full:
            raise DiskFailed("no space left on device")
        return super().writer(index, term, chain)


def test_a_full_disk_costs_the_snapshot_and_not_the_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FullDisk(tmp_path, CLUSTER_ID)
    node = SteppedKv(tmp_path, store=store)
    node.hear(local.LoadSnapshot(0, 0))
    node.advance(TINY.snapshot_rest_max_ms)
    node.commit(*puts(1, 20))
    (asked,) = node.take(local.AskPoint)
    node.hear(local.PointRead(asked.index, 1, chain(asked.index)))
    assert "no space left" in caplog.text
    assert node.kv.report(node.now)["snapshots_failed"] == 1
    node.advance(TINY.snapshot_rest_max_ms - 1)
    assert node.take(local.AskPoint) == []
    node.advance(1)
    store.full = False
    assert node.snapshot().index == 20
    assert [path.suffix for path in tmp_path.iterdir()] == [".snap"]


def test_where_the_disk_was_found_full_none_is_made(tmp_path: Path) -> None:
    node = SteppedKv(tmp_path, TINY, read_only=True)
    node.serve()
    node.commit(*puts(1, 30))
    node.advance(60_000)
    assert node.take(local.AskPoint) == []
    assert list(tmp_path.glob("*")) == []


def test_one_that_takes_too_long_is_given_up_and_tried_again(tmp_path: Path) -> None:
    node = SteppedKv(tmp_path)
    node.hear(local.LoadSnapshot(0, 0))
    node.advance(TINY.snapshot_rest_max_ms)
    node.commit(*puts(1, 20))
    assert node.take(local.AskPoint) == [local.AskPoint(20)]
    node.commit(*puts(21, 22))
    node.advance(TINY.snapshot_max_ms + 1)
    assert node.take(local.AskPoint) == []
    node.hear(local.PointRead(20, 1, chain(20)))
    node.advance(TINY.snapshot_rest_max_ms)
    assert node.take(local.SnapshotDone) == []
    assert node.snapshot().index == 22
    assert node.held() == [(22, 1)]


def test_old_ones_that_cannot_be_deleted_do_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = grown(tmp_path, 10, 20)

    def fail(*_: object, **__: object) -> None:
        raise DiskFailed("input/output error")

    monkeypatch.setattr(node.store, "delete_before", fail)
    node.commit(*puts(21, 30))
    assert node.make().index == 30
    assert "input/output error" in caplog.text


def test_a_snapshot_of_the_leaders_that_is_not_there_ends_the_node(tmp_path: Path) -> None:
    """The log begins behind it: there is nothing to go on with."""
    node = SteppedKv(tmp_path)
    node.hear(local.LoadSnapshot(0, 0))
    with pytest.raises(Corrupt, match="index 5 in term 2"):
        node.hear(local.InstallSnapshot(5, 2))


def test_closing_gives_up_what_is_being_made(tmp_path: Path) -> None:
    node = SteppedKv(tmp_path)
    node.hear(local.LoadSnapshot(0, 0))
    node.commit(*puts(1, 2))
    node.kv._taking.request(node.now)
    node.turn()
    run = node.kv._taking._run
    assert run is not None
    node.kv.close()
    assert isinstance(run.job.poll(), Failed)
