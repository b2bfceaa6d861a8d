"""The sockets of the synchronous store, and which thread may use them when.

A ZeroMQ socket belongs to one thread at a time, so a thread that makes a request takes a whole channel (a DEALER per
endpoint, connected when first needed), does its own sending and waiting on it, and gives it back. No thread runs in
the background and no answer is passed between threads, which is the shortest way there is. The pool hands out the
channel that was used last, and the lock inside a semaphore is the fence between one owner and the next.

`IMMEDIATE` makes a send fail while there is no connection, and what was queued goes with the connection: nothing is
ever delivered minutes later. `LINGER` 0 keeps exit quick. Answers that nobody waits for any more are dropped by
their request id, so an abandoned channel can be used again as it is.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import zmq

from danube_raft.client.call import Call
from danube_raft.client.owner import Owner
from danube_raft.errors import InvalidArgument, Overloaded, Rejected
from danube_raft.wire import codec
from danube_raft.wire.client import unpack_replies

CHANNELS_MAX = 128
"""Requests of one store at the same time; more threads wait for their turn. Below the 256 writes of a session."""
SOCKETS_MAX = 16_384
"""Of one store, watches included; ZeroMQ asks for a number."""
RECONNECT_MS = 20
RECONNECT_MAX_MS = 1_000
HEARTBEAT_MS = 2_000
"""ZeroMQ's own heartbeat: it finds a connection whose far end is gone without a word."""


def now_ms() -> float:
    """Monotonic milliseconds."""
    return time.monotonic() * 1000.0


def whole_ms(left: float) -> int:
    """For a poll: never negative, and rounded up so that the time has passed when it returns."""
    return max(0, math.ceil(left))


def connect(context: zmq.Context[Any], endpoint: str) -> zmq.Socket[bytes]:
    """A DEALER to one endpoint, with the options that every client socket needs. Raises Overloaded when the process
    has no room for another socket."""
    try:
        socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    except zmq.ZMQError as error:
        raise no_socket(error) from None
    socket.linger = 0
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2 * HEARTBEAT_MS)
    if endpoint.startswith("["):
        socket.setsockopt(zmq.IPV6, 1)
    try:
        socket.connect(f"tcp://{endpoint}")
    except zmq.ZMQError as error:
        socket.close()
        raise InvalidArgument(f"endpoint {endpoint!r}: {error.strerror}") from None
    return socket


def events(socket: zmq.Socket[bytes]) -> int:
    """What could be done on it now, as POLLIN and POLLOUT. Asking makes its descriptor speak up again."""
    return int(socket.getsockopt(zmq.EVENTS))


def no_socket(error: zmq.ZMQError) -> Overloaded:
    """The error for a socket that could not be opened."""
    return Overloaded(f"no socket for another connection: {error.strerror} (the limit is `ulimit -n`)")


class Channel:
    """One owner's sockets."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self._context = context
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._poller = zmq.Poller()

    def run(self, call: Call) -> tuple[Any, ...]:
        """The result of the call; raises its error."""
        while call.result is None:
            now = now_ms()
            send = call.next(now)
            if send is not None:
                try:
                    taken = self._send(send.endpoint, send.body, send.connect_until)
                except Rejected as error:
                    raise call.unable(error) from None
                if taken:
                    call.sent(now_ms())
                else:
                    call.blocked(now_ms())
            self._collect(call)
        return call.result

    def _send(self, endpoint: str, body: bytes, until: float) -> bool:
        socket = self._sockets.get(endpoint)
        if socket is None:
            socket = self._sockets[endpoint] = connect(self._context, endpoint)
            self._poller.register(socket, zmq.POLLIN)
        while True:
            try:
                socket.send_multipart((b"", body), zmq.NOBLOCK)
            except zmq.Again:
                if not socket.poll(whole_ms(until - now_ms()), zmq.POLLOUT):
                    return False
            else:
                return True

    def _collect(self, call: Call) -> None:
        """Wait for one round of answers, at most as long as the call wants to."""
        for socket, _ in self._poller.poll(whole_ms(call.wait_until - now_ms())):
            while call.result is None:
                try:
                    body = socket.recv_multipart(zmq.NOBLOCK)[-1]
                except zmq.Again:
                    break
                try:
                    for reply in unpack_replies(body):
                        call.receive(reply, now_ms())
                except codec.Malformed:
                    # Not a node that answers here. The attempt ends by its time and the next endpoint is asked.
                    continue

    def close(self) -> None:
        """Close all sockets; by the owner only."""
        for socket in self._sockets.values():
            socket.close()
        self._sockets.clear()


def open_context() -> zmq.Context[Any]:
    """One for all sockets of a store."""
    context: zmq.Context[Any] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
    return context


class Pool:
    """The channels of one store."""

    def __init__(self) -> None:
        self.context = open_context()
        self.owner = Owner()
        self._over = False
        self._idle: list[Channel] = []
        self._busy = 0
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(CHANNELS_MAX)

    def take(self, timeout_ms: float) -> Channel:
        """A channel for the calling thread; raises Overloaded if none is free in time."""
        if not self._room.acquire(timeout=timeout_ms / 1000.0):
            raise Overloaded(f"{CHANNELS_MAX} requests of this store are waiting already")
        try:
            self.hold()
        except Rejected:
            self._room.release()
            raise
        try:
            return self._idle.pop()
        except IndexError:
            return Channel(self.context)

    def give(self, channel: Channel) -> None:
        """Back from the thread that took it."""
        self._idle.append(channel)
        self._room.release()
        self.release()

    def hold(self) -> None:
        """Somebody opens sockets in the context, which must last until `release`."""
        with self._lock:
            self.owner.check_usable()
            self._busy += 1

    def release(self) -> None:
        """The sockets of one `hold` are closed, or idle in the pool."""
        with self._lock:
            self._busy -= 1
        self._finish()

    def close(self) -> None:
        """No new requests. Those under way end first; the last one releases the rest."""
        with self._lock:
            self.owner.closed = True
        self._finish()

    def _finish(self) -> None:
        if not self.owner.closed:
            return
        with self._lock:
            over = not self._over and not self._busy and not self.owner.forked
            self._over |= over
            while over and self._idle:
                self._idle.pop().close()
        if over:
            self.context.term()
