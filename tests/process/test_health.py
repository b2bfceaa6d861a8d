"""A real node asked over HTTP: what it says when it serves, while its processes are dead, and without a majority."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from real_cluster import RealCluster, quiet_ports
from real_node import PROCESSES, RealNode, free_ports, until

pytestmark = pytest.mark.process

NAMES = {
    "has_leader", "is_leader", "leader_changes_total", "term", "commit_index", "applied_index", "proposals_pending",
    "proposals_committed_total", "proposals_applied_total", "proposals_failed_total", "log_fsync_seconds_bucket",
    "apply_seconds_bucket", "watchers", "keys",
}  # fmt: skip


def observed(data_dir: Path, **settings: Any) -> RealNode:
    """A node with a port to ask."""
    (port,) = free_ports(1)
    return RealNode(data_dir, health_listen=f"127.0.0.1:{port}", **settings)


def ask(node: RealNode, path: str) -> tuple[int, bytes]:
    host, port = node.environment["DANUBE_RAFT_HEALTH_LISTEN"].rsplit(":", 1)
    connection = HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def reasons(node: RealNode, path: str) -> tuple[int, str]:
    code, body = ask(node, path)
    found = json.loads(body)
    assert bool(found["reasons"]) is (code == 503)
    return code, " ".join(found["reasons"])


def metrics(node: RealNode) -> dict[str, float]:
    """By name without the prefix; of those with labels the sum."""
    code, page = ask(node, "/metrics")
    assert code == 200
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            name = sample.name.removeprefix("danube_raft_")
            found[name] = found.get(name, 0) + sample.value
    return found


def test_a_node_that_serves_is_healthy_and_ready_and_counts(tmp_path: Path) -> None:
    with observed(tmp_path / "data") as node, node.store() as store:
        assert ask(node, "/health") == (200, b'{"status": "ok", "reasons": []}\n')
        until(lambda: ask(node, "/ready")[0] == 200, "the node to be ready")
        for number in range(5):
            store.put(f"/k{number}", number)
        # Each process tells once a second: consensus since its election, the log-writer since its first write.
        found = until(
            lambda: (
                (now := metrics(node)).get("keys") == 5
                and now["has_leader"]
                and now.get("log_fsync_seconds_sum")
                and now
            ),
            "all processes to tell what has happened",
        )
        assert set(found) >= NAMES
        assert found["has_leader"] == found["is_leader"] == found["leader_changes_total"] == 1
        assert found["process_up"] == 3
        assert found["log_fsync_seconds_sum"] > 0
        assert found["apply_seconds_sum"] > 0
        assert found["restarts_total"] == 0
        assert [ask(node, path)[0] for path in ("/", "/metrics/x")] == [404, 404]
        assert node.stop()[0] == 0


def test_a_stopped_process_is_noticed_killed_and_both_answers_say_so(tmp_path: Path) -> None:
    """SIGSTOP: it lives and does nothing, and with it no read is confirmed."""
    limits = {"kv_stuck_ms": 3_000, "log_stuck_ms": 3_000, "consensus_stuck_ms": 3_000}
    with observed(tmp_path / "data", **limits) as node:
        until(lambda: ask(node, "/ready")[0] == 200, "the node to be ready")
        # What consensus told before its election is a reason that is a second old.
        until(lambda: metrics(node)["has_leader"] == 1, "consensus to tell of its leadership")
        process = until(lambda: node.child("consensus"), "consensus")
        process.send_signal(signal.SIGSTOP)
        said = until(lambda: (told := reasons(node, "/ready"))[0] == 503 and told[1], "it not to be ready")
        assert "no majority confirmed a read" in said or "no progress" in said
        until(lambda: "made no progress" in reasons(node, "/health")[1], "health to say what was wrong")
        until(lambda: ask(node, "/ready")[0] == 200, "the node to be ready again")
        assert ask(node, "/health")[0] == 200
        assert metrics(node)["restarts_total"] == 1


KILLS_MAX = 5
"""Fewer in a row than the node takes for a crash loop."""


@pytest.mark.parametrize("name", PROCESSES)
def test_the_port_answers_while_a_process_is_dead(tmp_path: Path, name: str) -> None:
    """The processes are back within a moment; if it is missed there is another one."""
    with observed(tmp_path / "data") as node:
        until(lambda: ask(node, "/ready")[0] == 200, "the node to be ready")
        failing: set[str] = set()
        killed: list[int] = []
        said = ""

        def is_back() -> bool:
            nonlocal said
            answers = {path: reasons(node, path) for path in ("/health", "/ready")}
            failing.update(path for path, (code, _) in answers.items() if code == 503)
            said += answers["/health"][1]
            found = metrics(node)
            assert set(found) >= {"has_leader", "is_leader", "restarts_total", "process_up"}
            return found["restarts_total"] == len(killed) and all(code == 200 for code, _ in answers.values())

        while failing != {"/health", "/ready"}:
            assert len(killed) < KILLS_MAX, f"never seen to fail, but for {failing}"
            killed.append(node.kill_child(name))
            until(is_back, "the node to be ready again")
        assert any(f"{name} (pid {pid}) ended: killed by SIGKILL" in said for pid in killed)


def test_a_node_without_a_majority_is_healthy_but_not_ready_and_says_who_is_missing(tmp_path: Path) -> None:
    with RealCluster(tmp_path) as cluster:
        # Ports are given before the first start; these nodes start again with one each.
        for node, port in zip(cluster.nodes, quiet_ports(3), strict=True):
            node.environment["DANUBE_RAFT_HEALTH_LISTEN"] = f"127.0.0.1:{port}"
            node.kill_all()
        for node in cluster.nodes:
            node.spawn()
        for node in cluster.nodes:
            node.await_ready()
        until(lambda: {ask(node, "/ready")[0] for node in cluster.nodes} == {200}, "every node to be ready")
        last, *others = cluster.nodes
        until(lambda: sum(metrics(node)["is_leader"] for node in cluster.nodes) == 1, "one leader to be told")
        for node in others:
            node.kill_all()
        told = until(
            lambda: (
                "no leader: waiting for" in (said := reasons(last, "/ready"))[1]
                and all(node.raft_endpoint in said[1] for node in others)
                and said
            ),
            "it to say for whom it waits",
        )
        assert told[0] == 503
        assert reasons(last, "/health") == (200, "")
        until(lambda: metrics(last)["has_leader"] == 0, "the metrics to say it too")
        others[0].start()
        until(lambda: ask(last, "/ready")[0] == 200, "a majority to make it ready")


def test_a_node_that_waits_for_its_seeds_answers(tmp_path: Path) -> None:
    (other,) = free_ports(1)
    node = observed(tmp_path / "data")
    node.environment["DANUBE_RAFT_SEED_NODES"] = f"{node.raft_endpoint},127.0.0.1:{other}"
    process = node.spawn()
    try:

        def forming() -> bool:
            try:
                return ask(node, "/health") == (200, b'{"status": "forming", "reasons": []}\n')
            except (OSError, HTTPException):
                return False

        until(forming, "the port to answer")
        code, said = reasons(node, "/ready")
        assert (code, "seed nodes" in said) == (503, True)
        assert node.stop()[0] == 0
    finally:
        assert process.stdout is not None
        process.stdout.close()
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_port_that_is_taken_ends_the_start_with_its_exit_code(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        node = RealNode(tmp_path / "data", health_listen=address)
        process = node.spawn()
        assert process.wait(20) == 15
        assert process.stdout is not None
        process.stdout.close()
    last = node.log_path.read_text().strip().splitlines()[-1]
    assert last.startswith(f"error: cannot listen on {address} (health_listen): ")


def test_log_lines_are_json_when_wanted_through_a_restart_of_the_processes(tmp_path: Path) -> None:
    with observed(tmp_path / "data", log_format="json") as node:
        node.kill_child("kv-server")
        until(lambda: node.logged('"message": "ready ') == 2, "the second start")
        assert node.stop()[0] == 0
    lines = [json.loads(line) for line in node.log_path.read_text().splitlines()]
    assert {line["process"] for line in lines} == {"supervisor", "consensus"}
    assert len({line["node_id"] for line in lines}) == 1
    assert all(set(line) >= {"time", "level", "process", "node_id", "message"} for line in lines)
    assert any(line.get("role") == "leader" and line["term"] > 0 for line in lines)
    (again,) = [line for line in lines if "restarting all three" in line["message"]]
    assert "kv-server" in again["reason"]


def test_what_was_confirmed_to_an_earlier_question_does_not_count_for_long(tmp_path: Path) -> None:
    with observed(tmp_path / "data") as node:
        until(lambda: ask(node, "/ready")[0] == 200, "the node to be ready")
        kv = until(lambda: node.child("kv-server"), "the kv-server")
        kv.send_signal(signal.SIGSTOP)
        until(lambda: ask(node, "/ready")[0] == 503, "the last confirmation to be too old")
        assert ask(node, "/health")[0] == 200, "it has time to show progress"
        kv.send_signal(signal.SIGCONT)
        until(lambda: ask(node, "/ready")[0] == 200, "the node to be ready again")


def test_the_health_of_a_node_is_served_to_curl(tmp_path: Path) -> None:
    """Whatever monitors send: HTTP/1.1 with keep-alive, through the tool that everybody has, where it is installed."""
    with observed(tmp_path / "data") as node:
        url = f"http://{node.environment['DANUBE_RAFT_HEALTH_LISTEN']}/health"
        try:
            done = subprocess.run(
                ["curl", "-sS", "-m", "10", url], capture_output=True, text=True, timeout=20, check=False
            )
        except FileNotFoundError:
            pytest.skip("there is no curl here")
        assert (done.returncode, done.stdout) == (0, '{"status": "ok", "reasons": []}\n')
