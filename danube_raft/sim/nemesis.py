"""Who makes faults: carries out the plan of `faults.py`, until the faults are to end.

A victim is often the leader, since that is where it hurts. `done` counts what was begun and found something to
disturb, `told` says it in words; what came of it is seen in the counts of network, disks and nodes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from danube_raft.node.handler import CONSENSUS, KV, LOG
from danube_raft.sim.failing_reads import fail_reading, plan_failing_reads
from danube_raft.sim.faults import MEND, Fault, Told, plan
from danube_raft.sim.full_disks import FullDisks, plan_full_disks
from danube_raft.sim.network import Network
from danube_raft.sim.node import Node
from danube_raft.sim.schedule import MS, SECOND, Schedule
from danube_raft.sim.settings import Settings
from danube_raft.sim.shapes import Pairs, bridge, ring
from danube_raft.sim.snapshot_faults import NOTHING, SnapshotFaults
from danube_raft.sim.trace import Trace
from danube_raft.storage.memory_log import AFTER, BEFORE, NEVER

_PROCESSES = (LOG, CONSENSUS, KV)


class Nemesis:
    """Begins faults. `source` gives each fault its own numbers; `keep`: the numbers of those to begin, None for all.
    `client_cuts` holds (client, node) pairs between which everything is lost."""

    def __init__(
        self,
        schedule: Schedule,
        source: Callable[[str], random.Random],
        nodes: Sequence[Node],
        network: Network,
        settings: Settings,
        keep: Collection[int] | None,
        trace: Trace,
    ) -> None:
        self.done: Counter[str] = Counter()
        self.told: list[Told] = []
        self.planned: tuple[Fault, ...] = ()
        self.client_cuts: set[tuple[int, int]] = set()
        self._schedule = schedule
        self._source = source
        self._nodes = nodes
        self._network = network
        self._clients = settings.client_numbers
        self._election_ms = settings.config.election_max_ms
        self._snapshots = settings.snapshots
        self._at_steps = SnapshotFaults(schedule, nodes, network)
        self._full_disks = FullDisks(schedule, nodes)
        self._keep = keep
        self._trace = trace
        self._running = True
        self._leader_share = source("leader share").choice((0.3, 0.6, 0.9))
        self._random = source("nothing yet")

    def start(self, length: int, earliest: int) -> None:
        """Plan the faults of the next `length` microseconds, none of them before `earliest`."""
        faults = plan(self._source("plan"), len(self._nodes), length, earliest, self._snapshots)
        faults += plan_full_disks(self._source("full disks"), length, earliest, len(faults))
        if self._snapshots:
            faults += plan_failing_reads(self._source("failing reads"), length, earliest, len(faults))
        self.planned = tuple(each for each in faults if self._keep is None or each.number in self._keep)
        for fault in self.planned:
            self._schedule.at(self._schedule.now + fault.at, self._begin, fault)

    def stop(self) -> None:
        """No new faults; all that can be mended is mended."""
        self._running = False
        self._at_steps.stop_all()
        self._mend()
        for node in self._nodes:
            node.resume()
            node.boot_again(node.boots)

    @property
    def faults(self) -> int:
        """How many were begun and found something to disturb."""
        return sum(told.fault.kind != MEND and told.what != NOTHING for told in self.told)

    def _begin(self, fault: Fault) -> None:
        if not self._running:
            return
        self._random = self._source(f"fault {fault.number}")
        what = getattr(self, f"_{fault.kind}")() or NOTHING
        self.told.append(Told(fault, what))
        self._trace.add(self._schedule.now, "fault", fault.kind, what)
        self.done[fault.kind] += what != NOTHING

    def _victim(self) -> Node:
        leaders = [node for node in self._nodes if node.up and node.role.role == "leader"]
        if leaders and self._random.random() < self._leader_share:
            return max(leaders, key=lambda node: node.role.term)
        running = [node for node in self._nodes if node.up]
        return self._random.choice(running or self._nodes)

    def _while(self, most_ms: int) -> int:
        """How long a fault lasts: mostly short, at times long."""
        return round(self._random.choice((0.05, 0.3, 1.0)) * self._random.randrange(10, most_ms) * MS)

    # ---------------------------------------------------------------- processes and nodes

    def _crash(self) -> str:
        node = self._victim()
        if not node.up:
            return NOTHING
        node.crash()
        down_us = self._while(5_000)
        self._schedule.after(down_us, node.boot_again, node.boots)
        return f"node {node.node_id} for {down_us / SECOND:.3f} s"

    def _blackout(self) -> str:
        if not any(node.up for node in self._nodes):
            return NOTHING
        for node in self._nodes:
            node.crash()
            self._schedule.after(self._while(2_000), node.boot_again, node.boots)
        return "all nodes crash"

    def _kill(self) -> str:
        node, name = self._victim(), self._random.choice(_PROCESSES)
        node.kill(name)
        return f"{name} of node {node.node_id}" if node.up else NOTHING

    def _pause(self) -> str:
        node = self._victim()
        names = _PROCESSES if self._random.random() < 0.4 else (self._random.choice(_PROCESSES),)
        lasts_us = self._while(6_000)
        self._stop(node, names, lasts_us)
        return (
            f"{', '.join(names)} of node {node.node_id} for {lasts_us / SECOND:.3f} s" if node.up else NOTHING
        )

    def _freeze(self) -> str:
        """SIGSTOP for everybody, as a machine that sleeps."""
        if not any(node.up for node in self._nodes):
            return NOTHING
        lasts_us = self._while(6_000)
        for node in self._nodes:
            self._stop(node, _PROCESSES, lasts_us + self._random.randrange(200 * MS))
        self._schedule.after(
            lasts_us, self._thaw, {node: node.counts[_HELD] for node in self._nodes if node.up}
        )
        return f"all nodes pause for {lasts_us / SECOND:.3f} s"

    def _thaw(self, held: dict[Node, int]) -> None:
        """It was a freeze if nobody had a turn that wanted one."""
        self.done["frozen"] += all(node.counts[_HELD] > before for node, before in held.items())

    def _stop(self, node: Node, names: Sequence[str], lasts_us: int) -> None:
        for name in names:
            node.pause(name)
        self._schedule.after(lasts_us, node.resume)

    # ---------------------------------------------------------------- disks

    def _slow_disk(self) -> str:
        node = self._victim()
        if not node.up:
            return NOTHING
        node.disk.slow_down()
        return f"node {node.node_id}, up to {node.disk.slow_us / MS:.0f} ms a sync"

    def _hang_disk(self) -> str:
        node = self._victim()
        if not node.up:
            return NOTHING
        node.disk.hang(self._schedule.now)
        return f"node {node.node_id} until {node.disk.hangs_until / SECOND:.3f} s"

    def _fail_disk(self) -> str:
        node = self._victim()
        if not node.up:
            return NOTHING
        mark = self._random.choice((BEFORE, AFTER)) if self._random.random() < MARK_FAILS_SHARE else NEVER
        node.disk.fail_next_write(mark)
        return f"node {node.node_id}, at its next write{'' if mark == NEVER else ' of the mark'}"

    def _fill_disk(self) -> str:
        """One node is low on space, or now and then all are; what is written still fits."""
        nodes = self._nodes if self._random.random() < 0.2 else (self._victim(),)
        lasts_us = self._random.randrange(SECOND, 8 * SECOND)
        for node in nodes:
            node.disk.full_until = self._schedule.now + lasts_us
        return f"{[node.node_id for node in nodes]} for {lasts_us / SECOND:.3f} s"

    def _no_room(self) -> str:
        return self._full_disks.fill(self._random, self._victim())

    def _tear(self) -> str:
        """A crash in the middle of several writes, which a slow disk lets pile up."""
        node = self._victim()
        if not node.up:
            return NOTHING
        node.disk.slow_us = max(node.disk.slow_us, TEAR_SYNC_US)
        self._crash_torn(node, node.boots, self._schedule.now + TEAR_LIMIT_US)
        return f"node {node.node_id}, as soon as two writes are under way"

    def _crash_torn(self, node: Node, boot: int, until: int) -> None:
        if not self._running or node.boots != boot or not node.up or self._schedule.now > until:
            return
        if node.disk.unsynced < 2:
            self._schedule.after(TEAR_LOOK_US, self._crash_torn, node, boot, until)
            return
        node.crash()
        self.done["torn_apart"] += not node.up
        self._schedule.after(SECOND, node.boot_again, node.boots)

    def _forget(self) -> str:
        """The log comes back older than it was."""
        return self._lose("forget")

    def _damage_mark(self) -> str:
        return self._lose("damage the mark")

    def _lose(self, what: str) -> str:
        """At most a minority at a time: more than that, and what is committed may be gone. Nor before anything is
        committed: the others may not even know of whom the cluster consists."""
        node = self._victim()
        others = sum(other.suspect for other in self._nodes if other is not node)
        founded = any(other.boots and other.machine.applied_index for other in self._nodes)
        if not founded or others + 1 > (len(self._nodes) - 1) // 2:
            return NOTHING
        node.crash()
        found = node.lose(what)
        down_us = self._while(2_000)
        self._schedule.after(down_us, node.boot_again, node.boots)
        if self._random.random() < CRASH_AGAIN_SHARE:
            again_us = down_us + self._random.randrange(400 * MS)
            self._schedule.after(again_us, self._crash_again, node)
        if found is None:
            return NOTHING
        return f"node {node.node_id}, its log ends with {found.last.index} then, term {found.hard_state.term}"

    def _crash_again(self, node: Node) -> None:
        """While it may still be SUSPECT."""
        if self._running and node.up:
            node.crash()
            self._schedule.after(self._while(1_000), node.boot_again, node.boots)

    # ---------------------------------------------------------------- snapshots

    def _stop_at_step(self) -> str:
        return self._at_steps.stop(self._random)

    def _leave_behind(self) -> str:
        return self._at_steps.leave_behind(self._random)

    def _spoil(self) -> str:
        node = self._victim()
        if not node.up or node.suspect:
            return NOTHING
        return self._at_steps.spoil(node, self._while(2_000))

    def _fail_snapshot(self) -> str:
        node = self._victim()
        if not node.up:
            return NOTHING
        node.disk.fail_next_snapshot()
        return f"node {node.node_id}, at the next snapshot that it writes"

    def _fail_read(self) -> str:
        return fail_reading(self._schedule, self._random, self._victim())

    # ---------------------------------------------------------------- clocks

    def _wall_clock(self) -> str:
        node = self._victim()
        node.wall_clock.offset_ms = self._random.randrange(-1_000_000, 1_000_000)
        return f"node {node.node_id} is {node.wall_clock.offset_ms} ms ahead from now on"

    # ---------------------------------------------------------------- links

    def _cut_client(self) -> str:
        client, node = self._random.choice(self._clients), self._victim()
        self.client_cuts.add((client, node.node_id))
        return f"client {client} from node {node.node_id}"

    def _isolate(self) -> str:
        inward, outward = self._random.choice(((True, True), (True, True), (True, False), (False, True)))
        node, down = self._victim(), self._is_down()
        self._network.isolate(node.node_id, inward, outward, down)
        ways = "both ways" if inward and outward else "inward" if inward else "outward"
        return f"node {node.node_id} {ways}{_refusing(down)}"

    def _depose(self) -> str:
        """The leader is alone for as long as it takes to elect another, or a few; its clients still reach it."""
        running = [node for node in self._nodes if node.up]
        if not running:
            return NOTHING
        # Without a leader, whoever is in the newest term.
        leader = max(running, key=lambda node: (node.role.role == "leader", node.role.term))
        self._network.isolate(leader.node_id, inward=True, outward=True, down=False)
        timeouts = self._random.uniform(0.5, self._random.choice((3.0, 10.0)))
        lasts_us = round(timeouts * self._election_ms * MS)
        self._schedule.after(lasts_us, self._network.rejoin, leader.node_id)
        return f"node {leader.node_id} is alone for {lasts_us / SECOND:.3f} s"

    def _hand_over(self) -> str:
        """Whoever leads then is asked to hand over, to a certain node or to whoever fits; often again a moment later."""
        asked = [self._random.choice((0, *self._ids())) for _ in range(self._random.randint(1, 3))]
        for to in asked:
            self._schedule.after(self._while(2_000), self._ask_to_hand_over, to)
        return f"to {', '.join(str(to or 'whoever fits') for to in asked)}"

    def _ask_to_hand_over(self, to: int) -> None:
        for node in self._nodes:
            if node.up and node.role.role == "leader":
                node.hand_over(to)

    def _divide(self) -> str:
        side = frozenset(self._random.sample(self._ids(), self._random.randint(1, len(self._nodes) - 1)))
        down = self._is_down()
        self._network.divide(side, down)
        return f"{sorted(side)} from the others{_refusing(down)}"

    def _ring(self) -> str:
        pairs, steps = ring(ids := self._shuffled())
        return f"each hears those {steps} away in {ids}{self._leave_only(pairs)}"

    def _bridge(self) -> str:
        pairs, sides = bridge(ids := self._shuffled())
        return f"only node {ids[0]} hears both {sides[0]} and {sides[1]}{self._leave_only(pairs)}"

    def _leave_only(self, pairs: Pairs) -> str:
        down = self._is_down()
        self._network.leave_only(pairs, down)
        return _refusing(down)

    def _shuffled(self) -> list[int]:
        ids = self._ids()
        self._random.shuffle(ids)
        return ids

    def _one_way(self) -> str:
        sender = self._victim().node_id
        receiver = self._random.choice([each for each in self._ids() if each != sender])
        if self._random.random() < 0.5:
            sender, receiver = receiver, sender
        down = self._is_down()
        self._network.cut(sender, receiver, down)
        return f"from node {sender} to node {receiver}{_refusing(down)}"

    def _clog(self) -> str:
        """Nothing comes through for a while, and then everything at once."""
        node = self._victim().node_id
        lasts_us = self._while(8_000)
        others = [other for other in self._ids() if other != node]
        others = self._random.sample(others, self._random.randint(1, len(others)))
        pairs = [pair for other in others for pair in ((node, other), (other, node))]
        clogged = [pair for pair in pairs if self._random.random() < 0.6] or pairs
        self._network.clog(clogged, lasts_us)
        return f"{', '.join(f'{a}>{b}' for a, b in clogged)} for {lasts_us / SECOND:.3f} s"

    def _disturb(self) -> str:
        chance = self._random.choice
        loss, repeats, swaps = chance((0.0, 0.02, 0.2)), chance((0.0, 0.05, 0.2)), chance((0.0, 0.05, 0.2))
        extra_us = chance((0, 5 * MS, 150 * MS))
        if not (loss or repeats or swaps or extra_us):
            loss = 0.1
        self._network.disturb(loss, repeats, swaps, extra_us)
        return f"loss {loss}, repeats {repeats}, overtaking {swaps}, up to {extra_us / MS:.0f} ms late"

    def _mend(self) -> str:
        self._network.heal()
        self.client_cuts.clear()
        self._full_disks.empty()
        for node in self._nodes:
            node.disk.heal()
        return "links and disks"

    def _ids(self) -> list[int]:
        return [node.node_id for node in self._nodes]

    def _is_down(self) -> bool:
        return self._random.random() < 0.3


MARK_FAILS_SHARE = 0.3
"""Of the writes that fail."""
CRASH_AGAIN_SHARE = 0.4
"""Of the nodes that have lost something, so many crash again soon."""
_HELD = f"held {CONSENSUS}"
TEAR_SYNC_US = 600 * MS
"""How long a sync takes at most where several writes shall pile up."""
TEAR_LIMIT_US = 6 * SECOND
TEAR_LOOK_US = 2 * MS
"""How long the moment for a torn write is waited for, and how often it is looked for."""


def _refusing(down: bool) -> str:
    return ", refusing" if down else ""
