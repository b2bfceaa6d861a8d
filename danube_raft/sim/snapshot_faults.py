"""Faults that wait for their moment: a node that is left behind until it needs a snapshot, and an end of a node or of one
of its processes right at a step of making, sending or installing one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from danube_raft.node.handler import CONSENSUS, KV, LINKS, LOG
from danube_raft.sim.network import Network
from danube_raft.sim.node import Node
from danube_raft.sim.schedule import MS, SECOND, Schedule
from danube_raft.sim.snapshot_steps import STEPS

NOTHING = "nothing to disturb"
"""What is told of a fault that found nobody."""

BEHIND_LIMIT_US = 6 * SECOND
BEHIND_LOOK_US = 20 * MS
"""How long it is waited until the others have forgotten what a node lacks, and how often it is looked for."""
DOWN_MAX_US = 2 * SECOND
NODES_MIN = 3
RECEIVING = ("stage", "staged", "install", "load")
"""Steps of a node that was left behind."""


class SnapshotFaults:
    """What they do ends with the other faults, by `stop_all`."""

    def __init__(self, schedule: Schedule, nodes: Sequence[Node], network: Network) -> None:
        self._schedule = schedule
        self._nodes = nodes
        self._network = network
        self._running = True

    def stop_all(self) -> None:
        """No more of it."""
        self._running = False

    def leave_behind(self, source: random.Random) -> str:
        """A node is away until the others have forgotten what it would need; then only a snapshot helps it."""
        node = self._other_than_leader(source)
        if node is None:
            return NOTHING
        crashes = source.random() < 0.5
        self._leave(node, crashes)
        return f"node {node.node_id} is {'down' if crashes else 'cut off'} until it needs a snapshot"

    def stop(self, source: random.Random) -> str:
        """The node, or one process, ends when it comes to a step, or a moment later; or it is cut off for a while."""
        running = [node for node in self._nodes if node.up]
        if not running:
            return NOTHING
        # Those of a receiver come about the least.
        step = source.choice((*STEPS, *RECEIVING, *RECEIVING))
        name = source.choice((KV, LOG, CONSENSUS, "", LINKS, LINKS))
        delay_us = source.choice((0, 0, 100, 500, 3 * MS, 20 * MS))
        down_us = source.randrange(DOWN_MAX_US)
        behind = self._other_than_leader(source) if step in (*RECEIVING, "send") else None
        if behind is not None:
            # Down, since links are mended at any time.
            self._leave(behind, crashes=True)
        node = behind if behind is not None and step != "send" else source.choice(running)
        leaders = [each for each in self._nodes if each.up and each.role.role == "leader"]
        if step == "send" and leaders:
            node = leaders[-1]
        if step == "start":
            # It has to start for that.
            node.crash()
            self._schedule.after(MS, node.boot_again, node.boots)
        boot = node.boots + (not node.up)
        stop = (self._stop_now, node, boot, name, down_us)
        node.steps.set_trap(step, lambda: self._schedule.after(delay_us, *stop))
        return f"{name or 'all'} of node {node.node_id}, {delay_us / MS} ms after it comes to {step}"

    def spoil(self, node: Node, down_us: int) -> str:
        """The newest snapshot of a node is damaged while it is down, if another good one is left."""
        node.crash()
        self._schedule.after(down_us, node.boot_again, node.boots)
        what = (
            "its newest snapshot is damaged" if node.disk.damage_newest() else "it has no two good snapshots"
        )
        return f"node {node.node_id} is down, {what}"

    def _stop_now(self, node: Node, boot: int, name: str, down_us: int) -> None:
        if not self._running or not node.up or node.boots != boot:
            return
        if name == LINKS:
            self._network.isolate(node.node_id, inward=True, outward=True, down=False)
            self._schedule.after(down_us, self._network.rejoin, node.node_id)
        elif name:
            node.kill(name)
        else:
            node.crash()
            self._schedule.after(down_us, node.boot_again, node.boots)

    def _other_than_leader(self, source: random.Random) -> Node | None:
        others = [node for node in self._nodes if node.up and node.role.role != "leader"]
        return source.choice(others) if others and len(self._nodes) >= NODES_MIN else None

    def _leave(self, node: Node, crashes: bool) -> None:
        if crashes:
            node.crash()
        else:
            self._network.isolate(node.node_id, inward=True, outward=True, down=False)
        self._come_back(node, node.boots, self._schedule.now + BEHIND_LIMIT_US)

    def _come_back(self, node: Node, boot: int, until: int) -> None:
        last = node.disk.bounds[1]
        forgotten = max(each.disk.bounds[0] for each in self._nodes if each is not node)
        if forgotten > last or self._schedule.now >= until or not self._running:
            self._network.rejoin(node.node_id)
            node.boot_again(boot)
        else:
            self._schedule.after(BEHIND_LOOK_US, self._come_back, node, boot, until)
