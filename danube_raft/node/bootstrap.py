"""From a data directory to a node that knows who it is and which cluster it belongs to.

A node without seeds is a cluster of its own: it takes a random node id and a random cluster id before it starts for
the first time, and consensus writes the first configuration into the empty log. A node with seeds goes through the
forming phase (`forming.py`) first, here, before any of its processes starts. Every step can be cut short at any point
and is then simply done again at the next start.

Once a node belongs to a cluster, what is on disk counts and seeds are not asked any more.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from danube_raft.config import Config
from danube_raft.errors import ConfigInvalid
from danube_raft.node.forming import Forming
from danube_raft.node.identity import Identity
from danube_raft.node.loop import Loop
from danube_raft.node.questions import forming_endpoints
from danube_raft.storage.data_dir import NODE_ID_LIMIT, DataDir
from danube_raft.wire.entry import unpack_configuration

ORPHANS_WAIT_MS = 3_000
"""How long a start waits for processes of a node whose supervisor was killed."""

log = logging.getLogger("danube_raft.bootstrap")


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
        data_dir.load_or_create_identity(secrets.randbelow)
        yield data_dir
    finally:
        data_dir.release()


def belongs(config: Config, data_dir: DataDir, stop_descriptors: tuple[int, ...]) -> bool:
    """Wait until the node belongs to a cluster; False if one of `stop_descriptors` became readable or closed before.

    Raises PortInUse, ConfigInvalid, and what the data directory raises.
    """
    found = data_dir.identity()
    assert found is not None, "the directory has an identity as long as it is held"
    if found.cluster_id:
        _say_what_counts(config, data_dir, found.node_id, found.cluster_id)
        return True
    if config.seed_nodes:
        return _form(config, data_dir, stop_descriptors)
    promise = data_dir.founding()
    if promise is not None:
        raise ConfigInvalid(
            f"seed_nodes is not set, but node {found.node_id} has promised to join cluster {promise.cluster_id}: start "
            f"it with its seed_nodes, or empty data_dir = {str(data_dir.path)!r}"
        )
    data_dir.join_cluster(1 + secrets.randbelow(NODE_ID_LIMIT - 1))
    return True


def _form(config: Config, data_dir: DataDir, stop_descriptors: tuple[int, ...]) -> bool:
    handler = Forming(config, data_dir, secrets.randbelow, lambda: time.time_ns() // 1_000_000)
    with forming_endpoints(config) as endpoints:
        Loop("forming", os.getpid(), handler, endpoints, config, stop_descriptors).run()
    return handler.done


def _say_what_counts(config: Config, data_dir: DataDir, node_id: int, cluster_id: int) -> None:
    """Seeds and addresses that no longer mean anything may be a mistake."""
    founding = data_dir.founding()
    seeds = ",".join(config.seed_nodes)
    if founding is None:
        if not seeds:
            return
        log.warning(
            "this node belongs to cluster %d, of which it was the first node: its seed nodes %s are not asked. To form "
            "a cluster with them, start it with an empty data_dir",
            cluster_id,
            seeds,
        )
        return
    members = unpack_configuration(founding.configuration).members
    for member in members:
        known = (member.raft_addr, member.client_addr)
        if member.node_id == node_id and known != (config.raft_address, config.client_address):
            log.warning(
                "the others know this node at %s and its clients at %s, not at %s and %s: they will not reach it there",
                *known,
                config.raft_address,
                config.client_address,
            )
    if not config.seed_nodes:
        return
    if {member.raft_addr for member in members} != set(config.seed_nodes):
        log.info("this node belongs to cluster %d: its seed nodes %s are not asked again", cluster_id, seeds)


def next_boot(data_dir: DataDir) -> Identity:
    """Who the node is for its next boot epoch, which is durable on return."""
    found = data_dir.identity()
    assert found is not None, "the directory has an identity as long as it is held"
    assert found.cluster_id, "the processes start once the node belongs to a cluster"
    return Identity(found.node_id, found.cluster_id, data_dir.next_boot_epoch())
