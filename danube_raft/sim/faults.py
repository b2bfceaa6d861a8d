"""Which faults a world has, and when: drawn from the seed before anything happens, so that any of them can be left out.

Each world has its own few kinds (swarm testing: a world with all faults at once finds less than many with some each).
A fault draws what else it needs from a source of its own: a world without some of its faults has the others as they were,
which is what makes a failure's list of faults shrink.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from danube_raft.sim.schedule import SECOND

CALM_SHARE = 0.15
"""How much of a world without faults comes in its middle."""
MEND = "mend"
NO_ROOM = "no_room"
FAIL_READ = "fail_read"

ANYWHERE = (
    "crash", "blackout", "kill", "kill", "pause", "pause", "freeze", "slow_disk", "hang_disk", "fail_disk", "fill_disk", "tear", "wall_clock",
    "cut_client",
)  # fmt: skip
AMONG_SEVERAL = ("hand_over", "depose", "isolate", "divide", "disturb", "clog", "one_way")
"""For two nodes and more; offered twice, since consensus is about them."""
WITH_SNAPSHOTS = ("stop_at_step", "spoil", "fail_snapshot")
"""For worlds in which snapshots are made."""
LEFT_BEHIND = "leave_behind"
LEFT_BEHIND_NODES = 3
"""With fewer, nobody goes on without the one that is left behind."""
LOSSES = ("forget", "damage_mark")
"""Only where a minority may lose something; offered twice."""
LOSS_NODES = 3
BRIDGE_NODES = 3
RING_NODES = 4
"""With fewer, a ring leaves nobody out of touch."""


class Fault(NamedTuple):
    """One fault: `number` within its world, `at` virtual microseconds."""

    number: int
    at: int
    kind: str


class Told(NamedTuple):
    """A fault that was begun, and what it was in this world."""

    fault: Fault
    what: str

    def __str__(self) -> str:
        return f"{self.fault.number:4} {self.fault.at / SECOND:10.6f} s  {self.fault.kind}: {self.what}"


def kinds_for(nodes: int) -> tuple[str, ...]:
    """What may be chosen for a cluster of this size."""
    several = AMONG_SEVERAL if nodes > 1 else ()
    bridge = ("bridge",) if nodes >= BRIDGE_NODES else ()
    ring = ("ring",) if nodes >= RING_NODES else ()
    losses = LOSSES if nodes >= LOSS_NODES else ()
    return ANYWHERE + 2 * (several + bridge + ring + losses)


def plan(
    source: random.Random, nodes: int, length: int, earliest: int = 0, snapshots: bool = False
) -> tuple[Fault, ...]:
    """The faults of a world of `length` virtual microseconds. They begin after a moment in which the cluster comes
    up, and not before `earliest`; in the middle all is mended and well for a while, so that every world gets something done."""
    kinds = [*source.sample(kinds_for(nodes), source.randint(2, 6)), MEND]
    if snapshots:
        # They meet what chance hardly does.
        behind = [LEFT_BEHIND] if nodes >= LEFT_BEHIND_NODES else []
        kinds = [WITH_SNAPSHOTS[0], *source.sample(WITH_SNAPSHOTS, 2), *behind, *kinds]
    pause_s = source.choice((0.4, 1.0, 2.5))
    calm_at: int | None = length // 2
    at = max(round(source.uniform(0.3, 1.5) * SECOND), earliest)
    faults: list[Fault] = []
    while at < length:
        if calm_at is not None and at >= calm_at:
            calm_at = None
            faults.append(Fault(len(faults), at, MEND))
            at += round(CALM_SHARE * length)
            continue
        # The first is a fault: a world without any would show nothing.
        faults.append(Fault(len(faults), at, source.choice(kinds if faults else kinds[:-1])))
        at += round(source.expovariate(1 / pause_s) * SECOND)
    return tuple(faults)
