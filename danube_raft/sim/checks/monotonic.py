"""What only grows: term, and one vote per term, across crashes (Raft paper, Figure 2 and §5.1, §5.2); commit and
applied index within a boot (Figure 2, volatile state).

The disk is asked, and every message that leaves: a node that forgot its term or its vote would contradict itself, and a
leader tells its commit index with all that it sends.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Applied, Booted, Fact, Forgot, Sent, Synced, Told, Violation
from danube_raft.sim.checks.view import View
from danube_raft.wire import peer


class Monotonic:
    """Remembers the highest of everything, and every vote."""

    wants = (Applied, Booted, Forgot, Sent, Synced, Told)

    def __init__(self, view: View) -> None:
        self._view = view
        self._stored: dict[int, tuple[int, int]] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._boot: dict[int, int] = {}
        self._terms: dict[int, int] = {}
        self._commits: dict[int, int] = {}
        self._commits_sent: dict[int, int] = {}
        """By node; in all terms of one boot, for the index is the node's and not the leader's."""
        self._applied: dict[int, int] = {}

    def take(self, fact: Fact) -> None:
        """Nothing goes back."""
        if isinstance(fact, Applied):
            self._grow(self._applied, "applied index", fact.node, fact.upto)
            if fact.upto > self._view.replicas[fact.node].handed:
                raise Violation(f"node {fact.node} has applied {fact.upto}, which it was not handed")
        elif isinstance(fact, Told):
            self._grow(self._terms, "term", fact.node, fact.role.term)
            self._grow(self._commits, "commit index", fact.node, fact.role.commit_index)
            if fact.role.commit_index > len(self._view.replicas[fact.node].log):
                raise Violation(
                    f"node {fact.node} takes index {fact.role.commit_index} for committed, past its log"
                )
        elif isinstance(fact, Sent):
            self._sent(fact)
        elif isinstance(fact, Synced):
            self._synced(fact)
        elif isinstance(fact, Forgot):
            self._stored[fact.node] = fact.promised
        elif isinstance(fact, Booted):
            self._grow(self._boot, "boot epoch", fact.node, fact.boot)
            self._terms[fact.node] = self._stored.get(fact.node, (0, 0))[0]
            self._commits[fact.node] = self._commits_sent[fact.node] = self._applied[fact.node] = 0

    def _synced(self, fact: Synced) -> None:
        if fact.write.hard_state is None:
            return
        term, vote = fact.write.hard_state
        old_term, old_vote = self._stored.get(fact.node, (0, 0))
        if term < old_term or (term == old_term and old_vote not in (0, vote)):
            raise Violation(
                f"node {fact.node} replaces (term, vote) {(old_term, old_vote)} by {(term, vote)} on disk"
            )
        self._stored[fact.node] = (term, vote)

    def _sent(self, fact: Sent) -> None:
        header, message = fact
        if isinstance(message, peer.AppendEntries | peer.Heartbeat):
            self._grow(self._commits_sent, "commit index sent", header.sender, message.commit_index)
            return
        if isinstance(message, peer.RequestVote):
            voted_for = header.sender
        elif isinstance(message, peer.VoteReply) and message.granted:
            voted_for = header.receiver
        else:
            return
        known = self._votes.setdefault((header.sender, header.term), voted_for)
        if known != voted_for:
            raise Violation(f"node {header.sender} votes for {known} and {voted_for} in term {header.term}")

    @staticmethod
    def _grow(highest: dict[int, int], what: str, node: int, value: int) -> None:
        if value < highest.get(node, 0):
            raise Violation(f"{what} of node {node} goes back from {highest[node]} to {value}")
        highest[node] = value
