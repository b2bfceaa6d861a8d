"""The supervisor where no real node is needed to see it: a child that cannot be started, or ends at once."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Container, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from danube_raft.config import Config
from danube_raft.errors import CrashLoop, DiskFailed, DiskFull, Fatal
from danube_raft.node import supervisor
from danube_raft.node.bootstrap import belongs, held_data_dir
from danube_raft.node.child import Child
from danube_raft.node.endpoints import LocalEdge
from danube_raft.node.restarts import UNREADY_MAX
from danube_raft.node.supervisor import Supervisor
from danube_raft.node.view import NodeView, ProcessView
from danube_raft.storage.data_dir import DataDir


@pytest.mark.timeout(20)
def test_a_child_that_cannot_be_started_is_one_error_and_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket of the child that never was must not keep the context from ending."""

    def refuse(_supervisor: Any, _name: str) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Supervisor, "_spawn", refuse)
    config = replace(Config(), data_dir=str(tmp_path / "data"))
    with held_data_dir(config, inheritable=False) as data_dir:
        monkeypatch.chdir(config.data_dir)
        assert belongs(config, data_dir, ())
        with closing(NodeView()) as view, pytest.raises(Fatal, match="cannot start the log-writer"):
            Supervisor(config, data_dir, (), view).run()


KILLED = "kv-server (pid 7) ended: killed by SIGKILL"


class Restarted:
    """A node that has served and whose kv-server was killed: what `run` does to start it again. Its processes are small
    scripts. The n-th of them (from 1) cannot be made if `refused` has n."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused: Container[int] = ()
        self.made: list[subprocess.Popen[bytes]] = []
        self.pauses: list[int] = []
        self._tried = 0
        self._boots = 0
        self._config = replace(Config(), data_dir=str(tmp_path / "data"))
        self._monkeypatch = monkeypatch

    def run(self) -> tuple[int, NodeView]:
        """Until it runs again and is told to stop; the exit code, and what others saw. Raises Fatal."""
        with held_data_dir(self._config, inheritable=False) as data_dir:
            self._monkeypatch.chdir(self._config.data_dir)
            assert belongs(self._config, data_dir, ())
            with closing(NodeView()) as view:
                made = Supervisor(self._config, data_dir, (), view)
                self._monkeypatch.setattr(made, "_spawn", self._spawn)
                self._monkeypatch.setattr(made, "_watch", lambda: self._watch(made))
                self._monkeypatch.setattr(made, "_pause", self.pauses.append)
                return made.run(), view

    def _spawn(self, _name: str) -> subprocess.Popen[bytes]:
        self._tried += 1
        if self._tried in self.refused:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.made.append(subprocess.Popen(["sh", "-c", "read line; read line"], stdin=subprocess.PIPE))
        return self.made[-1]

    def _watch(self, supervisor: Any) -> str | None:
        self._boots += 1
        supervisor._announced = True
        return KILLED if self._boots == 1 else None


@pytest.fixture
def restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Restarted]:
    found = Restarted(tmp_path, monkeypatch)
    yield found
    assert all(process.returncode is not None for process in found.made)


def test_a_restart_for_which_there_is_no_process_for_a_moment_is_tried_again(restarted: Restarted) -> None:
    """The machine was out of processes or memory: the node that served has to be back when it has some again."""
    restarted.refused = {5, 6}
    code, view = restarted.run()
    assert code == 0
    assert restarted.pauses == [0, 50, 100]
    assert len(restarted.made) == 3 + 1 + 3
    assert (view.restarts, view.trouble) == (
        3,
        "cannot start the log-writer: Resource temporarily unavailable",
    )


def test_a_restart_for_which_there_is_never_a_process_is_a_crash_loop(restarted: Restarted) -> None:
    restarted.refused = range(4, 1_000)
    with pytest.raises(
        CrashLoop, match=r"cannot start the log-writer: Resource temporarily unavailable; .*11 times"
    ):
        restarted.run()
    assert restarted.pauses[:5] == [0, 50, 100, 200, 400]
    assert len(restarted.pauses) == UNREADY_MAX


def test_a_process_that_cannot_be_watched_is_ended_and_tried_again(
    restarted: Restarted, monkeypatch: pytest.MonkeyPatch
) -> None:
    pidfd_open = os.pidfd_open

    def refuse_once(pid: int) -> int:
        if len(restarted.made) == 5:
            monkeypatch.setattr(os, "pidfd_open", pidfd_open)
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        return pidfd_open(pid)

    monkeypatch.setattr(os, "pidfd_open", refuse_once)
    code, view = restarted.run()
    assert (code, len(restarted.made), restarted.pauses) == (0, 3 + 2 + 3, [0, 50])
    assert view.trouble == "cannot start the consensus: Too many open files in system"


@pytest.mark.parametrize("failures", [1, 2])
def test_a_disk_that_fails_the_supervisor_at_a_restart_gets_its_one_more_chance(
    failures: int, restarted: Restarted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that fails the log-writer does."""
    count = DataDir.next_boot_epoch
    starts = 0

    def next_boot_epoch(data_dir: DataDir) -> int:
        nonlocal starts
        starts += 1
        if 1 < starts <= 1 + failures:
            raise DiskFailed("cannot write boot_epoch.json: Input/output error")
        return count(data_dir)

    monkeypatch.setattr(DataDir, "next_boot_epoch", next_boot_epoch)
    if failures == 1:
        assert restarted.run()[0] == 0
        assert restarted.pauses == [0, 50]
    else:
        with pytest.raises(
            DiskFailed, match=r"boot_epoch.json: Input/output error; .* so the node stays down"
        ):
            restarted.run()
    assert starts == 3


@pytest.mark.parametrize("refused", [1, 2])
def test_a_disk_that_is_full_at_a_start_takes_the_ballast_once(
    refused: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The boot epoch is the first thing that needs room. Whom even the ballast does not help cannot start."""
    ballast = tmp_path / "data" / "ballast"
    had_ballast: list[bool] = []
    count = DataDir.next_boot_epoch

    def next_boot_epoch(data_dir: DataDir) -> int:
        had_ballast.append(ballast.exists())
        if len(had_ballast) <= refused:
            raise DiskFull("no room for the epoch")
        return count(data_dir)

    def refuse(_supervisor: Any, _name: str) -> None:
        raise OSError(11, "as far as this test goes")

    monkeypatch.setattr(DataDir, "next_boot_epoch", next_boot_epoch)
    monkeypatch.setattr(Supervisor, "_spawn", refuse)
    config = replace(Config(), data_dir=str(tmp_path / "data"), ballast_bytes=1 << 20, low_space_bytes=0)
    with held_data_dir(config, inheritable=False) as data_dir:
        monkeypatch.chdir(config.data_dir)
        assert belongs(config, data_dir, ())
        ended = "as far as this test goes" if refused == 1 else "no room for the epoch"
        with closing(NodeView()) as view, pytest.raises(Fatal, match=ended):
            Supervisor(config, data_dir, (), view).run()
    assert had_ballast == [True, False]


def test_a_child_that_ended_before_it_read_its_setup_is_closed_without_an_error(tmp_path: Path) -> None:
    """What it did not read waits in the pipe's buffer, and cannot be written at the end either."""
    with zmq.Context() as context:
        process = subprocess.Popen(["true"], stdin=subprocess.PIPE)
        edge = LocalEdge(context, f"ipc://{tmp_path}/edge", True, 1)
        child = Child(process, edge, ProcessView("kv-server", process.pid, 1_000, 0))
        process.wait()
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(b"setup")
            process.stdin.flush()
        child.close()
        assert process.stdin.closed
        assert edge.socket.closed
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(child.descriptor)


def test_a_disk_that_lets_nobody_tidy_up_does_not_hide_why_the_node_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file system that has turned read-only."""
    config = replace(Config(), data_dir=str(tmp_path / "data"))
    cleared: list[Path] = []

    def clear(run_dir: Path) -> None:
        run_dir.mkdir(exist_ok=True)
        cleared.append(run_dir)
        if len(cleared) > 1:
            raise DiskFailed("read-only file system")

    def refuse(_supervisor: Any, _name: str) -> None:
        raise OSError(11, "why it ends")

    monkeypatch.setattr("danube_raft.node.supervisor._clear_run_dir", clear)
    monkeypatch.setattr(Supervisor, "_spawn", refuse)
    with held_data_dir(config, inheritable=False) as data_dir:
        monkeypatch.chdir(config.data_dir)
        assert belongs(config, data_dir, ())
        with closing(NodeView()) as view, pytest.raises(Fatal, match="why it ends"):
            Supervisor(config, data_dir, (), view).run()
    assert len(cleared) > 1


@pytest.mark.parametrize(("number", "kind"), [(errno.EROFS, DiskFailed), (errno.ENOSPC, DiskFull)])
def test_a_run_directory_that_cannot_be_made_is_the_disks_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[DiskFailed]
) -> None:
    def refuse(_path: Path, **_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DiskFailed, match="cannot clear") as refused:
        supervisor._clear_run_dir(tmp_path / "run")
    assert type(refused.value) is kind


def test_no_room_for_the_sockets_takes_the_ballast_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system may have no room for new files only: giving up the ballast makes some."""
    ballast = tmp_path / "data" / "ballast"
    had_ballast: list[bool] = []

    def refuse(*_: Any) -> None:
        had_ballast.append(ballast.exists())
        raise DiskFull("no room for a socket")

    monkeypatch.setattr("danube_raft.node.supervisor.LocalEdge", refuse)
    config = replace(Config(), data_dir=str(tmp_path / "data"), ballast_bytes=1 << 20, low_space_bytes=0)
    with held_data_dir(config, inheritable=False) as data_dir:
        monkeypatch.chdir(config.data_dir)
        assert belongs(config, data_dir, ())
        with closing(NodeView()) as view, pytest.raises(DiskFull, match="no room for a socket"):
            Supervisor(config, data_dir, (), view).run()
    assert had_ballast == [True, False]
