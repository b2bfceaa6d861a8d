"""`danube-raft cluster start` and `danube-raft members`, as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from real_cluster import Guard, quiet_base
from real_node import WAIT_S, runs, until
from records import the

from danube_raft import MetadataStore

pytestmark = [pytest.mark.process, pytest.mark.timeout(90, method="signal")]

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("DANUBE_RAFT_")}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "danube_raft_cli", *arguments]


class Cluster:
    """One run of `cluster start`."""

    def __init__(self, directory: Path, base: int, *more: str) -> None:
        arguments = ("cluster", "start", "--data-dir", str(directory), "--base-port", str(base), *more)
        self.process = subprocess.Popen(
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            process_group=0,
        )
        # Should this process be killed, the supervisors hear from their pipes that their parent is gone.
        self._guard = Guard()
        self._guard.watch(self.process.pid)
        self.seen: set[psutil.Process] = set()

    def first_line(self) -> str:
        assert self.process.stdout is not None
        text = self.process.stdout.readline().decode()
        self.seen = set(psutil.Process(self.process.pid).children(recursive=True))
        return text

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        self._guard.close()
        # The supervisors hear from their pipe that the parent is gone.
        until(lambda: not any(map(runs, self.seen)), "every process of the cluster to end")


@pytest.fixture
def started() -> Iterator[list[Cluster]]:
    clusters: list[Cluster] = []
    yield clusters
    for cluster in clusters:
        cluster.close()


def ask(*arguments: str) -> Any:
    done = subprocess.run(
        command(*arguments, "--output", "json"),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
        env=ENVIRONMENT,
    )
    return json.loads(done.stdout)


def test_a_cluster_serves_on_its_ports_survives_a_node_and_is_the_same_again(
    tmp_path: Path, started: list[Cluster]
) -> None:
    base = quiet_base(9)
    ports = [f"127.0.0.1:{base + place}" for place in range(3)]
    cluster = Cluster(tmp_path / "c", base)
    started.append(cluster)
    assert cluster.first_line() == f"ready endpoints={','.join(ports)} data_dir={tmp_path / 'c'}\n"
    assert len(cluster.seen) == 12, "three supervisors with three processes each"
    for place, port in enumerate(ports):
        with MetadataStore(port) as store:
            store.put(f"/k{place}", place)

    for place in range(3):
        with urlopen(f"http://127.0.0.1:{base + 6 + place}/health", timeout=WAIT_S) as answer:
            assert answer.status == 200

    members = ask("--endpoints", ports[0], "members")
    assert {row["client_addr"] for row in members} == set(ports)
    assert [row["is_leader"] for row in members].count(True) == 1
    assert all(row["reachable"] is True and row["kind"] == "voter" for row in members)
    assert all(row["lag_entries"] == 0 for row in members)

    leader = next(row for row in members if row["is_leader"])
    with MetadataStore(leader["client_addr"]) as store:
        victim = psutil.Process(store.status()["pids"]["consensus"]).parent()
    assert victim is not None
    victim.kill()
    others = [port for port in ports if port != leader["client_addr"]]
    with MetadataStore(others, timeout_ms=20_000) as store:
        store.put("/after", 1)
    gone = until(
        lambda: next(
            (row for row in ask("--endpoints", others[0], "members") if row["reachable"] is False), None
        ),
        "the dead member to be reported",
    )
    assert gone["node_id"] == leader["node_id"]
    assert cluster.stop() == 0
    assert cluster.process.stderr is not None
    said = cluster.process.stderr.read().decode()
    assert "has ended" in said
    assert "danube-raft node start --config" in said
    assert not any(map(runs, cluster.seen))

    again = Cluster(tmp_path / "c", base)
    started.append(again)
    assert again.first_line().startswith("ready endpoints=")
    with MetadataStore(ports) as store:
        assert [the(store.get(f"/k{place}")).value for place in range(3)] == [0, 1, 2]
        assert the(store.get("/after", consistency="linearizable")).value == 1
    assert {row["node_id"] for row in ask("--endpoints", ports[1], "members")} == {
        row["node_id"] for row in members
    }
    assert again.stop(signal.SIGINT) == 0


def test_a_directory_keeps_its_number_of_nodes_and_its_ports(tmp_path: Path, started: list[Cluster]) -> None:
    base = quiet_base(3)
    cluster = Cluster(tmp_path / "c", base, "--nodes", "1")
    started.append(cluster)
    assert cluster.first_line().startswith("ready endpoints=")
    assert cluster.stop() == 0
    refused = subprocess.run(
        command("cluster", "start", "--data-dir", str(tmp_path / "c"), "--nodes", "3"),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        env=ENVIRONMENT,
    )
    assert refused.returncode == 2
    assert "made with --nodes 1 " in refused.stderr


def test_a_port_that_is_taken_stops_the_whole_cluster_and_is_named(
    tmp_path: Path, started: list[Cluster]
) -> None:
    base = quiet_base(9)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + 1))
        taken.listen()
        cluster = Cluster(tmp_path / "c", base)
        started.append(cluster)
        cluster.process.wait(WAIT_S)
    assert cluster.process.stderr is not None
    said = cluster.process.stderr.read().decode()
    assert f"127.0.0.1:{base + 1}" in said
    assert "node 2" in said
    assert cluster.process.returncode not in (0, 1)
    # No node has begun anything: the directory is not bound to the port that was taken.
    other = Cluster(tmp_path / "c", quiet_base(3), "--nodes", "1")
    started.append(other)
    assert other.first_line().startswith("ready endpoints=")
