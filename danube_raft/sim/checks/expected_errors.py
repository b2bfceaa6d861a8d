"""Clients see only errors that they must see: what faults make unavoidable, and nothing that blames the request or the node.

All requests of the workload are right and small, so no answer may call them wrong; a node that must not go on says so to
nobody. The past, and so the next page of a listing, may be compacted (whether it is, see prefixes.py). `NotLeader` is for clients that know no other node: the store's own client asks on.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Ended, Fact, Filled, Violation
from danube_raft.sim.checks.view import View

ALLOWED = {"NoConnection", "Uncertain", "Timeout", "NoLeader", "Overloaded"}
GROWING = ("put", "put_with_ttl", "compare_and_swap", "allocate_id")
"""What a nearly full disk lets nodes refuse."""


class ExpectedErrors:
    """Looks at the error of every operation that had one."""

    wants = (Ended, Filled)

    def __init__(self, _view: View) -> None:
        self._filled = False

    def take(self, fact: Fact) -> None:
        """The error is one of the few."""
        if isinstance(fact, Filled):
            self._filled = True
            return
        assert isinstance(fact, Ended)
        operation = fact.operation
        kind = operation.error.partition(":")[0]
        if kind == "Compacted" and operation.past is not None:
            return
        if kind == "NoSpace" and self._filled and operation.kind in GROWING:
            return
        if kind and kind not in ALLOWED:
            raise Violation(f"a client is told what it need not see: {operation}")
