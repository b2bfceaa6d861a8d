"""All checks that follow a run, fact by fact; those on the whole history are called when it is over.

Each check says which facts it `wants`, so a fact costs only those that look at it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from danube_raft.sim.checks.bounded import BoundedReads
from danube_raft.sim.checks.digests import DigestsAgree
from danube_raft.sim.checks.elected import Elected
from danube_raft.sim.checks.election_safety import ElectionSafety
from danube_raft.sim.checks.expected_errors import ExpectedErrors
from danube_raft.sim.checks.expiries import HandedOver
from danube_raft.sim.checks.facts import Fact
from danube_raft.sim.checks.frames import WatchFrames
from danube_raft.sim.checks.leader_completeness import LeaderCompleteness
from danube_raft.sim.checks.leadership_ends import LeadershipEnds, Timings
from danube_raft.sim.checks.log_matching import LogMatching
from danube_raft.sim.checks.monotonic import Monotonic
from danube_raft.sim.checks.own_term import OwnTerm
from danube_raft.sim.checks.promises import Promises
from danube_raft.sim.checks.quorum_durability import QuorumDurability
from danube_raft.sim.checks.read_index import ReadIndexes
from danube_raft.sim.checks.sessions import SessionReads
from danube_raft.sim.checks.snapshots import Good, SnapshotsFit
from danube_raft.sim.checks.state_machine_safety import StateMachineSafety
from danube_raft.sim.checks.suspicion import Suspicion
from danube_raft.sim.checks.ttl import TtlNeverEarly
from danube_raft.sim.checks.view import View
from danube_raft.sim.checks.watches import WatchOrder


class Check(Protocol):
    """One invariant, or a few that belong together."""

    @property
    def wants(self) -> tuple[type, ...]:
        """The kinds of facts that it looks at."""

    def take(self, fact: Fact) -> None:
        """Raises Violation if the fact breaks the invariant."""


class Checks:
    """Tells each fact to the view and to all checks that want it.

    `drift_ppm`: how wrong a node's clock may run. `timings`: without them nothing is asked of how long things take.
    `good`: the snapshots of a node that can be read.
    """

    def __init__(
        self,
        ids: tuple[int, ...],
        drift_ppm: int = 0,
        timings: Timings | None = None,
        good: Good = lambda _: (),
    ) -> None:
        self.view = View(ids)
        self.completeness = LeaderCompleteness(self.view)
        self.ttl = TtlNeverEarly(self.view, drift_ppm)
        self.sessions = SessionReads(self.view)
        self.bounded = BoundedReads(self.view, drift_ppm)
        self.watches = WatchOrder(self.view)
        self.frames = WatchFrames(self.view)
        self.snapshots = SnapshotsFit(self.view, good)
        now = (lambda: 0) if timings is None else timings.now
        self.digests = DigestsAgree(self.view, now)
        self.handed_over = HandedOver(now)
        checks: tuple[Check, ...] = (
            self.handed_over,
            ElectionSafety(self.view),
            Elected(self.view),
            LogMatching(self.view),
            self.completeness,
            StateMachineSafety(self.view),
            QuorumDurability(self.view),
            OwnTerm(self.view),
            ReadIndexes(self.view),
            Monotonic(self.view),
            Promises(self.view),
            Suspicion(self.view),
            self.ttl,
            self.sessions,
            self.bounded,
            self.watches,
            self.frames,
            self.snapshots,
            self.digests,
            ExpectedErrors(self.view),
            *([] if timings is None else [LeadershipEnds(self.view, timings)]),
        )
        self._takers: dict[type, list[Callable[[Fact], None]]] = {}
        for check in checks:
            for kind in check.wants:
                self._takers.setdefault(kind, []).append(check.take)

    def tell(self, fact: Fact) -> None:
        """Check one fact. Raises Violation."""
        self.view.take(fact)
        for take in self._takers.get(type(fact), ()):
            take(fact)
        self.view.after(fact)
