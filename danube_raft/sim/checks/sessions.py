"""What a client sees never goes back (SEMANTICS, read level "session"; monotonic reads and read-your-writes of Terry et
al., "Session Guarantees for Weakly Consistent Replicated Data", 1994).

A session or linearizable answer shows a revision that is no lower than any that its program had been shown when it asked:
in the answer to anything, a write or a read of whatever level and past, or by a watch of the same session.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Ended, Fact, Violation
from danube_raft.sim.checks.view import View
from danube_raft.sim.history import OK, Operation
from danube_raft.wire.client import LINEARIZABLE, SESSION


class SessionReads:
    """Looks at every read that was answered."""

    wants = (Ended,)

    def __init__(self, _view: View) -> None:
        self.reads = 0

    def take(self, fact: Fact) -> None:
        """The revision of the answer is not below what was seen before."""
        assert isinstance(fact, Ended)
        read = fact.operation
        if read.outcome != OK or read.level not in (None, SESSION, LINEARIZABLE) or not _chooses(read):
            return
        self.reads += 1
        shown = read.result[2] if read.kind == "range" else read.revision
        if shown < read.seen_before:
            raise Violation(f"a client that has seen revision {read.seen_before} is taken back: {read}")


def _chooses(read: Operation) -> bool:
    """Whether the revision that it shows was chosen for it: no past, and no later page, which shows that of the first."""
    return read.kind == "get" or (read.kind == "range" and read.past is None)
