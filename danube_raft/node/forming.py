"""What a node with seeds does before it belongs to a cluster: it agrees with the others on who founds one.

Nodes ask each other who they are. Once all seeds have answered lately, have one list and are bound to nothing, the
one with the lowest node id makes a plan: a new cluster id and a configuration of all. Everyone promises to join that
cluster and no other; when all have promised, the initialiser joins it, and the others once it runs.

The invariant: two clusters that have a member in common are never both completed (joined by their initialisers).
- A promise is durable before anyone hears of it, the initialiser's own before the first PrepareInit.
- An initialiser gives a plan up (makes a new one, or yields to a lower node id) only before it has joined, durably,
  and never comes back to it: cluster ids are random and only their initialiser asks for promises to them.
- So a member's promise is void only when the initialiser itself, asked after the promise was given, is not bound to
  that cluster: then it never completes. While the initialiser is silent or lost, the promise holds.

What is known of the seeds is in `seeds.py`; writing the first entry is for consensus. See §10 of the design.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from danube_raft.config import SEEDS_MAX, Config, is_address
from danube_raft.node.endpoints import FromPeer, ToPeer, Unsent
from danube_raft.node.handler import PEERS
from danube_raft.node.identity import asked_for
from danube_raft.node.seeds import Seeds
from danube_raft.storage.data_dir import FOUNDING_MAX_BYTES, NODE_ID_LIMIT, Identity
from danube_raft.wire import peer
from danube_raft.wire.codec import Malformed
from danube_raft.wire.entry import (
    VOTER,
    Configuration,
    Founding,
    Member,
    pack_configuration,
    unpack_configuration,
)

PREPARE_MS = 200
SAY_MS = 5_000
SAY_LATER_MS = 10_000
SAY_OFTEN = 12
"""How many times a reason is said every `SAY_MS`."""

log = logging.getLogger("danube_raft.forming")


class Ledger(Protocol):
    """What is durable of the forming phase; `DataDir` is one. Every change is durable on return."""

    def identity(self) -> Identity | None:
        """Which node this is."""

    def founding(self) -> Founding | None:
        """The last promise."""

    def promise(self, founding: Founding) -> None:
        """Be bound to `founding` instead."""

    def join_cluster(self, cluster_id: int) -> object:
        """Belong to this cluster for good."""


class Forming:
    """Handler of the forming phase: answers others on PEERS, asks each seed on an edge of its own."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        random_below: Callable[[int], int],
        wall_clock_ms: Callable[[], int],
    ) -> None:
        identity = ledger.identity()
        assert identity is not None, "a node has an identity before it looks for a cluster"
        assert identity.cluster_id == 0, "a node that belongs to a cluster asks no seeds"
        self.outbox: list[tuple[str, Any]] = []
        self.waiting = ""
        """What the node waits for, for people to read."""
        self._ledger = ledger
        self._random_below = random_below
        self._wall_clock_ms = wall_clock_ms
        self._me = Member(identity.node_id, VOTER, config.raft_address, config.client_address)
        self._seeds = Seeds(config.seed_nodes, self._me)
        self._bound: Founding | None = None
        self._members: tuple[Member, ...] = ()
        self._promised: set[int] = set()
        self._refusals: dict[int, str] = {}
        # Answers to questions of an earlier start must not pass for answers to these.
        self._nonce = 1 + random_below(1 << 61)
        self._prepare_at = self._say_at = self._said = self._now = 0
        self._done = False
        promise = ledger.founding()
        if promise is not None:
            self._take_on(promise)

    @property
    def ready(self) -> bool:
        """There is nothing to get ready."""
        return True

    @property
    def done(self) -> bool:
        """Whether the node belongs to a cluster now."""
        return self._done

    def start(self, now: int) -> None:
        """The first turn asks."""

    def close(self) -> None:
        """Nothing outlives the phase but what is in the ledger."""

    def receive(self, edge: str, message: Any, now: int) -> None:
        """A question of another node, an answer of a seed, or what a link did not take."""
        self._now = now
        if self._done:
            return
        if edge == PEERS:
            self._question(message)
        elif isinstance(message, Unsent):
            if isinstance(message.message, peer.GetNodeInfo):
                self._seeds.unsent(edge, now)
        elif isinstance(message.message, peer.NodeInfo):
            if self._seeds.hear(edge, message.message, now):
                self._heard(message.message)
        elif isinstance(message.message, peer.PrepareInitReply):
            self._promise_of(message.header.sender, message.message)

    def turn(self, now: int) -> None:
        """Ask whoever is due, take the next step that is possible, say what is missing."""
        self._now = now
        if self._done:
            return
        for seed in self._seeds.others:
            if now >= seed.ask_at:
                self._nonce += 1
                seed.ask(self._nonce, now)
                self._send(seed.edge, 0, peer.GetNodeInfo(self._nonce))
        reasons = self._advance(now)
        if not self._done:
            self._say("; ".join(reasons), now)

    def next_timer(self) -> int | None:
        """The next question, repetition or log line. What was due in the last turn has been seen to."""
        wakes = [self._prepare_at, self._say_at, *[seed.ask_at for seed in self._seeds.others]]
        return min(wake for wake in wakes if wake > self._now)

    # ---------------------------------------------------------------- what others ask

    def _question(self, item: FromPeer) -> None:
        header, message = item.header, item.message
        reply: peer.Message
        if isinstance(message, peer.GetNodeInfo):
            reply = self._node_info(message.nonce)
        elif isinstance(message, peer.PrepareInit):
            reply = self._prepare(header, message)
        else:
            return
        # Written after the promise was: an answer never says more than the disk.
        answer = peer.pack(peer.Header(0, self._me.node_id, header.sender, 0, 0), reply)
        self.outbox.append((PEERS, (item.envelope, answer)))

    def _node_info(self, nonce: int) -> peer.NodeInfo:
        bound, me = self._bound, self._me
        cluster_id, initialiser = (bound.cluster_id, bound.initialiser) if bound else (0, 0)
        return peer.NodeInfo(
            me.node_id,
            cluster_id,
            me.raft_addr,
            me.client_addr,
            self._seeds.addresses,
            False,
            initialiser,
            nonce,
        )

    def _prepare(self, header: peer.Header, message: peer.PrepareInit) -> peer.PrepareInitReply:
        asked = asked_for(header, message)
        refusal = self._unfit(asked) or self._bound_otherwise(asked)
        if refusal is None and asked != self._bound:
            self._bind(asked)
            log.info(
                "promised to join cluster %d, which node %d initialises", asked.cluster_id, asked.initialiser
            )
        return peer.PrepareInitReply(refusal is None, refusal or "", asked.cluster_id)

    def _unfit(self, asked: Founding) -> str | None:
        """Why nobody like this node could promise that; None if it could."""
        if len(asked.configuration) > FOUNDING_MAX_BYTES or asked.cluster_id == 0 or asked.initialiser == 0:
            return "this is no founding of a cluster"
        try:
            configuration = unpack_configuration(asked.configuration)
        except Malformed as error:
            return f"the configuration cannot be read: {error}"
        members = configuration.members
        ids = [member.node_id for member in members]
        if (
            configuration.outgoing
            or configuration.removed
            or len(set(ids)) != len(ids)
            or len(ids) > SEEDS_MAX
            or configuration.voters != tuple(ids)
        ):
            return "a first configuration has a few voters and nothing else"
        for member in members:
            if not (is_address(member.raft_addr) and is_address(member.client_addr)):
                return f"{_name(member)} has an address that nobody can connect to"
        if self._me not in members:
            return f"the configuration does not have {_name(self._me)} with its addresses"
        if asked.initialiser not in ids or asked.initialiser == self._me.node_id:
            return f"node {asked.initialiser} is not another member of that configuration"
        return None

    def _bound_otherwise(self, asked: Founding) -> str | None:
        bound = self._bound
        if bound is None or bound == asked:
            return None
        if bound.initialiser == self._me.node_id > asked.initialiser:
            # Two plans: the lower node id's goes on. This one was not joined, so nothing came of it, nor will.
            return None
        return f"node {self._me.node_id} has promised to join cluster {bound.cluster_id}, which node {bound.initialiser} initialises"

    # ---------------------------------------------------------------- what seeds answer

    def _heard(self, info: peer.NodeInfo) -> None:
        bound = self._bound
        if bound is None or bound.initialiser == self._me.node_id:
            return
        if info.initialised and info.cluster_id == bound.cluster_id:
            self._join(bound)
        elif info.node_id == bound.initialiser and info.cluster_id != bound.cluster_id:
            # Asked after the promise was given, since binding forgets the open questions.
            log.info(
                "node %d has given up cluster %d: this node is free again", info.node_id, bound.cluster_id
            )
            self._bound, self._members = None, ()

    def _promise_of(self, node_id: int, reply: peer.PrepareInitReply) -> None:
        bound = self._bound
        if bound is None or bound.initialiser != self._me.node_id or reply.cluster_id != bound.cluster_id:
            return
        if reply.promised:
            self._promised.add(node_id)
        else:
            self._refusals[node_id] = reply.reason

    # ---------------------------------------------------------------- steps

    def _advance(self, now: int) -> list[str]:
        """The next step; what it waits for."""
        bound = self._bound
        if bound is None:
            return self._gather(now)
        if bound.initialiser != self._me.node_id:
            return [self._initialiser_of(bound, now)]
        if self._seeds.disagree(self._members):
            # A member was replaced or has another address now: promises to this plan lead to nothing.
            obstacles = self._seeds.obstacles(now)
            if obstacles:
                return obstacles
            self._plan(now)
        return self._collect(now)

    def _gather(self, now: int) -> list[str]:
        """This node has promised nothing: wait for all, then the lowest id plans, unless somebody else has already."""
        obstacles = self._seeds.obstacles(now)
        if obstacles:
            return obstacles
        bound = next((info for info in self._seeds.answers() if info.cluster_id), None)
        members = self._seeds.members()
        first = members[0].node_id if bound is None else bound.leader_id or bound.node_id
        if first != self._me.node_id:
            known = next((_name(member) for member in members if member.node_id == first), f"node {first}")
            return [f"waiting for {known}, which initialises the cluster"]
        self._plan(now)
        return self._collect(now)

    def _plan(self, now: int) -> None:
        cluster_id = 1 + self._random_below(NODE_ID_LIMIT - 1)
        packed = pack_configuration(Configuration(self._seeds.members()))
        self._bind(Founding(cluster_id, self._me.node_id, packed, self._wall_clock_ms()))
        self._prepare_at = now
        log.info("initialising cluster %d with %s", cluster_id, ", ".join(map(_name, self._members)))

    def _collect(self, now: int) -> list[str]:
        """Ask for the promises that are missing; with all of them the cluster is founded."""
        bound = self._bound
        assert bound is not None
        missing = [
            member for member in self._members if member != self._me and member.node_id not in self._promised
        ]
        if not missing:
            self._join(bound)
            return []
        if now >= self._prepare_at:
            self._prepare_at = now + PREPARE_MS
            for member in missing:
                seed = self._seeds.of_node(member.node_id)
                if seed is not None:
                    prepare = peer.PrepareInit(bound.cluster_id, bound.configuration, bound.wall_ms)
                    self._send(seed.edge, member.node_id, prepare)
        return [self._unpromised(member, now) for member in missing]

    def _bind(self, founding: Founding) -> None:
        self._ledger.promise(founding)
        self._take_on(founding)
        self._seeds.forget_questions(self._now)

    def _take_on(self, founding: Founding) -> None:
        self._bound = founding
        self._members = unpack_configuration(founding.configuration).members
        self._promised.clear()
        self._refusals.clear()

    def _join(self, founding: Founding) -> None:
        self._ledger.join_cluster(founding.cluster_id)
        self._done = True
        self.waiting = ""
        log.info("joined cluster %d of %s", founding.cluster_id, ", ".join(map(_name, self._members)))

    def _send(self, edge: str, receiver: int, message: peer.Message) -> None:
        self.outbox.append((edge, ToPeer(peer.Header(0, self._me.node_id, receiver, 0, 0), message)))

    # ---------------------------------------------------------------- what it waits for

    def _unpromised(self, member: Member, now: int) -> str:
        seed = self._seeds.of_node(member.node_id)
        if seed is None or not seed.lately(now):
            return f"waiting for {_name(member)} to answer"
        refusal = self._refusals.get(member.node_id)
        return f"waiting for {_name(member)} to promise" + (f" ({refusal})" if refusal else "")

    def _initialiser_of(self, bound: Founding, now: int) -> str:
        member = next(member for member in self._members if member.node_id == bound.initialiser)
        seed = self._seeds.of_node(member.node_id)
        said = f"waiting for {_name(member)}, which initialises the cluster"
        if seed is not None and seed.lately(now):
            return said
        there = self._seeds.at(member.raft_addr)
        if there is not None and there.node_id != member.node_id:
            return (
                f"{said}; node {there.node_id} answers there now. If the data of node {member.node_id} is lost, "
                "empty the data directory of this node, which has promised to join its cluster, and start again"
            )
        return f"{said}, to answer"

    def _say(self, reason: str, now: int) -> None:
        if reason != self.waiting:
            self.waiting, self._said = reason, 0
        elif now < self._say_at:
            return
        self._said += 1
        self._say_at = now + (SAY_MS if self._said <= SAY_OFTEN else SAY_LATER_MS)
        log.info("%s", reason)


def _name(member: Member) -> str:
    return f"node {member.node_id} at {member.raft_addr}"
