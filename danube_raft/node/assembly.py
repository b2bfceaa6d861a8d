"""Puts a process together: its handler and its endpoints, for processes over ipc and for threads over inproc.

One table says which edges exist and who binds them. The bound end of an edge is the one that hears first: consensus
waits for the log-writer's Recovered and for the kv-server's SnapshotsFound, the supervisor for everybody's Ready.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from danube_raft.config import Config
from danube_raft.node.endpoints import ClientPort, Endpoint, LocalEdge, PeerPort
from danube_raft.node.handler import CLIENTS, CONSENSUS, KV, LINKS, LOG, PEERS, SUPERVISOR, ProcessHandler
from danube_raft.node.identity import Identity
from danube_raft.wire.entry import Founding
from danube_raft.wire.local import Progress

PROCESSES = (LOG, CONSENSUS, KV)

RUN_DIR = "run"
"""Of the data directory: where the socket files are while the node runs."""
SNAPSHOTS_DIR = "snapshots"
"""Of the data directory: the kv-server's snapshots, and those that come from peers."""

_EDGES = ((CONSENSUS, LOG), (CONSENSUS, KV))
"""(who binds, who connects)."""

Address = Callable[[str, str], str]
"""Address of the edge between two processes."""


def ipc_address(boot_epoch: int) -> Address:
    """Socket files below `run/` of the current directory, which is the data directory: short paths, private mode."""
    return lambda one, other: f"ipc://{RUN_DIR}/{one}-{other}.{boot_epoch}"


def inproc_address(name: str) -> Address:
    """Within one context; `name` tells nodes apart."""
    return lambda one, other: f"inproc://{name}/{one}-{other}"


def wall_clock_ms() -> int:
    """For `created_at_ms` only."""
    return time.time_ns() // 1_000_000


def build(
    process: str,
    config: Config,
    identity: Identity,
    founding: Founding | None,
    context: zmq.Context[Any],
    address: Address,
    pid: int,
    endpoints: dict[str, Endpoint],
    own_process: bool,
    settled: Callable[[], None] = lambda: None,
    read_only: bool = False,
) -> ProcessHandler:
    """The handler of one process; its endpoints are put into `endpoints`, one by one, so that the caller can close
    them whatever happens. The edge to the supervisor is the first. `own_process`: it may be forked; a thread may not.
    `settled` is called when a whole state was loaded. `read_only`: the disk was found full. Raises PortInUse.
    """
    epoch = identity.boot_epoch
    counters: Counter[str] = Counter()
    endpoints[SUPERVISOR] = LocalEdge(context, address(SUPERVISOR, process), False, epoch)
    for binder, connector in _EDGES:
        if process == binder:
            endpoints[connector] = LocalEdge(context, address(binder, connector), True, epoch)
        elif process == connector:
            endpoints[binder] = LocalEdge(context, address(binder, connector), False, epoch)
    supervisor = endpoints[SUPERVISOR]

    def report() -> None:
        supervisor.send([Progress(0)])

    # Each process loads its own part only: the imports are most of what a start takes.
    if process == LOG:
        from danube_raft.node.log_writer import LogWriter  # noqa: PLC0415
        from danube_raft.node.snapshot_stage import SnapshotStage  # noqa: PLC0415
        from danube_raft.storage import durable_mark  # noqa: PLC0415
        from danube_raft.storage.disk_space import free_bytes  # noqa: PLC0415
        from danube_raft.storage.log_store import RocksLogStore  # noqa: PLC0415
        from danube_raft.storage.snapshots import Snapshots  # noqa: PLC0415

        data_dir = Path(config.data_dir)
        store = RocksLogStore(data_dir / "log", report)
        slots = durable_mark.MarkFile(data_dir / durable_mark.NAME)
        snapshots = Snapshots(data_dir / SNAPSHOTS_DIR, identity.cluster_id)
        stage = SnapshotStage(snapshots, identity.cluster_id, report)

        def room() -> int:
            return free_bytes(data_dir)

        return LogWriter(store, slots, stage, config, pid, time.perf_counter_ns, room, read_only)
    if process == CONSENSUS:
        from danube_raft.node.consensus import Consensus  # noqa: PLC0415
        from danube_raft.node.links import PeerLinks  # noqa: PLC0415

        endpoints[PEERS] = PeerPort(context, config, counters)
        endpoints[LINKS] = PeerLinks(context, counters)
        return Consensus(
            config, identity, founding, random.SystemRandom(), wall_clock_ms, counters, pid, read_only
        )
    endpoints[CLIENTS] = ClientPort(context, config, counters)
    return _kv_server(config, identity, counters, pid, report, own_process, settled, read_only)


def _kv_server(
    config: Config,
    identity: Identity,
    counters: Counter[str],
    pid: int,
    report: Callable[[], None],
    own_process: bool,
    settled: Callable[[], None],
    read_only: bool,
) -> ProcessHandler:
    from danube_raft.node.digest_jobs import ForkedDigest, SlicedDigest  # noqa: PLC0415
    from danube_raft.node.kv_server import KvServer  # noqa: PLC0415
    from danube_raft.node.snapshot_fork import ForkedSnapshot  # noqa: PLC0415
    from danube_raft.node.snapshot_jobs import SlicedSnapshot  # noqa: PLC0415
    from danube_raft.node.snapshot_shelf import Shelf  # noqa: PLC0415
    from danube_raft.storage.snapshots import Snapshots  # noqa: PLC0415

    snapshots = Snapshots(Path(config.data_dir) / SNAPSHOTS_DIR, identity.cluster_id)
    shelf = Shelf(snapshots, counters, report, settled, read_only)
    begin = ForkedSnapshot if own_process else SlicedSnapshot
    begin_digest = ForkedDigest if own_process else SlicedDigest
    return KvServer(config, identity, counters, pid, shelf, begin, time.perf_counter_ns, begin_digest)
