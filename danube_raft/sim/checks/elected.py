"""A leader has the votes of a majority, each on the disk of its voter (Raft paper, Figure 2 and §5.2; PITFALLS 2, 3, 20).

Two leaders of one term are seen only when both come about. That a leader had too few votes is seen with the first one:
votes counted twice, votes that were never given, a majority that is none. A vote is remembered from the moment at which
it is on disk, since the voter may be in a newer term by the time its candidate has counted it.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Fact, Synced, Told, Violation
from danube_raft.sim.checks.view import View


class Elected:
    """Remembers who has voted for whom in each term."""

    wants = (Synced, Told)

    def __init__(self, view: View) -> None:
        self._view = view
        self._voters: dict[tuple[int, int], set[int]] = {}

    def take(self, fact: Fact) -> None:
        """Whoever leads a term was elected in it."""
        if isinstance(fact, Synced):
            state = fact.write.hard_state
            if state is not None and state.vote:
                self._voters.setdefault((state.term, state.vote), set()).add(fact.node)
        elif isinstance(fact, Told) and fact.role.role == "leader":
            votes = len(self._voters.get((fact.role.term, fact.node), ()))
            if votes * 2 <= len(self._view.voters):
                raise Violation(
                    f"node {fact.node} leads term {fact.role.term} with the votes of {votes} of "
                    f"{len(self._view.voters)} disks"
                )
