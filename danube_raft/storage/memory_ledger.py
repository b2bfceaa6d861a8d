"""What is durable while a cluster is formed, in memory: the twin of `DataDir` for tests and the simulator.

It has the same rules and the same assertions. It outlives the node that uses it, as a disk does. `at` is called with
the name of every change, before and after it is durable, and may raise to let the node die there.
"""

from __future__ import annotations

from collections.abc import Callable

from danube_raft.storage.data_dir import Identity
from danube_raft.wire.entry import Founding


class MemoryLedger:
    """The ledger of one node with a node id of its own."""

    def __init__(self, node_id: int, at: Callable[[str], None] = lambda _change: None) -> None:
        self._identity = Identity(node_id)
        self._founding: Founding | None = None
        self._at = at

    def identity(self) -> Identity:
        """Which node this is."""
        return self._identity

    def founding(self) -> Founding | None:
        """The last promise."""
        return self._founding

    def promise(self, founding: Founding) -> None:
        """Be bound to `founding` instead of any earlier promise."""
        assert self._identity.cluster_id == 0, "a node that belongs to a cluster promises nothing"
        self._at("before promise")
        self._founding = founding
        self._at("after promise")

    def join_cluster(self, cluster_id: int) -> Identity:
        """Belong to this cluster for good."""
        promise = self._founding
        assert promise is None or promise.cluster_id == cluster_id, (
            "a node joins the cluster that it promised to"
        )
        assert self._identity.cluster_id in (0, cluster_id), "a node never changes its cluster"
        self._at("before join")
        self._identity = self._identity._replace(cluster_id=cluster_id)
        self._at("after join")
        return self._identity
