"""A read bounded by B ms shows what the leader had committed when this node last heard of it, at most B ms ago (SEMANTICS,
read level "stale").

- The answer names its lag: that long ago the node heard a leader (a leader: a quorum of its followers), and the answer
  shows at least what the node had been told to be committed by then.
- A lag of 0 without that means a confirmed read: it shows whatever had been acknowledged to anybody before it was asked.
- In real time: a deposed leader may go on for an election timeout and a heartbeat after a quorum has left it, and a new
  one may know less of what is committed than the old one did until it has committed its no-op, an election and its
  disks later. So what was acknowledged before invoked - B is not promised, only what was `slack` earlier; and nothing
  of it where processes are paused or disks hang, since a message may then be taken long after it arrived.

`demands` are what an answer must show, as an index of the log: which revision that is, the replay of the log tells.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from danube_raft.raft.table import RAFT_MESSAGES
from danube_raft.sim.checks.facts import (
    Booted,
    Delivered,
    Ended,
    Fact,
    Judged,
    LoadTold,
    Received,
    Told,
    Violation,
)
from danube_raft.sim.checks.view import View
from danube_raft.sim.history import OK, Operation
from danube_raft.sim.schedule import MS
from danube_raft.wire import peer


class Demand(NamedTuple):
    """The answer shows the revision of index `upto`, or else `revision` (where that is not -1)."""

    read: Operation
    upto: int
    revision: int


class _Node:
    """What one node was told, in its present boot."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.known: list[int] = []
        """At each of `times` the node heard a leader and knew this much to be committed."""
        self.committed = self.own = 0
        self.term = self.least_term = 0
        """It is in no newer term than the one, and in no older one than the other."""
        self.recovered = self.started = False
        """Whether consensus may know its log, and whether it surely does."""
        self.peers: dict[int, int] = {}
        """As a leader: when each follower was last heard."""

    def heard(self, at: int, committed: int) -> None:
        """Never out of order."""
        if not self.times or at >= self.times[-1]:
            self.times.append(at)
            self.known.append(committed)


class BoundedReads:
    """Remembers who heard a leader when, and all that was acknowledged."""

    wants = (Booted, Delivered, Ended, Judged, LoadTold, Received, Told)

    def __init__(self, view: View, drift_ppm: int = 0) -> None:
        self._view = view
        self._drift_ppm = drift_ppm
        self._nodes = {node: _Node() for node in view.voters}
        self._acknowledged_at: list[int] = []
        self._acknowledged: list[int] = []
        self.demands: list[Demand] = []
        self.heard = 0
        """Reads that were answered because the leader was heard in time."""

    def take(self, fact: Fact) -> None:
        """The lag is within the bound, and something was heard that long ago."""
        if isinstance(fact, Received):
            self._received(self._nodes[fact.node], fact)
        elif isinstance(fact, Delivered):
            self._nodes[fact.node].own = fact.entries[-1].index
        elif isinstance(fact, LoadTold):
            self._nodes[fact.node].own = fact.index
        elif isinstance(fact, Booted):
            self._nodes[fact.node] = _Node()
        elif isinstance(fact, Judged):
            self._nodes[fact.node].recovered = True
        elif isinstance(fact, Told):
            node = self._nodes[fact.node]
            node.started = True
            node.least_term = max(node.least_term, fact.role.term)
            if fact.role.term > node.term:
                node.term = fact.role.term
                node.peers.clear()
        elif isinstance(fact, Ended) and fact.operation.outcome == OK:
            self._ended(fact.operation)

    def _received(self, node: _Node, fact: Received) -> None:
        header, message = fact.header, fact.message
        if isinstance(message, peer.AppendEntries | peer.Heartbeat):
            # What a leader of an older term tells is not taken, nor is anything before the log is recovered. Where that
            # is not sure, nothing is demanded of it, and a lag may be counted from it.
            if node.started and header.term >= node.term:
                node.committed = max(node.committed, message.commit_index)
            if node.recovered and header.term >= node.least_term:
                node.heard(fact.at, node.committed)
                if node.started:
                    node.least_term = header.term
        elif isinstance(message, peer.AppendReply | peer.HeartbeatReply) and header.term == node.term:
            node.peers[header.sender] = fact.at
            needed = len(self._view.voters) // 2
            if len(node.peers) >= needed:
                node.heard(sorted(node.peers.values(), reverse=True)[needed - 1], node.own)
        # Only Raft's own messages bring a node into another term, and those of pre-votes do not either.
        if type(message) in RAFT_MESSAGES and not isinstance(
            message, peer.RequestPreVote | peer.PreVoteReply
        ):
            node.term = max(node.term, header.term)

    def _ended(self, operation: Operation) -> None:
        before = bisect_left(self._acknowledged_at, operation.invoked)
        if operation.kind == "get" and type(operation.level) is int:
            self._check(operation, operation.level, self._acknowledged[before - 1] if before else 0)
        self._acknowledged_at.append(operation.returned)
        self._acknowledged.append(max(operation.revision, self._acknowledged[-1] if before else 0))

    def _check(self, read: Operation, bound_ms: int, confirmed: int) -> None:
        lag_ms = read.result[-1]
        if not 0 <= lag_ms <= bound_ms:
            raise Violation(f"a lag of {lag_ms} ms is not within the bound: {read}")
        if len(self._view.voters) == 1:
            # It hears itself at any time, and nobody else acknowledges.
            self.demands.append(Demand(read, 0, confirmed))
            return
        node = self._nodes[read.node]
        heard_at = read.answered - lag_ms * MS
        # Both moments were read from a clock of whole milliseconds, which may run at another rate: then the lag is
        # wrong by its share of the true time.
        unsure = 2 * MS + lag_ms * MS * self._drift_ppm // (1_000_000 - self._drift_ppm)
        place = bisect_left(node.times, heard_at - unsure)
        if place < bisect_right(node.times, heard_at + unsure):
            self.heard += 1
            self.demands.append(Demand(read, node.known[place], confirmed if lag_ms == 0 else -1))
        elif lag_ms == 0:
            self.demands.append(Demand(read, 0, confirmed))
        else:
            raise Violation(f"node {read.node} heard no leader {lag_ms} ms before it answered: {read}")


def check_bounded(demands: Sequence[Demand], revisions: Sequence[int]) -> None:
    """`revisions[i]` is the store's revision when the log is applied up to index i."""
    for read, upto, revision in demands:
        wanted = revisions[upto] if upto else revision
        if revision >= 0:
            wanted = min(wanted, revision)
        if read.revision < wanted:
            raise Violation(f"the node had been told of revision {wanted}, and shows another: {read}")


def check_bounded_in_time(operations: Sequence[Operation], slack_us: int, drift_ppm: int = 0) -> int:
    """Whatever was acknowledged to anybody `slack_us` before the bound began is shown. Both are counted by clocks that
    may be wrong by `drift_ppm`. Returns how many reads had something to show."""
    answers = sorted((each.returned, each.revision) for each in operations if each.outcome == OK)
    times: list[int] = []
    highest: list[int] = []
    for returned, revision in answers:
        times.append(returned)
        highest.append(max(revision, highest[-1] if highest else 0))
    looked_at = 0
    for read in operations:
        if read.kind == "get" and read.outcome == OK and type(read.level) is int:
            bound_us = (read.level * MS + slack_us) * (1_000_000 + 2 * drift_ppm) // 1_000_000
            place = bisect_left(times, read.invoked - bound_us)
            looked_at += place > 0
            if place and read.revision < highest[place - 1]:
                raise Violation(
                    f"revision {highest[place - 1]} had been acknowledged {read.level} + {slack_us // MS} ms before: {read}"
                )
    return looked_at
