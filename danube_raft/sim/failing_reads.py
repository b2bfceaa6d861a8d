"""Snapshots that cannot be read for once: while a node begins with one, loads one of the leader's, proves or sends one.

A node passes over such a snapshot and begins with the one before, sends another, or ends and starts again, as for any
error of its disk; it never takes half of one. When that happens is drawn from a source of its own: worlds are otherwise
as they were without it.
"""

from __future__ import annotations

import random

from danube_raft.sim.faults import FAIL_READ, Fault
from danube_raft.sim.node import Node
from danube_raft.sim.schedule import MS, SECOND, Schedule
from danube_raft.sim.snapshot_faults import NOTHING

WORLDS_SHARE = 0.5
"""In so many of the worlds with snapshots."""
PAUSE_S = 1.5
BEFORE_MAX = 4
"""How many readings may go well before that: a start reads both ends of all that are there, and then one of them."""
RESTART_SHARE = 0.6
"""So often the node starts again at once, which reads the most."""
RESTART_MAX_US = 500 * MS


def plan_failing_reads(
    source: random.Random, length: int, earliest: int, first_number: int
) -> tuple[Fault, ...]:
    """When readings fail in a world of `length` virtual microseconds with snapshots. Numbers from `first_number` on."""
    faults: list[Fault] = []
    if source.random() >= WORLDS_SHARE:
        return ()
    at = max(round(source.uniform(0.3, 3.0) * SECOND), earliest)
    while at < length:
        faults.append(Fault(first_number + len(faults), at, FAIL_READ))
        at += round(source.expovariate(1 / PAUSE_S) * SECOND)
    return tuple(faults)


def fail_reading(schedule: Schedule, source: random.Random, node: Node) -> str:
    """One of the node's next readings of a snapshot fails."""
    if not node.up:
        return NOTHING
    # One that is still starting may have nothing else to begin with: at its next start that is looked at.
    before, starts = source.randrange(BEFORE_MAX), source.random() < RESTART_SHARE or not node.open
    node.disk.fail_reading(before)
    if starts:
        node.crash()
        schedule.after(source.randrange(RESTART_MAX_US), node.boot_again, node.boots)
    return f"node {node.node_id} reads {before} snapshots and then fails{', from its start on' if starts else ''}"
