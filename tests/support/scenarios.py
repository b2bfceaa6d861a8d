"""The scenarios of `scripts/bench`: each starts real nodes, fills them, and yields what it measured."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil
from pipe import Pipe
from real_cluster import ClusterNode, RealCluster
from real_node import RealNode, until

MIB = 1 << 20
LONG_S = 300.0
LOOK_S = 0.05
CALM_S = 3.0
NEVER_BYTES = 1 << 40


class Scale(NamedTuple):
    """How much of the whole is done."""

    share: float

    def of(self, count: int) -> int:
        """That share of it."""
        return max(1, round(count * self.share))


class Measure(NamedTuple):
    """A number that is to stay below its target; no target: only told."""

    what: str
    value: float
    unit: str
    target: float | None = None

    @property
    def reached(self) -> bool:
        """Whether it is."""
        return self.target is None or self.value < self.target

    def __str__(self) -> str:
        said = f"{self.what}: {self.value:,.1f} {self.unit}"
        if self.target is None:
            return said
        return f"{said} (target below {self.target:,.0f}){'' if self.reached else ' MISSED'}"


class Highest:
    """Looks at a number again and again, in a thread, and keeps the highest."""

    def __init__(self, read: Callable[[], float]) -> None:
        self.value = 0.0
        self._read = read
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            self.value = max(self.value, self._read())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def directory_bytes(path: Path) -> int:
    """What the files below take on the disk."""
    size = 0
    for each in path.rglob("*"):
        try:
            if each.is_file():
                size += each.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return size


def snapshot_files(node: RealNode) -> list[Path]:
    """The finished ones, the newest last."""
    return sorted((node.data_dir / "snapshots").glob("*.snap"))


def _rss(process: psutil.Process | None) -> float:
    try:
        return 0.0 if process is None else process.memory_info().rss / MIB
    except psutil.NoSuchProcess:
        return 0.0


def _child_rss(node: RealNode) -> float:
    """Of the process that writes a snapshot, a child of the kv-server."""
    server = node.child("kv-server")
    try:
        children = [] if server is None else server.children()
    except psutil.NoSuchProcess:
        return 0.0
    return sum(_rss(child) for child in children)


def _filled(keys: int, value_bytes: int, prefix: str = "/topics/default/t") -> Iterator[tuple[str, bytes]]:
    value = b"v" * value_bytes
    return ((f"{prefix}{number}", value) for number in range(keys))


def a_million_keys(directory: Path, scale: Scale) -> Iterator[Measure]:
    """a million keys of 256 bytes on one node: size, latency while a snapshot is written, restart"""
    keys = scale.of(1_000_000)
    # No snapshot but the one that is asked for.
    node = RealNode(directory / "n0", snapshot_log_bytes=NEVER_BYTES, slow_request_ms=0)
    with node:
        with Pipe(node.endpoint) as pipe:
            began = time.monotonic()
            pipe.write(_filled(keys, 256))
            yield Measure("filled", keys / (time.monotonic() - began), "puts/s")
        yield Measure("kv-server's memory", _rss(node.child("kv-server")), "MiB", 1_200)
        yield from _paced(node, keys)
        yield Measure("kv-server's memory after the snapshot", _rss(node.child("kv-server")), "MiB", 1_200)
        node.stop()
        began = time.monotonic()
        node.start()
        with node.store(timeout_ms=60_000) as store:
            store.get("/topics/default/t0")
            yield Measure("restart to the first read", time.monotonic() - began, "s", 15)
        yield Measure("kv-server's memory after the restart", _rss(node.child("kv-server")), "MiB", 1_200)


def _paced(node: RealNode, keys: int) -> Iterator[Measure]:
    """5,000 puts/s until a snapshot is whole."""
    before = len(snapshot_files(node))
    fresh = itertools.cycle(_filled(min(keys, 10_000), 256))
    calm_until = time.monotonic() + CALM_S
    with Pipe(node.endpoint) as pipe, Highest(lambda: _child_rss(node)) as child:
        pipe.pace(fresh, 5_000, lambda: time.monotonic() > calm_until)
        calm = sorted(pipe.latencies)
        pipe.latencies.clear()
        deadline = time.monotonic() + LONG_S
        began = time.monotonic()
        with node.store() as store:
            store.snapshot_take()
        pipe.pace(fresh, 5_000, lambda: len(snapshot_files(node)) > before or time.monotonic() > deadline)
        took = time.monotonic() - began
    assert len(snapshot_files(node)) > before, "no snapshot was written"
    latencies = sorted(pipe.latencies)
    yield Measure("worst write before", calm[-1] * 1e3, "ms")
    yield Measure("until the snapshot was there", took, "s")
    yield Measure("worst write meanwhile", latencies[-1] * 1e3, "ms", 300)
    yield Measure("99.9 % of writes meanwhile", latencies[-len(latencies) // 1_000 - 1] * 1e3, "ms")
    yield Measure("memory of the process that wrote it", child.value, "MiB")
    yield Measure("the file", snapshot_files(node)[-1].stat().st_size / 1e6, "MB", 450)


def endless_overwrites(directory: Path, scale: Scale) -> Iterator[Measure]:
    """10 million puts of 256 bytes to 1,000 keys, three nodes: the data directories"""
    puts = scale.of(10_000_000)
    with RealCluster(directory, slow_request_ms=0, log_level="warning") as cluster:
        leader = cluster.await_leader()
        largest = [Highest(lambda node=node: directory_bytes(node.data_dir) / 1e6) for node in cluster.nodes]  # type: ignore[misc]
        for each in largest:
            each.__enter__()
        began = time.monotonic()
        with Pipe(leader.endpoint) as pipe:
            pipe.write(itertools.islice(itertools.cycle(_filled(1_000, 256)), puts))
        took = time.monotonic() - began
        for each in largest:
            each.__exit__()
        yield Measure("rate", puts / took, "puts/s")
        for node, each in zip(cluster.nodes, largest, strict=True):
            yield Measure(f"data directory of {node.name} at most", each.value, "MB", 400)


def a_lagging_node(directory: Path, scale: Scale) -> Iterator[Measure]:
    """a state of 200 MB reaches a node that was away, as one snapshot, while writes go on"""
    keys = scale.of(200_000)
    with RealCluster(directory, slow_request_ms=0, snapshot_rest_max_ms=2_000) as cluster:
        leader = cluster.await_leader()
        away = cluster.follower()
        away.kill_all()
        with Pipe(leader.endpoint) as pipe:
            pipe.write(_filled(keys, 1_000))
            whole = _status(cluster, leader)["applied_index"]
            with leader.store() as store:
                store.snapshot_take()
            until(lambda: _status(cluster, leader)["snapshot_index"] >= whole, "a snapshot of all", LONG_S)
            pipe.latencies.clear()
            # Not `restart`: it is ready only when it has caught up, and that is what is measured.
            began = time.monotonic()
            away.spawn()
            asked = _status(cluster, leader)["commit_index"]
            # Not from the thread that writes: a node that does not answer yet would hold the writes up.
            with Highest(lambda: _applied(cluster, away)) as applied:
                pipe.pace(
                    itertools.cycle(_filled(1_000, 1_000)),
                    1_000,
                    lambda: applied.value >= asked or time.monotonic() > began + LONG_S,
                )
                took = time.monotonic() - began
        assert applied.value >= asked, "it never caught up"
        away.await_ready()
        yield Measure("until it had caught up, from its start on", took, "s")
        yield Measure("worst write meanwhile", max(pipe.latencies) * 1e3, "ms")
        yield Measure("its snapshot", snapshot_files(away)[-1].stat().st_size / 1e6, "MB")


def _status(cluster: RealCluster, node: ClusterNode) -> dict[str, Any]:
    status: dict[str, Any] = until(lambda: cluster.status(node), f"the status of {node.name}")
    return status


def _applied(cluster: RealCluster, node: ClusterNode) -> int:
    status = cluster.status(node)
    return 0 if status is None else int(status["applied_index"])


SCENARIOS: dict[str, Callable[[Path, Scale], Iterator[Measure]]] = {
    "million": a_million_keys,
    "overwrites": endless_overwrites,
    "lagging": a_lagging_node,
}
