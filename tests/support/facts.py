"""Facts of a small cluster, made by hand in the order in which a run would tell them."""

from __future__ import annotations

from danube_raft.sim.checks.all import Checks
from danube_raft.sim.checks.facts import (
    Applied,
    Booted,
    Delivered,
    Issued,
    ReadAnswered,
    ReadAsked,
    Sent,
    Synced,
    Told,
)
from danube_raft.wire import local, peer
from danube_raft.wire.entry import KIND_BATCH, KIND_NOOP, NO_ORIGIN, Entry, HardState


def entry(index: int, term: int, payload: bytes = b"", stamp: int = 0) -> Entry:
    return Entry(index, term, KIND_BATCH if payload else KIND_NOOP, stamp, 0, NO_ORIGIN, payload)


class Stream:
    """Facts of a cluster of three."""

    def __init__(self) -> None:
        self.checks = Checks((1, 2, 3))
        self.seqs = {1: 0, 2: 0, 3: 0}
        for node in (1, 2, 3):
            self.checks.tell(Booted(node, 1))

    def write(
        self, node: int, *entries: Entry, state: HardState | None = None, cut: int = 0, sync: bool = True
    ) -> None:
        self.seqs[node] += 1
        write = local.Write(self.seqs[node], cut, entries, state)
        self.checks.tell(Issued(node, write))
        if sync:
            self.checks.tell(Synced(node, write))

    def role(self, node: int, role: str, term: int, leader: int, commit: int = 0) -> None:
        self.checks.tell(Told(node, local.Role(role, term, leader, 0, 0, commit)))

    def send(self, sender: int, receiver: int, term: int, message: peer.Message) -> None:
        self.checks.tell(Sent(peer.Header(77, sender, receiver, term, 1), message))

    def elect(self, node: int, term: int, *entries: Entry) -> None:
        """The node and one more vote for it, it leads, and writes these."""
        self.write(node, state=HardState(term, node))
        replicas = self.checks.view.replicas
        free = [each for each in (1, 2, 3) if replicas[each].hard_state.term < term]
        for voter in free[:1]:
            self.write(voter, state=HardState(term, node))
        self.write(node, *entries)
        self.role(node, "leader", term, node)


def good() -> Stream:
    """Node 1 leads term 1; entries 1 and 2 lie on nodes 1 and 2 and are committed; node 3 has the first alone."""
    stream = Stream()
    stream.elect(1, 1, entry(1, 1), entry(2, 1, b"x"))
    stream.write(2, state=HardState(1, 1))
    stream.send(2, 1, 1, peer.VoteReply(True))
    stream.send(1, 2, 1, peer.AppendEntries(0, 0, 0, 0, (entry(1, 1), entry(2, 1, b"x"))))
    stream.write(2, entry(1, 1), entry(2, 1, b"x"))
    stream.send(2, 1, 1, peer.AppendReply(True, 2, 0, 0, True))
    stream.checks.tell(Delivered(1, (entry(1, 1), entry(2, 1, b"x"))))
    stream.checks.tell(Applied(1, 2))
    stream.send(1, 2, 1, peer.AppendEntries(2, 1, 2, 0, ()))
    stream.checks.tell(ReadAsked(1, 1))
    stream.checks.tell(ReadAnswered(1, 1, 2))
    stream.write(3, entry(1, 1), state=HardState(1, 0))
    stream.send(3, 1, 1, peer.AppendReply(True, 1, 0, 0, True))
    return stream
