"""Real nodes for process tests: started as a user starts them, on free loopback ports, never left behind."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from danube_raft import MetadataStore

WAIT_S = 20.0
PROCESSES = ("log-writer", "consensus", "kv-server")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def until(condition: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """Wait until `condition` holds; its value. Fails the test at the deadline."""
    deadline = time.monotonic() + wait_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {wait_s} s for: {what}"
        select.select([], [], [], 0.01)
    return value


def runs(process: psutil.Process) -> bool:
    """Whether it still does anything; an orphan that ended may wait long for whoever adopted it to notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class RealNode:
    """`danube-raft node start` on its own data directory and ports."""

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        self.data_dir = data_dir
        raft, client = free_ports(2)
        self.endpoint = f"127.0.0.1:{client}"
        self.raft_endpoint = f"127.0.0.1:{raft}"
        # Nodes of one machine cannot share the default port of /health; a test that wants it names one.
        settings = {"health_listen": "", **settings}
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DANUBE_RAFT_")},
            **{f"DANUBE_RAFT_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.log_path = data_dir.with_suffix(".log")
        self.started_at = 0.0
        self._seen: set[psutil.Process] = set()

    def command(self, *arguments: str) -> list[str]:
        """The command line of danube-raft with these arguments."""
        return [sys.executable, "-m", "danube_raft_cli", *arguments]

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        arguments = ("node", "start", "--data-dir", str(self.data_dir), "--client-listen", self.endpoint)
        self.started_at = time.monotonic()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*arguments, "--raft-listen", self.raft_endpoint),
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment,
            )
        return self.process

    def start(self) -> Self:
        """Start and wait for the line that says it serves."""
        process = self.spawn()
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], WAIT_S)
        line = process.stdout.readline() if ready else b""
        assert line.startswith(b"ready"), f"{line!r}\n{self.log_path.read_text()}"
        self._seen.update(self.family())
        return self

    def family(self) -> list[psutil.Process]:
        """The supervisor and its children that live."""
        if self.process is None or self.process.poll() is not None:
            return []
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def child(self, name: str) -> psutil.Process | None:
        """The running child of that name."""
        assert self.process is not None
        for process in self.family()[1:]:
            try:
                # A child of the kv-server's that makes a snapshot has its command line.
                if process.cmdline()[4:5] == [name] and process.ppid() == self.process.pid:
                    self._seen.add(process)
                    return process
            except psutil.NoSuchProcess:
                continue
        return None

    def kill_child(self, name: str) -> int:
        """SIGKILL; its pid."""
        process = until(lambda: self.child(name), f"a running {name}")
        process.send_signal(signal.SIGKILL)
        return int(process.pid)

    def kill_all(self) -> None:
        """SIGKILL to the supervisor and all children at once."""
        family = self.family()
        self._seen.update(family)
        for process in family:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        if self.process is not None:
            self.process.wait(WAIT_S)
        until(lambda: not any(map(runs, family)), "killed processes to end")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Signal the supervisor; its exit code and how long the stop took in seconds."""
        assert self.process is not None
        self._seen.update(self.family())
        begun = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        return code, time.monotonic() - begun

    def survivors(self) -> list[psutil.Process]:
        """Processes of this node, of any boot, that still run."""
        return [process for process in self._seen if runs(process)]

    def logged(self, pattern: str) -> int:
        """How many lines of its log match."""
        return len(re.findall(pattern, self.log_path.read_text()))

    def store(self, **settings: Any) -> MetadataStore:
        """A client of this node."""
        return MetadataStore(self.endpoint, **settings)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seen.update(self.family())
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(WAIT_S)
            if self.process.stdout is not None:
                self.process.stdout.close()
        for process in self.survivors():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        until(lambda: not self.survivors(), "killed processes to end")
