"""Disks without any room, as full to the last byte or over a quota: every write is refused, whatever is said to be free.

The node that meets such a disk ends and starts again read-only, as its supervisor makes it, and as usual when there is room
again. When that is, is drawn from a source of its own: worlds are otherwise as they were without it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from danube_raft.sim.faults import NO_ROOM, Fault
from danube_raft.sim.node import Node
from danube_raft.sim.schedule import MS, SECOND, Schedule

WORLDS_SHARE = 0.2
"""In so many worlds disks run full."""
PAUSE_S = 3.0
RESTART_MAX_US = 500 * MS


def plan_full_disks(
    source: random.Random, length: int, earliest: int, first_number: int
) -> tuple[Fault, ...]:
    """When disks run full in a world of `length` virtual microseconds: not at all in most. Numbers from `first_number` on."""
    faults: list[Fault] = []
    if source.random() >= WORLDS_SHARE:
        return ()
    at = max(round(source.uniform(0.3, 3.0) * SECOND), earliest)
    while at < length:
        faults.append(Fault(first_number + len(faults), at, NO_ROOM))
        at += round(source.expovariate(1 / PAUSE_S) * SECOND)
    return tuple(faults)


class FullDisks:
    """Fills disks and makes room on them again."""

    def __init__(self, schedule: Schedule, nodes: Sequence[Node]) -> None:
        self._schedule = schedule
        self._nodes = nodes

    def fill(self, source: random.Random, victim: Node) -> str:
        """One node has no room for a while, or now and then all: also those that are down, and start on a full disk."""
        nodes = self._nodes if source.random() < 0.1 else (victim,)
        lasts_us = source.randrange(200 * MS, 6 * SECOND)
        for node in nodes:
            node.disk.no_room += 1
            node.disk.folder.no_room = True
            self._schedule.after(
                lasts_us, self._room_again, node, node.disk.no_room, source.randrange(RESTART_MAX_US)
            )
        return f"{[node.node_id for node in nodes]} for {lasts_us / SECOND:.3f} s"

    def empty(self) -> None:
        """There is room everywhere."""
        for node in self._nodes:
            self._room_again(node, node.disk.no_room, 0)

    def _room_again(self, node: Node, until: int, down_us: int) -> None:
        """If there is none since it was filled for the `until`-th time."""
        if node.disk.no_room != until:
            return
        node.disk.no_room = 0
        node.disk.folder.no_room = False
        if node.up and node.read_only:
            node.crash()
            node.counts["room_again"] += 1
            self._schedule.after(down_us, node.boot_again, node.boots)
