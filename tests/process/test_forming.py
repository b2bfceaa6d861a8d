"""Real nodes with seeds: they wait for each other by name, found one cluster, and stop or start again at any time."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from real_cluster import ClusterNode, Guard, quiet_ports
from real_node import WAIT_S, RealNode, until

from danube_raft import Node, errors

# By a signal, so that a test that takes too long still ends its nodes.
pytestmark = [pytest.mark.process, pytest.mark.timeout(60, method="signal")]


@contextmanager
def family(directory: Path, count: int = 3) -> Iterator[list[ClusterNode]]:
    """Nodes that have each other as seeds; none is started. Whatever happens, nothing of them is left."""
    guard = Guard()
    ports = iter(quiet_ports(2 * count))
    nodes = [ClusterNode(number, directory / f"n{number}", guard) for number in range(count)]
    for node in nodes:
        node.endpoint, node.raft_endpoint = (f"127.0.0.1:{next(ports)}" for _ in range(2))
    for node in nodes:
        node.environment["DANUBE_RAFT_SEED_NODES"] = ",".join(other.raft_endpoint for other in nodes)
    with ExitStack() as stack:
        stack.callback(guard.close)
        for node in nodes:
            stack.callback(node.__exit__, None, None, None)
        yield nodes


def small_file(node: RealNode, name: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((node.data_dir / name).read_text())
    return fields


def says(node: RealNode, pattern: str) -> None:
    until(
        lambda: node.log_path.exists() and node.logged(pattern),
        f"{pattern!r} in the log of {node.raft_endpoint}",
    )


def serves(node: RealNode) -> None:
    process = node.process
    assert process is not None
    until(lambda: node.logged("supervisor ready ") or process.poll() is not None, "a node that serves")
    assert process.poll() is None, node.log_path.read_text()


def test_three_nodes_wait_for_each_other_by_name_and_found_one_cluster(tmp_path: Path) -> None:
    with family(tmp_path) as nodes:
        one, two, three = nodes
        one.spawn()
        says(one, f"waiting for {two.raft_endpoint} and {three.raft_endpoint} to answer")
        two.spawn()
        says(two, f"waiting for {three.raft_endpoint} to answer")
        says(one, f"waiting for {three.raft_endpoint} to answer")
        assert not any((node.data_dir / "founding.json").exists() for node in nodes)
        assert [len(node.family()) for node in (one, two)] == [1, 1]
        three.spawn()
        for node in nodes:
            serves(node)
            assert node.logged("joined cluster") == 1
            assert not node.logged("Traceback|cannot listen")
        foundings = [small_file(node, "founding.json") for node in nodes]
        assert foundings[0] == foundings[1] == foundings[2]
        identities = [small_file(node, "identity.json") for node in nodes]
        assert {identity["cluster_id"] for identity in identities} == {foundings[0]["cluster_id"]}
        assert foundings[0]["initialiser"] == min(identity["node_id"] for identity in identities)
        # The same disks with other seeds: what is on them counts.
        assert one.stop()[0] == 0
        one.environment["DANUBE_RAFT_SEED_NODES"] = f"127.0.0.1:1,{one.raft_endpoint}"
        one.start()
        assert one.logged("are not asked again") == 1
        assert small_file(one, "identity.json") == identities[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_during_the_wait_is_quick_and_no_error(tmp_path: Path, number: signal.Signals) -> None:
    with family(tmp_path) as nodes:
        nodes[0].spawn()
        says(nodes[0], "waiting for")
        code, took = nodes[0].stop(number)
        assert (code, nodes[0].survivors()) == (0, [])
        assert took < 2
        assert not nodes[0].logged("Traceback")


def test_a_waiting_node_that_is_killed_starts_again_and_takes_part(tmp_path: Path) -> None:
    with family(tmp_path) as nodes:
        for node in nodes[:2]:
            node.spawn()
        says(nodes[0], f"waiting for {nodes[2].raft_endpoint} to answer")
        identity = small_file(nodes[0], "identity.json")
        nodes[0].kill_all()
        nodes[2].spawn()
        # Whatever it waits for: the one that initialises may have heard the killed one just before.
        says(nodes[2], "waiting for ")
        nodes[0].spawn()
        for node in nodes:
            serves(node)
        assert small_file(nodes[0], "identity.json")["node_id"] == identity["node_id"]
        assert len({small_file(node, "identity.json")["cluster_id"] for node in nodes}) == 1


def test_the_directory_is_held_and_a_taken_port_is_told_during_the_wait_too(tmp_path: Path) -> None:
    with family(tmp_path) as (first, second, other):
        other.data_dir = first.data_dir
        first.spawn()
        says(first, "waiting for")
        assert other.spawn().wait(WAIT_S) == 10
        host, port = second.raft_endpoint.split(":")
        with socket.socket() as taken:
            taken.bind((host, int(port)))
            taken.listen()
            assert second.spawn().wait(WAIT_S) == 15
        assert second.raft_endpoint in second.log_path.read_text().strip().splitlines()[-1]


@pytest.mark.parametrize("threads", [False, True])
def test_an_embedded_node_that_waits_ends_when_its_program_wants_it_to(tmp_path: Path, threads: bool) -> None:
    raft, client, nobody = (f"127.0.0.1:{port}" for port in quiet_ports(3))
    node = Node(
        data_dir=str(tmp_path / "data"),
        raft_listen=raft,
        client_listen=client,
        seed_nodes=(raft, nobody),
        threads=threads,
    )
    begun = time.monotonic()
    with pytest.raises(errors.Timeout):
        node.start(1.5)
    assert time.monotonic() - begun < 1.5 + 3
    # Nothing of it is left that holds the directory: it starts again, alone, since nothing was promised.
    with Node(data_dir=str(tmp_path / "data"), raft_listen=raft, client_listen=client):
        pass


def test_three_nodes_in_threads_found_a_cluster(tmp_path: Path) -> None:
    ports = [f"127.0.0.1:{port}" for port in quiet_ports(6)]
    nodes = [
        Node(
            data_dir=str(tmp_path / str(n)),
            raft_listen=ports[n],
            client_listen=ports[n + 3],
            seed_nodes=ports[:3],
            threads=True,
        )
        for n in range(3)
    ]
    starting = [threading.Thread(target=node.start, args=(WAIT_S,)) for node in nodes]
    try:
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        found = [
            json.loads((tmp_path / str(n) / "identity.json").read_text())["cluster_id"] for n in range(3)
        ]
        assert found[0]
        assert len(set(found)) == 1
    finally:
        for node in nodes:
            node.stop()
