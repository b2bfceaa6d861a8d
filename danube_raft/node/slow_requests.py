"""Requests that took long, and where their time went: one log line each, a few lines per second at most.

Whether a request was slow is decided when it completes, from what is known of it anyway: when it came follows from its
deadline, a write shares the times of its batch. So a request costs nothing more while it is under way. A long poll
waits because its client wants it to and is not asked about here.

The stage that is named is the one that took the largest part. What the limit of lines leaves out is counted and said.
"""

from __future__ import annotations

import logging

from danube_raft.config import Config
from danube_raft.wire.client import OP, TIMEOUT_MS, Request

LINES_MAX = 5
"""Lines per `WINDOW_MS`."""
WINDOW_MS = 1_000

LEADER = "waiting for a leader that takes it"
COMMIT = "proposed, not committed"
APPLY = "committed, not applied"
READ_INDEX = "waiting for ReadIndex"
REVISION = "waiting for the revision that its client has seen"
CATCH_UP = "waiting for this node to catch up after its start"

log = logging.getLogger("danube_raft.slow_requests")


class SlowRequests:
    """Says which requests were slow. `tick` at `next_timer` says how many were left out."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._limit_ms = config.slow_request_ms
        self._window_end = 0
        self._lines = 0
        self._left_out = 0
        self.total = 0

    def is_slow(self, took_ms: int) -> bool:
        """Whether a request that took so long is one of them."""
        return 0 < self._limit_ms <= took_ms

    def waited(self, request: Request, deadline: int, now: int, stage: str) -> None:
        """A request with this deadline completed after it had waited in one stage."""
        self.passed(request, deadline, now, ((stage, now),))

    def passed(self, request: Request, deadline: int, now: int, stages: tuple[tuple[str, int], ...]) -> None:
        """A request completed that went through these stages, in order: (stage, when it ended)."""
        config = self._config
        timeout = request[TIMEOUT_MS]
        allowed = (
            config.request_timeout_ms if timeout is None else min(timeout, config.request_timeout_max_ms)
        )
        since = deadline - allowed
        if self.is_slow(now - since):
            self.completed(str(request[OP]), since, now, stages)

    def completed(self, op: str, since: int, now: int, stages: tuple[tuple[str, int], ...]) -> None:
        """A slow request that came at `since` completed."""
        self.total += 1
        self.tick(now)
        if self._lines >= LINES_MAX:
            self._left_out += 1
            return
        self._lines += 1
        parts: dict[str, int] = {}
        begun = since
        for stage, ended in stages:
            parts[stage] = max(ended - begun, 0)
            begun = max(ended, begun)
        longest = max(parts, key=lambda stage: parts[stage])
        fields = {"op": op, "took_ms": now - since, "stage_ms": parts[longest], "stage": longest}
        log.warning("slow request: %s took %d ms, %d ms of it %s", *fields.values(), extra={"fields": fields})

    def next_timer(self) -> int | None:
        """When something is to be said of what was left out."""
        return self._window_end if self._left_out else None

    def tick(self, now: int) -> None:
        """A new window begins when the last one is over."""
        if now < self._window_end:
            return
        if self._left_out:
            fields = {"left_out": self._left_out}
            log.warning("slow request: %d more are not listed", self._left_out, extra={"fields": fields})
        self._window_end = now + WINDOW_MS
        self._lines = self._left_out = 0
