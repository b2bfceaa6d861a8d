"""Who makes faults: at moments and of kinds that the seed chooses, until the faults are to end.

Each world has its own few kinds (swarm testing: a world with all faults at once finds less than many with some each).
A victim is often the leader, since that is where it hurts. `done` counts what was really begun; whether it
had an effect is seen in the counts of network, disks and nodes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from danube_raft.node.handler import CONSENSUS, KV, LOG
from danube_raft.sim.network import Network
from danube_raft.sim.node import Node
from danube_raft.sim.schedule import MS, SECOND, Schedule
from danube_raft.sim.settings import Settings

CALM_SHARE = 0.15
"""How much of a world without faults comes in its middle."""
_PROCESSES = (LOG, CONSENSUS, KV)


class Nemesis:
    """Chooses and begins faults. `client_cuts` holds (client, node) pairs between which everything is lost."""

    def __init__(
        self,
        schedule: Schedule,
        source: random.Random,
        nodes: Sequence[Node],
        network: Network,
        settings: Settings,
    ) -> None:
        self.done: Counter[str] = Counter()
        self.client_cuts: set[tuple[int, int]] = set()
        self._schedule = schedule
        self._random = source
        self._nodes = nodes
        self._network = network
        self._clients = settings.clients
        self._election_ms = settings.config.election_max_ms
        self._running = True
        self._calm_at: int | None = None
        self._calm_us = 0
        self._pause_s = source.choice((0.4, 1.0, 2.5))
        self._leader_share = source.choice((0.3, 0.6, 0.9))
        self._actions = self._choose()

    def _choose(self) -> list[Callable[[], None]]:
        everywhere = (
            self._crash, self._blackout, self._kill, self._pause, self._slow_disk, self._hang_disk, self._fail_disk,
            self._wall_clock, self._cut_client,
        )  # fmt: skip
        among_several = (self._depose, self._isolate, self._divide, self._disturb)
        offered = everywhere if len(self._nodes) == 1 else everywhere + 2 * among_several
        count = self._random.randint(2, 6)
        chosen = list(self._random.sample(offered, count))
        return [*chosen, self._mend]

    def start(self, length: int) -> None:
        """Begin, after a quiet moment in which the cluster comes up; there are faults for `length` microseconds. In the
        middle of it all is well for a while, so that every world gets something done."""
        self._calm_at = length // 2
        self._calm_us = round(CALM_SHARE * length)
        self._schedule.after(round(self._random.uniform(0.3, 1.5) * SECOND), self._act)

    def stop(self) -> None:
        """No new faults; all that can be mended is mended."""
        self._running = False
        self._mend()
        for node in self._nodes:
            node.resume()
            node.boot_again(node.boots)

    @property
    def faults(self) -> int:
        """How many were begun."""
        return self.done.total() - self.done["mend"]

    def _act(self) -> None:
        if not self._running:
            return
        if self._calm_at is not None and self._schedule.now >= self._calm_at:
            self._calm_at = None
            self._mend()
            self._schedule.after(self._calm_us, self._act)
            return
        # The first is a fault: a world without any would show nothing.
        action = self._random.choice(self._actions if self.done else self._actions[:-1])
        self.done[action.__name__.strip("_")] += 1
        action()
        self._schedule.after(round(self._random.expovariate(1 / self._pause_s) * SECOND), self._act)

    def _victim(self) -> Node:
        leaders = [node for node in self._nodes if node.up and node.role.role == "leader"]
        if leaders and self._random.random() < self._leader_share:
            return max(leaders, key=lambda node: node.role.term)
        return self._random.choice(self._nodes)

    def _while(self, most_ms: int) -> int:
        """How long a fault lasts: mostly short, at times long."""
        return round(self._random.choice((0.05, 0.3, 1.0)) * self._random.randrange(10, most_ms) * MS)

    # ---------------------------------------------------------------- faults

    def _crash(self) -> None:
        node = self._victim()
        node.crash()
        self._schedule.after(self._while(5_000), node.boot_again, node.boots)

    def _blackout(self) -> None:
        for node in self._nodes:
            node.crash()
            self._schedule.after(self._while(2_000), node.boot_again, node.boots)

    def _kill(self) -> None:
        self._victim().kill(self._random.choice(_PROCESSES))

    def _pause(self) -> None:
        node = self._victim()
        all_three = self._random.random() < 0.4
        for name in _PROCESSES if all_three else (self._random.choice(_PROCESSES),):
            node.pause(name)
        self._schedule.after(self._while(6_000), node.resume)

    def _slow_disk(self) -> None:
        self._victim().disk.slow_down()

    def _hang_disk(self) -> None:
        self._victim().disk.hang(self._schedule.now)

    def _fail_disk(self) -> None:
        self._victim().disk.fail_next_write()

    def _wall_clock(self) -> None:
        self._victim().wall_offset_ms = self._random.randrange(-1_000_000, 1_000_000)

    def _cut_client(self) -> None:
        client = self._random.randrange(self._clients)
        self.client_cuts.add((client, self._victim().node_id))

    def _isolate(self) -> None:
        inward, outward = self._random.choice(((True, True), (True, True), (True, False), (False, True)))
        self._network.isolate(self._victim().node_id, inward, outward, self._random.random() < 0.3)

    def _depose(self) -> None:
        """The leader is alone for as long as it takes to elect another, or a few; its clients still reach it."""
        leader = max(self._nodes, key=lambda node: (node.up and node.role.role == "leader", node.role.term))
        self._network.isolate(leader.node_id, inward=True, outward=True, down=False)
        timeouts = self._random.uniform(0.5, self._random.choice((3.0, 10.0)))
        self._schedule.after(round(timeouts * self._election_ms * MS), self._network.rejoin, leader.node_id)

    def _divide(self) -> None:
        ids = [node.node_id for node in self._nodes]
        side = frozenset(self._random.sample(ids, self._random.randint(1, len(ids) - 1)))
        self._network.divide(side, self._random.random() < 0.3)

    def _disturb(self) -> None:
        chance = self._random.choice
        self._network.disturb(
            chance((0.0, 0.02, 0.2)),
            chance((0.0, 0.05, 0.2)),
            chance((0.0, 0.05, 0.2)),
            chance((0, 5 * MS, 150 * MS)),
        )

    def _mend(self) -> None:
        self._network.heal()
        self.client_cuts.clear()
        for node in self._nodes:
            node.disk.heal()
