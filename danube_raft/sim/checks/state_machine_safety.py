"""State machine safety: an index is applied with one entry, on every node, for ever (Raft paper, Figure 3, §5.4.3).

So committed entries never change either. Within a boot they come in order, without a gap, each once, and never before
they are durable on the node itself (`handed ≤ min(commit, durable)`, INTERNALS §1). They begin behind
what was purged, or behind the snapshot that the state machine is told to load.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Delivered, Fact, Violation
from danube_raft.sim.checks.view import View


class StateMachineSafety:
    """Compares every entry that is handed to a state machine with the first of its index."""

    wants = (Delivered,)

    def __init__(self, view: View) -> None:
        self._view = view

    def take(self, fact: Fact) -> None:
        """The same entries everywhere, in order."""
        assert isinstance(fact, Delivered)
        replica, committed = self._view.replicas[fact.node], self._view.committed
        expected = replica.delivered or replica.purged
        if fact.entries[0].index == replica.handed + 1:
            expected = replica.handed
        for entry in fact.entries:
            expected += 1
            if entry.index != expected:
                raise Violation(f"node {fact.node} is handed index {entry.index} instead of {expected}")
            if entry.index <= len(committed) and committed[entry.index - 1] != entry:
                raise Violation(
                    f"state machine safety: node {fact.node} applies {entry}, others {committed[entry.index - 1]}"
                )
            if replica.durable_term_at(entry.index) != entry.term:
                raise Violation(f"node {fact.node} applies {entry}, which is not on its own disk")
