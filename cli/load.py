"""The load generator behind `danube-raft bench`: closed loop, one process, one poller.

Every client keeps exactly one request in flight; the clients are spread over the connections, the connections over
the endpoints. Answers that have arrived together on a connection lead to the next requests of their clients, which
go out together in one body, as the answers came. The generator shares its cores with the servers it measures, so its
own cost per request is what everything here is arranged for: a request is joined from bytes that were packed before
the clock started and one number, which is request id, serial and low_water at once.

Nothing is repeated and nothing forgiven: every status is looked at, a refusal is counted, an answer to nothing that
was asked or one that never comes ends the run with an error. The latency of a request runs from the arrival of the
message before it, so it includes the generator's own work.
"""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgpack
import zmq

from danube_raft.client.call import error_of
from danube_raft.client.channel import connect, whole_ms
from danube_raft.errors import DanubeRaftError, NoConnection, Timeout
from danube_raft.wire import client as wire
from danube_raft.wire.codec import pack

CHECK_S = 0.25
"""How often the run looks for requests that nobody answers."""
CREDIT_BYTES = 8 << 20
WATCHED = "/topics/"

_NUMBER = b"\xce"
"""MessagePack: an unsigned 32-bit number follows."""


def key_name(number: int) -> str:
    """The keys of the etcd baseline, so that both do the same work."""
    return f"/topics/default/t{number}"


class Work(NamedTuple):
    """What the clients send. A request is head, number, middle of the client, (number twice, if it writes,) tail."""

    head: bytes
    middles: list[bytes]
    writes: bool
    tails: list[bytes]


def _open(
    op: str, count: int, timeout_ms: int, consistency: str | int | None, token: Any
) -> tuple[bytes, bytes]:
    """The bytes before and after the request id, up to the client id."""
    # The length of the array is the low half of its first byte.
    first = bytes([0x90 | count, wire.VERSION])
    return first + pack(op) + _NUMBER, pack(timeout_ms) + pack(consistency) + pack(token)


def puts(clients: int, keys: list[str], value: bytes, timeout_ms: int) -> Work:
    """Puts with sessions: each client has an id of its own and one serial in flight."""
    head, middle = _open("put", wire.ARGS + 2, timeout_ms, None, None)
    session_ids = [random.SystemRandom().randrange(1, 2**53) for _ in range(clients)]
    middles = [middle + pack(session_id) + _NUMBER for session_id in session_ids]
    return Work(head, middles, True, [pack(key) + pack(value) for key in keys])


def gets(
    clients: int, keys: list[str], consistency: str | int, token: tuple[int, int], timeout_ms: int
) -> Work:
    """Reads, with the token of a client that has seen the keys written."""
    head, middle = _open("get", wire.ARGS + 1, timeout_ms, consistency, token)
    no_session = pack(None) * 3
    return Work(head, [middle + no_session] * clients, False, [pack(key) for key in keys])


class Watchers:
    """Streams on the connections of a run, and what has come over them. Their request ids are 1, 2, 3…"""

    def __init__(self, count: int) -> None:
        self.events = [0] * (count + 1)
        self.revisions = [0] * (count + 1)
        self.open = 0
        self.last_at = 0.0
        self._credit = [0] * (count + 1)

    def frame(self, reply: tuple[Any, ...], size_bytes: int, now: float) -> bytes:
        """Take one frame; returns the credit to send, if any. Raises the error that a stream ends with."""
        watch = reply[wire.R_REQUEST_ID]
        if reply[wire.R_STATUS] != wire.STATUS_OK:
            raise error_of(reply)
        frame = reply[wire.R_RESULT :]
        if frame[0] == wire.FRAME_PROGRESS:
            self.open += self.revisions[watch] == 0
            self.revisions[watch] = max(self.revisions[watch], frame[1])
            return b""
        if frame[2] <= self.revisions[watch]:
            raise DanubeRaftError(f"a watch went back from revision {self.revisions[watch]} to {frame[2]}")
        self.revisions[watch] = frame[2] - 1 if frame[3] else frame[2]
        self.events[watch] += len(frame[1])
        self.last_at = now
        self._credit[watch] += size_bytes
        if self._credit[watch] < CREDIT_BYTES // 4:
            return b""
        credit, self._credit[watch] = self._credit[watch], 0
        return wire.pack_request("watch_credit", 0, watch, credit)


class Measured(NamedTuple):
    """What a run has seen: seconds per answered request, seconds in all, refusals, the first of them."""

    latencies: list[float]
    elapsed: float
    errors: int
    first_error: DanubeRaftError | None


class Load:
    """Connections to a cluster; `run` puts work on them."""

    def __init__(self, endpoints: Sequence[str], connections: int, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._context: zmq.Context[Any] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, connections + 1)
        self._poller = zmq.Poller()
        self._unpacker = msgpack.Unpacker(use_list=False, max_ext_len=0, max_buffer_size=1 << 26)
        self.watchers = Watchers(0)
        self._next_number = 1
        self.sockets: list[zmq.Socket[bytes]] = []
        with contextlib.ExitStack() as failed:
            failed.callback(self.close)
            for number in range(connections):
                self.sockets.append(connect(self._context, endpoints[number % len(endpoints)]))
            self._wait_connected(endpoints)
            failed.pop_all()

    def _wait_connected(self, endpoints: Sequence[str]) -> None:
        deadline = time.monotonic() * 1000 + self._timeout_ms
        for number, socket in enumerate(self.sockets):
            if not socket.poll(whole_ms(deadline - time.monotonic() * 1000), zmq.POLLOUT):
                endpoint = endpoints[number % len(endpoints)]
                raise NoConnection(f"no connection to {endpoint} within {self._timeout_ms} ms")
            self._poller.register(socket, zmq.POLLIN)

    def ask(self, op: str, *args: Any) -> tuple[Any, ...]:
        """One request outside of a run; returns the whole reply, raises its error."""
        socket = self.sockets[0]
        socket.send_multipart((b"", wire.pack_request(op, 0, *args, timeout_ms=self._timeout_ms)))
        if not socket.poll(self._timeout_ms):
            raise Timeout(f"no answer to {op} within {self._timeout_ms} ms")
        (reply,) = wire.unpack_replies(socket.recv_multipart()[-1])
        if reply[wire.R_STATUS] != wire.STATUS_OK:
            raise error_of(reply)
        return reply

    def watch(self, count: int) -> Watchers:
        """Open streams from the present revision on; returns when all are open."""
        self.watchers = Watchers(count)
        start = self.ask("get", key_name(0))[wire.R_REVISION] + 1
        for watch in range(1, count + 1):
            body = wire.pack_request("watch", watch, (WATCHED,), start, CREDIT_BYTES)
            self._send(self.sockets[watch % len(self.sockets)], body)
        self.collect(lambda: self.watchers.open == count, self._timeout_ms / 1000)
        if self.watchers.open < count:
            raise Timeout(f"{self.watchers.open} of {count} watches are open after {self._timeout_ms} ms")
        return self.watchers

    def collect(self, done: Callable[[], bool], silence_s: float) -> None:
        """Take frames of watches until `done`, or until none has come for so long."""
        heard = time.perf_counter()
        while not done() and time.perf_counter() - heard < silence_s:
            for socket, _ in self._poller.poll(100):
                heard = time.perf_counter()
                credit = b"".join([self._frame(reply, heard) for reply in self._receive(socket)])
                if credit:
                    self._send(socket, credit)

    def _receive(self, socket: zmq.Socket[bytes]) -> msgpack.Unpacker:
        """The replies of all messages that have arrived."""
        unpacker = self._unpacker
        while True:
            try:
                unpacker.feed(socket.recv_multipart(zmq.NOBLOCK)[-1])
            except zmq.Again:
                break
        self._begin = unpacker.tell()
        return unpacker

    def _send(self, socket: zmq.Socket[bytes], body: bytes) -> None:
        try:
            socket.send_multipart((b"", body), zmq.NOBLOCK)
        except zmq.Again:
            raise NoConnection("a connection was lost, and the answers that were under way on it") from None

    def _frame(self, reply: tuple[Any, ...], now: float) -> bytes:
        end = self._unpacker.tell()
        size, self._begin = end - self._begin, end
        return self.watchers.frame(reply, size, now)

    def run(self, work: Work, draws: list[list[int]]) -> Measured:
        """Client `c` sends its requests, for the keys `draws[c]`, one after the other. Raises Timeout when an answer
        does not come, and an error when one comes that was not asked for."""
        first = self._first_number(len(draws), max(map(len, draws)))
        run = Run(work, draws, first)
        collecting = gc.isenabled()
        gc.disable()  # nothing here makes cycles, and a pause of the generator would look like one of the server
        try:
            begin = time.perf_counter()
            for number, socket in enumerate(self.sockets):
                if number < len(draws):
                    self._send(socket, run.begin(range(number, len(draws), len(self.sockets)), begin))
            now = checked = begin
            while run.left:
                for socket, _ in self._poller.poll(int(CHECK_S * 1000)):
                    now = time.perf_counter()
                    body = run.answers(self._receive(socket), self._frame, now)
                    if body:
                        self._send(socket, body)
                if time.perf_counter() - checked > CHECK_S:
                    checked = time.perf_counter()
                    run.check_lost(checked, self._timeout_ms / 1000)
        except ValueError as error:
            raise DanubeRaftError(f"an answer is not a MessagePack reply: {type(error).__name__}") from None
        finally:
            if collecting:
                gc.enable()
        return Measured(run.latencies, now - begin, run.refused, run.first_error)

    def _first_number(self, clients: int, per_client: int) -> int:
        """The first of a block of request numbers: above those of the watches, and never used before."""
        first = (max(self._next_number, len(self.watchers.events)) // clients + 1) * clients
        self._next_number = first + clients * (per_client + 1)
        assert self._next_number < 1 << 32
        return first

    def close(self) -> None:
        """Release everything."""
        for socket in self.sockets:
            socket.close()
        self._context.term()


class Run:
    """The clients of one run. Request numbers of client `c` are `c` modulo the number of clients."""

    def __init__(self, work: Work, draws: list[list[int]], first: int) -> None:
        self.latencies: list[float] = []
        self.refused = 0
        self.first_error: DanubeRaftError | None = None
        self.left = len(draws)
        self._work = work
        self._tails = [map(work.tails.__getitem__, drawn) for drawn in draws]
        self._first = first
        self._waiting = [first + client for client in range(len(draws))]
        self._started = [0.0] * len(draws)

    def begin(self, clients: Iterable[int], now: float) -> bytes:
        """The first requests of some clients."""
        parts: list[bytes] = []
        for client in clients:
            self._started[client] = now
            number = self._waiting[client].to_bytes(4, "big")
            parts += (self._work.head, number, self._work.middles[client])
            if self._work.writes:
                parts += (number, _NUMBER, number)
            parts.append(next(self._tails[client]))
        return b"".join(parts)

    def answers(
        self,
        replies: Iterable[tuple[Any, ...]],
        on_frame: Callable[[tuple[Any, ...], float], bytes],
        now: float,
    ) -> bytes:
        """Take answers; returns the next requests of their clients. This is the hot path."""
        head, middles, writes, _ = self._work
        waiting, started, tails, answered = self._waiting, self._started, self._tails, self.latencies.append
        first, clients = self._first, len(waiting)
        parts: list[bytes] = []
        for reply in replies:
            number = reply[1]
            if number < first:
                parts.append(on_frame(reply, now))
                continue
            client = number % clients
            if waiting[client] != number:
                raise DanubeRaftError(
                    f"answer to request {number} of client {client}, which waits for {waiting[client]}"
                )
            if reply[2]:
                self._refuse(reply)
            else:
                answered(now - started[client])
            tail = next(tails[client], None)
            if tail is None:
                waiting[client] = 0
                self.left -= 1
                continue
            number += clients
            waiting[client] = number
            started[client] = now
            digits = number.to_bytes(4, "big")
            if writes:
                parts += (head, digits, middles[client], digits, _NUMBER, digits, tail)
            else:
                parts += (head, digits, middles[client], tail)
        return b"".join(parts)

    def _refuse(self, reply: tuple[Any, ...]) -> None:
        self.refused += 1
        if self.first_error is None:
            self.first_error = error_of(reply)

    def check_lost(self, now: float, timeout_s: float) -> None:
        """Raises Timeout if a request is not answered for so long."""
        late = [
            client
            for client, number in enumerate(self._waiting)
            if number and now - self._started[client] > timeout_s
        ]
        if late:
            raise Timeout(
                f"{len(late)} requests without an answer after {timeout_s:g} s; {len(self.latencies)} were answered"
            )
