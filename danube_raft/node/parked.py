"""Reads and watches that came before this node knows what the cluster had committed before it started.

What is committed is learnt from a leader, and until that is applied here the state machine shows a past that even a
stale reader should not see: after a restart, an empty store. So such requests wait. They are served when the node has
caught up, and refused with NoLeader at their deadline. What waits is bounded in number and bytes.

Writes need no such wait: their batches wait for a leader anyway. `status` and `members` never wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from danube_raft.config import Config
from danube_raft.errors import DanubeRaftError, NoLeader, Overloaded
from danube_raft.node.endpoints import Envelope
from danube_raft.node.proposals import NEVER
from danube_raft.node.slow_requests import CATCH_UP, SlowRequests
from danube_raft.wire.client import Request

Refuse = Callable[[Request, Envelope, DanubeRaftError], None]


class Waiting(NamedTuple):
    """One request, who asked, its size, until when it may wait."""

    request: Request
    envelope: Envelope
    size: int
    deadline: int


class Parked:
    """What waits for this node to catch up."""

    def __init__(self, config: Config, refuse: Refuse, slow: SlowRequests) -> None:
        self._config = config
        self._slow = slow
        self._refuse = refuse
        self._waiting: list[Waiting] = []
        self._size = 0
        self._check_at = NEVER

    def add(self, request: Request, envelope: Envelope, size: int, deadline: int) -> None:
        """Keep a request. Raises Overloaded."""
        full = (
            len(self._waiting) >= self._config.waiting_max_commands
            or self._size + size > self._config.waiting_max_bytes
        )
        if full:
            raise Overloaded(
                f"{len(self._waiting)} requests wait for this node to catch up; try another node"
            )
        self._waiting.append(Waiting(request, envelope, size, deadline))
        self._size += size
        self._check_at = min(self._check_at, deadline)

    def take(self, now: int) -> list[Waiting]:
        """Everything, in the order in which it came: the node has caught up."""
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            self._slow.waited(item.request, item.deadline, now, CATCH_UP)
        self._size = 0
        self._check_at = NEVER
        return waiting

    def next_timer(self) -> int | None:
        """When `tick` has something to do."""
        return None if self._check_at == NEVER else self._check_at

    def tick(self, now: int) -> None:
        """Refuse what is past its deadline."""
        if now < self._check_at:
            return
        error = NoLeader("this node has not caught up with a leader since it started; try another node")
        kept = []
        for item in self._waiting:
            if now >= item.deadline:
                self._size -= item.size
                self._slow.waited(item.request, item.deadline, now, CATCH_UP)
                self._refuse(item.request, item.envelope, error)
            else:
                kept.append(item)
        self._waiting = kept
        self._check_at = min((item.deadline for item in kept), default=NEVER)
