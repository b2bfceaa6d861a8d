"""Snapshots and the log fit together on every node, whatever it has been through (INTERNALS §9; PITFALLS 25 to 30):

    purged ≤ older kept snapshot ≤ newest snapshot ≤ applied ≤ min(commit, durable) ≤ last

- The log is forgotten only up to what two snapshots hold that can really be read now; only an installed one begins a log
  by itself, and is there when it does.
- What is loaded ends with an entry of this very log. An installed one is never behind what the state machine has.
- What comes out of a snapshot is what the committed log makes up to its end, bit for bit; and two snapshots of the same
  entry are the same file on every node.
- Of those that were handed out, `needless` counts those whose receiver had what the sender's log still begins with.

The right-hand part of the chain is state_machine_safety.py's.
"""

from __future__ import annotations

from collections.abc import Callable

from danube_raft.sim.checks.facts import (
    Begun,
    Fact,
    Loaded,
    LoadTold,
    PurgeIssued,
    Sent,
    SnapshotTold,
    Violation,
)
from danube_raft.sim.checks.reference import Reference
from danube_raft.sim.checks.view import View
from danube_raft.wire import peer

Good = Callable[[int], tuple[tuple[int, int], ...]]
"""(index, term) of the snapshots of a node that can be read now, the newest last."""


class SnapshotsFit:
    """`good` looks at a node's disk."""

    wants = (Begun, Loaded, LoadTold, PurgeIssued, Sent, SnapshotTold)

    def __init__(self, view: View, good: Good = lambda _: ()) -> None:
        self._view = view
        self._good = good
        self._files: dict[tuple[int, int], tuple[bytes, int, bytes, int, bytes]] = {}
        self._reference = Reference(view.committed)
        self.needless = 0

    def take(self, fact: Fact) -> None:
        """Everything is where it has to be."""
        if isinstance(fact, PurgeIssued):
            self._purges(fact)
        elif isinstance(fact, Begun):
            if fact.installed:
                self._begins(fact)
        elif isinstance(fact, SnapshotTold):
            self._done(fact)
        elif isinstance(fact, LoadTold):
            self._loads(fact)
        elif isinstance(fact, Loaded):
            self._loaded(fact)
        elif isinstance(fact, Sent) and isinstance(fact.message, peer.InstallSnapshot):
            self._sent(fact.header, fact.message)

    def _purges(self, fact: PurgeIssued) -> None:
        handed = self._view.replicas[fact.node].handed
        if fact.upto > handed:
            raise Violation(f"node {fact.node} forgets its log up to {fact.upto}, and has applied {handed}")
        # One that is ahead of the state machine was not installed: no restart can begin with it.
        enough = [point for point in fact.good if fact.upto <= point[0] <= handed]
        if len(enough) < 2:
            raise Violation(
                f"node {fact.node} forgets its log up to {fact.upto}, with the snapshots {fact.good}"
            )

    def _begins(self, fact: Begun) -> None:
        if (fact.index, fact.term) not in self._good(fact.node):
            raise Violation(f"{fact}, and no such snapshot can be read there")
        committed = self._view.committed
        if fact.index > len(committed) or committed[fact.index - 1].term != fact.term:
            raise Violation(f"{fact}, which is not committed")

    def _done(self, fact: SnapshotTold) -> None:
        done = fact.done
        handed = self._view.replicas[fact.node].handed
        if done.index > handed:
            raise Violation(
                f"node {fact.node} has a snapshot of {done.index}, and has applied {handed}: {done}"
            )
        if fact.node in self._view.falsified:
            return
        point = (done.index, done.term)
        file = (done.chain, done.size_bytes, done.sha256, done.stamp_ms, done.configuration)
        if self._files.setdefault(point, file) != file:
            raise Violation(f"node {fact.node} has another snapshot of {point} than others: {done}")

    def _loads(self, fact: LoadTold) -> None:
        replica = self._view.replicas[fact.node]
        if fact.index < replica.purged:
            raise Violation(f"node {fact.node} begins with {fact.index}, and its log behind {replica.purged}")
        if fact.index and replica.durable_term_at(fact.index) != fact.term:
            raise Violation(f"{fact}, which its log does not hold")
        if fact.installed and fact.index <= replica.handed:
            raise Violation(f"{fact}, and its state machine was handed {replica.handed} already")

    def _loaded(self, fact: Loaded) -> None:
        if fact.upto != self._view.replicas[fact.node].loaded:
            raise Violation(f"node {fact.node} has loaded {fact.upto}, which it was not told to")
        if fact.digest == self._reference.digest_at(fact.upto):
            self._view.falsified.discard(fact.node)
        elif fact.node not in self._view.falsified:
            raise Violation(f"node {fact.node} has loaded a state of {fact.upto} that the log does not make")

    def _sent(self, header: peer.Header, message: peer.InstallSnapshot) -> None:
        if message.offset == 0:
            sender, receiver = self._view.replicas[header.sender], self._view.replicas[header.receiver]
            first = sender.purged
            self.needless += receiver.durable_term_at(first) == sender.term_at(first)
