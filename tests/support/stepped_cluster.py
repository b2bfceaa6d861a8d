"""Three nodes stepped by hand that talk to each other: the real handlers, one clock, no sockets.

What a node sends to another one arrives at once, packed as on the wire, unless one of the two is down or cut off; then
its sender is told what the link did not take. One node may have real disks below a directory (`DiskNode`).
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from stepped import CLUSTER_ID, QUIET_LIMIT, SteppedNode

from danube_raft.config import Config
from danube_raft.errors import Fatal
from danube_raft.kv.machine import Machine
from danube_raft.node.endpoints import FromPeer, ToPeer, Unsent
from danube_raft.node.handler import CONSENSUS, LINKS, LOG
from danube_raft.storage.data_dir import DataDir
from danube_raft.storage.durable_mark import NAME, MarkFile
from danube_raft.storage.log_store import RocksLogStore
from danube_raft.storage.memory_log import MemoryLog
from danube_raft.storage.memory_mark import MemoryMark
from danube_raft.storage.memory_snapshots import MemoryFolder, MemorySnapshots
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import local, peer
from danube_raft.wire.entry import VOTER, Configuration, Entry, Founding, Member, pack_configuration

MEMBERS = tuple(Member(node, VOTER, f"127.0.0.1:{node}", f"127.0.0.1:{node + 10}") for node in (1, 2, 3))
FOUNDING = Founding(CLUSTER_ID, 2, pack_configuration(Configuration(MEMBERS)), 1_700_000_000_000)


class MemoryDisk(NamedTuple):
    """What outlives a node in memory; plain values, that may be pickled."""

    log: MemoryLog
    mark: MemoryMark
    folder: MemoryFolder
    boot_epoch: int


class ClusterNode(SteppedNode):
    """One of the three, in memory. `disk`: what an earlier one has left."""

    founding: Founding | None = FOUNDING

    def __init__(self, node_id: int, config: Config, now: int, disk: MemoryDisk | None = None) -> None:
        self.node_id = node_id
        self.to_send: list[ToPeer] = []
        self.committed: dict[int, Entry] = {}
        """What its kv-server was given."""
        self._found = disk or MemoryDisk(MemoryLog(), MemoryMark(), MemoryFolder(), 0)
        self._start_at = now
        super().__init__(config, seed=node_id)

    def boot(self) -> None:
        """See SteppedNode."""
        if not self.boot_epoch:
            self.now, self.boot_epoch = self._start_at, self._found.boot_epoch
        self._put_in_disks()
        super().boot()

    def left(self) -> MemoryDisk:
        """For a later one, after this one was closed."""
        return self._found._replace(boot_epoch=self.boot_epoch)

    def close(self) -> None:
        """End in order."""
        for handler in self.handlers.values():
            handler.close()

    @property
    def machine(self) -> Machine:
        """The state machine of this boot."""
        return self.kv._machine

    def status(self) -> dict[str, Any]:
        """What consensus says of itself."""
        return self.consensus.status(self.now)

    def _put_in_disks(self) -> None:
        self.disk, self.mark = self._found.log, self._found.mark
        self.snapshots = MemorySnapshots(self._found.folder, CLUSTER_ID)

    def _route(self, sender: str, edge: str, message: Any) -> None:
        if isinstance(message, local.Committed):
            self.committed |= {entry.index: entry for entry in message.entries}
        super()._route(sender, edge, message)

    def _to_peers(self, message: Any) -> None:
        if isinstance(message, ToPeer):
            self.to_send.append(message)

    def take_messages(self) -> list[ToPeer]:
        """What it has sent since the last time."""
        sent, self.to_send = self.to_send, []
        return sent

    def from_peer(self, item: ToPeer) -> None:
        """A message arrives."""
        header, message = peer.unpack(peer.pack(item.header, item.message))
        self.peer_message(FromPeer((b"peer", b""), header, message))

    def unsent(self, item: ToPeer) -> None:
        """A link did not take it."""
        self._queues[CONSENSUS].append((LINKS, Unsent(item.header, item.message)))


class DiskNode(ClusterNode):
    """One of the three, on the data directory `path`, which it begins as a supervisor does.

    `said` and `writes` are what its log-writer has recovered and what it was told to write, in this boot. Making one
    raises what a node with this directory would end with, and so may every turn after that.
    """

    def __init__(self, node_id: int, config: Config, now: int, path: Path) -> None:
        self._data_dir = DataDir(path)
        self.path = path
        self.said: local.Recovered | None = None
        self.writes: list[local.Write] = []
        try:
            super().__init__(node_id, config, now)
        except Fatal:
            self.close()
            raise

    def _next_boot(self) -> int:
        self._data_dir.acquire()
        self._data_dir.load_or_create_identity(lambda _: self.node_id - 1)
        found = self._data_dir.identity()
        assert found is not None
        assert found.node_id == self.node_id
        if not found.cluster_id:
            self._data_dir.promise(FOUNDING)
            self._data_dir.join_cluster(CLUSTER_ID)
        self.founding = self._data_dir.founding()
        return self._data_dir.next_boot_epoch()

    def _put_in_disks(self) -> None:
        self.disk, self.mark = RocksLogStore(self.path / "log"), MarkFile(self.path / NAME)
        self.snapshots = Snapshots(self.path / "snapshots", CLUSTER_ID)

    def close(self) -> None:
        """End in order, as far as it has begun."""
        for name in ("log", "kv"):
            with suppress(AttributeError):
                getattr(self, name).close()
        self._data_dir.release()

    def _route(self, sender: str, edge: str, message: Any) -> None:
        if isinstance(message, local.Recovered):
            self.said = message
        elif edge == LOG and isinstance(message, local.Write):
            self.writes.append(message)
        super()._route(sender, edge, message)


class SteppedCluster:
    """The nodes that are up, by id. `down`, `cut`: those that take no part, or are only not heard by the others."""

    def __init__(self, nodes: list[ClusterNode], now: int) -> None:
        self.nodes = {node.node_id: node for node in nodes}
        self.now = now
        self.down: set[int] = set()
        self.cut: set[int] = set()
        self.dropped: Counter[int] = Counter()

    def up(self) -> list[ClusterNode]:
        """Those that run."""
        return [node for number, node in sorted(self.nodes.items()) if number not in self.down]

    def settle(self) -> None:
        """Turns until nobody has anything to say at this time."""
        for _ in range(QUIET_LIMIT):
            busy = False
            for node in self.up():
                node.now = self.now
                for name in node.handlers:
                    busy |= node.step(name)
            for node in self.up():
                for item in node.take_messages():
                    self._deliver(node, item)
                    busy = True
            if not busy:
                return
        raise AssertionError("the nodes never come to rest")

    def advance(self, ms: int) -> None:
        """Let time pass, timer by timer."""
        end = self.now + ms
        while self.now < end:
            timers = [handler.next_timer() for node in self.up() for handler in node.handlers.values()]
            due = min((timer for timer in timers if timer is not None), default=end)
            self.now = min(max(due, self.now + 1), end)
            self.settle()

    def leader(self) -> ClusterNode | None:
        """Who leads those that are up, if all of them that are heard follow."""
        heard = [node for node in self.up() if node.node_id not in self.cut]
        found = {node.status()["leader_id"] for node in heard}
        return self.nodes.get(found.pop()) if len(found) == 1 else None

    def await_leader(self, other_than: int = 0, patience_ms: int = 60_000) -> ClusterNode:
        """The leader, as soon as there is one."""
        end = self.now + patience_ms
        while (leader := self.leader()) is None or leader.node_id in {other_than, *self.down, *self.cut}:
            assert self.now < end, f"no leader in {patience_ms} ms"
            self.advance(100)
        return leader

    def ask(self, node: ClusterNode, op: str, *args: Any, **header: Any) -> tuple[Any, ...]:
        """Send to that node, and wait for the one reply: (status, revision, result…)."""
        number = node.send(op, *args, timeout_ms=5_000, **header)
        end = self.now + 6_000
        while not (replies := node.take(number)):
            assert self.now < end, f"{op} got no answer"
            self.settle()
            replies = node.take(number)
            if replies:
                break
            self.advance(50)
        (reply,) = replies
        return (reply[2], *reply[6:])

    def _deliver(self, sender: ClusterNode, item: ToPeer) -> None:
        to = item.header.receiver
        if to in self.down or to not in self.nodes or self.cut & {to, sender.node_id}:
            self.dropped[to] += 1
            sender.unsent(item)
        else:
            self.nodes[to].from_peer(item)
