"""Real clusters for process tests: several nodes started as a user starts them, which find each other by their seeds.

Each node is a `RealNode` on its own data directory and ports. With `proxied=True` peers reach a node through a proxy
of its own (advertised address: the proxy's; listening address: the node's), which tells the connections of the other
nodes apart by the process that owns them: one fault per directed link.

Ports are taken from below the range of ephemeral ports. Within it, a peer that reconnects to a node that is down
could be given that node's own port as its source, and the node would not get it back.

`with RealCluster(tmp_path) as cluster:` starts all nodes and waits until they serve; at the end, whatever happened,
all their processes are killed and seen to be gone. Should this process itself be killed, a guard kills them.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from proxy import Proxy
from real_node import PROCESSES, WAIT_S, RealNode, runs, until

from danube_raft import MetadataStore
from danube_raft.errors import DanubeRaftError

FORM_WAIT_S = 30.0
STATUS_MS = 500
NOBODY = "nobody"
"""Source of a connection whose owner has gone before it could be found."""


def quiet_base(count: int) -> int:
    """The first of so many ports in a row that nobody listens on and that no outgoing connection is given. Where the
    search begins is left to chance: two runs on one machine are to look in different places."""
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        base = random.randrange(10_000, ephemeral - count)
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(base, base + count):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return base


def quiet_ports(count: int) -> list[int]:
    """So many of them, each for itself."""
    found: set[int] = set()
    while len(found) < count:
        found.add(quiet_base(1))
    return list(found)


GUARD = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.SIG_IGN)
started = {}
for line in sys.stdin:
    pid, at = line.split()
    started[int(pid)] = at
for pid, at in started.items():
    try:
        with open(f"/proc/{pid}/stat") as stat:
            if stat.read().rsplit(")", 1)[1].split()[19] == at:
                os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        pass
"""
"""Kills the processes that it was told of when its standard input ends; a process is known by its pid and the time
when it started, so a pid that was given to another one since is left alone."""


class Guard:
    """A process of its own that outlives this one, for as long as it takes to kill what it was told of."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def watch(self, pid: int) -> None:
        """Kill that one too."""
        assert self._process.stdin is not None
        started = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        self._process.stdin.write(f"{pid} {started}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Do it now, and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(WAIT_S)


class ClusterNode(RealNode):
    """One node of a cluster, by its number from 0."""

    def __init__(self, number: int, data_dir: Path, guard: Guard, **settings: Any) -> None:
        super().__init__(data_dir, **settings)
        self._guard = guard
        self.number = number
        self.name = f"n{number}"
        self.arguments: tuple[str, ...] = ()
        self.node_id = 0
        self.disk_failed_at: float | None = None
        """When its disk failed the last time, as far as its running supervisor can know."""

    def command(self, *arguments: str) -> list[str]:
        """With what a member of a cluster is told beside the rest."""
        return super().command(*arguments, *(self.arguments if arguments[:2] == ("node", "start") else ()))

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        self.forget_output()
        self.disk_failed_at = None
        process = super().spawn()
        self._guard.watch(process.pid)
        return process

    def start(self) -> Self:
        """Start and wait for the ready line."""
        self.spawn()
        return self.await_ready()

    def await_ready(self, wait_s: float = FORM_WAIT_S) -> Self:
        """Wait for the line that says it serves."""
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], wait_s)
        line = self.process.stdout.readline().decode() if ready else f"silent for {wait_s} s"
        assert line.startswith("ready"), f"{self.name}: {line or 'ended'}\n{self.log_path.read_text()}"
        fields = dict(field.split("=", 1) for field in line.split()[1:])
        self.node_id = int(fields["node_id"])
        self.saw(self.family())
        return self

    def saw(self, processes: list[psutil.Process]) -> None:
        """Remember that these are the node's: none may be left at the end."""
        self._seen.update(processes)

    def forget_output(self) -> None:
        """The pipe of a process that has ended."""
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()

    def kill_supervisor(self) -> None:
        """SIGKILL to the parent alone; returns when its children have gone too, as they must."""
        assert self.process is not None
        children = self.family()[1:]
        self.saw(children)
        self.process.kill()
        self.process.wait(WAIT_S)
        until(lambda: not any(map(runs, children)), f"the children of {self.name} to end")

    def signal(self, number: int, role: str | None = None) -> None:
        """To all processes of the node, or to the child of that role."""
        chosen = self.family() if role is None else [until(lambda: self.child(role), f"a running {role}")]
        self.saw(chosen)
        for process in chosen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop_all(self) -> None:
        """SIGSTOP to every process."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to every process."""
        self.signal(signal.SIGCONT)

    def owns(self, port: int) -> bool:
        """Whether one of its processes has a connection from that local port."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if any(one.laddr and one.laddr.port == port for one in process.net_connections("tcp4")):
                    return True
        return False


class RealCluster:
    """Nodes n0, n1, n2… that form one cluster."""

    def __init__(self, tmp_path: Path, nodes: int = 3, proxied: bool = False, **settings: Any) -> None:
        settings = {"log_level": "info", **settings}
        self._guard = Guard()
        self.nodes = [
            ClusterNode(number, tmp_path / f"n{number}", self._guard, **settings) for number in range(nodes)
        ]
        ports = iter(quiet_ports(3 * nodes))
        for node in self.nodes:
            node.endpoint, node.raft_endpoint = (f"127.0.0.1:{next(ports)}" for _ in range(2))
        self.proxies = {
            node.name: Proxy(node.raft_endpoint, self._owner, next(ports)) for node in self.nodes if proxied
        }
        addresses = [self.raft_address(node) for node in self.nodes]
        seeds = [part for address in addresses for part in ("--seed-node", address)] if nodes > 1 else []
        for node in self.nodes:
            advertised = ("--raft-advertise", self.raft_address(node)) if proxied else ()
            node.arguments = (*advertised, *seeds)
        self.endpoints = [node.endpoint for node in self.nodes]
        self.started_by_hand = 0
        """Nodes that stayed down after a fault as they must, and were started again by the test."""

    def raft_address(self, node: ClusterNode) -> str:
        """Where peers reach the node."""
        return self.proxies[node.name].endpoint if self.proxies else node.raft_endpoint

    # ---------------------------------------------------------------- observation

    def status(self, node: ClusterNode) -> dict[str, Any] | None:
        """What it says of itself; None if it does not answer."""
        try:
            with MetadataStore(node.endpoint, timeout_ms=STATUS_MS) as store:
                return store.status()
        except DanubeRaftError:
            return None

    def leader(self) -> ClusterNode | None:
        """The node that leads, if it and a majority agree on it; of several terms the newest counts."""
        found = [(node, status) for node in self.nodes if (status := self.status(node))]
        for node, status in sorted(found, key=lambda each: -each[1]["term"]):
            if status["role"] == "leader":
                agree = sum(
                    (other["leader_id"], other["term"]) == (status["node_id"], status["term"])
                    for _, other in found
                )
                return node if agree > len(self.nodes) // 2 else None
        return None

    def await_leader(self, wait_s: float = FORM_WAIT_S) -> ClusterNode:
        """The leader, as soon as there is one."""
        found = self.until(self.leader, "a leader", wait_s)
        assert isinstance(found, ClusterNode)
        return found

    def follower(self) -> ClusterNode:
        """A node that does not lead, another one each time if chance will have it."""
        leader = self.await_leader()
        return random.choice([node for node in self.nodes if node is not leader])

    def await_whole(self, wait_s: float = FORM_WAIT_S) -> None:
        """Every node answers, follows the one leader and has applied what was committed when this was asked."""
        leader = self.await_leader(wait_s)
        asked = self.until(lambda: self.status(leader), "the leader's status", wait_s)["commit_index"]
        self.until(lambda: self._is_whole(asked), "all nodes to follow one leader", wait_s)

    def _is_whole(self, index: int) -> bool:
        """Who led a moment ago may lead no more: all name the same leader and term, in one round of questions."""
        found = [status for node in self.nodes if (status := self.status(node))]
        leaders = [(status["node_id"], status["term"]) for status in found if status["role"] == "leader"]
        followed = {(status["leader_id"], status["term"]) for status in found}
        everybody = len(found) == len(self.nodes) and all(own["applied_index"] >= index for own in found)
        return everybody and len(leaders) == 1 and followed == set(leaders)

    def term(self) -> int:
        """The newest term that any node knows."""
        return max(int(status["term"]) for node in self.nodes if (status := self.status(node)))

    def store(self, preferred: int = 0, **settings: Any) -> MetadataStore:
        """A client that asks that node first and the others after it."""
        order = [*self.endpoints[preferred:], *self.endpoints[:preferred]]
        return MetadataStore(order, **settings)

    def until(self, condition: Callable[[], Any], what: str, wait_s: float = FORM_WAIT_S) -> Any:
        """As the function; a failure tells what the nodes said."""
        try:
            return until(condition, what, wait_s)
        except AssertionError as error:
            error.add_note(self.told())
            raise

    def told(self, lines: int = 12) -> str:
        """The end of every node's log."""
        parts = []
        for node in self.nodes:
            text = node.log_path.read_text().splitlines() if node.log_path.exists() else []
            parts.append("\n".join([f"--- {node.name} {self.status(node)}", *text[-lines:]]))
        return "\n".join(parts)

    # ---------------------------------------------------------------- faults

    def kill_everything(self) -> None:
        """SIGKILL to every process of every node, as close together as possible."""
        families = [node.family() for node in self.nodes]
        for node, family in zip(self.nodes, families, strict=True):
            node.saw(family)
        for process in itertools.chain(*families):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for node in self.nodes:
            node.kill_all()
        until(lambda: not any(map(runs, itertools.chain(*families))), "killed processes to end")

    def restart(self, *nodes: ClusterNode) -> None:
        """Start nodes whose supervisors have ended, all at once, and wait until each serves."""
        for node in nodes:
            node.spawn()
        for node in nodes:
            node.await_ready()

    def isolate(self, node: ClusterNode) -> None:
        """Nothing passes between the node and the others, in neither direction; connections stay."""
        self.proxies[node.name].black_hole()
        for name, proxy in self.proxies.items():
            if name != node.name:
                proxy.black_hole(node.name)

    def silence(self, source: ClusterNode, target: ClusterNode) -> None:
        """Nothing passes from one node to another; the other way is open."""
        self.proxies[target.name].black_hole(source.name)

    def heal(self) -> None:
        """No fault on any link."""
        for proxy in self.proxies.values():
            proxy.heal()

    def _owner(self, port: int) -> str:
        return next((node.name for node in self.nodes if node.owns(port)), NOBODY)

    # ---------------------------------------------------------------- life

    def start(self) -> Self:
        """Start all at once; wait until they serve under one leader."""
        self.restart(*self.nodes)
        self.await_whole()
        return self

    def close(self) -> None:
        """Kill what runs; nothing may be left."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._guard.close)
            for proxy in self.proxies.values():
                stack.callback(proxy.close)
            for node in self.nodes:
                stack.callback(node.__exit__, None, None, None)

    def survivors(self) -> list[psutil.Process]:
        """Processes of any node and boot that still run."""
        return [process for node in self.nodes for process in node.survivors()]

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def waited(seconds: float) -> None:
    """Let a fault last. It is a length of time that is meant here, not a guess at how long something takes."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, "a fault to last", seconds + 1)


__all__ = ["PROCESSES", "ClusterNode", "Guard", "RealCluster", "quiet_base", "quiet_ports", "waited"]
