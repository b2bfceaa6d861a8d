"""Metrics: the names that people know, parsed as Prometheus would, from the reports of the real handlers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from stepped import SteppedNode

from danube_raft.node.handler import CONSENSUS, KV, LOG, ProcessHandler
from danube_raft.node.histogram import BOUNDS_S, Histogram
from danube_raft.node.identity import Identity
from danube_raft.node.metrics import text
from danube_raft.node.view import NodeView, ProcessView
from danube_raft.wire import local

KNOWN = {
    "has_leader", "is_leader", "leader_changes_total", "term", "commit_index", "applied_index", "proposals_pending",
    "proposals_committed_total", "proposals_applied_total", "proposals_failed_total", "log_fsync_seconds_bucket",
    "log_fsync_seconds_sum", "log_fsync_seconds_count", "apply_seconds_bucket", "apply_seconds_sum",
    "apply_seconds_count", "snapshot_seconds_bucket", "snapshot_seconds_sum", "snapshot_seconds_count",
    "snapshot_index", "snapshot_bytes", "snapshots_taken_total", "snapshots_failed_total", "watchers", "keys", "restarts_total",
}  # fmt: skip


class Watched:
    """A stepped node, and a view that is told its reports as the supervisor would be."""

    def __init__(self) -> None:
        self.node = SteppedNode()
        self.view = NodeView()
        pid = os.getpid()
        self.processes = [ProcessView(name, pid, 5_000, 0) for name in (LOG, CONSENSUS, KV)]
        self.view.started(Identity(1, 77, 1), tuple(self.processes))

    def tell(self) -> None:
        """Through the bytes of a Status, in which not everything can be told."""
        handlers: tuple[ProcessHandler, ...] = (self.node.log, self.node.consensus, self.node.kv)
        for process, handler in zip(self.processes, handlers, strict=True):
            frame = local.pack(1, local.Status(handler.report(self.node.now)))
            ((_, status),) = local.unpack(frame)
            assert isinstance(status, local.Status)
            process.report, process.ready = status.status, True

    def samples(self) -> dict[str, float]:
        return {name: value for name, labels, value in self.labelled() if not labels}

    def labelled(self) -> list[tuple[str, dict[str, str], float]]:
        page = text(self.view, os.getpid()).decode()
        found: list[tuple[str, dict[str, str], float]] = []
        for family in text_string_to_metric_families(page):
            assert family.documentation
            assert family.type in ("gauge", "counter", "histogram")
            for sample in family.samples:
                assert sample.name.startswith("danube_raft_")
                found.append((sample.name.removeprefix("danube_raft_"), sample.labels, sample.value))
        return found


@pytest.fixture
def watched() -> Iterator[Watched]:
    found = Watched()
    yield found
    found.view.close()


def test_every_known_name_is_there(watched: Watched) -> None:
    watched.tell()
    assert {name for name, _, _ in watched.labelled()} >= KNOWN


def test_the_numbers_are_those_of_the_node(watched: Watched) -> None:
    node = watched.node
    for number in range(3):
        assert node.ask("put", f"/k{number}", b"v")[0] == 0
    node.send("watch", "/k")
    node.settle()
    node.paused.add(LOG)
    node.send("put", "/later", b"v")
    node.settle()
    watched.tell()
    found = watched.samples()
    status = node.consensus.status(node.now)
    assert (
        found["has_leader"] == found["is_leader"] == found["leader_changes_total"] == found["watchers"] == 1
    )
    assert found["term"] == status["term"]
    assert found["commit_index"] == found["applied_index"] == status["commit_index"]
    assert found["last_index"] == status["commit_index"] + 1
    assert found["proposals_committed_total"] == found["proposals_applied_total"] == status["commit_index"]
    assert (found["proposals_pending"], found["keys"]) == (1, 3)
    assert found["proposals_failed_total"] == 0
    node.advance(5_000)
    watched.tell()
    assert watched.samples()["proposals_failed_total"] == 1


def test_a_wrong_state_and_a_difference_are_told(watched: Watched) -> None:
    watched.tell()
    found = watched.samples()
    assert (found["digest_odd"], found["digest_differs"], found["digests_total"]) == (0, 0, 0)
    kv = watched.view.processes[[each.name for each in watched.view.processes].index(KV)]
    kv.report |= {"odd": "it is", "digest_difference": "they do", "digests_made": 3, "digest_index": 9}
    found = watched.samples()
    assert (found["digest_odd"], found["digest_differs"], found["digests_total"]) == (1, 1, 3)
    assert found["digest_index"] == 9


def test_each_sync_and_each_group_of_commits_is_one_observation(watched: Watched) -> None:
    watched.tell()
    before = watched.samples()
    watched.node.ask("put", "/k", b"v")
    watched.tell()
    after = watched.samples()
    for name in ("log_fsync_seconds_count", "apply_seconds_count"):
        assert after[name] == before[name] + 1, name


def test_what_a_process_that_is_gone_had_told_is_gone_with_it(watched: Watched) -> None:
    watched.tell()
    watched.view.ended("it broke")
    found = watched.samples()
    assert found["has_leader"] == found["is_leader"] == 0
    assert found["restarts_total"] == 1
    assert "keys" not in found
    up = {labels["process"]: value for name, labels, value in watched.labelled() if name == "process_up"}
    assert up == {LOG: 0, CONSENSUS: 0, KV: 0}


def test_memory_and_processor_time_are_told_for_each_process(watched: Watched) -> None:
    watched.tell()
    for wanted in ("process_resident_memory_bytes", "process_cpu_seconds_total"):
        found = {labels["process"]: value for name, labels, value in watched.labelled() if name == wanted}
        assert set(found) == {"supervisor", LOG, CONSENSUS, KV}
        assert all(value > 0 for value in found.values())


def test_a_leader_tells_how_far_each_peer_is_behind(watched: Watched) -> None:
    watched.tell()
    watched.processes[1].report = {**watched.processes[1].report, "peer_lag_entries": {"9": 4, "8": 0}}
    found = {
        labels["peer"]: value for name, labels, value in watched.labelled() if name == "peer_lag_entries"
    }
    assert found == {"9": 4, "8": 0}


def test_a_histogram_counts_into_the_bucket_below_a_bound() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS_S[0], BOUNDS_S[0] + 1e-9, BOUNDS_S[-1], BOUNDS_S[-1] + 1):
        histogram.observe(round(seconds * 1e9))
    report: dict[str, Any] = histogram.report()
    assert (report["counts"][0], report["counts"][1], report["counts"][-2], report["counts"][-1]) == (
        2,
        1,
        1,
        1,
    )
    assert sum(report["counts"]) == 5
    assert report["sum_s"] == pytest.approx(2 * BOUNDS_S[0] + 2 * BOUNDS_S[-1] + 1, rel=1e-6)


def test_the_child_that_makes_a_snapshot_is_counted_apart(watched: Watched) -> None:
    """Its memory is its parent's for the most part, and gone when it is done."""
    resident = "process_resident_memory_bytes"
    watched.tell()
    before = {labels["process"] for name, labels, _ in watched.labelled() if name == resident}
    watched.processes[2].report["snapshot_pid"] = os.getpid()
    during = {labels["process"] for name, labels, _ in watched.labelled() if name == resident}
    assert during - before == {"snapshot"}


def test_buckets_are_cumulative_on_the_page(watched: Watched) -> None:
    histogram = Histogram()
    for milliseconds in (0, 3, 3, 700, 60_000):
        histogram.observe(milliseconds * 1_000_000)
    watched.processes[0].report = {"log_fsync_seconds": histogram.report()}
    found = {
        labels["le"]: value
        for name, labels, value in watched.labelled()
        if name == "log_fsync_seconds_bucket"
    }
    assert (found["0.0001"], found["0.0025"], found["0.005"], found["1.0"], found["10.0"]) == (1, 1, 3, 4, 4)
    assert found["+Inf"] == watched.samples()["log_fsync_seconds_count"] == 5
    assert watched.samples()["log_fsync_seconds_sum"] == pytest.approx(60.706)
