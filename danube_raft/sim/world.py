"""One world: nodes, network, disks, clients and faults, all from one seed, with every check watching.

First faults, then they end and progress is demanded: a leader within `LEADER_TIMEOUTS` election timeouts, clients get
on with what they do, every node serves, all replicas equal the committed log, no lease outlives its time for long. The checks on the whole history come
last. Nothing here reads a clock or a source of randomness of the machine that it runs on.

In a third of all worlds the nodes make snapshots all the time and keep hardly any log: it is purged, followers get
snapshots in pieces, nodes begin with one of theirs, nodes and processes end at every step of that, snapshots are damaged
while their node is down, one at a time and never the last good one.

In a quarter of all worlds the nodes compare their states all the time, and must find no difference. In a quarter, with those or
not, clients and watches share sessions.

Not in these worlds: forming a cluster and changing its members, the child that writes a snapshot (it is made in slices
of its process's turns), long polls of watches and of
leadership, sockets and the supervisor. Each has tests of its own; a seed says nothing about them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from zlib import crc32

from danube_raft.node.endpoints import ClientGone, ClientSlow, Envelope
from danube_raft.sim.bare_client import BareClient
from danube_raft.sim.checks.all import Checks
from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.bounded import check_bounded, check_bounded_in_time
from danube_raft.sim.checks.deletes import check_lives
from danube_raft.sim.checks.expiries import check_expiries
from danube_raft.sim.checks.facts import Ended, Violation
from danube_raft.sim.checks.leadership_ends import Timings
from danube_raft.sim.checks.once import check_once
from danube_raft.sim.checks.prefixes import check_prefixes
from danube_raft.sim.checks.registers import check_registers
from danube_raft.sim.checks.removals import check_removals
from danube_raft.sim.checks.replay import check_reads, check_replicas, replay
from danube_raft.sim.checks.revisions import check_revisions
from danube_raft.sim.checks.unique_ids import check_unique_ids
from danube_raft.sim.checks.watches import check_fed, check_progress, check_watches
from danube_raft.sim.client import Client
from danube_raft.sim.connections import Connections
from danube_raft.sim.digest import digest
from danube_raft.sim.history import OK, Operation, WatchLog
from danube_raft.sim.nemesis import Nemesis
from danube_raft.sim.network import Network
from danube_raft.sim.node import Node
from danube_raft.sim.program import Programs
from danube_raft.sim.schedule import MS, SECOND, Schedule
from danube_raft.sim.seen import SeenSessions
from danube_raft.sim.settings import BARE, WATCHING, Options, choose
from danube_raft.sim.surroundings import Surroundings
from danube_raft.sim.trace import Trace
from danube_raft.sim.watcher import Surface, Watcher, choose_habits
from danube_raft.sim.workload import TTL_MAX_MS, Workload
from danube_raft.wire.client import LINEARIZABLE
from danube_raft.wire.entry import VOTER, Configuration, Founding, Member, pack_configuration

CLUSTER_ID = 77
LEADER_TIMEOUTS = 5
WATCH_MS = 60_000
"""More than a watch takes to notice that its node is dead, to find another, and to be told how far it is; also where a
queue of three messages ends it again after every ten revisions."""
FIRST_FAULT_MS = 100
"""After the first node has started: before, there is nothing to disturb."""
OPERATIONS_MIN = 10
"""What clients have to bring to an end in a world, however little they could do while there were faults."""
WORK_MS = 15_000
"""More than that takes at the lowest rate, with clients that still wait for nodes that are gone."""
SUSPECT_MS = 10_000
"""More than it takes to send a log from its first entry on."""
CATCH_UP_MS = 60_000
"""More than the largest state of these worlds takes in the smallest pieces over the slowest links. No client waits for
a node that is being helped back; that it ends is demanded here."""
MESSAGES_MS = 1_000
"""More than an election and a commit take beside their timeouts: messages, syncs, turns."""
PROBE_TTL_MS = 2_500
PROBES = 3
"""How often a lease is granted whose end is waited for, where leaders change meanwhile."""
MAKES_OLD = ("pause", "freeze", "clog", "slow_disk", "hang_disk", "tear")
"""Faults after which a message may be taken, or a write be safe, long after anybody counts on it."""
LOOK_MS = 10
"""Between two looks at whether a demand is met."""


class World:
    """A cluster from its first boot to the last check."""

    def __init__(self, options: Options, echo: Callable[[str], None] | None = None) -> None:
        self.options = options
        self.settings = settings = choose(options)
        self.schedule = Schedule()
        self.trace = Trace(echo)
        ids = tuple(range(1, settings.nodes + 1))
        config = settings.config
        timings = Timings(lambda: self.schedule.now, config.election_max_ms, config.heartbeat_ms)
        self.checks = Checks(ids, settings.drift_ppm, timings, lambda i: self.nodes[i].disk.good())
        self.network = Network(self.schedule, self._source("network"), ids, self._to_node)
        around = Surroundings(
            self.schedule, self.trace, self.network, self.checks.tell, self._to_client, self._stopped
        )
        members = tuple(Member(i, VOTER, f"node{i}:7650", f"node{i}:7750") for i in ids)
        founding = Founding(CLUSTER_ID, ids[0], pack_configuration(Configuration(members)), 1)
        self.nodes = {
            i: Node(i, settings.config, founding, around, self._source(f"node {i}"), settings.drift_ppm)
            for i in ids
        }
        self._by_endpoint = {member.client_addr: self.nodes[member.node_id] for member in members}
        self._client_source = self._source("clients")
        self.workload = Workload(
            self.schedule, self._source("workload"), settings.keys, settings.rate, settings.padding_bytes
        )
        self.nemesis = Nemesis(
            self.schedule,
            lambda name: self._source(f"nemesis/{name}"),
            list(self.nodes.values()),
            self.network,
            settings,
            options.faults,
            self.trace,
        )
        self._clients: dict[Envelope, Client | BareClient] = {}
        self.programs = Programs(settings, self._source)
        self.connections = Connections(
            self.schedule, self._source("connections"), self._by_endpoint, self.nemesis.client_cuts,
            settings.config.client_queue_max_messages,
        )  # fmt: skip
        self.expiries = 0
        """Leases that ended by themselves, as far as that was looked at."""
        self.recalled = 0
        """Writes whose result was not made but remembered, since they had happened before."""
        self.in_time = 0
        """Bounded reads that were compared with what had been acknowledged in real time."""
        self.watchers = {WATCHING + place: self._new_watcher(place) for place in range(settings.watchers)}

    def _source(self, name: str) -> random.Random:
        """Each part has its own numbers, so that a change to one leaves the others' as they were."""
        return random.Random(f"{self.options.seed}/{name}")  # noqa: S311 -- a seed has to repeat

    @property
    def clients(self) -> list[Client | BareClient]:
        """All of them."""
        return list(self._clients.values())

    @property
    def operations(self) -> list[Operation]:
        """All operations of all clients."""
        return [operation for client in self._clients.values() for operation in client.operations]

    @property
    def watches(self) -> list[WatchLog]:
        """All watches of all watchers."""
        return [watch for watcher in self.watchers.values() for watch in watcher.watches]

    # ---------------------------------------------------------------- running

    def run(self) -> None:
        """All of it. Raises Violation, or whatever the product raises."""
        starts = self._source("starts")
        delays = [round(starts.choice((0.001, 0.1, 3.0)) * starts.random() * SECOND) for _ in self.nodes]
        for node, delay in zip(self.nodes.values(), delays, strict=True):
            self.schedule.after(delay, node.boot_again, 0)
        for number in range(self.settings.clients):
            self.workload.add(self._new_client(number))
        bare = BareClient(BARE, tuple(self._by_endpoint), self.schedule, self._transmit, self._ended)
        self._clients[bare.envelope] = bare
        self.workload.add_bare(bare)
        for watcher in self.watchers.values():
            self.schedule.after(self._client_source.randrange(3 * SECOND), watcher.start)
        self.nemesis.start(round(self.options.seconds * SECOND), min(delays) + FIRST_FAULT_MS * MS)
        self.schedule.run_until(round(self.options.seconds * SECOND))
        self._heal()
        self._demand_progress()
        for node in self.nodes.values():
            check_fed(node.node_id, node.watches, self.connections.known(node.node_id))
        self._check_history()
        self.trace.add(self.schedule.now, "state", digest(next(iter(self.nodes.values())).machine))

    def _heal(self) -> None:
        self.trace.add(self.schedule.now, "heal")
        # A sync that hangs ends when the disk says so.
        hung_until = max(node.disk.busy_until for node in self.nodes.values())
        self.nemesis.stop()
        self.connections.heal()
        for watcher in self.watchers.values():
            watcher.settle()
        self.schedule.run_until(max(self.schedule.now, hung_until))

    def _demand_progress(self) -> None:
        config = self.settings.config
        self._wait("a leader that all know", LEADER_TIMEOUTS * config.election_max_ms, self._has_leader)
        self._wait("no SUSPECT node", SUSPECT_MS, self._is_sound)
        self._wait(f"{OPERATIONS_MIN} operations to succeed", WORK_MS, self._has_worked)
        self.workload.stop()
        self._wait(
            "every client's last answer", 10_000, lambda: not any(c.busy for c in self._clients.values())
        )
        self._wait(
            "room on every disk to be seen", 10_000, lambda: not any(n.low_space for n in self.nodes.values())
        )
        self._wait("every node to catch up", CATCH_UP_MS, self._is_level)
        for place in range(len(self.nodes)):
            self._probe(place)
        self._wait("all replicas at the end of the log", 10_000, self._is_level)
        self._wait("no lease left", TTL_MAX_MS + 10_000, self._no_leases)
        self._probe_lease()
        self._wait("all replicas at the end of the log", 10_000, self._is_level)
        self._wait("progress of a watch, one is silent", WATCH_MS, self._all_watched)
        # An entry may have come meanwhile, such as a compaction, which changes no key.
        self._wait("all replicas at the end of the log", 10_000, self._is_level)

    def _wait(self, what: str, limit_ms: int, is_met: Callable[[], bool]) -> None:
        end = self.schedule.now + limit_ms * MS
        while not is_met():
            if self.schedule.now >= end:
                raise Violation(f"no progress after the faults, missing {what}: waited {limit_ms} ms")
            self.schedule.run_until(self.schedule.now + LOOK_MS * MS)

    def _has_leader(self) -> bool:
        roles = [node.role for node in self.nodes.values()]
        return len({(role.term, role.leader_id) for role in roles}) == 1 and roles[0].leader_id != 0

    def _is_sound(self) -> bool:
        return not any(node.suspect for node in self.nodes.values())

    def _has_worked(self) -> bool:
        return sum(operation.outcome == OK for operation in self.operations) >= OPERATIONS_MIN

    def _is_level(self) -> bool:
        committed = len(self.checks.view.committed)
        return all(node.machine.applied_index == committed for node in self.nodes.values())

    def _all_watched(self) -> bool:
        revision = next(iter(self.nodes.values())).machine.revision
        open_now = [watch for watch in self.watches if watch.open]
        return len(open_now) == len(self.watchers) and check_progress(open_now, revision)

    def _no_leases(self) -> bool:
        return all(len(node.machine.leases) == 0 for node in self.nodes.values())

    def _probe(self, place: int) -> None:
        """This node takes a write, and reads every key as it is now."""
        client = self._new_client(self.settings.clients + place)
        requests = [("put", (key, self.workload.value(client)), None) for key in self.workload.keys[:1]]
        reads = [("get", (key,), LINEARIZABLE) for key in self.workload.keys]
        for op, args, level in [*requests, *reads]:
            client.begin(op, args, level, 5_000, endpoint=place)
            self._wait(f"{op} at node {place + 1}", 6_000, lambda: not client.busy)
            if client.operations[-1].outcome != OK:
                raise Violation(f"node {place + 1} does not serve: {client.operations[-1]}")

    def _probe_lease(self) -> None:
        """With all leases gone, a new one ends when it is due and not much later. A change of leader, for which cluster time
        stands still, means another attempt."""
        config = self.settings.config
        ttl_ms = PROBE_TTL_MS + PROBE_TTL_MS * self.settings.drift_ppm // 1_000_000
        client = self._new_client(self.settings.clients + len(self.nodes))
        limit_ms = ttl_ms + config.expiry_check_ms + MESSAGES_MS
        for number in range(PROBES):
            done = partial(self._has_ended_in, self._term())
            client.begin("put_with_ttl", (f"/ttl/probe/{number}", b"", PROBE_TTL_MS), None, 5_000)
            self._wait("an answer to a grant", 6_000, lambda: not client.busy)
            self._wait("the end of a lease that was due", limit_ms, done)
            if self._no_leases():
                return

    def _has_ended_in(self, term: int) -> bool:
        return self._no_leases() or self._term() != term

    def _term(self) -> int:
        return max(node.role.term for node in self.nodes.values())

    def _check_history(self) -> None:
        operations, committed = self.operations, self.checks.view.committed
        revisions: list[int] = []
        archive, sessions = Archive(), SeenSessions()
        reference = replay(committed, revisions, archive, sessions)
        self.recalled = sessions.recalled
        check_replicas({i: node.machine for i, node in self.nodes.items()}, reference)
        check_reads(operations, archive)
        check_bounded(self.checks.bounded.demands, revisions)
        self._check_in_time(operations)
        check_once(operations, archive.events)
        check_removals(operations, archive)
        check_lives(archive.events)
        check_revisions(archive)
        self.expiries = check_expiries(
            operations, archive, revisions, self.checks.handed_over.at, self.settings.drift_ppm
        )
        check_unique_ids(operations)
        check_prefixes(operations, archive)
        check_registers(operations)
        check_watches(self.watches, archive)

    def _check_in_time(self, operations: list[Operation]) -> None:
        """Where neither a paused process nor a clogged link nor a slow disk makes messages old."""
        done, config = self.nemesis.done, self.settings.config
        if not any(done[kind] for kind in MAKES_OLD):
            slack_ms = 2 * config.election_max_ms + config.heartbeat_ms + MESSAGES_MS
            self.in_time = check_bounded_in_time(operations, slack_ms * MS, self.settings.drift_ppm)

    # ---------------------------------------------------------------- messages

    def _to_node(self, receiver: int, frame: bytes) -> None:
        self.nodes[receiver].from_peer(frame)

    def _new_client(self, number: int) -> Client:
        source = self._client_source
        names = list(self._by_endpoint)
        if number < self.settings.clients:
            source.shuffle(names)
        client = Client(
            number, tuple(names), self.schedule, self.programs.of(number), self._transmit, self._ended
        )
        self._clients[client.envelope] = client
        return client

    def _new_watcher(self, place: int) -> Watcher:
        """It runs beside a client, on the same machine."""
        store = self._new_client(WATCHING + place)
        source = self._source(f"watcher {place}")
        around = Surface(self.schedule, self.trace, self.connections, self.checks.tell)
        machine = place % self.settings.clients
        return Watcher(store, machine, tuple(self._by_endpoint), choose_habits(source), around, source)

    def _transmit(self, number: int, endpoint: str, body: bytes) -> bool:
        node = self._by_endpoint[endpoint]
        if not node.open:
            return False
        if (number, node.node_id) not in self.nemesis.client_cuts:
            latency = 100 + int(self._client_source.expovariate(1 / 200))
            self.schedule.after(latency, node.from_client, (b"client-%d" % number, b""), body)
        else:
            self.nemesis.done["client_messages_cut"] += 1
        return True

    def _to_client(
        self, node_id: int, envelope: Envelope, body: bytes, made_at: int
    ) -> ClientGone | ClientSlow | None:
        name = envelope[0].decode()
        self.trace.add(self.schedule.now, "answer", node_id, name, crc32(body), seen=body)
        client = self._clients.get(envelope)
        if client is None:
            return self.connections.answer(envelope, body)
        if (client.number, node_id) not in self.nemesis.client_cuts:
            latency = 100 + int(self._client_source.expovariate(1 / 200))
            self.schedule.after(latency, client.reply, body, node_id, made_at)
        else:
            self.nemesis.done["client_messages_cut"] += 1
        return None

    def _stopped(self, node_id: int) -> None:
        self.connections.node_stopped(node_id)

    def _ended(self, operation: Operation) -> None:
        self.trace.add(
            self.schedule.now, "client", operation.client, operation.kind, operation.key, operation.outcome,
            operation.revision, seen=operation,
        )  # fmt: skip
        self.checks.tell(Ended(operation))
        watcher = self.watchers.get(operation.client)
        if watcher is None:
            self.workload.ended(operation)
        else:
            watcher.told(operation)
