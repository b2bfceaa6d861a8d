"""A leader commits by counting only an entry of its own term; older ones become committed with it (Raft paper, §5.4.2 and
Figure 8).

Looked at where a leader tells a commit index that nobody has told before: it has just moved it itself. What a node knew
to be committed when its role changed, it may tell again.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Fact, Sent, Told, Violation
from danube_raft.sim.checks.view import View
from danube_raft.wire import peer


class OwnTerm:
    """Remembers the highest commit index that was told."""

    wants = (Sent, Told)

    def __init__(self, view: View) -> None:
        self._view = view
        self._told = 0

    def take(self, fact: Fact) -> None:
        """A new commit index is that of an entry of the leader's term."""
        if isinstance(fact, Told):
            self._told = max(self._told, fact.role.commit_index)
        elif isinstance(fact, Sent) and isinstance(fact.message, peer.AppendEntries | peer.Heartbeat):
            index, header = fact.message.commit_index, fact.header
            if index <= self._told:
                return
            self._told = index
            term = self._view.replicas[header.sender].term_at(index)
            if term != header.term:
                raise Violation(
                    f"node {header.sender} leads term {header.term} and commits index {index} of term {term} by counting"
                )
