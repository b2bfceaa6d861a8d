"""Long polls for who leads: each is answered when this node's term or leader is another than its client knows.

A poll names the term and the leader (0: none) that its client knows of this node. It is answered at once when they
differ already, else when a role arrives from consensus that makes them differ, else at its `wait_ms` with the same
values. Answers come from the last role alone, so they are given while there is no leader as well: that there is
none is news like any other.

Every poll that waits knows what is so now, so a change answers all of them. Deadlines are a heap: time costs only
the polls that are due. How many may wait is bounded like commands are.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

from danube_raft.config import Config
from danube_raft.errors import Overloaded
from danube_raft.kv.history import History
from danube_raft.node.endpoints import Envelope
from danube_raft.node.replies import Replies
from danube_raft.wire.client import ARGS, REQUEST_ID, STATUS_OK, Request
from danube_raft.wire.local import Role

OP = "leadership_poll"


class _Poll(NamedTuple):
    deadline: int
    number: int
    """Polls with the same deadline are told apart by it, so that the heap never compares more."""
    envelope: Envelope
    request_id: int


class LeadershipPolls:
    """The polls that wait at one node."""

    def __init__(self, config: Config, history: History, replies: Replies) -> None:
        self._config = config
        self._history = history
        self._replies = replies
        self._role = Role("starting", 0, 0, 0, 0, 0)
        self._waiting: list[_Poll] = []
        self._next_number = 0

    def attach(self, history: History) -> None:
        """The state was replaced by a newer one."""
        self._history = history

    def request(self, request: Request, envelope: Envelope, now: int) -> None:
        """Answer now or later. Raises Overloaded when too many wait already."""
        known_term, known_leader, wait_ms = request[ARGS:]
        deadline = now + min(wait_ms, self._config.request_timeout_max_ms)
        poll = _Poll(deadline, self._next_number, envelope, request[REQUEST_ID])
        if (known_term, known_leader) != self._pair or deadline <= now:
            self._answer(poll)
            return
        if len(self._waiting) >= self._config.waiting_max_commands:
            raise Overloaded(f"{len(self._waiting)} polls for the leader wait already; try again shortly")
        self._next_number += 1
        heapq.heappush(self._waiting, poll)

    def new_role(self, role: Role) -> None:
        """Consensus says who leads; those who know otherwise are told."""
        before, self._role = self._pair, role
        if self._pair == before:
            return
        # Whoever waits knew what was so until now.
        waiting, self._waiting = self._waiting, []
        for poll in waiting:
            self._answer(poll)

    def tick(self, now: int) -> None:
        """Answer those whose time is up."""
        while self._waiting and self._waiting[0].deadline <= now:
            self._answer(heapq.heappop(self._waiting))

    def next_timer(self) -> int | None:
        """When `tick` is wanted."""
        return self._waiting[0].deadline if self._waiting else None

    @property
    def _pair(self) -> tuple[int, int]:
        return self._role.term, self._role.leader_id

    def _answer(self, poll: _Poll) -> None:
        result = (self._role.leader_id, self._role.term, self._role.role)
        self._replies.add(poll.envelope, poll.request_id, STATUS_OK, self._history.revision, result)
