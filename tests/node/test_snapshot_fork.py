"""The child that writes a snapshot: what it takes along, what it leaves behind, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from kv_snapshots import grown, whole
from snapshot_store import spoil
from stepped_kv import CLUSTER_ID, TINY, SteppedKv, chain, puts

from danube_raft.errors import DiskFailed
from danube_raft.kv.machine import Machine
from danube_raft.node import forked_child, snapshot_fork
from danube_raft.node.snapshot_fork import ForkedSnapshot
from danube_raft.node.snapshot_jobs import Failed, Outcome
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import local

PATIENCE_S = 10
SUPPORT = Path(__file__).parent.parent / "support"


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it never came to be"
        os.sched_yield()


def outcome(job: ForkedSnapshot) -> Outcome:
    found: list[Outcome] = []

    def over() -> bool:
        ended = job.poll()
        found.extend([] if ended is None else [ended])
        return ended is not None

    until(over)
    return found[0]


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def ended(pid: int) -> bool:
    """Gone, or not waited for yet by whoever has inherited it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    found = Shelf(Snapshots(tmp_path, CLUSTER_ID), Counter())
    found.open()
    return found


@pytest.fixture
def waiting(shelf: Shelf) -> Iterator[ForkedSnapshot]:
    """A child that waits for its point."""
    job = ForkedSnapshot(shelf, grown())
    yield job
    job.kill()
    outcome(job)


def settled(job: ForkedSnapshot) -> psutil.Process:
    """The child, when it has done all that it does before it waits."""
    child = psutil.Process(job.pid)
    until(
        lambda: (
            child.name() == "dr-snapshot"
            and child.nice() == min(psutil.Process().nice() + forked_child.NICE, 19)
        )
    )
    return child


def test_the_file_is_of_the_moment_of_the_fork(shelf: Shelf) -> None:
    machine = grown()
    job = ForkedSnapshot(shelf, machine)
    before = whole(machine)
    machine.history.records.clear()
    job.give_point(chain(142))
    meta = outcome(job)
    assert isinstance(meta, SnapshotMeta)
    assert (meta.index, meta.term, meta.chain) == (142, 1, chain(142))
    assert b"".join(shelf.store.read(meta)) == before
    assert job.pid == 0


def test_it_deletes_the_old_ones_itself(shelf: Shelf, tmp_path: Path) -> None:
    """The parent would stand still meanwhile."""
    machine = Machine()
    for entry in puts(1, 4):
        machine.apply(entry)
        job = ForkedSnapshot(shelf, machine)
        job.give_point(chain(machine.applied_index))
        meta = outcome(job)
        assert isinstance(meta, SnapshotMeta)
        shelf._kept = (meta, *shelf._kept[:1])
    assert sorted(path.name[-6:] for path in tmp_path.iterdir()) == ["3.snap", "4.snap"]


def test_it_takes_the_place_of_a_damaged_one_of_the_same_entry(shelf: Shelf, tmp_path: Path) -> None:
    def made() -> Outcome:
        job = ForkedSnapshot(shelf, grown())
        job.give_point(chain(142))
        return outcome(job)

    first = made()
    assert isinstance(first, SnapshotMeta)
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    spoil(file, len(good) // 2)
    assert made() == first
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == good


def test_it_keeps_two_pipes_and_nothing_else(waiting: ForkedSnapshot) -> None:
    """A descriptor of the node's that lives on in the child keeps a port, a lock or a file busy."""
    child = settled(waiting)
    found = {int(path.name): str(path.readlink()) for path in Path(f"/proc/{child.pid}/fd").iterdir()}
    assert [found.pop(number) for number in range(3)] == [os.devnull] * 3
    assert len(found) == 2
    assert all(target.startswith("pipe:") for target in found.values())


def test_a_port_is_free_when_the_parent_lets_it_go(shelf: Shelf) -> None:
    """Though the child still runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        job = ForkedSnapshot(shelf, Machine())
        settled(job)
    with socket.socket() as again:
        again.bind(address)
        again.listen()
        assert job.poll() is None
    job.kill()
    assert isinstance(outcome(job), Failed)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    """Killed in whatever way. An orphan would write into a directory that the next boot has cleaned."""
    parent = subprocess.Popen(
        [sys.executable, str(SUPPORT / "snapshot_parent.py"), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent:
        pid, port = map(int, parent.stdout.readline().split())
        until(lambda: psutil.Process(pid).name() == "dr-snapshot")
        parent.send_signal(number)
    until(lambda: ended(pid))
    with socket.create_server(("127.0.0.1", port)):
        assert list(tmp_path.iterdir()) == []


def test_a_signal_for_the_node_ends_the_child_and_does_not_run_the_nodes_handler(
    waiting: ForkedSnapshot,
) -> None:
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        settled(waiting).send_signal(signal.SIGINT)
        settled(waiting).send_signal(signal.SIGTERM)
        found = outcome(waiting)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found == Failed("its process ended with -15")
    assert heard == []


def test_a_parent_that_closes_its_pipe_ends_it(waiting: ForkedSnapshot) -> None:
    """The second net: the kernel's signal is missed if the parent died before it was asked for."""
    assert waiting._child._tells is not None
    os.close(waiting._child._tells)
    waiting._child._tells = os.open(os.devnull, os.O_WRONLY)
    assert outcome(waiting) == Failed("its process ended with 1")


def test_what_the_disk_refuses_is_told(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DiskFailed("no space left on device")

    monkeypatch.setattr(shelf.store, "writer", refuse)
    job = ForkedSnapshot(shelf, Machine())
    job.give_point(chain(0))
    assert outcome(job) == Failed("no space left on device")


def test_a_fault_in_the_child_never_runs_the_parents_code(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even its `finally`, nor what is registered for its exit."""
    monkeypatch.setattr(snapshot_fork, "encode", lambda _: 1 / 0)
    parent = os.getpid()
    job = None
    try:
        job = ForkedSnapshot(shelf, Machine())
    finally:
        if os.getpid() != parent:
            os.kill(parent, signal.SIGABRT)
    assert outcome(job) == Failed("ZeroDivisionError('division by zero')")


def test_a_system_without_room_for_a_process_costs_the_snapshot_only(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    before = descriptors()
    job = ForkedSnapshot(shelf, Machine())
    assert job.poll() == Failed("no process can be started: Resource temporarily unavailable")
    stranger, writable = os.pipe()
    try:
        job.give_point(chain(142))
        os.set_blocking(stranger, False)
        with pytest.raises(BlockingIOError):
            os.read(stranger, 1)
    finally:
        os.close(stranger)
        os.close(writable)
    job.give_point(chain(142))
    job.kill()
    assert descriptors() == before


@pytest.mark.parametrize("left", [0, 1])
def test_a_process_without_descriptors_left_makes_no_snapshot_and_goes_on(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Clients may have taken all that there are; the kv-server must not end for that."""
    pipe, pipes = os.pipe, [True] * left

    def refuse() -> tuple[int, int]:
        if not pipes:
            raise OSError(24, "Too many open files")
        pipes.pop()
        return pipe()

    monkeypatch.setattr(os, "pipe", refuse)
    before = descriptors()
    job = ForkedSnapshot(shelf, Machine())
    job.give_point(chain(0))
    assert job.poll() == Failed("no process can be started: Too many open files")
    job.kill()
    assert descriptors() == before


def test_nothing_of_it_is_left_in_the_parent(shelf: Shelf) -> None:
    before = descriptors()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    job = ForkedSnapshot(shelf, Machine())
    pid = job.pid
    job.give_point(chain(0))
    outcome(job)
    assert descriptors() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_the_kv_server_hears_of_it_and_removes_what_a_killed_one_leaves(tmp_path: Path) -> None:
    node = SteppedKv(tmp_path, TINY, begin=ForkedSnapshot)
    node.hear(local.LoadSnapshot(0, 0))
    node.commit(*puts(1, 20))
    node.advance(TINY.snapshot_rest_max_ms)
    assert node.take(local.AskPoint) == [local.AskPoint(20)]
    assert node.kv.report(node.now)["snapshot_pid"] > 0
    node.hear(local.PointRead(20, 1, chain(20)))

    def done() -> list[local.SnapshotDone]:
        def over() -> bool:
            node.turn()
            return node.kv._taking._run is None

        until(over)
        return node.take(local.SnapshotDone)

    assert [message.index for message in done()] == [20]
    node.commit(*puts(21, 80))
    node.advance(2 * TINY.snapshot_rest_max_ms)
    assert node.take(local.AskPoint) == [local.AskPoint(80)]
    (tmp_path / f"{1:020d}-{80:020d}.snap.tmp").write_bytes(b"half")
    os.kill(node.kv.report(node.now)["snapshot_pid"], signal.SIGKILL)
    assert done() == []
    assert [path.name for path in tmp_path.iterdir()] == [f"{1:020d}-{20:020d}.snap"]
