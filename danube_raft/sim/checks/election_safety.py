"""Election safety: at most one leader can be elected in a given term (Raft paper, Figure 3 and §5.2).

A leader shows itself in three ways: it tells its kv-server, it sends AppendEntries, it sends heartbeats.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Fact, Sent, Told, Violation
from danube_raft.sim.checks.view import View
from danube_raft.wire import peer


class ElectionSafety:
    """Remembers who led each term."""

    wants = (Told, Sent)

    def __init__(self, _view: View) -> None:
        self.leaders: dict[int, int] = {}

    def take(self, fact: Fact) -> None:
        """Every sign of leadership names the one leader of its term."""
        if isinstance(fact, Told):
            if fact.role.role == "leader":
                self._leads(fact.role.term, fact.node)
            elif fact.role.leader_id:
                self._leads(fact.role.term, fact.role.leader_id)
        elif isinstance(fact, Sent) and isinstance(fact.message, peer.AppendEntries | peer.Heartbeat):
            self._leads(fact.header.term, fact.header.sender)

    def _leads(self, term: int, node: int) -> None:
        known = self.leaders.setdefault(term, node)
        if known != node:
            raise Violation(f"election safety: nodes {known} and {node} both lead term {term}")
