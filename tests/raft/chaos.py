"""One seed, one cluster, one run of faults; then the faults end and the cluster must come to rest, all nodes equal.

Checked after every event (names from Figure 3 of the paper):
- election safety: one leader per term; leader completeness: it has every committed entry;
- state machine safety: an index is committed with one term and one content, for ever, on every node;
- when an index is first committed, a majority of the disks holds it;
- no vote and no ack leaves before the disk says what it promises;
- a read is answered with no less than what was committed when it was asked;
- log matching, at intervals.

With `snapshots` nodes write down their state, purge their logs, and leaders send what they have written down; such a
snapshot may arrive late, twice, or in the middle of anything.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

from danube_raft.config import Config
from danube_raft.wire import peer
from danube_raft.wire.entry import Entry

from .world import Disk, Node, Snapshot, World, voters

CONFIG = replace(
    Config(),
    heartbeat_ms=50,
    election_min_ms=300,
    election_max_ms=600,
    append_max_bytes=300,
    log_cache_bytes=600,
    read_log_max_bytes=400,
    unapplied_max_bytes=1_200,
    unacked_write_max_bytes=1_000,
    inflight_max_messages=3,
)


class Chaos:
    """A run from `seed` with `size` voters."""

    def __init__(self, seed: int, size: int, *, lose_disks: bool = False, snapshots: bool = False) -> None:
        self.random = random.Random(seed)
        self.world = World()
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, Entry] = {}
        self.reads: dict[tuple[int, int, int], int] = {}
        self.counts: dict[str, int] = {
            "answered": 0,
            "elections": 0,
            "restarts": 0,
            "truncations": 0,
            "chunks": 0,
            "purges": 0,
            "installs": 0,
        }
        self.snapshots = snapshots
        self.snapshots_in_flight: list[tuple[int, Snapshot]] = []
        self.lose_disks = lose_disks
        self.cut: set[tuple[int, int]] = set()
        self.serial = 0
        configuration = voters(range(1, size + 1))
        for node_id in range(1, size + 1):
            node = Node(self.world, node_id, CONFIG, random.Random(seed * 10 + node_id))
            self.world.nodes[node_id] = node
            node.core.bootstrap(configuration, 0, 0)
            node.load()
            self.look(node)
            node.sync()
            self.look(node)
        self.nodes = list(self.world.nodes.values())

    # ---------------------------------------------------------------- faults

    def run(self, steps: int) -> None:
        """Any event may follow any other."""
        events = [
            (self.deliver, 600),
            (self.sync, 200),
            (self.apply, 60),
            (self.answer_read, 60),
            (self.propose, 40),
            (self.tick, 120),
            (self.read, 15),
            (self.drop, 20),
            (self.duplicate, 20),
            (self.partition, 4),
            (self.unreachable, 5),
            (self.restart, 4),
        ]
        if self.snapshots:
            events += [
                (self.take_snapshot, 40),
                (self.purge, 40),
                (self.send_snapshot, 30),
                (self.deliver_snapshot, 30),
            ]
        weights = [weight for _, weight in events]
        for step in range(steps):
            event, _ = self.random.choices(events, weights)[0]
            event()
            if step % 100 == 0:
                self.check_log_matching()

    def deliver(self) -> None:
        flight = self.world.flight
        if not flight:
            return
        header, message = flight.pop(self.random.randrange(len(flight)))
        if (header.sender, header.receiver) not in self.cut:
            node = self.world.deliver(header, message)
            assert node is not None
            self.look(node)

    def drop(self) -> None:
        if self.world.flight:
            self.world.flight.pop(self.random.randrange(len(self.world.flight)))

    def duplicate(self) -> None:
        if self.world.flight:
            self.world.flight.append(self.random.choice(self.world.flight))

    def sync(self) -> None:
        busy = [node for node in self.nodes if node.disk.pending]
        if busy:
            node = self.random.choice(busy)
            # The log-writer groups what waits: one ack for several writes.
            for _ in range(self.random.randint(1, len(node.disk.pending))):
                seq = node.disk.sync()
            node.synced(seq)
            self.look(node)

    def answer_read(self) -> None:
        busy = [node for node in self.nodes if node.reads]
        if busy:
            node = self.random.choice(busy)
            node.answer_read()
            self.counts["chunks"] += 1
            self.look(node)

    def apply(self) -> None:
        busy = [n for n in self.nodes if n.handed and n.core.applied_index < n.handed[-1].index]
        if busy:
            node = self.random.choice(busy)
            node.core.applied(self.random.randint(node.core.applied_index, node.handed[-1].index))
            self.look(node)

    def propose(self) -> None:
        for node in self.nodes:
            if node.core.role == "leader":
                self.serial += 1
                payload = b"%d" % self.serial + bytes(self.random.randrange(150))
                node.core.propose((node.node_id, node.boot, self.serial), payload, 0, self.world.now)
                self.look(node)

    def read(self) -> None:
        node = self.random.choice(self.nodes)
        self.serial += 1
        read = (node.node_id, node.boot, self.serial)
        self.reads[read] = max(self.committed, default=0)
        node.core.read_index(read, self.world.now)
        self.look(node)

    def tick(self) -> None:
        self.world.now += self.random.choice((1, 5, 10, 20, 60))
        for node in self.nodes:
            due = node.core.next_timer()
            if due is not None and due <= self.world.now:
                node.core.timer(self.world.now)
                self.look(node)

    def partition(self) -> None:
        """Heal, cut one link in one or both directions, or cut one node off: the leader if there is one."""
        ids = [node.node_id for node in self.nodes]
        kind = self.random.randrange(4)
        if kind == 0:
            self.cut.clear()
        elif kind == 1:
            a, b = self.random.sample(ids, 2)
            self.cut |= {(a, b)} if self.random.random() < 0.5 else {(a, b), (b, a)}
        else:
            leaders = [node.node_id for node in self.nodes if node.core.role == "leader"]
            alone = self.random.choice(leaders or ids)
            self.cut = {(alone, other) for other in ids} | {(other, alone) for other in ids}

    def unreachable(self) -> None:
        a, b = self.random.sample(self.nodes, 2)
        a.core.unreachable(b.node_id, self.world.now)
        self.look(a)

    def restart(self) -> None:
        node = self.random.choice(self.nodes)
        disk = node.disk
        # A crash may come before or after the sync of a write that was never acknowledged.
        for _ in range(self.random.randint(0, len(disk.pending))):
            disk.sync()
        disk.suspect = node.core.suspect
        others_whole = not any(other.core.suspect for other in self.nodes if other is not node)
        first = max(disk.purged[0], 1) + 1
        if self.lose_disks and others_whole and disk.last_index >= first and self.random.random() < 0.3:
            for index in range(self.random.randint(first, disk.last_index), disk.last_index + 1):
                del disk.log[index]
            disk.suspect = "lost its tail"
        self.counts["restarts"] += 1
        node.start()
        node.load()
        self.look(node)

    # ---------------------------------------------------------------- snapshots

    def take_snapshot(self) -> None:
        node = self.random.choice(self.nodes)
        last = max([snapshot.index for snapshot in node.disk.snapshots], default=0)
        applied = node.core.applied_index
        if applied > last and applied in node.disk.log:
            node.disk.snapshots.append(node.point(applied))
            # Two are kept.
            del node.disk.snapshots[:-2]

    def purge(self) -> None:
        """Not past the older of the snapshots that are kept."""
        node = self.random.choice(self.nodes)
        if node.disk.snapshots and not node.core.installing:
            first, upto = node.disk.purged[0] + 1, node.disk.snapshots[0].index
            if first <= upto:
                node.purge(self.random.randint(first, upto))
                self.counts["purges"] += 1
                self.look(node)

    def send_snapshot(self) -> None:
        for node in self.nodes:
            for to, state in node.core.progress.items():
                if state == "snapshot" and node.disk.snapshots:
                    self.snapshots_in_flight.append((to, node.disk.snapshots[-1]))

    def deliver_snapshot(self) -> None:
        """One of those that were sent, perhaps long ago; it may come again."""
        if self.snapshots_in_flight:
            place = self.random.randrange(len(self.snapshots_in_flight))
            to, snapshot = self.snapshots_in_flight[place]
            if self.random.random() < 0.8:
                del self.snapshots_in_flight[place]
            node = self.world.nodes[to]
            self.look(node)
            self.counts["installs"] += node.install(snapshot)

    # ---------------------------------------------------------------- the end of faults

    def heal(self, limit_ms: int) -> None:
        """Everything works again: within `limit_ms` there is a leader, and what it is given is on every node."""
        self.cut.clear()
        deadline = self.world.now + limit_ms
        first_serial = self.serial + 1
        while not self.is_level(first_serial):
            assert self.world.now < deadline, "no progress after the faults ended"
            self.world.now += 10
            for node in self.nodes:
                node.core.timer(self.world.now)
                self.look(node)
            self.drain()
            if self.world.now % 200 < 10:
                self.propose()
            self.send_snapshot()
            while self.snapshots_in_flight:
                self.deliver_snapshot()
        self.check_log_matching()

    def is_level(self, first_serial: int) -> bool:
        """Whether every node was handed the same log, which ends in a batch that was proposed since the healing."""
        last = {node.handed[-1] if node.handed else None for node in self.nodes}
        entry = last.pop()
        return not last and entry is not None and entry.origin[2] >= first_serial

    def drain(self) -> None:
        for _ in range(100_000):
            if self.world.flight:
                header, message = self.world.flight.pop(0)
                node = self.world.deliver(header, message)
                assert node is not None
                self.look(node)
                continue
            busy = [node for node in self.nodes if self.work(node)]
            if not busy and not self.world.flight:
                return
        raise AssertionError("the cluster does not come to rest")

    def work(self, node: Node) -> bool:
        if node.disk.pending:
            node.sync()
        elif node.reads:
            node.answer_read()
        elif node.handed and node.core.applied_index < node.handed[-1].index:
            node.core.applied(node.handed[-1].index)
        else:
            return False
        self.look(node)
        return True

    # ---------------------------------------------------------------- checks

    def look(self, node: Node) -> None:
        """Carry out what `node` says, and check it."""
        core = node.core
        before = len(node.handed)
        posted = len(self.world.flight)
        output = node.absorb()
        if output.write is not None and output.write.truncate_from:
            self.counts["truncations"] += 1
        for header, message in self.world.flight[posted:]:
            self.check_promise(node.disk, header, message)
        if output.role is not None and core.role == "leader":
            self.check_leader(node)
        self.check_commit(node, node.handed[before:])
        for read, index in output.read_answers:
            if index >= 0:
                assert index >= self.reads[read], "a stale read"
                self.counts["answered"] += 1

    def check_promise(self, disk: Disk, header: peer.Header, message: peer.Message) -> None:
        if isinstance(message, peer.VoteReply) and message.granted:
            assert disk.hard_state == (header.term, header.receiver), "a vote before it was durable"
        elif isinstance(message, peer.RequestVote):
            assert disk.hard_state == (header.term, header.sender), "a campaign before it was durable"
        elif isinstance(message, peer.HeartbeatReply):
            # It counts as an ack, and is not held: so it must speak of what is on disk already.
            assert message.match_index <= disk.last_index, "a heartbeat's answer for what was not durable"
        elif isinstance(message, peer.AppendReply) and message.success:
            assert disk.hard_state.term == header.term
            assert message.match_index <= disk.last_index, "an ack before it was durable"
            log = self.world.nodes[header.sender].core._state.log
            if message.match_index > disk.purged[0]:
                assert disk.log[message.match_index].term == log.term(message.match_index), (
                    "an ack for another entry"
                )

    def check_leader(self, node: Node) -> None:
        core = node.core
        assert self.leaders.setdefault(core.term, node.node_id) == node.node_id, "two leaders in one term"
        self.counts["elections"] += 1
        purged = core._state.log.purged_index
        for index, entry in self.committed.items():
            assert index < purged or core._state.log.matches(index, entry.term), (
                "a leader lacks a committed entry"
            )

    def check_commit(self, node: Node, handed: list[Entry]) -> None:
        log = node.core._state.log
        commit = node.core.commit_index
        for index in range(max(self.committed, default=0) + 1, commit + 1):
            term = log.term(index)
            holders = self.nodes_with(index, term)
            assert len(holders) > len(self.world.nodes) // 2 or self.lose_disks, (
                "committed without a majority"
            )
            self.committed[index] = holders[0].disk.log[index]
        known = self.committed.get(commit)
        assert known is None or log.term(commit) == known.term, "another entry is committed there"
        for entry in handed:
            assert entry == self.committed[entry.index], "another entry was applied there"

    def nodes_with(self, index: int, term: int) -> list[Node]:
        return [
            node
            for node in self.world.nodes.values()
            if index in node.disk.log and node.disk.log[index].term == term
        ]

    def check_log_matching(self) -> None:
        """Equal (index, term) means that all before is equal too; stamps never go back along a log."""
        for a in self.nodes:
            entries = [a.disk.log[index] for index in sorted(a.disk.log)]
            assert all(x.stamp_ms <= y.stamp_ms for x, y in itertools.pairwise(entries))
            for b in self.nodes:
                if a is not b:
                    self._check_pair(a.disk.log, b.disk.log)

    def _check_pair(self, a: dict[int, Entry], b: dict[int, Entry]) -> None:
        common = [index for index in a if index in b and a[index].term == b[index].term]
        last = max(common, default=0)
        both = [index for index in a if index in b and index <= last]
        assert all(a[index] == b[index] for index in both), "logs do not match"
