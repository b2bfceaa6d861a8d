"""Clients see only errors that they must see: what faults make unavoidable, and nothing that blames the request or the node.

All requests of the workload are right and small, so no answer may call them wrong; a node that must not go on says so to
nobody. The past, and so the next page of a listing, may be compacted (whether it is, see prefixes.py). `NotLeader` is for clients that know no other node: the store's own client asks on.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Ended, Fact, Filled, StartedReadOnly, Violation
from danube_raft.sim.checks.view import View

ALLOWED = {"NoConnection", "Uncertain", "Timeout", "NoLeader", "Overloaded"}
GROWING = ("put", "put_with_ttl", "compare_and_swap", "allocate_id")
"""What a nearly full disk lets nodes refuse."""
WRITES = (*GROWING, "delete", "delete_prefix")
"""What a node refuses that has started on a full one."""


class ExpectedErrors:
    """Looks at the error of every operation that had one."""

    wants = (Ended, Filled, StartedReadOnly)

    def __init__(self, _view: View) -> None:
        self._refusable: set[str] = set()

    def take(self, fact: Fact) -> None:
        """The error is one of the few."""
        if isinstance(fact, Filled):
            self._refusable.update(GROWING)
            return
        if isinstance(fact, StartedReadOnly):
            self._refusable.update(WRITES)
            return
        assert isinstance(fact, Ended)
        operation = fact.operation
        kind = operation.error.partition(":")[0]
        if kind == "Compacted" and operation.past is not None:
            return
        if kind == "NoSpace" and operation.kind in self._refusable:
            return
        if kind and kind not in ALLOWED:
            raise Violation(f"a client is told what it need not see: {operation}")
