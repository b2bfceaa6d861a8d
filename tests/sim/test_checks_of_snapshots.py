"""Every check of snapshots, installs and purged logs finds what it is there for, in a stream of facts made by hand."""

from __future__ import annotations

import pytest
from facts import Stream, entry, good

from danube_raft.kv.machine import Machine
from danube_raft.sim.checks.all import Checks
from danube_raft.sim.checks.facts import (
    Applied,
    Begun,
    Booted,
    Delivered,
    Loaded,
    LoadTold,
    PurgeIssued,
    SnapshotTold,
    Violation,
)
from danube_raft.sim.digest import digest
from danube_raft.wire import local, peer


def done(index: int, term: int = 1, chain: bytes = b"c") -> SnapshotTold:
    return SnapshotTold(1, local.SnapshotDone(index, term, chain, 100, b"s", 0, b""))


def with_snapshots(*points: tuple[int, int], stream: Stream | None = None) -> Stream:
    """The good run, where every node's disk holds snapshots of these."""
    stream = stream or good()
    stream.checks.snapshots._good = lambda _: points
    return stream


def installed(index: int = 2, term: int = 1) -> Stream:
    """Node 3 has got a snapshot of the leader's in place of its log of one entry."""
    stream = with_snapshots((index, term))
    stream.checks.tell(Begun(3, index, term, installed=True))
    return stream


def test_a_good_run_passes() -> None:
    stream = installed()
    stream.send(3, 1, 1, peer.InstallSnapshotReply(2, 1, 100, True))
    stream.checks.tell(LoadTold(3, 2, 1, installed=True))
    stream.checks.tell(Loaded(3, 2, stream.checks.snapshots._reference.digest_at(2)))
    stream.checks.tell(Applied(3, 2))
    stream.checks.tell(done(1))
    stream.checks.tell(PurgeIssued(1, 1, ((1, 1), (2, 1))))
    stream.checks.tell(Begun(1, 1, 0, installed=False))
    stream.checks.tell(Booted(3, 2))
    stream.checks.tell(LoadTold(3, 2, 1, installed=False))
    stream.checks.tell(Loaded(3, 2, stream.checks.snapshots._reference.digest_at(2)))
    stream.write(1, entry(3, 1))
    stream.write(3, entry(3, 1))
    stream.checks.tell(Delivered(1, (entry(3, 1),)))
    stream.checks.tell(Delivered(3, (entry(3, 1),)))


def test_a_log_forgotten_with_one_good_snapshot_only() -> None:
    """Should that one be damaged later, nothing is left."""
    for good_ones in ((), ((2, 1),), ((1, 1), (2, 1)), ((2, 1), (3, 1))):
        with pytest.raises(Violation, match="forgets its log up to 2"):
            good().checks.tell(PurgeIssued(1, 2, good_ones))


def test_a_log_forgotten_beyond_what_is_applied() -> None:
    with pytest.raises(Violation, match="has applied 0"):
        good().checks.tell(PurgeIssued(2, 2, ((2, 1), (3, 1))))


def test_a_log_that_begins_behind_a_snapshot_that_is_not_there() -> None:
    """Pitfall 28."""
    for points in ((), ((1, 1),), ((2, 2),)):
        with pytest.raises(Violation, match="no such snapshot"):
            with_snapshots(*points).checks.tell(Begun(3, 2, 1, installed=True))


def test_a_snapshot_of_what_is_not_committed() -> None:
    for point in ((3, 1), (2, 2)):
        with pytest.raises(Violation, match="not committed"):
            with_snapshots(point).checks.tell(Begun(3, *point, installed=True))


def test_a_snapshot_that_is_ahead_of_the_state() -> None:
    with pytest.raises(Violation, match="and has applied 2"):
        good().checks.tell(done(3))


def test_two_snapshots_of_one_entry_that_differ() -> None:
    stream = good()
    stream.checks.tell(done(2))
    stream.checks.tell(done(2))
    with pytest.raises(Violation, match="another snapshot"):
        stream.checks.tell(done(2, chain=b"d"))


def test_a_start_from_a_snapshot_that_the_log_does_not_go_on_from() -> None:
    with pytest.raises(Violation, match="does not hold"):
        good().checks.tell(LoadTold(3, 2, 1, installed=False))
    with pytest.raises(Violation, match="does not hold"):
        good().checks.tell(LoadTold(2, 2, 2, installed=False))
    with pytest.raises(Violation, match="its log behind 2"):
        installed().checks.tell(LoadTold(3, 1, 1, installed=False))


def test_an_installed_snapshot_that_throws_the_state_back() -> None:
    """Pitfall 26."""
    with pytest.raises(Violation, match="was handed 2 already"):
        good().checks.tell(LoadTold(1, 2, 1, installed=True))


def test_a_state_that_the_log_does_not_make() -> None:
    """Pitfall 29: a snapshot that lacks something."""
    stream = good()
    stream.checks.tell(LoadTold(1, 2, 1, installed=False))
    with pytest.raises(Violation, match="does not make"):
        stream.checks.tell(Loaded(1, 2, digest(Machine())))
    with pytest.raises(Violation, match="not told to"):
        stream.checks.tell(Loaded(1, 1, digest(Machine())))


def test_entries_that_do_not_follow_the_snapshot() -> None:
    stream = installed()
    stream.checks.tell(LoadTold(3, 2, 1, installed=True))
    stream.write(3, entry(3, 1), entry(4, 1))
    with pytest.raises(Violation, match="handed index 4"):
        stream.checks.tell(Delivered(3, (entry(4, 1),)))


def test_applied_means_given_by_entries_or_by_a_snapshot() -> None:
    stream = installed()
    stream.checks.tell(LoadTold(3, 2, 1, installed=True))
    with pytest.raises(Violation, match="not handed"):
        stream.checks.tell(Applied(3, 3))


def test_an_answer_that_a_snapshot_is_installed_before_it_is() -> None:
    """Persist, then promise."""
    with pytest.raises(Violation, match="acks index 2"):
        with_snapshots((2, 1)).send(3, 1, 1, peer.InstallSnapshotReply(2, 1, 100, True))
    with_snapshots((2, 1)).send(3, 1, 1, peer.InstallSnapshotReply(2, 1, 50, False))


def test_an_install_that_takes_committed_entries_from_too_many_disks() -> None:
    """Pitfall 27 the other way round: what is behind the snapshot is kept where the log has its end."""
    stream = with_snapshots((1, 2))
    stream.checks.view.committed[0] = entry(1, 2)
    with pytest.raises(Violation, match="too few disks"):
        stream.checks.tell(Begun(2, 1, 2, installed=True))


def test_what_is_behind_the_end_of_a_snapshot_stays_where_the_log_holds_that_end() -> None:
    stream = with_snapshots((1, 1))
    stream.checks.tell(Begun(2, 1, 1, installed=True))
    assert stream.checks.view.replicas[2].durable == [1, 1]
    stream = with_snapshots((2, 1))
    stream.write(3, entry(2, 2), entry(3, 2))
    stream.checks.tell(Begun(3, 2, 1, installed=True))
    assert stream.checks.view.replicas[3].durable == stream.checks.view.replicas[3].log == [1, 1]


def test_a_snapshot_for_somebody_who_needs_none_is_counted() -> None:
    stream = good()
    piece = peer.InstallSnapshot(2, 1, b"c", 9, b"s", 0, b"", 0, b"x")
    stream.checks.tell(Begun(1, 2, 0, installed=False))
    stream.send(1, 3, 1, piece)
    assert stream.checks.snapshots.needless == 0
    stream.send(1, 2, 1, piece)
    assert stream.checks.snapshots.needless == 1


def test_the_reference_goes_back_and_forth() -> None:
    stream = good()
    reference = stream.checks.snapshots._reference
    machine = Machine()
    states = [digest(machine)]
    for each in stream.checks.view.committed:
        machine.apply(each)
        states.append(digest(machine))
    assert [reference.digest_at(index) for index in (2, 0, 1)] == [states[2], states[0], states[1]]


def test_without_a_disk_to_look_at_nothing_can_be_read() -> None:
    with pytest.raises(Violation, match="no such snapshot"):
        Checks((1, 2, 3)).tell(Begun(3, 2, 1, installed=True))
