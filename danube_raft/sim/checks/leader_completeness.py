"""Leader completeness: a committed entry is in the logs of the leaders of all later terms (Raft paper, §5.4).

Looked at when somebody starts to lead. One that wins its term when a later one already has a leader may lack what
that one has committed, so only the newest term counts. With log matching the last committed entry speaks for all; it
counts from the moment at which it is handed to a state machine, or a leader tells anybody that it is committed.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Delivered, Fact, Sent, Told, Violation
from danube_raft.sim.checks.view import View
from danube_raft.wire import peer


class LeaderCompleteness:
    """Looks at new leaders."""

    wants = (Delivered, Sent, Told)

    def __init__(self, view: View) -> None:
        self._view = view
        self._newest = 0
        self._committed = (0, 0)
        """(index, term) of the last entry that is committed."""
        self.elections = 0

    def take(self, fact: Fact) -> None:
        """The new leader of the newest term has all that is committed."""
        if isinstance(fact, Delivered):
            self._commit(fact.entries[-1].index, fact.entries[-1].term)
        elif isinstance(fact, Sent):
            if isinstance(fact.message, peer.AppendEntries | peer.Heartbeat):
                index = fact.message.commit_index
                if index > self._committed[0]:
                    self._commit(index, self._view.replicas[fact.header.sender].term_at(index))
        elif isinstance(fact, Told) and fact.role.role == "leader" and fact.role.term > self._newest:
            self._leads(fact.node, fact.role.term)

    def _commit(self, index: int, term: int) -> None:
        self._committed = max(self._committed, (index, term))

    def _leads(self, node: int, term: int) -> None:
        self._newest = term
        self.elections += 1
        index, of_term = self._committed
        if index and self._view.replicas[node].term_at(index) != of_term:
            raise Violation(
                f"leader completeness: node {node} leads term {term} without index {index} of term {of_term}"
            )
