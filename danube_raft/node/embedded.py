"""`danube_raft.Node`: a node that a program starts, uses and stops.

By default it runs in processes of its own, under a supervisor that this program starts; it ends when the program
calls `stop`, leaves the `with` block, or dies. With `threads=True` it runs inside this process.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from danube_raft import LeadershipHandle, errors
from danube_raft.config import Config, load
from danube_raft.node.threads import ThreadedNode

STOP_EXTRA_MS = 1_000
"""What the supervisor itself needs beyond `stop_timeout_ms`."""


class Node:
    """A node of this program's own.

    `config` is a configuration file; `settings` are the settings of `danube_raft.config.Config` by name and win over
    it. Raises ConfigInvalid at once when one of them is bad.

        with Node(data_dir="/var/lib/broker/metadata") as node, MetadataStore(node.endpoint) as store:
            store.put("/clusters/main", {"name": "main"})
    """

    def __init__(self, config: str | Path | None = None, *, threads: bool = False, **settings: Any) -> None:
        self.config: Config = load(config, settings)
        self._threads = ThreadedNode(self.config) if threads else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """host:port for clients."""
        return self.config.client_address

    def start(self, timeout_s: float = 30.0) -> Self:
        """Returns when clients are served. Raises what keeps the node from starting, or Timeout."""
        if self._threads is not None:
            self._threads.start(timeout_s)
            return self
        assert self._process is None, "a node is started once"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "danube_raft.node.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._process.stdin is not None, "the settings go through standard input"
        # A pipe that is broken already: the supervisor has ended, which reading from it tells.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(self.config.to_json().encode() + b"\n")
            self._process.stdin.flush()
        line = self._first_line(self._process, timeout_s)
        if line is None or not line.startswith(b"ready"):
            self.stop()
            raise _reason(line, timeout_s)
        return self

    @staticmethod
    def _first_line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes | None:
        """None: nothing was said in time."""
        assert process.stdout is not None, "the node answers on standard output"
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline() if selector.select(timeout_s) else None

    def leadership(self) -> LeadershipHandle:
        """Whether this node leads, and who does: pushed. Close it; it may outlive a stop and says then that nobody
        is known to lead."""
        return LeadershipHandle(self.endpoint)

    def stop(self) -> None:
        """End the node; returns when all its processes have ended. Idempotent."""
        if self._threads is not None:
            self._threads.stop()
            return
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None, "closing it is the sign to stop"
        assert process.stdout is not None, "it was read at the start"
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        # A child that this program forked may hold the pipe open: the signal does not depend on it.
        process.terminate()
        try:
            process.wait((self.config.stop_timeout_ms + STOP_EXTRA_MS) / 1000)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _reason(line: bytes | None, timeout_s: float) -> errors.DanubeRaftError:
    if line is None:
        return errors.Timeout(f"the node did not serve within {timeout_s} s")
    if not line:
        return errors.Fatal("the node ended before it served; its log lines on standard error say why")
    code, message = json.loads(line)
    return errors.from_wire(code, message)
