"""Ids are handed out once, and grow (SEMANTICS, allocate_monotonic_id; PITFALLS 46).

No two blocks overlap, and a block that was asked for after another one was answered lies above it.
"""

from __future__ import annotations

from collections.abc import Sequence

from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.history import OK, Operation


def check_unique_ids(operations: Sequence[Operation]) -> None:
    """Looks at all blocks that were answered."""
    by_counter: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.kind == "allocate_id" and operation.outcome == OK:
            by_counter.setdefault(operation.key, []).append(operation)
    for blocks in by_counter.values():
        blocks.sort(key=lambda block: (block.result[0], block.args[1]))
        latest_invoked = 0
        last: Operation | None = None
        for block in blocks:
            if last is not None and last.result[0] + last.args[1] > block.result[0]:
                raise Violation(f"an id was handed out twice:\n{last}\n{block}")
            if block.returned < latest_invoked:
                raise Violation(f"a lower id was asked for after this was answered:\n{block}")
            latest_invoked = max(latest_invoked, block.invoked)
            last = block
