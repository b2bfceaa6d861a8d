"""Whether this start of the node is its newest: what is applied may come from a later one.

The number of a start is in `boot_epoch.json`, and batches are told apart by it. Should that file be an old copy, the
batches of this start would be taken for those of an earlier one, and nobody would apply them. But whatever an earlier
start has got applied is in the log or in a snapshot, so a node sees it before it makes its first batch.
"""

from __future__ import annotations

from danube_raft.errors import Corrupt
from danube_raft.kv.machine import Machine


def check(machine: Machine, start: tuple[int, int], made: int) -> None:
    """`start`: node id and boot epoch; `made`: the number of the newest batch that this start has made, 0 for none.
    Raises Corrupt."""
    node_id, boot_epoch = start
    applied = machine.origins.get(node_id, (0, 0))
    if applied > (boot_epoch, made):
        raise Corrupt(
            f"boot_epoch.json is an old copy: it makes this start number {boot_epoch}, and a batch of start {applied[0]} "
            "is applied already; put the file back from a copy, or remove this node from the cluster, empty the directory "
            "and add it again"
        )
