"""The one loop that every process runs: poll, drain, work, send.

A turn takes everything that waits (up to `drain_max_messages` per socket), lets the handler do its work once, and
then makes one send per edge. So the cost is per turn, not per message, and under load the batches grow by
themselves. Nothing keeps a turn
from its end for longer than about `drain_max_ms`, so that progress is told and credit returned while much waits.
Time is read after the poll. After a pause (SIGSTOP, a suspended machine) all that has queued up is taken before the
handler looks at its timers: a leader that has been heard meanwhile is not one that is silent.

The loop also says Ready, Progress and Status to the supervisor, if there is one, and ends on `Stop`, on a stop file descriptor
that becomes readable or closed (signals; the parent's end of a pipe), when the handler has nothing left to do (`done`),
or with the handler's error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import zmq

from danube_raft.config import Config
from danube_raft.node.endpoints import Endpoint
from danube_raft.node.handler import SUPERVISOR, Handler
from danube_raft.wire.local import Progress, Ready, Status, Stop

FAR = 1 << 62
PATIENCE_MAX_MS = 60_000
PAUSE_MS = 1_000
"""A turn that comes so much later than it should was kept from it."""
SETTLE_MS = 10
"""What ZeroMQ's threads, which were stopped as well, have not brought by then had not come."""
SETTLE_MAX_MS = 50
"""Messages that keep coming do not keep the timers waiting for longer: a leader's are for its heartbeats."""
# Not every system has the first; those without count suspension in the second or not at all.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic_ms() -> int:
    """The clock that handlers are given. It goes on while the machine is suspended: what was heard before is old then."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000


class Loop:
    """Drives one handler over its endpoints, in the calling thread, until it is told to stop."""

    def __init__(
        self,
        name: str,
        pid: int,
        handler: Handler,
        endpoints: Mapping[str, Endpoint],
        config: Config,
        stop_fds: Iterable[int] = (),
        clock: Callable[[], int] = monotonic_ms,
        report: Callable[[int], dict[str, Any]] | None = None,
    ) -> None:
        supervised = SUPERVISOR in endpoints
        self._ready: Ready | None = Ready(name, pid) if supervised else None
        self._handler = handler
        self._endpoints = endpoints
        self._report = report
        self._stop_fds = tuple(stop_fds)
        self._clock = clock
        self._drain_limit = config.drain_max_messages
        self._drain_ms = config.drain_max_ms
        self._progress_ms = config.progress_ms
        self._progress_at = 0 if supervised else FAR
        self._stopping = False
        self._troubled = False
        self.turns = 0

    def run(self) -> None:
        """Turn until stopped. Errors of the handler and of `OpenPort` propagate; endpoints are closed by the caller."""
        poller = zmq.Poller()
        edge_of: dict[Any, str] = {}
        for edge, endpoint in self._endpoints.items():
            if endpoint.socket is not None:
                poller.register(endpoint.socket, zmq.POLLIN)
                edge_of[endpoint.socket] = edge
        for descriptor in self._stop_fds:
            poller.register(descriptor, zmq.POLLIN)
        now = self._clock()
        self._handler.start(now)
        self._finish_turn(now)
        while not self._stopping and not self._handler.done:
            patience = self._patience(self._clock())
            self._drain_ready(poller.poll(patience), edge_of)
            if self._clock() - now > patience + PAUSE_MS:
                self._settle(poller, edge_of)
            # Read again: what was received may have been sent after the drain began, and a stamp that is older than
            # what it is put on would let a TTL end early.
            now = self._clock()
            self._finish_turn(now)

    def _drain_ready(self, ready: Sequence[tuple[Any, int]], edge_of: Mapping[Any, str]) -> None:
        now = self._clock()
        for source, _ in ready:
            if source in edge_of:
                self._drain(edge_of[source], now)
            else:
                self._stopping = True

    def _settle(self, poller: zmq.Poller, edge_of: Mapping[Any, str]) -> None:
        """After a pause: take what waits, until nothing more comes."""
        until = self._clock() + SETTLE_MAX_MS
        while not self._stopping and (ready := poller.poll(SETTLE_MS)):
            self._drain_ready(ready, edge_of)
            if self._clock() >= until:
                return

    def _patience(self, now: int) -> int:
        if self._troubled:
            return 0
        wake = self._handler.next_timer()
        wake = self._progress_at if wake is None or wake > self._progress_at else wake
        return min(max(wake - now, 0), PATIENCE_MAX_MS)

    def _drain(self, edge: str, now: int) -> None:
        """All that waits on an edge, up to a number of frames and a stretch of time; the rest is for the next turn."""
        endpoint, receive = self._endpoints[edge], self._handler.receive
        for taken in range(self._drain_limit):
            # Asking is a quarter of what an empty-handed receive costs, which ends in an exception. It pays where one
            # frame at a time comes in, and is saved where many do.
            if taken == 1 and not _readable(endpoint):
                return
            messages = endpoint.receive()
            if messages is None:
                return
            for message in messages:
                if edge == SUPERVISOR and isinstance(message, Stop):
                    self._stopping = True
                else:
                    receive(edge, message, now)
            if self._clock() - now > self._drain_ms:
                return

    def _finish_turn(self, now: int) -> None:
        self._handler.turn(now)
        self.turns += 1
        if self._ready is not None and self._handler.ready:
            self._handler.outbox.append((SUPERVISOR, self._ready))
            self._ready = None
        if now >= self._progress_at:
            self._progress_at = now + self._progress_ms
            self._handler.outbox.append((SUPERVISOR, Progress(self.turns)))
            if self._report is not None:
                self._handler.outbox.append((SUPERVISOR, Status(self._report(now))))
        self._flush(now)

    def _flush(self, now: int) -> None:
        handler = self._handler
        self._troubled = False
        if not handler.outbox:
            return
        by_edge: dict[str, list[Any]] = {}
        for edge, message in handler.outbox:
            by_edge.setdefault(edge, []).append(message)
        handler.outbox.clear()
        for edge, messages in by_edge.items():
            for trouble in self._endpoints[edge].send(messages):
                handler.receive(edge, trouble, now)
                # What it leads to is for the next turn, which does not wait for anything else.
                self._troubled = True


def _readable(endpoint: Endpoint) -> bool:
    assert endpoint.socket is not None, "it was read from"
    events: Any = endpoint.socket.get(zmq.EVENTS)
    return bool(events & zmq.POLLIN)
