"""Who a node is, for one boot, and what it promised when its cluster was formed. Made by the supervisor, given to the
three processes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from danube_raft.wire.entry import Founding


class Identity(NamedTuple):
    """Node id and cluster id for good, the boot epoch until the next start of the processes."""

    node_id: int
    cluster_id: int
    boot_epoch: int


def founding_to_json(founding: Founding | None) -> list[Any] | None:
    """For a child process."""
    if founding is None:
        return None
    cluster_id, initialiser, configuration, wall_ms = founding
    return [cluster_id, initialiser, configuration.hex(), wall_ms]


def founding_from_json(fields: list[Any] | None) -> Founding | None:
    """Reverse of `founding_to_json`."""
    if fields is None:
        return None
    cluster_id, initialiser, configuration, wall_ms = fields
    return Founding(cluster_id, initialiser, bytes.fromhex(configuration), wall_ms)
