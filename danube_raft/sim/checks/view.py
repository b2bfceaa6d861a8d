"""What the checks know of every node, built from facts alone and before any check looks at a fact.

Per node: its log as consensus has issued it, its log and hard state as the disk holds them, its role. For the cluster:
what is committed. Logs are lists of terms, the entry of index i at place i - 1: with log matching checked, (index,
term) says which entry it is.

A log that is purged still counts as holding what it has forgotten, and one that begins behind an installed snapshot as
holding everything before: the snapshot does, and checks/snapshots.py sees to it that there is one.

A node whose disk forgot is SUSPECT from then on, until consensus says otherwise. What its disk had held before may have
been acknowledged, so a leader of an older term may count it.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import (
    Begun,
    Booted,
    Cleared,
    Delivered,
    Fact,
    Forgot,
    Issued,
    Judged,
    LoadTold,
    MarkSynced,
    Synced,
    Told,
)
from danube_raft.wire import local
from danube_raft.wire.entry import Entry, HardState


class Replica:
    """One node, as its messages and its disk show it."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.durable: list[int] = []
        self.hard_state = HardState()
        """On disk."""
        self.suspect = False
        self.may_be_suspect = False
        """Its mark may still say so, although it is over."""
        self.lost: list[list[int]] = []
        """What its disk had held, each time that it forgot since it was last sound."""
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

    def had_durable(self, index: int, term: int) -> bool:
        """Whether its disk had the entry once, and forgot it or what else it had promised."""
        return any(0 < index <= len(lost) and lost[index - 1] == term for lost in self.lost)


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
        self.falsified: set[int] = set()
        """Nodes whose state a test has made wrong, until they begin with a right one."""

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
        else:
            self._take_suspicion(fact)

    def _take_suspicion(self, fact: Fact) -> None:
        if isinstance(fact, Forgot):
            replica = self.replicas[fact.node]
            replica.suspect = True
            replica.lost.append(replica.durable)
            replica.purged = fact.purged_index
            replica.durable = [*replica.durable[: fact.purged_index], *fact.terms]
            replica.hard_state = fact.promised
        elif isinstance(fact, Judged):
            replica = self.replicas[fact.node]
            if fact.suspect and replica.may_be_suspect and not replica.suspect:
                replica.suspect = True
                replica.lost.append(replica.durable.copy())
        elif isinstance(fact, Cleared):
            replica = self.replicas[fact.node]
            replica.suspect, replica.may_be_suspect = False, True
            replica.lost.clear()
        elif isinstance(fact, MarkSynced) and not fact.suspect:
            self.replicas[fact.node].may_be_suspect = False

    def after(self, fact: Fact) -> None:
        """All checks have looked at the fact; what it was compared with may be renewed."""
        if isinstance(fact, LoadTold):
            self.replicas[fact.node].loaded = fact.index
        elif isinstance(fact, Delivered):
            self.replicas[fact.node].delivered = fact.entries[-1].index
            known = len(self.committed)
            self.committed += [entry for entry in fact.entries if entry.index > known]

    def is_safe(self, index: int, term: int) -> bool:
        """Whether no leader can be elected without the entry: too few voters lack it, of those that are not SUSPECT."""
        lacking = sum(
            1
            for each in self.voters
            if not self.replicas[each].suspect and self.replicas[each].durable_term_at(index) != term
        )
        return lacking <= len(self.voters) // 2

    def acked(self, index: int, term: int) -> int:
        """Number of voters whose ack for the entry may count: the disk holds it, or had it before it forgot."""
        replicas = [self.replicas[each] for each in self.voters]
        return sum(
            1
            for each in replicas
            if (each.had_durable(index, term) if each.suspect else each.durable_term_at(index) == term)
        )

    def holders(self, index: int, term: int) -> int:
        """Number of voters whose disk holds the entry."""
        return sum(1 for each in self.voters if self.replicas[each].durable_term_at(index) == term)
