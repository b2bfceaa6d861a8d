"""Log matching: two logs with an entry of the same index and term are identical up to it (Raft paper, §5.3).

Checked by the paper's own induction: wherever an entry (index, term) stands, its content and the term of the entry
before it are the same. What is handed to a state machine is what stands there. Stamps never go back along a log (INTERNALS §7).
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Delivered, Fact, Issued, Violation
from danube_raft.sim.checks.view import View
from danube_raft.wire.entry import Entry


class LogMatching:
    """Remembers every entry that ever stood in a log, with the term of its predecessor."""

    wants = (Delivered, Issued)

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[tuple[int, int], tuple[Entry, int]] = {}

    def take(self, fact: Fact) -> None:
        """Compare what is new in a log, or handed on from one, with what stood there elsewhere."""
        if isinstance(fact, Delivered):
            self._delivered(fact)
            return
        assert isinstance(fact, Issued)
        replica = self._view.replicas[fact.node]
        for entry in fact.write.entries:
            before = replica.term_at(entry.index - 1)
            known = self._known.setdefault((entry.index, entry.term), (entry, before))
            if known != (entry, before):
                raise Violation(
                    f"log matching: node {fact.node} has {entry} after term {before}, elsewhere it is {known}"
                )
            if entry.index > 1:
                previous = self._known.get((entry.index - 1, before))
                if previous is not None and previous[0].stamp_ms > entry.stamp_ms:
                    raise Violation(f"cluster time goes back from {previous[0]} to {entry}")

    def _delivered(self, fact: Delivered) -> None:
        for entry in fact.entries:
            known = self._known.get((entry.index, entry.term))
            if known is None or known[0] != entry:
                raise Violation(f"log matching: node {fact.node} hands on {entry}, in the logs it is {known}")
