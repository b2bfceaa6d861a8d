"""Who a node is, for one boot. Made by the supervisor, given to the three processes."""

from __future__ import annotations

from typing import NamedTuple


class Identity(NamedTuple):
    """Node id and cluster id for good, the boot epoch until the next start of the processes."""

    node_id: int
    cluster_id: int
    boot_epoch: int
