"""Who a node is, for one boot, and what it promised when its cluster was formed.

Made by the supervisor, given to the three processes. A node that belongs to a cluster gives no promise any more, but
repeats the one that it gave: its initialiser may not have heard the answer. How promises come about is in
`forming.py`, which the processes of a node do not load.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from danube_raft.wire import peer
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


def asked_for(header: peer.Header, message: peer.PrepareInit) -> Founding:
    """The promise that a PrepareInit asks for."""
    return Founding(message.cluster_id, header.sender, message.configuration, message.wall_ms)


def answer_prepare_init(
    identity: Identity, founding: Founding | None, header: peer.Header, message: peer.PrepareInit
) -> peer.PrepareInitReply:
    """What a node that belongs to a cluster answers: its promise holds, and it gives no other."""
    asked = asked_for(header, message)
    if founding == asked and identity.cluster_id == asked.cluster_id:
        return peer.PrepareInitReply(True, "", asked.cluster_id)
    reason = f"node {identity.node_id} belongs to cluster {identity.cluster_id} already"
    return peer.PrepareInitReply(False, reason, asked.cluster_id)
