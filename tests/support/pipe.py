"""A writer for measurements: one connection, many puts in flight, as many as wanted or so many per second.

It repeats nothing and forgives nothing: a put that is refused or never answered ends the measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Self

import zmq

from danube_raft.client.call import error_of
from danube_raft.client.channel import connect
from danube_raft.errors import Timeout
from danube_raft.wire import client as wire

BODY_REQUESTS = 200
TIMEOUT_MS = 30_000
PERIOD_S = 0.01


class Pipe:
    """Puts to one node."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = connect(self._context, endpoint)
        self._next = 1
        self._sent: dict[int, float] = {}
        self.latencies: list[float] = []
        """Seconds, of every put so far."""

    def write(self, puts: Iterable[tuple[str, bytes]], window: int = 4_000) -> int:
        """All of them, as fast as they are answered; how many there were."""
        before = len(self.latencies)
        left: Iterator[tuple[str, bytes]] = iter(puts)
        while batch := list(islice(left, BODY_REQUESTS)):
            self._send(batch)
            while len(self._sent) > window - BODY_REQUESTS:
                self._receive(TIMEOUT_MS)
        self.wait()
        return len(self.latencies) - before

    def pace(self, puts: Iterator[tuple[str, bytes]], rate: int, until: Callable[[], bool]) -> None:
        """So many per second, in small bodies, whatever the answers take, until told to end."""
        count = round(rate * PERIOD_S)
        due = time.monotonic()
        while not until():
            self._send(list(islice(puts, count)))
            due += PERIOD_S
            while True:
                left = due - time.monotonic()
                if self._socket.poll(max(0, round(left * 1_000))):
                    self._receive(0)
                elif left <= 0:
                    break
        self.wait()

    def wait(self) -> None:
        """For every answer."""
        while self._sent:
            self._receive(TIMEOUT_MS)

    def _send(self, puts: list[tuple[str, bytes]]) -> None:
        body = []
        now = time.monotonic()
        for key, value in puts:
            body.append(wire.pack_request("put", self._next, key, value, timeout_ms=TIMEOUT_MS))
            self._sent[self._next] = now
            self._next += 1
        self._socket.send_multipart([b"", b"".join(body)])

    def _receive(self, wait_ms: int) -> None:
        if not self._socket.poll(wait_ms):
            raise Timeout(f"{len(self._sent)} puts were not answered within {wait_ms} ms")
        while self._socket.poll(0):
            body = self._socket.recv_multipart()[-1]
            now = time.monotonic()
            for reply in wire.unpack_replies(body):
                if reply[wire.R_STATUS] != wire.STATUS_OK:
                    raise error_of(reply)
                self.latencies.append(now - self._sent.pop(reply[wire.R_REQUEST_ID]))

    def close(self) -> None:
        """Let go of the connection."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
