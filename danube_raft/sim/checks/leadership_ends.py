"""A leader that is cut off from a quorum, or whose disk does not answer, leads no longer than it must (check-quorum, thesis
§6.2; INTERNALS §1; PITFALLS 7, 22): while it does, nobody else can help.

Looked at when it sends a heartbeat, or would if a link took it: for an election timeout it may not have noticed, and for one more it may be late.
Time in which it sent nothing does not count, since its process may have been stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from danube_raft.sim.checks.facts import (
    Booted,
    Fact,
    Issued,
    Received,
    Refused,
    Sent,
    Synced,
    Told,
    Violation,
)
from danube_raft.sim.checks.view import View
from danube_raft.sim.schedule import MS
from danube_raft.wire import peer

TIMEOUTS = 2
SILENT_HEARTBEATS = 4
"""A longer silence of a leader, in heartbeats, is a pause of its process."""


class Timings(NamedTuple):
    """`now`: virtual microseconds."""

    now: Callable[[], int]
    election_max_ms: int
    heartbeat_ms: int


class _Leader:
    """What a node has heard and written in the term that it leads."""

    def __init__(self, began: int) -> None:
        self.counted_from = began
        """Nothing before this moment is held against it."""
        self.sent_at = began
        self.heard: dict[int, int] = {}


class LeadershipEnds:
    """Remembers when each leader was heard by whom, and since when a write is under way."""

    wants = (Booted, Issued, Received, Refused, Sent, Synced, Told)

    def __init__(self, view: View, timings: Timings) -> None:
        self._view = view
        self._now = timings.now
        self._limit_us = (TIMEOUTS * timings.election_max_ms + timings.heartbeat_ms) * MS
        self._pause_us = SILENT_HEARTBEATS * timings.heartbeat_ms * MS
        self._leaders: dict[int, _Leader] = {}
        self._issued: dict[int, dict[int, int]] = {}
        """Writes that are not on the disk yet: when each was issued, by node."""

    def take(self, fact: Fact) -> None:
        """A leader that goes on is heard by a quorum, and its disk answers."""
        if isinstance(fact, Issued):
            self._issued.setdefault(fact.node, {})[fact.write.seq] = self._now()
        elif isinstance(fact, Synced):
            self._issued.get(fact.node, {}).pop(fact.write.seq, None)
        elif isinstance(fact, Booted):
            self._issued.pop(fact.node, None)
            self._leaders.pop(fact.node, None)
        elif isinstance(fact, Told):
            if fact.role.role != "leader":
                self._leaders.pop(fact.node, None)
            elif fact.node not in self._leaders:
                self._leaders[fact.node] = _Leader(self._now())
        elif isinstance(fact, Received):
            self._received(fact)
        elif isinstance(fact, Sent | Refused) and isinstance(fact.message, peer.Heartbeat):
            self._sends(fact.header.sender)

    def _received(self, fact: Received) -> None:
        leader = self._leaders.get(fact.node)
        if leader is not None and fact.header.term == self._view.replicas[fact.node].term:
            leader.heard[fact.header.sender] = fact.at

    def _sends(self, node: int) -> None:
        leader, now = self._leaders.get(node), self._now()
        if leader is None:
            return
        if now - leader.sent_at > self._pause_us:
            leader.counted_from = now
        leader.sent_at = now
        others = len(self._view.voters) // 2
        heard = sorted(leader.heard.values(), reverse=True)
        by_quorum = heard[others - 1] if len(heard) >= others else 0
        if now - max(leader.counted_from, by_quorum) > self._limit_us:
            raise Violation(f"node {node} leads on, {self._ago(by_quorum)} after a quorum was last heard")
        oldest = min(self._issued.get(node, {}).values(), default=now)
        if now - max(leader.counted_from, oldest) > self._limit_us:
            raise Violation(f"node {node} leads on, {self._ago(oldest)} after its disk was asked to write")

    def _ago(self, time: int) -> str:
        return f"{(self._now() - time) // MS} ms"
