"""From a data directory to a node that knows who it is.

A node without seeds is a cluster of its own: it takes a random node id and a random cluster id before it starts for
the first time, and consensus writes the first configuration into the empty log. Both steps can be cut short at any
point and are then simply done again at the next start.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from danube_raft.config import Config
from danube_raft.node.identity import Identity
from danube_raft.storage.data_dir import NODE_ID_LIMIT, DataDir

ORPHANS_WAIT_MS = 3_000
"""How long a start waits for processes of a node whose supervisor was killed."""


@contextmanager
def held_data_dir(config: Config, inheritable: bool) -> Iterator[DataDir]:
    """The node's data directory, locked, with an identity. Raises what makes it unusable.

    `inheritable`: child processes may hold the lock as well.
    """
    data_dir = DataDir(config.data_dir)
    data_dir.acquire(
        config.raft_address, config.client_address, wait_ms=ORPHANS_WAIT_MS, inheritable=inheritable
    )
    try:
        if data_dir.load_or_create_identity(secrets.randbelow).cluster_id == 0:
            data_dir.join_cluster(1 + secrets.randbelow(NODE_ID_LIMIT - 1))
        yield data_dir
    finally:
        data_dir.release()


def next_boot(data_dir: DataDir) -> Identity:
    """Who the node is for its next boot epoch, which is durable on return."""
    found = data_dir.identity()
    assert found is not None, "the directory has an identity as long as it is held"
    return Identity(found.node_id, found.cluster_id, data_dir.next_boot_epoch())
