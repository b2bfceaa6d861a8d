"""A cluster of cores whose tests are about what is said and decided, not about every step on the way.

- Built from logs: terms from index 1 on, the first entry being the configuration of all voters.
- `settle` delivers, syncs, reads and applies until nothing moves; messages over a link in `cut` are lost, a disk in
  `silent` never answers, a node in `down` neither hears nor acts.
- `run` lets time pass in steps of 10 ms. `hear` gives one message to one node and returns what it says to it.
- In every moment each term has one leader at most (election safety, Figure 3 of the paper).

Nodes draw the shortest random time plus 10 ms times their id, as in the scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from danube_raft.config import Config
from danube_raft.raft.core import Core
from danube_raft.raft.output import RandomSource
from danube_raft.wire import peer
from danube_raft.wire.entry import (
    KIND_BATCH,
    KIND_CONFIGURATION,
    NO_ORIGIN,
    Configuration,
    Entry,
    HardState,
    pack_configuration,
)

from .script import Drawn
from .world import CLUSTER, Node, World, voters

Said = tuple[int, peer.Message]


def entry(index: int, term: int, payload: bytes = b"") -> Entry:
    return Entry(index, term, KIND_BATCH, 0, 0, NO_ORIGIN, payload)


def log_of(terms: Sequence[int], configuration: Configuration) -> dict[int, Entry]:
    log = {index: entry(index, term, b"%d" % term) for index, term in enumerate(terms, 1)}
    if log:
        log[1] = log[1]._replace(kind=KIND_CONFIGURATION, payload=pack_configuration(configuration))
    return log


class Cluster:
    """Nodes 1 to `size`, or the ones that `logs` names; all have booted and may campaign."""

    def __init__(
        self,
        size: int = 3,
        logs: Mapping[int, Sequence[int]] | None = None,
        hard_states: Mapping[int, HardState] | None = None,
        configuration: Configuration | None = None,
        source: Callable[[int], RandomSource] = Drawn,
        **settings: Any,
    ) -> None:
        self.world = World()
        self.cut: set[tuple[int, int]] = set()
        self.silent: set[int] = set()
        self.down: set[int] = set()
        self.sent: list[tuple[peer.Header, peer.Message]] = []
        self.leaders: dict[int, int] = {}
        configuration = configuration or voters(range(1, size + 1))
        logs = logs or {node_id: [1] for node_id in range(1, size + 1)}
        for node_id, terms in logs.items():
            node = Node(self.world, node_id, replace(Config(), **settings), source(node_id))
            node.disk.log = log_of(terms, configuration)
            node.disk.hard_state = (hard_states or {}).get(node_id, HardState(terms[-1] if terms else 0, 0))
            self.world.nodes[node_id] = node
            self.boot(node_id)

    def __getitem__(self, node_id: int) -> Core:
        return self.world.nodes[node_id].core

    @property
    def now(self) -> int:
        return self.world.now

    # ---------------------------------------------------------------- nodes

    def boot(self, node_id: int) -> None:
        """Start from what was synced; what was not is lost."""
        node = self.world.nodes[node_id]
        self.down.discard(node_id)
        node.start()
        node.load()
        self.look(node)

    def isolate(self, *nodes: int) -> None:
        """Cut every link between these nodes and the others, both ways."""
        others = set(self.world.nodes) - set(nodes)
        for a in nodes:
            self.cut |= {(a, b) for b in others} | {(b, a) for b in others}

    def look(self, node: Node) -> None:
        before = len(self.world.flight)
        node.absorb()
        self.sent += self.world.flight[before:]
        core = node.core
        if core.role == "leader":
            assert self.leaders.setdefault(core.term, node.node_id) == node.node_id

    def propose(self, node_id: int, payload: bytes = b"x") -> None:
        node = self.world.nodes[node_id]
        assert node.core.propose((node_id, node.boot, 1), payload, 0, self.now) is None
        self.look(node)

    def read(self, node_id: int, counter: int) -> None:
        node = self.world.nodes[node_id]
        node.core.read_index((node_id, node.boot, counter), self.now)
        self.look(node)

    def answer(self, node_id: int, counter: int) -> int | None:
        """The index that read `counter` of this node was answered with, if it was."""
        node = self.world.nodes[node_id]
        return node.answers.get((node_id, node.boot, counter))

    # ---------------------------------------------------------------- movement

    def hear(self, node_id: int, sender: int, term: int, message: peer.Message) -> list[Said]:
        """`sender` says `message` to a node, whose disk then syncs: what the node says to `sender`."""
        node = self.world.nodes[node_id]
        before = len(self.sent)
        node.core.step(peer.Header(CLUSTER, sender, node_id, term, 1), message, self.now)
        self.look(node)
        self.sync(node_id)
        said = self.sent[before:]
        self.world.flight.clear()
        return [(header.term, answer) for header, answer in said if header.receiver == sender]

    def timer(self, node_id: int) -> None:
        """Let time pass until the node's timer is due, for that node alone."""
        due = self[node_id].next_timer()
        assert due is not None
        self.world.now = max(self.now, due)
        self[node_id].timer(self.now)
        self.look(self.world.nodes[node_id])

    def elect(self, node_id: int) -> None:
        """This node's timer runs out and it wins."""
        for _ in range(10):
            self.timer(node_id)
            self.settle()
            if self[node_id].role == "leader":
                return
        raise AssertionError(f"node {node_id} is {self[node_id].role}")

    def sync(self, node_id: int) -> bool:
        node = self.world.nodes[node_id]
        if node_id in self.silent or not node.disk.pending:
            return False
        while node.disk.pending:
            node.sync()
            self.look(node)
        return True

    def deliver(self) -> bool:
        """Everything in flight arrives, or is lost."""
        flight, self.world.flight = self.world.flight, []
        for header, message in flight:
            lost = (header.sender, header.receiver) in self.cut or header.receiver in self.down
            node = None if lost else self.world.deliver(header, message)
            if node is not None:
                self.look(node)
        return bool(flight)

    def settle(self) -> None:
        for _ in range(10_000):
            if not self.move():
                return
        raise AssertionError("the cluster does not come to rest")

    def move(self) -> bool:
        """All messages travel once, and every disk and state machine does its next work; False: there was nothing to do."""
        moved = self.deliver()
        for node_id, node in self.world.nodes.items():
            if node_id not in self.down:
                moved = self.sync(node_id) or self._work(node) or moved
        return moved

    def _work(self, node: Node) -> bool:
        if node.reads:
            node.answer_read()
        elif node.handed and node.core.applied_index < node.handed[-1].index:
            node.core.applied(node.handed[-1].index)
        else:
            return False
        self.look(node)
        return True

    def run(self, duration_ms: int) -> None:
        until = self.now + duration_ms
        while self.now < until:
            self.tick()
            self.settle()

    def tick(self) -> None:
        """10 ms pass, and nothing but the timers happens."""
        self.world.now += 10
        for node_id, node in self.world.nodes.items():
            due = node.core.next_timer()
            if node_id not in self.down and due is not None and due <= self.now:
                node.core.timer(self.now)
                self.look(node)

    # ---------------------------------------------------------------- what can be seen

    def terms(self, node_id: int) -> list[int]:
        """The log of a node, as the terms of its entries."""
        log = self[node_id]._state.log
        return [log.term(index) for index in range(log.purged_index + 1, log.last_index + 1)]

    def take_sent(self) -> list[peer.Message]:
        """What was sent since the last call, by anybody to anybody."""
        sent, self.sent = self.sent, []
        return [message for _, message in sent]
