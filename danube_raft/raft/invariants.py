"""What holds after every input, asserted in production too (INTERNALS §1).

    purged ≤ applied ≤ handed ≤ min(commit, durable) ≤ last

Term, commit and applied never shrink; the durable index shrinks only when the log is cut, or begins anew behind a snapshot.
"""

from __future__ import annotations

from danube_raft.raft.state import State


class Invariants:
    """Remembers the highest of what only grows."""

    __slots__ = ("_durable", "_seen")

    def __init__(self) -> None:
        self._seen = (0, 0, 0)
        self._durable = (0, 0)

    def check(self, state: State) -> None:
        """Raises AssertionError: going on would only spread the damage."""
        log, delivery = state.log, state.delivery
        commit, durable, applied = state.commit_index, state.writes.durable_index, delivery.applied_index
        assert log.purged_index <= applied <= delivery.handed_index <= commit <= log.last_index
        assert delivery.handed_index <= durable <= log.last_index
        seen = self._seen
        assert seen[0] <= state.term, "the term never shrinks"
        assert seen[1] <= commit, "the commit index never shrinks"
        assert seen[2] <= applied, "the applied index never shrinks"
        self._seen = (state.term, commit, applied)
        seen_durable = (log.truncations, durable)
        assert self._durable <= seen_durable, "the durable index shrinks only by truncation"
        self._durable = seen_durable
