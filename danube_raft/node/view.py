"""What the supervisor knows of its processes, for those who ask over HTTP.

The supervisor's loop writes, threads of the HTTP port read. Every field is replaced as a whole and never changed in
place, so a reader sees a value of some moment; what belongs together is in one tuple. The one thing to wait for is the
confirmation of a read, under a condition.

A question for it goes the other way: it wakes the loop through a descriptor, since the loop alone may use the sockets.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from danube_raft.node.identity import Identity
from danube_raft.wire.local import ReadConfirmed

FORMING = "forming"
"""The node does not belong to a cluster yet and has no processes."""
RUNNING = "running"
"""Three processes, if nothing has happened to them."""
DOWN = "down"
"""They have ended and are about to be started again."""
STOPPING = "stopping"
"""The node was told to stop."""


class ProcessView:
    """One process in one boot epoch."""

    def __init__(self, name: str, pid: int, stuck_ms: int, now: int) -> None:
        self.name = name
        self.pid = pid
        self.stuck_ms = stuck_ms
        self.ready = False
        self.progress_at = now
        self.report: dict[str, Any] = {}
        """The content of its last Status."""

    def is_stuck(self, now: int) -> bool:
        """Whether it has shown no progress for longer than the watchdog allows."""
        return now - self.progress_at > self.stuck_ms


class NodeView:
    """The node as a whole, through all its boots."""

    def __init__(self) -> None:
        self.phase = FORMING
        self.identity = Identity(0, 0, 0)
        self.processes: tuple[ProcessView, ...] = ()
        self.restarts = 0
        self.trouble = ""
        """Why the processes were ended the last time."""
        self._asked, self._ask = socket.socketpair()
        self._asked.setblocking(False)
        self._ask.setblocking(False)
        self._condition = threading.Condition()
        self._confirmed: ReadConfirmed | None = None

    def started(self, identity: Identity, processes: tuple[ProcessView, ...]) -> None:
        """A boot epoch begins with these processes."""
        with self._condition:
            self._confirmed = None
        self.identity = identity
        self.processes = processes
        self.phase = RUNNING

    def ended(self, why: str) -> None:
        """They had to be ended, and start again soon."""
        self.trouble = why
        self.restarts += 1
        self.phase = DOWN
        self.processes = ()

    def stopping(self) -> None:
        """The node was told to stop."""
        self.phase = STOPPING

    def report(self, process: str) -> dict[str, Any]:
        """What that process last told; empty if nothing in this boot."""
        return next((view.report for view in self.processes if view.name == process), {})

    # ---------------------------------------------------------------- confirmed reads

    @property
    def question(self) -> int:
        """A descriptor that becomes readable when somebody waits for a confirmed read."""
        return self._asked.fileno()

    def take_question(self) -> bool:
        """By the loop: whether there was one since the last time."""
        with contextlib.suppress(BlockingIOError):
            return bool(self._asked.recv(4_096))
        return False

    def confirm(self, news: ReadConfirmed) -> None:
        """By the loop: a read was confirmed."""
        with self._condition:
            self._confirmed = news
            self._condition.notify_all()

    def confirmed_since(self, at_ms: int, timeout_s: float) -> ReadConfirmed | None:
        """A read that was asked for at `at_ms` or later and confirmed; asks for one, and waits, if there is none yet.
        None after `timeout_s`."""
        with self._condition:
            found = self._newest(at_ms)
            if found is None:
                # A full pipe is a question that nobody has heard yet.
                with contextlib.suppress(BlockingIOError):
                    self._ask.send(b"?")
                self._condition.wait_for(lambda: self._newest(at_ms) is not None, timeout_s)
                found = self._newest(at_ms)
            return found

    def _newest(self, at_ms: int) -> ReadConfirmed | None:
        found = self._confirmed
        return found if found is not None and found.at_ms >= at_ms else None

    def close(self) -> None:
        """Release the descriptors."""
        self._asked.close()
        self._ask.close()
