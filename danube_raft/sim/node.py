"""One node: the real handlers of its three processes, its disk, its clocks, and where its messages go.

- Messages between the three keep their order and are never lost, but take time; they travel packed, as over sockets.
- The three share one fate: when one ends, the others end with it, a little later, and the node starts again under the
  next boot epoch. What was not synced may be gone then; the disk, the epoch and the clocks stay.
- Facts are told to the checks where messages pass an edge.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import Any
from zlib import crc32

from danube_raft.config import Config
from danube_raft.kv.machine import Machine
from danube_raft.node.endpoints import (
    ClientGone,
    ClientSlow,
    Envelope,
    FromClient,
    FromPeer,
    OpenPort,
    Peers,
    ToPeer,
    Unsent,
)
from danube_raft.node.handler import CLIENTS, CONSENSUS, KV, LINKS, LOG, PEERS, SUPERVISOR, Handler
from danube_raft.node.histogram import stopped
from danube_raft.node.identity import Identity
from danube_raft.node.log_writer import LogWriter
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.node.snapshot_stage import SnapshotStage
from danube_raft.sim import disk as disks
from danube_raft.sim.checks.facts import (
    Applied,
    Begun,
    Booted,
    Cleared,
    Delivered,
    Filled,
    Forgot,
    Issued,
    Judged,
    Loaded,
    MarkSynced,
    ReadAnswered,
    ReadAsked,
    Received,
    Refused,
    Sent,
    StartedReadOnly,
    Synced,
    Told,
)
from danube_raft.sim.digest import digest
from danube_raft.sim.disk import FULL_BYTES, Disk
from danube_raft.sim.process import Clock, Process
from danube_raft.sim.schedule import MS, SECOND
from danube_raft.sim.seen import SeenConsensus, SeenKvServer
from danube_raft.sim.snapshot_steps import SnapshotSteps
from danube_raft.sim.surroundings import Surroundings
from danube_raft.sim.unhurried_digest import digester
from danube_raft.sim.unhurried_snapshot import beginner
from danube_raft.sim.wall_clock import WallClock
from danube_raft.storage.memory_snapshots import MemorySnapshots
from danube_raft.storage.recovery import Recovery
from danube_raft.wire import local, peer
from danube_raft.wire.entry import Founding

_BULK = (peer.AppendEntries, peer.InstallSnapshot, peer.ForwardBatch)
_PEER_ENVELOPE: Envelope = (b"peer", b"")
_NOBODY: list[tuple[str, Any]] = []
_STARTING = local.Role("starting", 0, 0, 0, 0, 0)


class Node:
    """One node of the world. `boot` starts it; `crash` ends it."""

    def __init__(
        self,
        node_id: int,
        config: Config,
        founding: Founding,
        around: Surroundings,
        source: random.Random,
        drift_ppm: int = 0,
    ) -> None:
        self.node_id = node_id
        self.disk = Disk(source, self._safe, self._marked)
        self.suspect = False
        """Whether it may come up SUSPECT when it starts."""
        self.up = self.open = False
        """Whether it runs, and whether clients are served."""
        self.boots = 0
        self.counts: Counter[str] = Counter()
        """What happened here that a run should have met."""
        self.role = _STARTING
        """As consensus last told it, in this boot."""
        self.low_space = self._was_suspect = False  # as are these
        self.read_only = False
        """Whether it has started on a full disk."""
        self.wall_clock = WallClock(around.schedule, source)
        self.steps = SnapshotSteps(node_id, self.disk, self.counts, around.tell)
        self._config = config
        self._founding = founding
        self._around = around
        self._random = source
        self._clock = Clock(around.schedule, source, drift_ppm)
        self._processes: dict[str, Process] = {}
        self._arrivals: dict[tuple[str, str], int] = {}
        self._linked: set[int] = set()
        """Nodes to which consensus wants a link."""
        self._kv: SeenKvServer | None = None
        self._consensus: SeenConsensus | None = None

    @property
    def machine(self) -> Machine:
        """The state machine of this boot."""
        assert self._kv is not None
        return self._kv.machine

    @property
    def watches(self) -> int:
        """How many watches are fed here."""
        assert self._kv is not None
        return self._kv.watches

    def _free_bytes(self) -> int:
        free_bytes = self.disk.free_bytes(self._around.schedule.now)
        if free_bytes == FULL_BYTES:
            self._around.tell(Filled(self.node_id))
        return free_bytes

    @property
    def clock_error_ms(self) -> int:
        """How far its monotonic clock has gone astray since it began."""
        return self._clock.error_ms()

    def _count(self, what: str) -> None:
        self.counts[what] += 1

    # ---------------------------------------------------------------- life

    def boot(self) -> None:
        """Start the three processes under the next boot epoch."""
        assert not self.up
        self.boots, self.up, self.open = self.boots + 1, True, False
        around, config = self._around, self._config
        identity = Identity(self.node_id, self._founding.cluster_id, self.boots)
        around.trace.add(around.schedule.now, "boot", self.node_id, self.boots)
        around.tell(Booted(self.node_id, self.boots))
        self.read_only = self.disk.no_room > 0
        if self.read_only:
            self._count("started_read_only")
            around.tell(StartedReadOnly(self.node_id))
        shelf = Shelf(self._snapshots(), Counter(), read_only=self.read_only)
        begin, begin_digest = beginner(self._random), digester(self._random)
        self._kv = SeenKvServer(config, identity, Counter(), 3, shelf, begin, begin_digest=begin_digest)
        self._kv.loaded = self._loaded
        stage = SnapshotStage(self._snapshots(), identity.cluster_id)
        self._consensus = SeenConsensus(
            config, identity, self._founding, self._random, self.wall_clock.read, Counter(), 2, self.read_only
        )
        disk, free_bytes, full = self.disk, self._free_bytes, self.read_only
        log_writer = LogWriter(disk, disk.slots, stage, config, 1, stopped, free_bytes, full)
        handlers: dict[str, Handler] = {LOG: log_writer, CONSENSUS: self._consensus, KV: self._kv}
        self._arrivals, self._linked = {}, set()
        self.role, self.low_space = _STARTING, False
        self._processes = {
            name: Process(around.schedule, self._random, self._clock, handler, name, self._emit)
            for name, handler in handlers.items()
        }
        for name, process in self._processes.items():
            process.held_back = partial(self._count, f"held {name}")
        writer = self._processes[LOG]
        writer.lasts_us, writer.finish, writer.is_busy = disk.sync_us, disk.finish, lambda: disk.is_busy
        for process in (writer, self._processes[KV]):
            process.may_fail, process.failed = disk.has_failed, self._process_ended
        self._processes[CONSENSUS].takes = self._takes
        around.network.unreachable.discard(self.node_id)
        for process in self._processes.values():
            process.start(self._random.randrange(1, 100 * MS))

    def crash(self) -> None:
        """Everything stops at once."""
        if not self.up:
            return
        around = self._around
        around.trace.add(around.schedule.now, "crash", self.node_id)
        self.up = self.open = False
        self._count("crashed")
        for process in self._processes.values():
            process.alive = False
        around.network.unreachable.add(self.node_id)
        around.stopped(self.node_id)
        self.steps.stopped()
        self.disk.crash()

    def lose(self, what: str) -> Recovery | None:
        """While it is down: its disk forgets, or its mark is damaged; see `Disk`. What the log holds now, or None."""
        found = self.disk.forget() if what == "forget" else self.disk.damage_mark()
        if found is not None:
            self.suspect = True
            self.counts["promises_lost"] += found.hard_state != self.disk.promised
            kept = disks.terms(found)
            self._around.tell(Forgot(self.node_id, found.purged.index, kept, self.disk.promised))
        return found

    def _marked(self, suspect: bool) -> None:
        self.suspect = suspect
        self._around.tell(MarkSynced(self.node_id, suspect))

    def kill(self, name: str) -> None:
        """One process is killed; the supervisor ends the others and starts all three again."""
        if self.up:
            self._around.trace.add(self._around.schedule.now, "kill", self.node_id, name)
            self._processes[name].alive = False
            self._count(f"killed {name}")
            self._process_ended()

    def _process_ended(self) -> None:
        boot = self.boots
        self._around.schedule.after(self._random.randrange(1, 50 * MS), self._restart, boot)

    def _restart(self, boot: int) -> None:
        if self.up and self.boots == boot:
            self.crash()
            self._around.schedule.after(self._random.randrange(100 * MS, SECOND), self.boot_again, boot)

    def boot_again(self, boot: int) -> None:
        """Start, unless somebody else has done it since that boot."""
        if not self.up and self.boots == boot:
            self.boot()

    def pause(self, name: str) -> None:
        """SIGSTOP for one process."""
        if self.up:
            self._processes[name].pause()

    def hand_over(self, to: int) -> None:
        """Ask for leadership to be handed to `to`."""
        if self.up:
            assert self._consensus is not None
            self.counts["handed_over"] += self._consensus.hand_over(to, self._clock.read())

    def resume(self) -> None:
        """SIGCONT for all."""
        if self.up:
            for process in self._processes.values():
                process.resume()

    # ---------------------------------------------------------------- disk

    def _safe(self, change: local.Write | disks.Begun) -> None:
        if isinstance(change, local.Write):
            self._around.tell(Synced(self.node_id, change))
        else:
            self._around.tell(Begun(self.node_id, *change))

    def _snapshots(self) -> MemorySnapshots:
        """As one process sees them."""
        return MemorySnapshots(self.disk.folder, self._founding.cluster_id)

    def _loaded(self, machine: Machine) -> None:
        self._around.tell(Loaded(self.node_id, machine.applied_index, digest(machine)))

    # ---------------------------------------------------------------- messages

    def from_peer(self, frame: bytes) -> None:
        """A frame of another node has arrived."""
        if self.up:
            header, message = peer.unpack(frame)
            self._processes[CONSENSUS].deliver([(PEERS, FromPeer(_PEER_ENVELOPE, header, message))])

    def from_client(self, envelope: Envelope, body: bytes) -> None:
        """A body of a client has arrived."""
        if self.open:
            around, name = self._around, envelope[0].decode()
            around.trace.add(around.schedule.now, "request", self.node_id, name, crc32(body), seen=body)
            self._processes[KV].deliver([(CLIENTS, FromClient(envelope, body))])

    def _emit(self, name: str, said: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Send everything; returns what links did not take."""
        between: dict[str, list[local.Message]] = {}
        troubled: dict[bytes, ClientGone | ClientSlow] = {}
        trouble = _NOBODY
        for edge, message in said:
            if edge in self._processes:
                between.setdefault(edge, []).append(message)
                self._tell(name, edge, message)
            elif edge == LINKS:
                if isinstance(message, Peers):
                    self._linked = {node_id for node_id, _ in message.addresses}
                elif not self._send(message):
                    trouble = [*trouble, (LINKS, Unsent(*message))]
            elif edge == CLIENTS:
                self._answer(message, troubled)
            else:
                assert edge == SUPERVISOR, f"nobody takes what is said to {edge}"
        for edge, messages in between.items():
            self._pass_on(name, edge, messages)
        return [*trouble, *((CLIENTS, each) for each in troubled.values())] if troubled else trouble

    def _tell(self, name: str, edge: str, message: local.Message) -> None:
        tell = self._around.tell
        if isinstance(message, local.Write):
            self.counts["truncations"] += message.truncate_from > 0
            self.counts["misdated"] += any(map(self.wall_clock.misdates, message.entries))
            tell(Issued(self.node_id, message))
        elif isinstance(message, local.Role) and edge == KV:
            self.role = message
            self._around.trace.add(self._around.schedule.now, "role", self.node_id, *message[:3])
            tell(Told(self.node_id, message))
        elif isinstance(message, local.Committed):
            if message.entries:
                self.counts["passive_commits"] += self.read_only
                tell(Delivered(self.node_id, message.entries))
        elif isinstance(message, local.Applied) and name == KV:
            tell(Applied(self.node_id, message.index))
        elif isinstance(message, local.ReadIndex):
            tell(ReadAsked(self.node_id, message.id))
        elif isinstance(message, local.ReadReady):
            self.counts["reads_refused" if message.index < 0 else "reads_confirmed"] += 1
            tell(ReadAnswered(self.node_id, message.id, message.index))
        elif isinstance(message, local.LogChunk):
            self.counts["log_chunks"] += 1
        elif isinstance(message, local.Space):
            self.low_space = message.low
            self.counts["low_on_space"] += message.low
        elif isinstance(message, local.Recovered):
            self.counts["suspect"] += bool(message.suspect)
            self.counts["suspect_again"] += bool(message.suspect) and self._was_suspect
            self._was_suspect = bool(message.suspect)
            tell(Judged(self.node_id, bool(message.suspect)))
        elif isinstance(message, local.LeftSuspect):
            self.counts["suspect_no_more"] += 1
            self._was_suspect = False
            tell(Cleared(self.node_id))
        else:
            self.steps.said(message)

    def _takes(self, edge: str, message: Any) -> None:
        if edge == PEERS:
            around = self._around
            self.steps.received(message.header, message.message, around.schedule.now)
            around.tell(Received(self.node_id, around.schedule.now, message.header, message.message))

    def _pass_on(self, name: str, edge: str, messages: list[local.Message]) -> None:
        frame = local.pack_frame(self.boots, messages)
        now = self._around.schedule.now
        self._around.trace.add(now, "local", self.node_id, name, edge, crc32(frame), seen=messages)
        arrives_at = max(now + 30 + int(self._random.random() * 100), self._arrivals.get((name, edge), 0))
        self._arrivals[name, edge] = arrives_at
        self._around.schedule.at(arrives_at, self._arrive, self._processes[edge], name, frame)

    @staticmethod
    def _arrive(process: Process, sender: str, frame: bytes) -> None:
        if process.alive:
            process.deliver([(sender, message) for _, message in local.unpack(frame)])

    def _send(self, to_peer: ToPeer) -> bool:
        header, message = to_peer
        around = self._around
        if header.receiver not in self._linked:
            around.tell(Refused(header, message))
            return False
        self.counts["told_to_campaign"] += isinstance(message, peer.TimeoutNow)
        self.counts["campaigns_when_told"] += isinstance(message, peer.RequestVote) and message.transfer
        frame = peer.pack(header, message)
        lane = 1 if isinstance(message, _BULK) else 0
        taken = around.network.send(self.node_id, header.receiver, frame, lane)
        around.trace.add(
            around.schedule.now,
            "peer",
            self.node_id,
            header.receiver,
            type(message).__name__,
            crc32(frame),
            taken,
            seen=to_peer,
        )
        around.tell(Sent(header, message) if taken else Refused(header, message))
        if taken:
            self.steps.sent(message)
        return taken

    def _answer(self, message: Any, troubled: dict[bytes, ClientGone | ClientSlow]) -> None:
        """As `ClientPort` does: what follows in a turn to a connection that did not take something is dropped."""
        if isinstance(message, OpenPort):
            self.open = True
            self._around.trace.add(self._around.schedule.now, "open", self.node_id)
            return
        envelope, body = message
        if envelope[0] not in troubled:
            heard = self._around.reply(self.node_id, envelope, body, self._processes[KV].said_at)
            if heard is not None:
                troubled[envelope[0]] = heard
