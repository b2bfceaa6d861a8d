"""What clients did and what they were told: the evidence for every check on the outside of the store.

Times are virtual microseconds of the world. An operation of outcome `uncertain` (or one that never ended) may have
taken effect once, at any time after it was invoked, or never; a `rejected` one surely has not.

A watch is everything between its begin and its end, on whatever nodes it was served.
"""

from __future__ import annotations

from typing import Any

from danube_raft.client.record import Event
from danube_raft.client.stream import Options
from danube_raft.sim.describe import describe

OK = "ok"
REJECTED = "rejected"
UNCERTAIN = "uncertain"
PENDING = "pending"


class Operation:
    """One operation of one client."""

    __slots__ = (
        "answered", "args", "client", "error", "invoked", "kind", "level", "node", "outcome", "result", "returned", "revision",
        "seen_before", "serial",
    )  # fmt: skip

    def __init__(
        self, client: int, kind: str, args: tuple[Any, ...], level: str | int | None = None, invoked: int = 0
    ) -> None:
        self.client = client
        self.kind = kind
        self.args = args
        self.level = level
        self.invoked = invoked
        self.returned = 0
        self.node = self.answered = 0
        """Which node gave the answer, and when."""
        self.outcome = PENDING
        self.result: tuple[Any, ...] = ()
        self.revision = 0
        """The store revision in the reply."""
        self.seen_before = 0
        """The highest revision that its client's program had been shown when it began."""
        self.serial = 0
        """The write's serial in its client's session."""
        self.error = ""

    @property
    def key(self) -> str:
        """The key, or the counter."""
        return str(self.args[0])

    @property
    def ttl_ms(self) -> int | None:
        """The TTL that it grants, if it is a write that grants one."""
        place = {"put_with_ttl": 2, "compare_and_swap": 3}.get(self.kind, len(self.args))
        return self.args[place] if place < len(self.args) else None

    @property
    def past(self) -> int | None:
        """The revision that a read asks for by number."""
        place = {"get": 1, "range": 3}.get(self.kind, len(self.args))
        return self.args[place] if place < len(self.args) else None

    def end(self, outcome: str, returned: int, result: tuple[Any, ...] = (), revision: int = 0) -> Operation:
        """The outcome is known."""
        assert self.outcome == PENDING, "an operation ends once"
        self.outcome, self.returned, self.result, self.revision = outcome, returned, result, revision
        return self

    def __repr__(self) -> str:
        level = "" if self.level is None else f" {self.level}"
        ended = f"…{self.returned / 1e6:.6f}" if self.returned else "…"
        return (
            f"client {self.client} {self.invoked / 1e6:.6f}{ended} {self.kind}{level} {describe(self.args)} -> "
            f"{self.outcome} {describe(self.result)} {self.error}@{self.revision}"
        )


class WatchLog:
    """What one watch handed out, in order."""

    __slots__ = (
        "changes",
        "closed",
        "compacted",
        "error",
        "marks",
        "options",
        "revision",
        "start",
        "watcher",
    )

    def __init__(self, watcher: int, options: Options, start: int) -> None:
        self.watcher = watcher
        self.options = options
        self.start = start
        """The first revision that it asked for."""
        self.revision = start - 1
        """What it says of itself: all events up to here were handed out."""
        self.changes: list[tuple[int, tuple[Event, ...]]] = []
        """(revision, its events)"""
        self.marks: list[tuple[int, int]] = []
        """(number of changes handed out before, revision): each progress that was told."""
        self.closed = False
        self.error = ""
        self.compacted = 0
        """The revision that it ended with as compacted."""

    @property
    def open(self) -> bool:
        """Whether it goes on."""
        return not self.closed and not self.error

    def __repr__(self) -> str:
        ended = self.error or ("closed" if self.closed else "open")
        return (
            f"watch of client {self.watcher} {self.options} from {self.start}: {len(self.changes)} revisions handed "
            f"out, told up to {self.revision}, {ended}"
        )
