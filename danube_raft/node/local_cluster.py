"""Several nodes on this machine under one parent: for trying out, for tests and for benchmarks.

    DIR/cluster.json    how many nodes, and the base port
    DIR/node1.yaml      settings of the first node, as `danube-raft node start --config` takes them
    DIR/node1/          its data directory
    DIR/node1.log       its log lines

Clients are served on ports P, P+1, …; with n nodes the peers use P+n, P+n+1, …, and P+2n, P+2n+1, … answer /health,
/ready and /metrics. Members know each other by the first two for good, so a directory keeps the number of nodes and
the base port that it was made with.

Each node is an ordinary node with its supervisor and processes, and stops when this parent does: the supervisors
hear from a pipe. A node that ends by itself is not started again; the others go on as a cluster does.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import yaml

from danube_raft import errors
from danube_raft.config import Config, load
from danube_raft.node.launch import Launched

HOST = "127.0.0.1"

PORTS_PER_NODE = 3


class Plan(NamedTuple):
    """What a directory holds, or is to hold."""

    nodes: int
    base_port: int


def settle_plan(directory: Path, nodes: int | None, base_port: int | None, default: Plan) -> Plan:
    """The plan of a directory: the one that it was made with, else what is asked for, which is written down.

    Raises ConfigInvalid if the two differ.
    """
    path = directory / "cluster.json"
    try:
        found = json.loads(path.read_text())
        kept = Plan(found["nodes"], found["base_port"])
    except FileNotFoundError:
        kept = default
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.ConfigInvalid(f"{path} cannot be read: {error}") from None
    plan = Plan(nodes or kept.nodes, base_port or kept.base_port)
    ports = PORTS_PER_NODE * plan.nodes
    if plan.base_port + ports > 65_536:
        raise errors.ConfigInvalid(f"--base-port {plan.base_port}: {ports} ports from there on do not exist")
    # Before the first node has written anything nothing depends on the plan.
    if plan != kept and any(directory.glob("node*/log")):
        raise errors.ConfigInvalid(
            f"{directory} holds a cluster that was made with --nodes {kept.nodes} --base-port {kept.base_port}: leave the "
            "options out or choose another directory"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps(plan._asdict()) + "\n")
        fresh.replace(path)
    except OSError as error:
        raise errors.ConfigInvalid(f"--data-dir {directory}: {error.strerror or error}") from None
    return plan


class LocalNode:
    """One node of the cluster."""

    def __init__(self, directory: Path, number: int, plan: Plan) -> None:
        self.number = number
        self.log_path = directory / f"node{number}.log"
        self.config_path = directory / f"node{number}.yaml"
        raft = [f"{HOST}:{plan.base_port + plan.nodes + place}" for place in range(plan.nodes)]
        self.settings = {
            "data_dir": str(directory / f"node{number}"),
            "client_listen": f"{HOST}:{plan.base_port + number - 1}",
            "raft_listen": raft[number - 1],
            "health_listen": f"{HOST}:{plan.base_port + 2 * plan.nodes + number - 1}",
            # A single node needs nobody to form a cluster with.
            "seed_nodes": raft if plan.nodes > 1 else [],
        }
        self.config: Config = load(None, self.settings)
        self._launched: Launched | None = None

    @property
    def stdout(self) -> IO[bytes]:
        """Readable when the node is ready or has ended."""
        return self._running.stdout

    def start(self) -> None:
        """Start it; `answer` says how that went."""
        self.config_path.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        with self.log_path.open("ab") as log:
            self._launched = Launched(self.config, log)

    def answer(self) -> errors.DanubeRaftError | None:
        """How the start went: None when it is ready, else why not. Call when `stdout` is readable."""
        error = self._running.answer()
        if error is None:
            return None
        return errors.from_wire(error.code, f"node {self.number}: {error.message} (see {self.log_path})")

    def stop(self) -> None:
        """Tell it to end, without waiting."""
        if self._launched is not None:
            self._launched.stop()

    def wait(self) -> None:
        """Wait for its end, which comes soon after `stop`."""
        if self._launched is not None:
            self._launched.wait()

    @property
    def _running(self) -> Launched:
        assert self._launched is not None, "it was started"
        return self._launched


@contextlib.contextmanager
def running(directory: Path, plan: Plan) -> Iterator[list[LocalNode]]:
    """All nodes, started but perhaps not ready yet; they are stopped at the end. Raises ConfigInvalid."""
    directory = directory.absolute()
    nodes = [LocalNode(directory, number, plan) for number in range(1, plan.nodes + 1)]
    try:
        for node in nodes:
            node.start()
        yield nodes
    finally:
        for node in nodes:
            node.stop()
        for node in nodes:
            node.wait()
