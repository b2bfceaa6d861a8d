"""Cores in a world of paper: disks that forget what was not acknowledged, and a network that is a list.

A snapshot is a point of the log with its configuration: what it would hold is what the entries up to it have said.

Nothing happens by itself. A write lies in `Disk.pending` until it is acknowledged, a message in `World.flight` until
somebody delivers it. Both test drivers (scripts and random runs) move these by hand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from danube_raft.config import Config
from danube_raft.raft.core import Core
from danube_raft.raft.output import Output, RandomSource, Send
from danube_raft.wire import local, peer
from danube_raft.wire.entry import (
    KIND_CONFIGURATION,
    VOTER,
    Configuration,
    Entry,
    HardState,
    Member,
    entry_bytes,
    unpack_configuration,
)

CLUSTER = 77


def voters(ids: Iterable[int]) -> Configuration:
    return Configuration(tuple(Member(i, VOTER, f"r{i}", f"c{i}") for i in ids))


class Snapshot(NamedTuple):
    """The state after the entry (index, term), written down. `configuration`: the payload that is in force there."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    configuration: bytes
    stamp_ms: int


class Install(NamedTuple):
    """A write that makes the log begin behind a snapshot."""

    seq: int
    snapshot: Snapshot


class Disk:
    """What the log-writer of one node would hold: synced state, and writes that are not synced yet."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self.purged = (0, 0)
        self.purged_stamp_ms = 0
        self.log: dict[int, Entry] = {}
        self.pending: deque[local.Write | Install] = deque()
        self.snapshots: list[Snapshot] = []
        """Oldest first."""
        self.suspect = ""
        self.forgot_term = False
        self.snapshot_configuration: tuple[tuple[int, bytes], ...] = ()

    @property
    def last_index(self) -> int:
        return max(self.log, default=self.purged[0])

    def sync(self) -> int:
        """Apply the oldest pending write and return its seq."""
        write = self.pending.popleft()
        if isinstance(write, Install):
            self._install(write.snapshot)
            return write.seq
        if write.truncate_from:
            for index in range(write.truncate_from, self.last_index + 1):
                del self.log[index]
        for entry in write.entries:
            assert entry.index == self.last_index + 1, "the log has no gaps"
            self.log[entry.index] = entry
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        return write.seq

    def _install(self, snapshot: Snapshot) -> None:
        """In one piece: the log behind it stays only if it goes on from that very entry."""
        own = self.log.get(snapshot.index)
        if own is None or own.term != snapshot.term:
            self.log.clear()
        self.purge(snapshot)

    def purge(self, snapshot: Snapshot) -> None:
        """Forget the log up to the end of `snapshot`, and keep what it says of that end."""
        index = snapshot.index
        if index > self.purged[0]:
            self.purged = (index, snapshot.term)
            self.purged_stamp_ms = snapshot.stamp_ms
            self.snapshot_configuration = ((index, snapshot.configuration),)
            for old in [each for each in self.log if each <= index]:
                del self.log[old]

    def read(self, request: local.ReadLog) -> tuple[Entry, ...]:
        """As the log-writer answers: what is there now, at most `max_bytes` or one entry."""
        found: list[Entry] = []
        size = 0
        for index in range(request.first, request.last + 1):
            entry = self.log.get(index)
            if entry is None:
                break  # a later write has cut it off
            size += entry_bytes(entry)
            if found and size > request.max_bytes:
                break
            found.append(entry)
        return tuple(found)

    def recovered(self) -> local.Recovered:
        purged_index, purged_term = self.purged
        runs: list[tuple[int, int]] = []
        last_term = purged_term
        configurations = list(self.snapshot_configuration)
        for index, entry in sorted(self.log.items()):
            if not runs or entry.term != last_term:
                runs.append((index, entry.term))
                last_term = entry.term
            if entry.kind == KIND_CONFIGURATION:
                configurations.append((index, entry.payload))
        stamp = max((entry.stamp_ms for entry in self.log.values()), default=self.purged_stamp_ms)
        return local.Recovered(
            self.hard_state,
            purged_index,
            purged_term,
            self.last_index,
            stamp,
            tuple(runs),
            tuple(configurations),
            self.suspect,
            1,
            self.forgot_term,
        )


class Node:
    """One core, its disk, and what it has said so far in this boot."""

    def __init__(self, world: World, node_id: int, config: Config, random: RandomSource) -> None:
        self.world = world
        self.node_id = node_id
        self.config = config
        self.random = random
        self.disk = Disk()
        self.boot = 0
        self.start()

    def start(self) -> None:
        """Boot from what the disk holds; what was not synced is gone."""
        self.boot += 1
        self.disk.pending.clear()
        self.reads: deque[local.ReadLog] = deque()
        self.handed: list[Entry] = []
        self.handed_from = self.disk.purged[0]
        """The state machine holds everything up to here from a snapshot; `handed` goes on behind it."""
        self.answers: dict[tuple[int, int, int], int] = {}
        self.forgot: list[tuple[int, int]] = []
        self.core = Core(self.node_id, self.config, self.disk.recovered(), self.random, self.world.now)

    def load(self) -> None:
        """The state machine has loaded the newest snapshot that the log agrees with; others are thrown away."""
        fit = [each for each in self.disk.snapshots if self.core.has(each.index, each.term)]
        self.disk.snapshots = fit
        index = max([each.index for each in fit], default=self.disk.purged[0])
        self.core.loaded(index, self.world.now)
        self.jump(index)

    def jump(self, index: int) -> None:
        """The state machine holds a snapshot up to `index`: what it was handed before plays no part any more."""
        if index > self.handed_from + len(self.handed):
            self.handed_from = index
            self.handed.clear()

    def point(self, index: int) -> Snapshot:
        """A snapshot of the state after the entry `index`, which the disk still has."""
        entry = self.disk.log[index]
        configurations = self.disk.recovered().configurations
        payload = next(payload for at, payload in reversed(configurations) if at <= index)
        return Snapshot(index, entry.term, payload, entry.stamp_ms)

    def purge(self, index: int) -> None:
        """Forget the log up to `index`, which a snapshot covers."""
        self.disk.purge(self.point(index))
        self.core.purge(index, self.world.now)

    def install(self, snapshot: Snapshot) -> bool:
        """A snapshot of the leader's has arrived."""
        self.absorb()
        configuration = unpack_configuration(snapshot.configuration)
        seq = self.core.install(
            snapshot.index, snapshot.term, configuration, snapshot.stamp_ms, self.world.now
        )
        if seq is None:
            return False
        self.disk.snapshots.append(snapshot)
        self.disk.pending.append(Install(seq, snapshot))
        return True

    def absorb(self) -> Output:
        """Carry out the core's output."""
        output = self.core.take_output()
        if output.write is not None:
            self.disk.pending.append(output.write)
        for send in output.messages:
            self.world.post(self, send)
        for entry in output.committed:
            expected = self.handed_from + len(self.handed) + 1
            assert entry.index == expected, "each index is handed over once, in order"
            self.handed.append(entry)
        self.reads.extend(output.read_log)
        self.answers.update(output.read_answers)
        self.forgot += output.forgot
        return output

    def sync(self) -> None:
        self.synced(self.disk.sync())

    def synced(self, seq: int) -> None:
        """The disk is done up to `seq`."""
        self.core.durable(seq, self.world.now)
        if not self.core.installing:
            self.jump(self.disk.purged[0])

    def answer_read(self) -> None:
        request = self.reads.popleft()
        self.core.log_chunk(request.first, self.disk.read(request), self.world.now)


class World:
    """Nodes, the messages between them, and one monotonic clock."""

    def __init__(self) -> None:
        self.now = 0
        self.nodes: dict[int, Node] = {}
        self.flight: list[tuple[peer.Header, peer.Message]] = []

    def post(self, node: Node, send: Send) -> None:
        header = peer.Header(CLUSTER, node.node_id, send.to, send.term, node.boot)
        # Through the wire format: what a peer could not decode must not be sent.
        self.flight.append(peer.unpack(peer.pack(header, send.message)))

    def deliver(self, header: peer.Header, message: peer.Message) -> Node | None:
        node = self.nodes.get(header.receiver)
        if node is not None:
            node.core.step(header, message, self.now)
        return node
