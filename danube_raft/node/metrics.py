"""/metrics: what the processes told last, in Prometheus' text format, under the names that people know from etcd.

Nothing is counted here. Numbers that a process counts begin again with the process, as Prometheus expects; what a
process that is gone had told is gone with it, but whether there is a leader is always said. Memory and processor time are asked of the system when somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import psutil
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from danube_raft.node.handler import CONSENSUS, KV, LOG, SUPERVISOR
from danube_raft.node.histogram import BOUNDS_S
from danube_raft.node.view import NodeView

PREFIX = "danube_raft_"
CONTENT_TYPE = CONTENT_TYPE_LATEST

_GAUGES = {
    CONSENSUS: {
        "term": ("term", "Raft term of this node."),
        "last_index": ("last_index", "Last entry of this node's log."),
        "durable_index": ("durable_index", "Last entry that is on this node's disk."),
        "commit_index": ("commit_index", "Last entry that this node knows to be committed."),
        "low_space": ("low_space", "Whether this node's disk is nearly full."),
        "disk_free_bytes": ("disk_free_bytes", "Room on the disk of the data directory."),
    },
    KV: {
        "applied_index": ("applied_index", "Last entry that is in the state machine."),
        "revision": ("revision", "Revision of the store."),
        "compaction_revision": ("compaction_revision", "Revision up to which the history is compacted."),
        "proposals_pending": ("waiting_commands", "Commands of clients that wait here to be applied."),
        "reads_pending": ("waiting_reads", "Reads that wait here."),
        "watchers": ("watches", "Watches that this node feeds."),
        "keys": ("keys", "Keys in the store."),
        "leases": ("leases", "Leases in the store."),
        "sessions": ("sessions", "Client sessions in the store."),
        "history_events": ("history_events", "Events kept for watches and reads in the past."),
        "state_bytes": ("state_bytes", "Size of the state, as it counts against its limit."),
        "snapshot_index": ("snapshot_index", "Last entry that is in the newest snapshot of this node."),
        "snapshot_bytes": ("snapshot_bytes", "Size of the newest snapshot's file."),
        "digest_index": ("digest_index", "Index of the log of the last digest that was compared here."),
    },
}
"""By process: metric, name in its report, help."""

_HELPERS = {"snapshot": "snapshot_pid", "digest": "digest_pid"}
"""Children of the kv-server, by the field of its report; they share most of their memory with it."""

_COUNTERS = {
    CONSENSUS: {
        "leader_changes": ("leader_changes", "Leaders that this node has seen take over."),
        "proposals_committed": (
            "committed_entries",
            "Entries that were committed, also again after a start.",
        ),
    },
    KV: {
        "proposals_applied": ("applied_entries", "Entries that were applied, also again after a start."),
        "proposals_failed": (
            "failed_commands",
            "Commands of clients that were not applied by their deadline.",
        ),
        "snapshots_taken": ("snapshots_taken", "Snapshots that this node has made."),
        "snapshots_failed": (
            "snapshots_failed",
            "Snapshots that could not be made; the next attempt follows by itself.",
        ),
        "digests": ("digests_made", "Hashes of its state that this node has made."),
        "digests_failed": ("digests_failed", "Hashes of its state that could not be made."),
        "slow_requests": ("slow_requests", "Requests that took longer than slow_request_ms."),
    },
}

_HISTOGRAMS = {
    LOG: {"log_fsync_seconds": "Time of a synced write of the log, which many entries may share."},
    KV: {
        "apply_seconds": "Time to apply the entries that were committed together.",
        "snapshot_seconds": "Time to make a snapshot, from its moment to its durable file.",
    },
}


class NodeCollector(Collector):
    """Turns a view into metrics."""

    def __init__(self, view: NodeView, supervisor_pid: int) -> None:
        self._view = view
        self._supervisor_pid = supervisor_pid

    def collect(self) -> Iterable[Metric]:
        """All metrics as of now."""
        # One look: a restart in the middle must not mix two boots.
        reports = {process.name: process.report for process in self._view.processes}
        yield from self._leadership(reports.get(CONSENSUS, {}))
        yield from _digests(reports.get(KV, {}))
        for process, gauges in _GAUGES.items():
            report = reports.get(process, {})
            for name, (field, what) in gauges.items():
                if report.get(field) is not None:
                    yield GaugeMetricFamily(PREFIX + name, what, value=report[field])
        for process, counters in _COUNTERS.items():
            report = reports.get(process, {})
            for name, (field, what) in counters.items():
                if field in report:
                    yield CounterMetricFamily(PREFIX + name, what, value=report[field])
        for process, histograms in _HISTOGRAMS.items():
            report = reports.get(process, {})
            for name, what in histograms.items():
                if name in report:
                    yield _histogram(name, what, report[name])
        yield from _refusals(reports)
        yield from self._processes()

    def _leadership(self, report: dict[str, Any]) -> Iterator[Metric]:
        identity = self._view.identity
        node = InfoMetricFamily(PREFIX + "node", "Which node of which cluster this is, and its boot epoch.")
        node.add_metric([], {name: str(value) for name, value in identity._asdict().items()})
        yield node
        has_leader = int(bool(report.get("leader_id")))
        yield GaugeMetricFamily(PREFIX + "has_leader", "Whether this node knows a leader.", value=has_leader)
        is_leader = int(report.get("role") == "leader")
        yield GaugeMetricFamily(PREFIX + "is_leader", "Whether this node leads.", value=is_leader)
        suspect = int(bool(report.get("suspect")))
        yield GaugeMetricFamily(
            PREFIX + "suspect", "Whether this node's promises do not count.", value=suspect
        )
        lag = GaugeMetricFamily(
            PREFIX + "peer_lag_entries",
            "Entries by which a member is behind this node, the leader; nothing on others.",
            labels=["peer"],
        )
        for peer, entries in report.get("peer_lag_entries", {}).items():
            lag.add_metric([peer], entries)
        yield lag

    def _processes(self) -> Iterator[Metric]:
        restarts = "Times that the three processes were ended and started again."
        yield CounterMetricFamily(PREFIX + "restarts", restarts, value=self._view.restarts)
        up = GaugeMetricFamily(PREFIX + "process_up", "Whether the process serves.", labels=["process"])
        memory = GaugeMetricFamily(
            PREFIX + "process_resident_memory_bytes", "Resident memory of the process.", labels=["process"]
        )
        seconds = CounterMetricFamily(
            PREFIX + "process_cpu_seconds", "Processor time of the process.", labels=["process"]
        )
        known = {process.name: process for process in self._view.processes}
        for name in (LOG, CONSENSUS, KV):
            up.add_metric([name], int(name in known and known[name].ready))
        helpers = known[KV].report if KV in known else {}
        pids = {SUPERVISOR: self._supervisor_pid, **{name: view.pid for name, view in known.items()}}
        pids.update({name: helpers[field] for name, field in _HELPERS.items() if helpers.get(field)})
        for name, pid in pids.items():
            try:
                process = psutil.Process(pid)
                resident, times = process.memory_info().rss, process.cpu_times()
            except psutil.Error:
                continue
            memory.add_metric([name], resident)
            seconds.add_metric([name], times.user + times.system)
        yield from (up, memory, seconds)


def _histogram(name: str, what: str, found: dict[str, Any]) -> Metric:
    buckets, total = [], 0
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), found["counts"], strict=True):
        total += count
        buckets.append((bound, total))
    return HistogramMetricFamily(PREFIX + name, what, buckets=buckets, sum_value=found["sum_s"])


def _digests(report: dict[str, Any]) -> Iterator[Metric]:
    odd = "Whether this node's state is wrong: not that of a majority."
    yield GaugeMetricFamily(PREFIX + "digest_odd", odd, value=int(bool(report.get("odd"))))
    differs = "Whether states of other nodes were not as they should be at the last digest."
    yield GaugeMetricFamily(
        PREFIX + "digest_differs", differs, value=int(bool(report.get("digest_difference")))
    )


def _refusals(reports: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    family = CounterMetricFamily(
        PREFIX + "refused",
        "Messages that were refused or dropped, by kind as in the counters of `node status`.",
        labels=["kind"],
    )
    for report in reports.values():
        for kind, count in report.get("counters", {}).items():
            family.add_metric([kind], count)
    yield family


def text(view: NodeView, supervisor_pid: int) -> bytes:
    """The page. Only of this node: the library's own metrics of the supervisor's interpreter are left out."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(view, supervisor_pid))
    return generate_latest(registry)
