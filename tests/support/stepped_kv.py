"""A kv-server stepped by hand on a directory of snapshots; the test plays consensus, clients and time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from danube_raft.config import Config
from danube_raft.kv.machine import Machine
from danube_raft.node.endpoints import Envelope, FromClient, OpenPort
from danube_raft.node.handler import CLIENTS, CONSENSUS
from danube_raft.node.identity import Identity
from danube_raft.node.kv_server import KvServer
from danube_raft.node.snapshot_jobs import Begin, SlicedSnapshot
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import local
from danube_raft.wire.client import pack_request, unpack_replies
from danube_raft.wire.entry import (
    KIND_BATCH,
    KIND_CONFIGURATION,
    NO_ORIGIN,
    VOTER,
    Configuration,
    Entry,
    Member,
    pack_configuration,
)

CLUSTER_ID = 7
ENVELOPE: Envelope = (b"client", b"")
TINY = replace(Config(), snapshot_log_bytes=1_000, snapshot_rest_max_ms=600, snapshot_max_ms=5_000)
FOLLOWER = local.Role("follower", 1, 9, 0, 0, 0)
MESSAGE = TypeVar("MESSAGE")


def chain(index: int) -> bytes:
    """The chain hash of a log in which no two entries are alike."""
    return index.to_bytes(16, "big")


def put(
    index: int, key: str, value: bytes = b"v", origin: tuple[int, int, int] = NO_ORIGIN, term: int = 1
) -> Entry:
    """An entry with one write."""
    return batch(index, pack_request("put", 1, key, value), origin)._replace(term=term)


def batch(index: int, payload: bytes, origin: tuple[int, int, int] = NO_ORIGIN) -> Entry:
    """An entry of term 1."""
    return Entry(index, 1, KIND_BATCH, index * 10, 0, origin, payload)


def members(index: int, *node_ids: int) -> Entry:
    """An entry that says who belongs to the cluster."""
    found = tuple(Member(node_id, VOTER, f"h{node_id}:1", f"h{node_id}:2") for node_id in node_ids)
    payload = pack_configuration(Configuration(found))
    return Entry(index, 1, KIND_CONFIGURATION, index * 10, 0, NO_ORIGIN, payload)


def puts(first: int, last: int) -> list[Entry]:
    """Writes of a hundred bytes to a few keys."""
    return [put(index, f"/k{index % 5}", b"%100d" % index) for index in range(first, last + 1)]


class SteppedKv:
    """One boot of the kv-server of one node; the directory may be used by the next one."""

    def __init__(
        self,
        directory: Path,
        config: Config = TINY,
        node_id: int = 1,
        boot_epoch: int = 1,
        begin: Begin = SlicedSnapshot,
        store: Any = None,
        read_only: bool = False,
    ) -> None:
        self.now = 1_000
        self.sent: list[tuple[str, Any]] = []
        self.counters: Counter[str] = Counter()
        self.settled = 0
        self.store = Snapshots(directory, CLUSTER_ID) if store is None else store
        shelf = Shelf(self.store, self.counters, settled=self._settle, read_only=read_only)
        self.kv = KvServer(config, Identity(node_id, CLUSTER_ID, boot_epoch), self.counters, 3, shelf, begin)
        self.kv.start(self.now)
        self.turn()

    def _settle(self) -> None:
        self.settled += 1

    @property
    def machine(self) -> Machine:
        """The state as it is now."""
        return self.kv._machine

    # ---------------------------------------------------------------- running

    def turn(self) -> None:
        """One turn; a timer that is due right after it would keep a process from sleeping."""
        self.kv.turn(self.now)
        self.sent += self.kv.outbox
        self.kv.outbox.clear()
        timer = self.kv.next_timer()
        assert timer is None or timer > self.now, "it spins"

    def hear(self, *messages: local.Message) -> None:
        """Consensus says these, in one turn."""
        for message in messages:
            self.kv.receive(CONSENSUS, message, self.now)
        self.turn()

    def commit(self, *entries: Entry) -> None:
        """Consensus passes on committed entries."""
        self.hear(local.Committed(entries))

    def advance(self, ms: int) -> None:
        """Let time pass, timer by timer."""
        end = self.now + ms
        while self.now < end:
            timer = self.kv.next_timer()
            self.now = end if timer is None else min(timer, end)
            self.turn()

    def serve(self, index: int = 0, term: int = 0) -> None:
        """Load what consensus chooses; then a leader is heard that has committed no more than that."""
        self.hear(local.LoadSnapshot(index, term), FOLLOWER)
        self.hear(local.FreshAnswer(0, self.now, index))
        assert self.kv.ready

    def snapshot(self, term: int = 1) -> local.SnapshotDone:
        """One that was asked for is made: consensus tells the point, and time passes."""
        self.take(local.SnapshotDone)
        (asked,) = self.take(local.AskPoint)
        self.hear(local.PointRead(asked.index, term, chain(asked.index)))
        self.advance(20)
        (done,) = self.take(local.SnapshotDone)
        return done

    def make(self, term: int = 1) -> local.SnapshotDone:
        """Somebody wants a snapshot, and gets it."""
        self.kv._taking.request(self.now)
        self.turn()
        return self.snapshot(term)

    # ---------------------------------------------------------------- what it says

    def take(self, kind: type[MESSAGE]) -> list[MESSAGE]:
        """What consensus was told of that kind, taken."""
        found = [message for edge, message in self.sent if edge == CONSENSUS and isinstance(message, kind)]
        self.sent = [(edge, message) for edge, message in self.sent if not isinstance(message, kind)]
        return found

    def ask(self, op: str, number: int, *args: Any, **header: Any) -> None:
        """A client asks."""
        body = pack_request(op, number, *args, **header)
        self.kv.receive(CLIENTS, FromClient(ENVELOPE, body), self.now)
        self.turn()

    def replies(self, number: int) -> list[tuple[Any, ...]]:
        """All answers to a request so far: (status, revision, result…)."""
        bodies = [item[1] for edge, item in self.sent if edge == CLIENTS and not isinstance(item, OpenPort)]
        found = [reply for body in bodies for reply in unpack_replies(body)]
        return [(reply[2], *reply[6:]) for reply in found if reply[1] == number]

    def held(self) -> list[tuple[int, int]]:
        """(index, term) of the snapshots in the directory."""
        return [(meta.index, meta.term) for meta in self.store.newest().candidates]


def planted(directory: Path, machine: Machine, encoded: bytes, term: int = 0) -> SnapshotMeta:
    """A whole snapshot in a directory, as the log-writer puts one there that came from the leader."""
    store = Snapshots(directory, CLUSTER_ID)
    if not directory.exists():
        store.open()
    writer = store.writer(machine.applied_index, term or machine.applied_term, chain(machine.applied_index))
    writer.write(encoded)
    return writer.commit()
