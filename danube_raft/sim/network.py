"""The network between nodes: a pair of nodes has two links, one per direction, each with its own faults.

A link delays every frame; it may also lose, double or overtake some. One that is *cut* swallows everything, and nobody
is told. One that is *clogged* delivers nothing for a while, and then all of it at once. One that is *down* refuses, as a TCP connection does whose far end is gone, and so does one on which more than
`QUEUE_FRAMES` of a lane are under way: the sender hears that at once. Frames are bytes: what cannot be packed is not sent.

Each direction has two lanes, as in `node/links.py`: order is kept within a lane only. Latencies are drawn once per world, so some worlds are one rack and some span continents.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable

from danube_raft.sim.schedule import MS, Schedule

QUEUE_FRAMES = 96
"""Frames under way on one link before it takes no more."""

Deliver = Callable[[int, bytes], None]
"""Takes the receiver and a frame that has arrived."""


class Link:
    """One direction between two nodes."""

    __slots__ = (
        "arrives_at",
        "clogged",
        "cut",
        "down",
        "extra_us",
        "held",
        "loss",
        "repeats",
        "swaps",
        "under_way",
    )

    def __init__(self) -> None:
        self.arrives_at = [0, 0]
        self.under_way = [0, 0]
        self.held: list[tuple[bytes, int]] = []
        """What waits for the link to be free again: frames with their lanes."""
        self.heal()

    def heal(self) -> None:
        """No faults from now on."""
        self.cut = self.down = False
        self.loss = self.repeats = self.swaps = 0.0
        self.extra_us = 0
        self.clogged = False


class Network:
    """All links between `ids`. `counts` says what really happened to frames."""

    def __init__(
        self, schedule: Schedule, source: random.Random, ids: tuple[int, ...], deliver: Deliver
    ) -> None:
        self._schedule = schedule
        self._random = source
        self._deliver = deliver
        self._latency_us = source.choice((100, 300, 1 * MS, 10 * MS))
        self.links = {(a, b): Link() for a in ids for b in ids if a != b}
        self.unreachable: set[int] = set()
        """Nodes that are not running: links to them are down."""
        self.counts: Counter[str] = Counter()

    def send(self, sender: int, receiver: int, frame: bytes, lane: int = 0) -> bool:
        """Send a frame on a lane (0 or 1); False if the link does not take it."""
        link = self.links[sender, receiver]
        if link.down or receiver in self.unreachable or link.under_way[lane] >= QUEUE_FRAMES:
            self.counts["refused"] += 1
            return False
        self.counts["sent"] += 1
        dropped = not link.cut and link.loss > 0 and self._random.random() < link.loss
        if link.cut or dropped:
            self.counts["lost"] += 1
            self.counts["dropped"] += dropped
            return True
        if link.clogged:
            self.counts["clogged"] += 1
            link.under_way[lane] += 1
            link.held.append((frame, lane))
            return True
        self._fly(link, receiver, frame, lane)
        if link.repeats and self._random.random() < link.repeats:
            self.counts["repeated"] += 1
            self._fly(link, receiver, frame, lane)
        return True

    def _fly(self, link: Link, receiver: int, frame: bytes, lane: int) -> None:
        latency = self._latency_us + self._random.expovariate(1 / self._latency_us) / 2
        if link.extra_us:
            latency += self._random.randrange(link.extra_us)
            self.counts["delayed"] += 1
        arrives_at = self._schedule.now + round(latency)
        if link.swaps and self._random.random() < link.swaps:
            self.counts["overtaken"] += 1
            arrives_at += self._random.randrange(50 * MS)
        else:
            arrives_at = link.arrives_at[lane] = max(arrives_at, link.arrives_at[lane])
        link.under_way[lane] += 1
        self._schedule.at(arrives_at, self._arrive, link, receiver, frame, lane)

    def _arrive(self, link: Link, receiver: int, frame: bytes, lane: int) -> None:
        link.under_way[lane] -= 1
        if link.cut:
            self.counts["lost"] += 1
        else:
            self._deliver(receiver, frame)

    def _release(self, ends: tuple[int, int]) -> None:
        link = self.links[ends]
        held, link.held, link.clogged = link.held, [], False
        for frame, lane in held:
            link.under_way[lane] -= 1
            self._fly(link, ends[1], frame, lane)

    # ---------------------------------------------------------------- faults

    def heal(self) -> None:
        """No faults from now on."""
        for ends in self.links:
            self._heal(ends)

    def _heal(self, ends: tuple[int, int]) -> None:
        self.links[ends].heal()
        self._release(ends)

    def isolate(self, node_id: int, inward: bool, outward: bool, down: bool) -> None:
        """Nothing reaches the node (`inward`) or leaves it (`outward`) any more."""
        for (sender, receiver), link in self.links.items():
            if (inward and receiver == node_id) or (outward and sender == node_id):
                link.cut, link.down = not down, down

    def rejoin(self, node_id: int) -> None:
        """The links of this node are sound again."""
        for ends in self.links:
            if node_id in ends:
                self._heal(ends)

    def cut(self, sender: int, receiver: int, down: bool) -> None:
        """Nothing passes in this one direction any more."""
        link = self.links[sender, receiver]
        link.cut, link.down = not down, down

    def leave_only(self, pairs: Collection[frozenset[int]], down: bool) -> None:
        """Only the nodes of a pair hear each other any more."""
        for (sender, receiver), link in self.links.items():
            if frozenset((sender, receiver)) not in pairs:
                link.cut, link.down = not down, down

    def clog(self, pairs: Iterable[tuple[int, int]], lasts_us: int) -> None:
        """What is sent from now on waits for so long."""
        for ends in pairs:
            self.links[ends].clogged = True
            self._schedule.after(lasts_us, self._release, ends)

    def divide(self, side: frozenset[int], down: bool) -> None:
        """Nothing passes between `side` and the others any more."""
        for (sender, receiver), link in self.links.items():
            if (sender in side) != (receiver in side):
                link.cut, link.down = not down, down

    def disturb(self, loss: float, repeats: float, swaps: float, extra_us: int) -> None:
        """Every link does this to frames now."""
        for link in self.links.values():
            link.loss, link.repeats, link.swaps, link.extra_us = loss, repeats, swaps, extra_us
