"""Leader completeness: a committed entry is in the logs of the leaders of all later terms (Raft paper, §5.4).

Looked at when somebody starts to lead. One that wins its term when a later one already has a leader may lack what
that one has committed, so only the newest term counts. With log matching the last committed entry speaks for all.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Fact, Told, Violation
from danube_raft.sim.checks.view import View


class LeaderCompleteness:
    """Looks at new leaders."""

    wants = (Told,)

    def __init__(self, view: View) -> None:
        self._view = view
        self._newest = 0
        self.elections = 0

    def take(self, fact: Fact) -> None:
        """The new leader of the newest term has all that is committed."""
        assert isinstance(fact, Told)
        if fact.role.role != "leader" or fact.role.term <= self._newest:
            return
        self._newest = fact.role.term
        self.elections += 1
        committed = self._view.committed
        if committed and self._view.replicas[fact.node].term_at(committed[-1].index) != committed[-1].term:
            raise Violation(
                f"leader completeness: node {fact.node} leads term {fact.role.term} without {committed[-1]}"
            )
