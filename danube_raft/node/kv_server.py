"""The kv-server process: the state machine, and everybody who asks it something.

Requests come in on the client port. Writes are checked, batched and proposed; reads are answered from memory as
their level allows; watches are fed from history. What consensus commits is applied in order, and the node where a
batch was born answers its clients from that apply.

Rules:
- A write is answered after its entry was applied here, or with an error that says whether it may still be.
- The batch that this node made is applied from the requests that were decoded and checked when they came in; the
  replicas that decode its bytes come to the same result, because the check is the same pure function.
- An exception while applying ends the process: an entry is never skipped.
- The state begins with a snapshot of this node's, or with nothing, as consensus says, and may be replaced by one of the
  leader's; what is committed behind it follows. Entries that it holds already may come, and are left out.
- A state that is known to be wrong serves nobody: see `oddness.py`.
- Reads and watches are served once everything has been applied that the leader had committed when it was first heard;
  until then they wait. The client port opens at that moment, or a while after the start, so that a node without a
  leader can say so.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from danube_raft.config import Config
from danube_raft.errors import DanubeRaftError, InvalidArgument, ProtocolVersion
from danube_raft.kv import limits
from danube_raft.kv.machine import Machine
from danube_raft.node import own_past
from danube_raft.node.bodies import Bodies
from danube_raft.node.catch_up import CatchUp
from danube_raft.node.credit import Credit
from danube_raft.node.digest_jobs import BeginDigest, SlicedDigest
from danube_raft.node.digesting import REPORTS as DIGEST_REPORTS
from danube_raft.node.digesting import Digesting
from danube_raft.node.endpoints import ClientGone, ClientSlow, Envelope, FromClient, OpenPort
from danube_raft.node.handler import CLIENTS, CONSENSUS, KV, SUPERVISOR, Timed
from danube_raft.node.histogram import Histogram, Stopwatch, stopped
from danube_raft.node.identity import Identity
from danube_raft.node.leadership import OP as LEADERSHIP_POLL
from danube_raft.node.leadership import LeadershipPolls
from danube_raft.node.oddness import Oddness
from danube_raft.node.parked import Parked, Waiting
from danube_raft.node.proposals import Batch, Proposals, found_in
from danube_raft.node.read_answers import ReadAnswers
from danube_raft.node.read_probe import ReadProbe
from danube_raft.node.reads import Position, Reads
from danube_raft.node.replies import Replies
from danube_raft.node.slow_requests import SlowRequests
from danube_raft.node.snapshot_jobs import Begin, SlicedSnapshot
from danube_raft.node.snapshot_saving import Saving
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.node.snapshot_taking import Taking
from danube_raft.node.status import StatusQuestions, sizes
from danube_raft.node.streams import Streams
from danube_raft.node.upkeep import Upkeep
from danube_raft.node.write_answers import WriteAnswers
from danube_raft.node.write_gate import WriteGate
from danube_raft.wire import local
from danube_raft.wire.client import OP, REQUEST_ID, check, kind_of
from danube_raft.wire.entry import Entry, entry_bytes
from danube_raft.wire.operations import ADMIN, INTERNAL, READ, WATCH, WRITE


class KvServer:
    """Handler of the kv-server process. `begin` makes snapshots and `begin_digest` hashes as it suits the process,
    `stopwatch` times the rest."""

    name = KV

    def __init__(
        self,
        config: Config,
        identity: Identity,
        counters: Counter[str],
        pid: int,
        shelf: Shelf,
        begin: Begin = SlicedSnapshot,
        stopwatch: Stopwatch = stopped,
        begin_digest: BeginDigest = SlicedDigest,
    ) -> None:
        self.outbox: list[tuple[str, Any]] = []
        self._config = config
        self._identity = identity
        self._counters = counters
        self._machine = Machine()
        self._begun_index = 0
        """The state began with a snapshot up to there."""
        self._replies = Replies(identity.cluster_id, identity.node_id, lambda: bool(self._oddness))
        self._bodies = Bodies(config)
        self._slow = SlowRequests(config)
        self._proposals = Proposals(config, self._slow)
        self._oddness = Oddness(shelf.store)
        self._answers = ReadAnswers(config, self._machine.history, self._replies, self._oddness)
        answers = self._answers
        self._reads = Reads(config, identity.cluster_id, answers.answer, answers.refuse, self._slow)
        self._probe = ReadProbe(self._reads.take_number)
        self._streams = Streams(config, self._machine.history, self._replies)
        self._leadership = LeadershipPolls(config, self._machine.history, self._replies)
        self._parked = Parked(config, answers.refuse, self._slow)
        self._upkeep = Upkeep(config, self._machine)
        self._shelf = shelf
        self._taking = Taking(config, identity.node_id, shelf, begin)
        self._saving = Saving(config, self._replies, shelf, self._taking)
        self._digesting = Digesting(config, identity.node_id, self._replies, self._oddness, begin_digest)
        self._writes = WriteAnswers(self._replies, self._oddness, self._upkeep, self._digesting)
        self._origin = (identity.node_id, identity.boot_epoch)
        self._status = StatusQuestions(config, identity, self._replies, pid)
        self._stopwatch = stopwatch
        self._applying = Histogram()
        self._applied_entries = 0
        self._answered: list[Batch] = []
        self._role = local.Role("starting", 0, 0, 0, 0, 0)
        self._credit = Credit(config)
        self._gate = WriteGate(config)
        self._catch_up = CatchUp()
        self._open_at: int | None = 0
        self._timed: tuple[Timed, ...] = (
            self._catch_up, self._credit, self._parked, self._proposals, self._reads, self._probe, self._slow,
            self._streams, self._leadership, self._upkeep, self._taking, self._digesting, self._oddness,
        )  # fmt: skip

    @property
    def ready(self) -> bool:
        """Whether clients are served."""
        return self._catch_up.done

    @property
    def done(self) -> bool:
        """Never: it serves until it is stopped."""
        return False

    def start(self, now: int) -> None:
        """Tell consensus from which snapshots it may choose. Raises DiskFailed."""
        self._open_at = now + self._config.election_max_ms
        self._digesting.start(now)
        self._shelf.open()
        self._oddness.open()
        self._to_consensus(self._oddness.turn(self._taking, self._streams, now))
        self.outbox.append((CONSENSUS, self._shelf.found()))

    def receive(self, edge: str, message: Any, now: int) -> None:
        """Requests of clients; commits, roles and answers of consensus."""
        if edge == CLIENTS:
            if isinstance(message, FromClient):
                self._from_client(message.envelope, message.body, now)
            elif isinstance(message, ClientGone):
                self._streams.connection_gone(message.identity)
            elif isinstance(message, ClientSlow):
                self._streams.connection_slow(message.identity, now)
        elif edge == CONSENSUS:
            self._from_consensus(message, now)
        elif isinstance(message, local.ConfirmRead):
            self._probe.ask(now)

    def close(self) -> None:
        """Nothing outlives the process, nor does a snapshot that is being made."""
        self._taking.close()
        self._digesting.close()

    def turn(self, now: int) -> None:
        """Close the batch of this turn, run what is due, feed watches, send the answers."""
        outbox = self.outbox
        self._to_consensus(self._catch_up.questions(now))
        if self._catch_up.reached(self._machine.applied_index):
            for waiting in self._parked.take(now):
                self._serve_parked(waiting, now)
        if self._open_at is not None and (self._catch_up.done or now >= self._open_at):
            self._open_at = None
            outbox.append((CLIENTS, OpenPort()))
        self._digesting.turn(self._machine, now)
        self._to_consensus(self._oddness.turn(self._taking, self._streams, now))
        for request, chunk in (*self._upkeep.due(now, compacts=not self._oddness), *self._digesting.due(now)):
            self._proposals.add(request, chunk, None)
        self._to_consensus(self._proposals.flush(now))
        again, expired = self._proposals.tick(now)
        self._to_consensus(again)
        for (envelope, request_id, _), error in expired:
            self._replies.error(envelope, request_id, self._machine.revision, error)
        self._parked.tick(now)
        self._reads.tick(now)
        self._reads.advance(self._position(), now)
        self._to_consensus(self._reads.flush(now))
        self._to_consensus(self._probe.flush(now))
        self._to_consensus((*self._taking.turn(self._machine, now), *self._oddness.news(self._taking)))
        if self._credit.due(any(edge == CONSENSUS for edge, _ in outbox), now):
            outbox.append((CONSENSUS, local.Applied(self._machine.applied_index)))
        self._streams.feed(now)
        self._leadership.tick(now)
        self._slow.tick(now)
        outbox.extend([(CLIENTS, message) for message in self._replies.take()])
        self._answers.turn_ended()

    def next_timer(self) -> int | None:
        """The earliest of what waits for time."""
        timers = (self._open_at, *[each.next_timer() for each in self._timed])
        return min((timer for timer in timers if timer is not None), default=None)

    def _position(self) -> Position:
        return Position(self._machine.revision, self._machine.applied_index)

    def _to_consensus(self, messages: Any) -> None:
        self.outbox.extend([(CONSENSUS, message) for message in messages])

    # ---------------------------------------------------------------- clients

    def _from_client(self, envelope: Envelope, body: bytes, now: int) -> None:
        requests, trouble = self._bodies.split(body)
        for raw, chunk in requests:
            self._request(envelope, raw, chunk, now)
        if trouble:
            # A person who writes a client wants to hear about it.
            self._counters["client_bodies_malformed"] += 1
            error = InvalidArgument(f"the request is {trouble}; see the protocol")
            self._replies.error(envelope, 0, self._machine.revision, error)

    def _request(self, envelope: Envelope, raw: Any, chunk: bytes, now: int) -> None:
        try:
            request = check(raw)
            kind = kind_of(request[OP])
            self._digesting.admit(request)
            if not self._catch_up.done and kind in (READ, WATCH):
                self._parked.add(request, envelope, len(chunk), self._bodies.deadline(request, now))
            elif kind == WRITE:
                self._gate.admit(request, len(chunk), self._machine)
                waiter = (envelope, request[REQUEST_ID], self._bodies.deadline(request, now))
                self._proposals.add(request, chunk, waiter)
            elif kind == READ:
                self._reads.serve(request, envelope, self._bodies.deadline(request, now), self._position())
            elif request[OP] == LEADERSHIP_POLL:
                self._leadership.request(request, envelope, now)
            elif request[OP] in self._saving.ops:
                self._saving.request(request, envelope, self._machine, self._catch_up.done, now)
            elif request[OP] == DIGEST_REPORTS:
                self._digesting.request(request, envelope, self._machine)
            elif kind == ADMIN:
                self.outbox.append((CONSENSUS, self._status.ask(request, envelope)))
            elif kind == INTERNAL:
                raise ProtocolVersion(f"{request[OP]} is not an operation for clients")
            else:
                self._streams.request(request, envelope, now)
        except DanubeRaftError as error:
            self._counters["client_requests_refused"] += 1
            self._replies.error(envelope, raw[REQUEST_ID], self._machine.revision, error)

    # ---------------------------------------------------------------- consensus

    def _from_consensus(self, message: local.Message, now: int) -> None:
        if isinstance(message, local.Committed):
            self._committed(message, now)
        elif isinstance(message, local.ReadReady):
            self._reads.confirmed(message.id, message.index, now)
            news = self._probe.confirmed(message.id, message.index, self._machine.applied_index)
            if news is not None:
                self.outbox.append((SUPERVISOR, news))
        elif isinstance(message, local.FreshAnswer):
            if not self._catch_up.answered(message):
                self._reads.fresh(message, now)
        elif isinstance(message, local.Role):
            self._new_role(message, now)
        elif isinstance(message, local.ProposeRejected):
            self._proposals.rejected(message.seq, message.reason, message.left, now)
        elif isinstance(message, local.Space):
            self._gate.told(message)
            if message.read_only_index >= 0:
                self._catch_up.reads_only(message.read_only_index)
        elif isinstance(message, local.StatusReply):
            self._status.answer(message, self._sizes(), self._counters, self._digesting.odd_nodes)
        else:
            self._of_snapshots(message, now)

    def _of_snapshots(self, message: local.Message, now: int) -> None:
        if isinstance(message, local.LoadSnapshot):
            self._load(message, now)
        elif isinstance(message, local.InstallSnapshot):
            self._install(message, now)
        elif isinstance(message, local.PointRead):
            self._taking.point_read(message)
        elif isinstance(message, local.WantSnapshot):
            self._taking.wanted(message, self._machine, now)
        elif isinstance(message, local.ReplaceState):
            self._oddness.replace(message)

    def _load(self, chosen: local.LoadSnapshot, now: int) -> None:
        """Begin with a snapshot or with nothing, or say that the one that was chosen is damaged."""
        machine = self._shelf.load(chosen.index, chosen.term)
        if machine is None:
            self.outbox.append((CONSENSUS, self._shelf.found()))
            return
        self._go_on_with(machine, now)
        self._to_consensus(self._taking.loaded(machine, self._machine.applied_index, now))

    def _install(self, point: local.InstallSnapshot, now: int) -> None:
        """Go on with the leader's snapshot. What waits for an own batch that it covers hears all that can be known."""
        if self._oddness:
            self._oddness.replace(self._shelf.installed(point.index, point.term))
        machine = self._shelf.install(point.index, point.term)
        if machine.applied_index > self._machine.applied_index:
            self._go_on_with(machine, now)
            boot_epoch, seq = machine.origins.get(self._origin[0], (0, 0))
            if boot_epoch == self._origin[1]:
                over, again = self._proposals.installed(seq, now)
                for batch in over:
                    self._writes.answer(batch, [found_in(machine, request) for request in batch.requests])
                self._to_consensus(again)
        self._to_consensus(self._taking.loaded(machine, self._machine.applied_index, now))

    def _go_on_with(self, machine: Machine, now: int) -> None:
        own_past.check(machine, self._origin, self._proposals.last_seq)
        self._machine = machine
        self._begun_index = machine.applied_index
        self._streams.attach(machine.history)
        self._leadership.attach(machine.history)
        self._answers.attach(machine.history)
        self._digesting.attach(now)
        self._upkeep.attach(machine, now)
        self._shelf.settle()

    def _committed(self, message: local.Committed, now: int) -> None:
        began = self._stopwatch()
        for entry in message.entries:
            if entry.index <= self._begun_index:
                continue
            try:
                self._apply(entry, now)
            except Exception as error:
                error.add_note(f"while applying entry {entry.index} of term {entry.term}; the node stops")
                raise
        own_past.check(self._machine, self._origin, self._proposals.last_seq)
        took_ns = self._stopwatch() - began
        self._applying.observe(took_ns)
        self._applied_entries += len(message.entries)
        self._proposals.answered(self._answered, message.at_ms or now, now + took_ns // 1_000_000)
        self._answered.clear()

    def _apply(self, entry: Entry, now: int) -> None:
        node_id, boot_epoch, seq = entry.origin
        machine = self._machine
        if (node_id, boot_epoch) != self._origin:
            machine.apply(entry)
        else:
            batch = self._proposals.applied(seq)
            results = machine.apply(entry, None if batch is None else batch.requests)
            if batch is not None:
                assert results is not None, "a batch that still waits has not been applied before"
                self._writes.answer(batch, results)
                self._answered.append(batch)
            self._to_consensus(self._proposals.fence(seq, now))
        self._digesting.applied(machine, now, serving=self._catch_up.done)
        self._upkeep.applied(entry, now)
        size = entry_bytes(entry)
        self._taking.applied(size)
        self._credit.owe(size, now)
        if entry.term >= self._role.term:
            self._catch_up.own_term_applied(now)

    def _serve_parked(self, waiting: Waiting, now: int) -> None:
        request, envelope = waiting.request, waiting.envelope
        try:
            self._oddness.admit(request)
            if kind_of(request[OP]) == READ:
                self._reads.serve(request, envelope, waiting.deadline, self._position())
            else:
                self._streams.request(request, envelope, now)
        except DanubeRaftError as error:
            self._counters["client_requests_refused"] += 1
            self._answers.refuse(request, envelope, error)

    def _new_role(self, role: local.Role, now: int) -> None:
        self._role = role
        self._replies.term = role.term
        self._leadership.new_role(role)
        known = role.leader_id != 0
        if known:
            self._reads.leader_changed()
            self._probe.again(now)
        self._catch_up.new_leader(known, now)
        self._upkeep.new_role(role)
        self._digesting.new_role(role)
        self._to_consensus(self._proposals.leader_changed(known, now))

    # ---------------------------------------------------------------- status

    def report(self, now: int) -> dict[str, Any]:  # noqa: ARG002 -- as every process has it
        """For the supervisor, every second."""
        return {
            **self._sizes(),
            **self._taking.report(),
            **self._digesting.report(),
            "applied_entries": self._applied_entries,
            "failed_commands": self._proposals.failed_commands,
            "slow_requests": self._slow.total,
            "full": self._machine.state_bytes >= limits.MAX_STATE_BYTES,
            "apply_seconds": self._applying.report(),
            "counters": dict(self._counters),
        }

    def _sizes(self) -> dict[str, Any]:
        found = sizes(self._machine, self._proposals, self._reads, self._streams)
        return {**found, **self._taking.sizes(), **self._digesting.sizes()}
