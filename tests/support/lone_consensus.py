"""One consensus process stepped by hand; the test plays its kv-server, its log-writer and its peers."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from danube_raft.config import Config
from danube_raft.node.consensus import Consensus
from danube_raft.node.endpoints import FromPeer, ToPeer
from danube_raft.node.handler import KV, LINKS, LOG, PEERS
from danube_raft.node.identity import Identity
from danube_raft.wire import local, peer
from danube_raft.wire.entry import VOTER, Configuration, Founding, HardState, Member, pack_configuration

CLUSTER = 7
MEMBERS = tuple(Member(node, VOTER, f"127.0.0.1:{node}", f"127.0.0.1:{node + 10}") for node in (1, 2, 3))
CONFIGURATION = Configuration(MEMBERS)
FOUNDING = Founding(CLUSTER, 1, pack_configuration(CONFIGURATION), 5)


class Alone:
    """One consensus handler; the test plays its kv-server, its log-writer and its peers."""

    def __init__(
        self,
        node_id: int = 2,
        *,
        log: bool = True,
        config: Config | None = None,
        recovered: local.Recovered | None = None,
        points: tuple[tuple[int, int], ...] = (),
        load: bool = True,
        read_only: bool = False,
    ) -> None:
        self.now = 10_000
        self.term = 1
        self.node_id = node_id
        self.sent: list[tuple[str, Any]] = []
        identity = Identity(node_id, CLUSTER, 4)
        self.handler = Consensus(
            config or Config(), identity, FOUNDING, random.Random(1), lambda: 5, Counter(), 2, read_only
        )
        self.handler.start(self.now)
        runs = ((1, 1),) if log else ()
        configurations = ((1, FOUNDING.configuration),) if log else ()
        self.receive(
            LOG,
            recovered
            or local.Recovered(
                HardState(1 if log else 0, 0), 0, 0, 1 if log else 0, 0, runs, configurations, "", 9
            ),
        )
        self.receive(KV, local.SnapshotsFound(points))
        self.turn()
        if load:
            (chosen,) = self.take(KV, local.LoadSnapshot)
            self.receive(KV, local.Applied(chosen.index))
            self.turn()

    def receive(self, edge: str, message: Any) -> None:
        self.handler.receive(edge, message, self.now)

    def turn(self) -> None:
        """A turn; the disk is a fast one."""
        self.handler.turn(self.now)
        out, self.handler.outbox[:] = list(self.handler.outbox), []
        self.sent += out
        writes = [message.seq for edge, message in out if edge == LOG and isinstance(message, local.Write)]
        if writes:
            self.receive(LOG, local.Durable(writes[-1]))
            self.turn()

    def hear(self, from_node: int, message: peer.Message, **header: int) -> None:
        """A message of a peer, and a turn."""
        fields = {
            "cluster_id": CLUSTER,
            "sender": from_node,
            "receiver": self.node_id,
            "term": self.term,
            "boot_epoch": 1,
        }
        self.receive(PEERS, FromPeer((b"p",), peer.Header(**(fields | header)), message))
        self.turn()

    def follow(self, leader: int, term: int = 2) -> None:
        """Hear a leader."""
        self.term = term
        self.hear(leader, peer.Heartbeat(0, 0, 0))
        self.sent.clear()

    def lead(self) -> None:
        """Win an election with the vote of node 3."""
        self.now = max(self.now, self.handler.next_timer() or 0)
        self.turn()
        self.hear(3, peer.PreVoteReply(self.term + 1, True))
        self.term += 1
        self.hear(3, peer.VoteReply(True))
        self.sent.clear()

    def take(self, edge: str, kind: type) -> list[Any]:
        """What was sent of a kind: (receiver, message) for peers, else the message."""
        found: list[Any] = []
        for to, item in self.sent:
            if to != edge:
                continue
            if edge == LINKS and isinstance(item, ToPeer) and isinstance(item.message, kind):
                found.append((item.header.receiver, item.message))
            elif isinstance(item, kind):
                found.append(item)
        return found

    @property
    def refused(self) -> int:
        count: int = self.handler.status(self.now)["counters"].get("peer_messages_refused", 0)
        return count
