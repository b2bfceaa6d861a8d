"""What the checks know of every node, built from facts alone and before any check looks at a fact.

Per node: its log as consensus has issued it, its log and hard state as the disk holds them, its role. For the cluster:
what is committed. Logs are lists of terms, the entry of index i at place i - 1: with log matching checked, (index,
term) says which entry it is.

A log that is purged still counts as holding what it has forgotten, and one that begins behind an installed snapshot as
holding everything before: the snapshot does, and checks/snapshots.py sees to it that there is one.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Begun, Booted, Delivered, Fact, Issued, LoadTold, Synced, Told
from danube_raft.wire import local
from danube_raft.wire.entry import Entry, HardState


class Replica:
    """One node, as its messages and its disk show it."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.durable: list[int] = []
        self.hard_state = HardState()
        """On disk."""
        self.role = "follower"
        self.term = 0
        self.delivered = 0
        """Last entry handed to the state machine in this boot, 0 if there was none."""
        self.loaded = 0
        """End of the snapshot that it was told to load in this boot, 0 if there was none."""
        self.purged = 0
        """On disk: what the log begins behind."""

    @property
    def handed(self) -> int:
        """What the state machine was given, by entries or by a snapshot."""
        return max(self.delivered, self.loaded)

    def term_at(self, index: int) -> int:
        """Term of the entry at `index` in consensus' log, 0 if there is none."""
        return self.log[index - 1] if 0 < index <= len(self.log) else 0

    def durable_term_at(self, index: int) -> int:
        """Term of the entry at `index` on disk, 0 if there is none."""
        return self.durable[index - 1] if 0 < index <= len(self.durable) else 0


def _write(log: list[int], write: local.Write) -> None:
    if write.truncate_from:
        del log[write.truncate_from - 1 :]
    for entry in write.entries:
        assert entry.index == len(log) + 1, "the log has no gaps"
        log.append(entry.term)


def _install(log: list[int], begun: Begun, committed: list[int]) -> None:
    """The log holds all that is committed up to the snapshot's end, and what it has behind it only if it has that end."""
    index = begun.index
    if not (len(log) >= index and log[index - 1] == begun.term):
        log.clear()
    log[:index] = committed[:index]


class View:
    """All nodes; `committed[i]` is the committed entry of index i + 1."""

    def __init__(self, ids: tuple[int, ...]) -> None:
        self.replicas = {node_id: Replica() for node_id in ids}
        self.voters = ids
        self.committed: list[Entry] = []

    def take(self, fact: Fact) -> None:
        """Make the fact known."""
        if isinstance(fact, Issued):
            _write(self.replicas[fact.node].log, fact.write)
        elif isinstance(fact, Synced):
            replica = self.replicas[fact.node]
            _write(replica.durable, fact.write)
            if fact.write.hard_state is not None:
                replica.hard_state = fact.write.hard_state
        elif isinstance(fact, Begun):
            replica = self.replicas[fact.node]
            replica.purged = fact.index
            if fact.installed:
                committed = [entry.term for entry in self.committed[: fact.index]]
                _install(replica.durable, fact, committed)
                # Consensus takes nothing into its log meanwhile.
                _install(replica.log, fact, committed)
        elif isinstance(fact, Told):
            replica = self.replicas[fact.node]
            replica.role, replica.term = fact.role.role, fact.role.term
        elif isinstance(fact, Booted):
            replica = self.replicas[fact.node]
            replica.log = replica.durable.copy()
            replica.role, replica.term, replica.delivered, replica.loaded = (
                "follower",
                replica.hard_state.term,
                0,
                0,
            )

    def after(self, fact: Fact) -> None:
        """All checks have looked at the fact; what it was compared with may be renewed."""
        if isinstance(fact, LoadTold):
            self.replicas[fact.node].loaded = fact.index
        elif isinstance(fact, Delivered):
            self.replicas[fact.node].delivered = fact.entries[-1].index
            known = len(self.committed)
            self.committed += [entry for entry in fact.entries if entry.index > known]

    def holders(self, index: int, term: int) -> int:
        """Number of voters whose disk holds the entry."""
        return sum(1 for each in self.voters if self.replicas[each].durable_term_at(index) == term)
