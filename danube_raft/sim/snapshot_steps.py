"""What a node does with snapshots, step by step, as its processes say it to each other and to its peers.

Each step is told to the checks and counted. A trap springs the next time that a step is reached: so a fault can be made
right there, which chance alone would hardly ever do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from danube_raft.sim.checks.facts import Fact, FoundOdd, LoadTold, PurgeIssued, SnapshotTold
from danube_raft.sim.disk import Disk
from danube_raft.sim.schedule import MS
from danube_raft.wire import local, peer

STEPS = ("take", "taken", "purge", "send", "stage", "staged", "install", "load", "start")
"""Begin to write one, have written it; forget the log; send and receive a piece; have received all; begin the log behind
it; load it into the state machine; begin with one's own after a restart."""
REPLACING = ("odd", "ask", "compare", "replace")
"""Steps of a node whose state is wrong, beside those of receiving: say so, ask the leader for a snapshot, compare it with
the own log, take it in place of all others. No honest world has them."""

_STEP_OF: dict[type, str] = {
    local.Odd: "odd",
    local.ReplaceState: "replace",
    local.AskPoint: "take",
    local.Purge: "purge",
    local.StagePiece: "stage",
    local.InstallPoint: "install",
    local.InstallSnapshot: "load",
    local.LoadSnapshot: "start",
}


SILENCE_US = 300 * MS
"""A transfer that says nothing for so long was broken."""


class _Piece(NamedTuple):
    sha256: bytes
    sender: int
    term: int
    at: int


class SnapshotSteps:
    """Of one node."""

    def __init__(self, node_id: int, disk: Disk, counts: Counter[str], tell: Callable[[Fact], None]) -> None:
        self._node_id = node_id
        self._disk = disk
        self._counts = counts
        self._tell = tell
        self._trap: tuple[str, Callable[[], None]] | None = None
        self._taking = self._installing = self._odd = False
        self._loaded = (0, 0)
        self._piece: _Piece | None = None
        """The last that was taken."""

    def set_trap(self, step: str, spring: Callable[[], None]) -> None:
        """Call `spring` when `step` is reached, once; in place of any trap before."""
        assert step in (*STEPS, *REPLACING)
        self._trap = (step, spring)

    def stopped(self) -> None:
        """The node has crashed."""
        self._counts["takes_interrupted"] += self._taking
        self._counts["installs_interrupted"] += self._installing
        self._taking = self._installing = self._odd = False
        self._loaded = (0, 0)
        self._piece = None
        self._trap = None

    def said(self, message: local.Message) -> None:
        """One of the node's processes says this to another."""
        node = self._node_id
        if isinstance(message, local.AskPoint):
            self._taking = True
        elif isinstance(message, local.SnapshotDone):
            self._done(message)
        elif isinstance(message, local.Purge):
            self._counts["logs_purged"] += 1
            self._tell(PurgeIssued(node, message.index, self._disk.good()))
        elif isinstance(message, local.StagePiece):
            self._installing = True
        elif isinstance(message, local.Staged):
            if message.complete:
                self._reached("staged")
        elif isinstance(message, local.InstallSnapshot | local.LoadSnapshot):
            self._load(message)
        elif isinstance(message, local.Odd):
            self._tell(FoundOdd(node, message.index))
            self._odd = message.replaceable
        elif isinstance(message, local.ReadPoint) and self._odd:
            # Whose state is wrong makes no snapshot of its own.
            self._reached("compare")
        step = _STEP_OF.get(type(message))
        if step is not None:
            self._reached(step)

    def sent(self, message: peer.Message) -> None:
        """This has left for a peer."""
        if isinstance(message, peer.InstallSnapshot):
            self._counts["snapshots_sent"] += message.offset == 0
            self._reached("send")
        elif isinstance(message, peer.AskSnapshot):
            self._reached("ask")

    def received(self, header: peer.Header, message: peer.Message, now: int) -> None:
        """Consensus takes this of a peer, at virtual time `now`."""
        if isinstance(message, peer.InstallSnapshot):
            before = self._piece
            self._piece = _Piece(message.sha256, header.sender, header.term, now)
            if before is not None and before.sha256 == message.sha256 and message.offset > 0:
                broken = before[1:3] != self._piece[1:3] or now - before.at > SILENCE_US
                self._counts["transfers_resumed"] += broken

    def _done(self, done: local.SnapshotDone) -> None:
        self._tell(SnapshotTold(self._node_id, done))
        if done[:2] != self._loaded:
            self._taking = False
            self._counts["snapshots_taken"] += 1
            self._reached("taken")

    def _load(self, message: local.InstallSnapshot | local.LoadSnapshot) -> None:
        installed = isinstance(message, local.InstallSnapshot)
        self._loaded = (message.index, message.term)
        self._tell(LoadTold(self._node_id, message.index, message.term, installed))
        if installed:
            self._installing = False
            self._counts["snapshots_installed"] += 1
        elif message.index:
            self._counts["restarts_from_snapshot"] += 1
            # One that is newer is there and cannot be read.
            self._counts["loads_of_the_older"] += self._disk.has_bad_after(message.index)

    def _reached(self, step: str) -> None:
        if self._trap is not None and self._trap[0] == step:
            spring, self._trap = self._trap[1], None
            self._counts[f"stopped at {step}"] += 1
            spring()
