"""A whole node stepped by hand: the real handlers of all three processes, no sockets, a clock that the test moves.

Messages go from outbox to handler in the order in which they were sent, through the same packing as between real
processes. `power_loss` takes what was not synced; the disk object outlives the node.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

from danube_raft.config import Config
from danube_raft.node.consensus import Consensus
from danube_raft.node.endpoints import ClientSlow, Envelope, FromClient, OpenPort
from danube_raft.node.handler import CLIENTS, CONSENSUS, KV, LINKS, LOG, PEERS, SUPERVISOR, Handler
from danube_raft.node.identity import Identity
from danube_raft.node.kv_server import KvServer
from danube_raft.node.log_writer import LogWriter
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.node.snapshot_stage import SnapshotStage
from danube_raft.storage.durable_mark import MarkSlots
from danube_raft.storage.memory_log import MemoryLog
from danube_raft.storage.memory_mark import MemoryMark
from danube_raft.storage.memory_snapshots import MemoryFolder, MemorySnapshots
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import local
from danube_raft.wire.client import pack_request, unpack_replies
from danube_raft.wire.entry import Founding

NODE_ID = 1
CLUSTER_ID = 77
ENVELOPE: Envelope = (b"test", b"")
QUIET_LIMIT = 10_000


class SteppedNode:
    """One node of one voter; with `founding`, one of those who promised that."""

    node_id = NODE_ID
    founding: Founding | None = None

    def __init__(self, config: Config | None = None, seed: int = 1) -> None:
        self.config = config or Config()
        self.disk: Any = MemoryLog()
        self.mark: MarkSlots = MemoryMark()
        self.snapshots: Snapshots = MemorySnapshots(MemoryFolder(), CLUSTER_ID)
        self.now = 1_000
        self.wall_ms = 1_700_000_000_000
        self.boot_epoch = 0
        self.read_only = False
        self.replies: dict[Envelope, list[tuple[Any, ...]]] = {}
        self.peer_answers: list[tuple[Envelope, bytes]] = []
        self.open = False
        self.paused: set[str] = set()
        self.full: set[bytes] = set()
        """Identities of connections that take no answers now."""
        self._dropped: set[bytes] = set()
        self.sent: Counter[type] = Counter()
        self.told: list[Any] = []
        """What the supervisor heard."""
        self._random = random.Random(seed)
        self._next_request = 1
        self.boot()

    def boot(self) -> None:
        """Start all three handlers under the next boot epoch."""
        self.boot_epoch = self._next_boot()
        identity = Identity(self.node_id, CLUSTER_ID, self.boot_epoch)
        self.open = False
        self.kv = KvServer(
            self.config, identity, Counter(), 3, Shelf(self.snapshots, Counter(), read_only=self.read_only)
        )
        self.consensus = Consensus(
            self.config,
            identity,
            self.founding,
            self._random,
            lambda: self.wall_ms,
            Counter(),
            2,
            self.read_only,
        )
        self.log = LogWriter(
            self.disk,
            self.mark,
            SnapshotStage(self.snapshots, CLUSTER_ID),
            self.config,
            1,
            read_only=self.read_only,
        )
        self.handlers: dict[str, Handler] = {LOG: self.log, CONSENSUS: self.consensus, KV: self.kv}
        self._queues: dict[str, list[tuple[str, Any]]] = {name: [] for name in self.handlers}
        for handler in self.handlers.values():
            handler.start(self.now)
        self.settle()

    def _next_boot(self) -> int:
        return self.boot_epoch + 1

    def power_loss(self, surviving: int = 0) -> None:
        """Everything stops at once; of the unsynced changes the first `surviving` are kept."""
        self.disk.crash(surviving)
        self.boot()

    # ---------------------------------------------------------------- running

    def step(self, name: str) -> bool:
        """One turn of one handler; whether it had anything to do or say."""
        handler = self.handlers[name]
        queue = self._queues[name]
        busy = bool(queue)
        self._queues[name] = []
        for edge, message in queue:
            handler.receive(edge, message, self.now)
        handler.turn(self.now)
        out, handler.outbox[:] = list(handler.outbox), []
        for edge, message in out:
            self._route(name, edge, message)
        for identity in self._dropped:
            self.kv.receive(CLIENTS, ClientSlow(identity), self.now)
        self._dropped.clear()
        return busy or bool(out)

    def settle(self) -> None:
        """Turns until nobody has anything to say at this time."""
        for _ in range(QUIET_LIMIT):
            busy = [self.step(name) for name in self.handlers if name not in self.paused]
            if not any(busy):
                self._check_timers()
                return
        raise AssertionError("the handlers never come to rest")

    def _check_timers(self) -> None:
        """A timer that is due after a turn that had nothing to do would keep a real process from ever sleeping."""
        for name, handler in self.handlers.items():
            timer = handler.next_timer()
            assert name in self.paused or timer is None or timer > self.now, f"{name} spins"

    def advance(self, ms: int) -> None:
        """Let time pass, timer by timer."""
        end = self.now + ms
        for _ in range(QUIET_LIMIT):
            timers = [
                handler.next_timer() for name, handler in self.handlers.items() if name not in self.paused
            ]
            due = min((timer for timer in timers if timer is not None), default=end)
            self.now = min(max(due, self.now + 1), end)
            self.settle()
            if self.now >= end:
                return
        raise AssertionError("timers fire without end")

    def _route(self, sender: str, edge: str, message: Any) -> None:
        if edge == SUPERVISOR:
            self.told.append(message)
            return
        if edge == LINKS:
            self._to_peers(message)
            return
        if edge == CLIENTS:
            if isinstance(message, OpenPort):
                self.open = True
            else:
                envelope, body = message
                if envelope[0] in self.full:
                    self._dropped.add(envelope[0])
                    return
                self.replies.setdefault(envelope, []).extend(unpack_replies(body))
        elif edge == PEERS:
            self.peer_answers.append(message)
        else:
            self.sent[type(message)] += 1
            self._queues[edge].extend((sender, again) for _, again in local.unpack(local.pack(1, message)))

    def _to_peers(self, message: Any) -> None:
        """Nobody is there."""

    # ---------------------------------------------------------------- a client

    def send(self, op: str, *args: Any, envelope: Envelope = ENVELOPE, **header: Any) -> int:
        """Put a request into the kv-server's queue; its request id."""
        number = self._next_request
        self._next_request += 1
        self._queues[KV].append((CLIENTS, FromClient(envelope, pack_request(op, number, *args, **header))))
        return number

    def peer_message(self, item: Any) -> None:
        """Put what a peer sent into consensus' queue."""
        self._queues[CONSENSUS].append((PEERS, item))

    def ask_for_confirmed_read(self) -> None:
        """What the supervisor does when somebody asks whether the node is ready."""
        self._queues[KV].append((SUPERVISOR, local.ConfirmRead()))

    def take(self, number: int, envelope: Envelope = ENVELOPE) -> list[tuple[Any, ...]]:
        """The replies to one request so far, taken."""
        waiting = self.replies.get(envelope, [])
        mine = [reply for reply in waiting if reply[1] == number]
        self.replies[envelope] = [reply for reply in waiting if reply[1] != number]
        return mine

    def ask(self, op: str, *args: Any, **header: Any) -> tuple[Any, ...]:
        """Send, settle; the one reply: (status, revision, result…)."""
        number = self.send(op, *args, **header)
        self.settle()
        (reply,) = self.take(number)
        return (reply[2], *reply[6:])

    def events(self, number: int) -> Iterator[tuple[int, str, int]]:
        """(kind, key, mod_revision) of the events that a stream has brought since the last look."""
        for reply in self.take(number):
            if reply[7] == 0:
                for kind, record, _ in reply[8]:
                    yield kind, record[0], record[3]
