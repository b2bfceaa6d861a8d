"""A committed entry lies durably on a majority when it is committed (Raft paper, §5.3; thesis §10.2.1), and from then on at
least on so many disks that no majority can be elected without one of them. A SUSPECT node elects nobody, and counts for
what it had acknowledged before its disk forgot.

A commit is seen when entries are handed to a state machine, and when a leader tells its commit index to a peer. Only the
first sighting of an index is looked at for the majority; afterwards, whenever a disk cuts its log, be it for a snapshot,
and whenever a node that was SUSPECT votes again.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Begun, Cleared, Delivered, Fact, Forgot, Sent, Synced, Violation
from danube_raft.sim.checks.view import View
from danube_raft.wire import peer


class QuorumDurability:
    """Counts disks at each new commit, at each cut, and whenever a node becomes SUSPECT or is it no more."""

    wants = (Begun, Cleared, Delivered, Forgot, Sent, Synced)

    def __init__(self, view: View) -> None:
        self._view = view
        self._commit = 0

    def take(self, fact: Fact) -> None:
        """A majority of the disks holds what is newly committed; enough of them what is cut from one."""
        if isinstance(fact, Delivered):
            for entry in fact.entries:
                self._committed(fact.node, entry.index, entry.term)
        elif isinstance(fact, Sent) and isinstance(fact.message, peer.AppendEntries | peer.Heartbeat):
            index = fact.message.commit_index
            if index > self._commit:
                term = self._view.replicas[fact.header.sender].term_at(index)
                self._committed(fact.header.sender, index, term)
        elif isinstance(fact, Synced) and fact.write.truncate_from:
            first = fact.write.truncate_from
            self._keeps(first, f"node {fact.node} cuts its log from {first} on")
        elif isinstance(fact, Begun) and fact.installed:
            self._keeps(fact.index + 1, f"node {fact.node} begins its log anew behind {fact.index}")
        elif isinstance(fact, Forgot):
            self._keeps(1, f"node {fact.node} is made to forget")
        elif isinstance(fact, Cleared):
            self._keeps(1, f"node {fact.node} is SUSPECT no more")

    def _keeps(self, first: int, what: str) -> None:
        view = self._view
        for entry in view.committed[first - 1 :]:
            if not view.is_safe(entry.index, entry.term):
                raise Violation(f"{what}, and too few disks are left with {entry}, which is committed")

    def _committed(self, node: int, index: int, term: int) -> None:
        if index <= self._commit:
            return
        self._commit = index
        holders = self._view.acked(index, term)
        if holders * 2 <= len(self._view.voters) or not self._view.is_safe(index, term):
            raise Violation(
                f"node {node} takes index {index} of term {term} for committed; {holders} of "
                f"{len(self._view.voters)} disks hold it"
            )
