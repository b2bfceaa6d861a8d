"""Forming nodes in virtual time: a network that loses, delays, repeats and reorders, hosts that crash, restart and are
wiped, and the invariant, checked at every change of every ledger.

A host is an address. What happened to be in flight reaches whoever is there when it arrives, also a later start of the
same node or another node: more than real connections would do. A host that has joined answers as consensus does.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from danube_raft.config import Config
from danube_raft.node.endpoints import FromPeer, ToPeer, Unsent
from danube_raft.node.forming import Forming
from danube_raft.node.handler import PEERS
from danube_raft.node.identity import Identity, answer_prepare_init
from danube_raft.storage.memory_ledger import MemoryLedger
from danube_raft.wire import peer
from danube_raft.wire.entry import unpack_configuration

CHILDREN_MS = 300
"""From joining to the first entry in the log."""


class CrashError(Exception):
    """The node died in the middle of something."""


class Host:
    """One address with its disk and, while it is up, its node."""

    def __init__(self, world: World, address: str, node_id: int, seeds: tuple[str, ...]) -> None:
        self.world = world
        self.address = address
        self.config = replace(Config(), raft_listen=address, client_listen=f"{address}1", seed_nodes=seeds)
        self.node: Forming | None = None
        self.up = False
        self.boots = 0
        self.initialised = False
        self.dies_at: Callable[[str], bool] = lambda _change: False
        self.lied: list[str] = []
        self._acts = 0
        self.wipe(node_id)

    def wipe(self, node_id: int) -> None:
        """An empty disk; the node is down."""
        assert not self.up
        self.ledger = MemoryLedger(node_id, self._at)
        self.initialised = False

    @property
    def node_id(self) -> int:
        return self.ledger.identity().node_id

    @property
    def cluster_id(self) -> int:
        return self.ledger.identity().cluster_id

    @property
    def waiting(self) -> str:
        """What the node says it waits for; empty if it is down or has joined."""
        return self.node.waiting if self.node is not None else ""

    def start(self, seeds: tuple[str, ...] | None = None) -> None:
        assert not self.up
        if seeds is not None:
            self.config = replace(self.config, seed_nodes=seeds)
        self.up = True
        self.boots += 1
        if self.cluster_id:
            self._serve()
            return
        world = self.world
        self.node = Forming(
            self.config, self.ledger, world.random.randrange, lambda: 1_700_000_000_000 + world.now
        )
        self.act(lambda node: node.start(world.now))

    def crash(self) -> None:
        self.up = False
        self.node = None

    def act(self, what: Callable[[Forming], None]) -> None:
        """One event for the node, its turn, then its messages, unless it dies on the way."""
        node = self.node
        assert node is not None
        self._acts += 1
        try:
            what(node)
            node.turn(self.world.now)
            self._at("before sending")
        except CrashError:
            self.crash()
            return
        out, node.outbox[:] = list(node.outbox), []
        for edge, message in out:
            self._send(node, edge, message)
        if node.done:
            self.node = None
            self._serve()
        elif self.node is node:
            wake, act = node.next_timer(), self._acts
            assert wake is not None
            assert wake > self.world.now, "a node that never rests burns the processor"
            self.world.at(wake, lambda: self._tick(act))

    def receive(self, edge: str, message: Any) -> None:
        if not self.up:
            return
        if self.node is not None:
            if edge not in (PEERS, *[f"seed:{seed}" for seed in self.config.seed_nodes]):
                # The answer to a question of a start with another list.
                return
            self.act(lambda node: node.receive(edge, message, self.world.now))
        elif edge == PEERS:
            self._answer_as_a_member(message)

    # ---------------------------------------------------------------- inside

    def _tick(self, act: int) -> None:
        # What happened since has set a later timer.
        if self.node is not None and act == self._acts:
            self.act(lambda node: None)

    def _send(self, node: Forming, edge: str, message: Any) -> None:
        if edge == PEERS:
            (to, at), frame = message
            header, said = peer.unpack(frame)
            self._check_answer(said)
            self.world.carry(self.address, to.decode(), at.decode(), FromPeer((), header, said))
        else:
            assert isinstance(message, ToPeer)
            to_address = edge.removeprefix("seed:")
            sent = peer.unpack(peer.pack(*message))
            question = FromPeer((self.address.encode(), edge.encode()), *sent)
            if not self.world.carry(self.address, to_address, PEERS, question):
                node.receive(edge, Unsent(*message), self.world.now)

    def _check_answer(self, said: peer.Message) -> None:
        if isinstance(said, peer.PrepareInitReply) and said.promised:
            founding = self.ledger.founding()
            if founding is None or founding.cluster_id != said.cluster_id:
                self.lied.append(
                    f"{self.address} says it promised {said.cluster_id}, its disk says {founding}"
                )

    def _serve(self) -> None:
        """The processes of the node start; the initialiser's log gets its first entry, the others' from it."""
        boot = self.boots

        def begin() -> None:
            if self.up and boot == self.boots:
                founding = self.ledger.founding()
                assert founding is not None
                if founding.initialiser == self.node_id or self.world.runs(self.cluster_id):
                    self.initialised = True
                else:
                    self.world.at(self.world.now + CHILDREN_MS, begin)

        self.world.at(self.world.now + CHILDREN_MS, begin)

    def _answer_as_a_member(self, item: FromPeer) -> None:
        me = Identity(self.node_id, self.cluster_id, self.boots)
        reply: peer.Message
        if isinstance(item.message, peer.GetNodeInfo):
            reply = peer.NodeInfo(
                me.node_id, me.cluster_id, self.address, self.config.client_address, self.config.seed_nodes,
                self.initialised, 0, item.message.nonce,
            )  # fmt: skip
        elif isinstance(item.message, peer.PrepareInit):
            reply = answer_prepare_init(me, self.ledger.founding(), item.header, item.message)
        else:
            return
        to, at = item.envelope
        header = peer.Header(me.cluster_id, me.node_id, item.header.sender, 0, me.boot_epoch)
        self.world.carry(self.address, to.decode(), at.decode(), FromPeer((), header, reply))

    def _at(self, change: str) -> None:
        if change == "after join":
            self.world.check_join(self)
        if self.dies_at(change):
            raise CrashError


class World:
    """Hosts, the network between them, and time."""

    def __init__(self, seed: int, size: int = 3, node_ids: list[int] | None = None) -> None:
        self.random = random.Random(seed)
        self.now = 0
        self.loss = 0.0
        self.duplication = 0.0
        self.delay_ms: tuple[int, int] = (1, 3)
        self.cut: set[tuple[str, str]] = set()
        self.completed: dict[int, set[int]] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        addresses = tuple(f"h{n}:1" for n in range(1, size + 1))
        ids = node_ids or [self.new_id() for _ in addresses]
        self.hosts = [Host(self, address, ids[n], addresses) for n, address in enumerate(addresses)]
        self._by_address = {host.address: host for host in self.hosts}
        self.addresses = addresses

    def new_id(self) -> int:
        return self.random.randrange(1, 1 << 53)

    def at(self, when: int, what: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (when, self._serial, what))

    def run(self, until: Callable[[], bool], limit_ms: int) -> bool:
        """Whether it came true within the time."""
        end = self.now + limit_ms
        while not until():
            if not self._events or self._events[0][0] > end:
                self.now = end
                return until()
            when, _, what = heapq.heappop(self._events)
            self.now = max(self.now, when)
            what()
        return True

    def run_for(self, ms: int) -> None:
        self.run(lambda: False, ms)

    def carry(self, source: str, target: str, edge: str, message: FromPeer) -> bool:
        """Put a message on its way; False if there is no connection."""
        host = self._by_address.get(target)
        if host is None or not host.up:
            return False
        if (source, target) in self.cut:
            return True
        for _ in range(2 if self.random.random() < self.duplication else 1):
            if self.random.random() >= self.loss:
                arrives = self.now + self.random.randint(*self.delay_ms)
                self.at(arrives, lambda: host.receive(edge, message))
        return True

    def runs(self, cluster_id: int) -> bool:
        """Whether its first entry can be got from somebody."""
        return any(host.up and host.initialised and host.cluster_id == cluster_id for host in self.hosts)

    def joined(self) -> bool:
        return all(host.cluster_id for host in self.hosts)

    def check_join(self, host: Host) -> None:
        """Two completed clusters have no member in common, and nobody joins one that is not completed."""
        founding = host.ledger.founding()
        assert founding is not None
        members = set(unpack_configuration(founding.configuration).voters)
        assert host.node_id in members
        if founding.initialiser == host.node_id:
            for cluster_id, others in self.completed.items():
                assert cluster_id == founding.cluster_id or not members & others, (
                    "two clusters share a member"
                )
            for other in self.hosts:
                assert other.node_id not in members or other.ledger.founding() == founding
            self.completed[founding.cluster_id] = members
        assert founding.cluster_id in self.completed
