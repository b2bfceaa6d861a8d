"""The seeds of a node that belongs to no cluster yet: whom it has asked, what they said, what keeps all from starting.

- One question is out per seed; it is given up after `ANSWER_MS`, and the next follows `ASK_MS` after an answer.
- Only the answer to the question that is out counts. So whoever forgets the open questions knows of every later
  answer that it was given afterwards.
- A seed that is this node's advertised address, or that answers with this node's id, is this node.
- Lists are compared as sets of strings: the same list must be written everywhere.

What the node does about it is decided in `forming.py`; sockets are in `questions.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from danube_raft.config import is_address
from danube_raft.wire.entry import VOTER, Member
from danube_raft.wire.peer import NodeInfo

ASK_MS = 200
ANSWER_MS = 1_000
LATELY_MS = 2_000
"""How old an answer may be that counts for a decision."""

EDGE = "seed:"


class Seed:
    """One seed: the question that is out and the last answer."""

    def __init__(self, address: str, is_me: bool) -> None:
        self.address = address
        self.edge = EDGE + address
        self.is_me = is_me
        self.info: NodeInfo | None = None
        self.ask_at = 0
        self._heard_at = 0
        self._nonce = 0

    def ask(self, nonce: int, now: int) -> None:
        """The question with this nonce goes out now."""
        self._nonce = nonce
        self.ask_at = now + ANSWER_MS

    def forget(self, now: int) -> None:
        """No answer to the question that is out will count; ask again soon."""
        self._nonce = 0
        self.ask_at = now + ASK_MS

    def hear(self, info: NodeInfo, now: int) -> bool:
        """Take an answer; False if it is not the one to the question that is out."""
        if not self._nonce or info.nonce != self._nonce:
            return False
        self.forget(now)
        self.info, self._heard_at = info, now
        return True

    def lately(self, now: int) -> bool:
        """Whether the last answer is fresh."""
        return self.info is not None and now - self._heard_at <= LATELY_MS


class Seeds:
    """All seeds of the node `me`, in the order in which they were given."""

    def __init__(self, addresses: tuple[str, ...], me: Member) -> None:
        self.addresses = addresses
        self._me = me
        self._all = [Seed(address, address == me.raft_addr) for address in addresses]
        self._by_edge = {seed.edge: seed for seed in self._all}

    @property
    def others(self) -> list[Seed]:
        """Those that are not known to be this node."""
        return [seed for seed in self._all if not seed.is_me]

    def hear(self, edge: str, info: NodeInfo, now: int) -> bool:
        """Take an answer; whether it counts."""
        seed = self._by_edge[edge]
        if not seed.hear(info, now):
            return False
        seed.is_me = info.node_id == self._me.node_id
        return True

    def unsent(self, edge: str, now: int) -> None:
        """The link did not take the question."""
        self._by_edge[edge].forget(now)

    def forget_questions(self, now: int) -> None:
        """Only answers to later questions count from now on."""
        for seed in self.others:
            seed.forget(now)

    def answers(self) -> list[NodeInfo]:
        """The last answer of every other node, however old."""
        return [seed.info for seed in self.others if seed.info is not None]

    def of_node(self, node_id: int) -> Seed | None:
        """The seed that answered last as this node."""
        found = [seed for seed in self.others if seed.info is not None and seed.info.node_id == node_id]
        return found[0] if found else None

    def at(self, address: str) -> NodeInfo | None:
        """The last answer of the seed that is, or says to be, at this address."""
        for seed in self.others:
            if seed.info is not None and address in (seed.address, seed.info.raft_addr):
                return seed.info
        return None

    def members(self) -> tuple[Member, ...]:
        """Everyone known, this node among them, as voters in the order of node ids."""
        known = {
            info.node_id: Member(info.node_id, VOTER, info.raft_addr, info.client_addr)
            for info in self.answers()
        }
        known[self._me.node_id] = self._me
        return tuple([known[node_id] for node_id in sorted(known)])

    def disagree(self, members: tuple[Member, ...]) -> bool:
        """Whether these are not the nodes behind the seeds (any more), as far as that is known."""
        known = self.members()
        complete = all(seed.info is not None for seed in self.others)
        return not set(known) <= set(members) or (complete and known != members)

    def obstacles(self, now: int) -> list[str]:
        """What keeps these nodes from forming a cluster now, each for people to read; empty if nothing does."""
        fresh = [(seed, seed.info) for seed in self.others if seed.info is not None and seed.lately(now)]
        found = [
            f"node {info.node_id} at {seed.address} belongs to cluster {info.cluster_id}, which runs already; "
            "waiting to be added to it"
            for seed, info in fresh
            if info.initialised
        ]
        silent = [seed.address for seed in self.others if not seed.lately(now)]
        if silent:
            found.append(f"waiting for {_and(silent)} to answer")
        elif len(self.others) == len(self._all):
            found.append(
                f"this node, {self._me.raft_addr}, is not among its own seed nodes {_listed(self.addresses)}"
            )
        found += [
            f"node {info.node_id} at {seed.address} has the seed nodes {_listed(info.seed_nodes)}, "
            f"this node has {_listed(self.addresses)}: waiting for one list on all nodes"
            for seed, info in fresh
            if not info.initialised and set(info.seed_nodes) != set(self.addresses)
        ]
        found += [
            f"node {info.node_id} at {seed.address} advertises {info.raft_addr!r} and {info.client_addr!r}: waiting for "
            "it to be started with addresses that others can connect to"
            for seed, info in fresh
            if not (is_address(info.raft_addr) and is_address(info.client_addr))
        ]
        return found + self._doubles()

    def _doubles(self) -> list[str]:
        """Seeds that are one node, and nodes that others could not tell apart by their addresses."""
        by_node: dict[int, list[str]] = {}
        for seed in self._all:
            if seed.is_me:
                by_node.setdefault(self._me.node_id, []).append(seed.address)
            elif seed.info is not None:
                by_node.setdefault(seed.info.node_id, []).append(seed.address)
        found = [
            f"the seed nodes {_and(addresses)} are one node ({node_id}): waiting for a list that names each node once"
            for node_id, addresses in by_node.items()
            if len(addresses) > 1
        ]
        by_address: dict[str, list[str]] = {}
        for member in self.members():
            by_address.setdefault(member.raft_addr, []).append(str(member.node_id))
        found += [
            f"nodes {_and(nodes)} all advertise {address}: waiting for each to have its own raft_advertise"
            for address, nodes in by_address.items()
            if len(nodes) > 1
        ]
        return found


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _listed(addresses: Iterable[str]) -> str:
    return ",".join(addresses) or "(none)"
