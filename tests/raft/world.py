"""Cores in a world of paper: disks that forget what was not acknowledged, and a network that is a list.

Nothing happens by itself. A write lies in `Disk.pending` until it is acknowledged, a message in `World.flight` until
somebody delivers it. Both test drivers (scripts and random runs) move these by hand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

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
)

CLUSTER = 77


def voters(ids: Iterable[int]) -> Configuration:
    return Configuration(tuple(Member(i, VOTER, f"r{i}", f"c{i}") for i in ids))


class Disk:
    """What the log-writer of one node would hold: synced state, and writes that are not synced yet."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self.purged = (0, 0)
        self.log: dict[int, Entry] = {}
        self.pending: deque[local.Write] = deque()
        self.suspect = ""
        self.snapshot_configuration: tuple[tuple[int, bytes], ...] = ()

    @property
    def last_index(self) -> int:
        return max(self.log, default=self.purged[0])

    def sync(self) -> int:
        """Apply the oldest pending write and return its seq."""
        write = self.pending.popleft()
        if write.truncate_from:
            for index in range(write.truncate_from, self.last_index + 1):
                del self.log[index]
        for entry in write.entries:
            assert entry.index == self.last_index + 1, "the log has no gaps"
            self.log[entry.index] = entry
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        return write.seq

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
        stamp = max((entry.stamp_ms for entry in self.log.values()), default=0)
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
        self.answers: dict[tuple[int, int, int], int] = {}
        self.core = Core(self.node_id, self.config, self.disk.recovered(), self.random, self.world.now)

    def absorb(self) -> Output:
        """Carry out the core's output."""
        output = self.core.take_output()
        if output.write is not None:
            self.disk.pending.append(output.write)
        for send in output.messages:
            self.world.post(self, send)
        for entry in output.committed:
            first = self.disk.purged[0] + 1
            assert entry.index == first + len(self.handed), "each index is handed over once, in order"
            self.handed.append(entry)
        self.reads.extend(output.read_log)
        self.answers.update(output.read_answers)
        return output

    def sync(self) -> None:
        self.core.durable(self.disk.sync(), self.world.now)

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
