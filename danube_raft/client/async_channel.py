"""The sockets of the asynchronous store: one connection per endpoint, shared by all its requests.

Requests that are made in the same turn of the loop leave in one message, and answers find their way back by request
id, whatever their order. A task that makes a request decides all that its `Call` has to decide; the callbacks here
only send, receive and wake it, so an error of ours ends in the task that it belongs to. A task that is cancelled
takes its request out of the queue and its ids out of the table; an answer that comes nonetheless finds nobody.

The descriptor of a ZeroMQ socket is edge-triggered: after each send and receive the socket is asked for its events
(`_Line._turn`). The store belongs to the event loop that first used it, as its timers and futures do.

What is in flight is bounded: WRITES_MAX writes, which is what a session may have, and OTHERS_MAX other requests.
More wait for their turn, within their deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from danube_raft.client.async_link import set_once
from danube_raft.client.call import WRITES_MAX, Call, Send
from danube_raft.client.channel import connect, events, now_ms, open_context
from danube_raft.client.owner import Owner
from danube_raft.errors import Overloaded, Rejected
from danube_raft.wire import codec
from danube_raft.wire.client import R_REQUEST_ID, unpack_replies

OTHERS_MAX = 1_024
"""Reads and the like in flight at the same time."""
BATCH_BYTES = 1 << 20
BATCH_REQUESTS = 1_000
"""What goes into one message: well below the 2 MiB and 10,000 requests that a node takes."""
RECEIVES_MAX = 64
"""Messages taken before other callbacks of the loop have their turn."""


class _Room:
    """So many may be inside; more wait in the order in which they came. A place that is left goes to the first of
    them directly."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[asyncio.Future[bool]] = deque()

    async def enter(self, loop: asyncio.AbstractEventLoop, timeout_ms: float) -> bool:
        """False: there was no place in time. Who gets True must `leave`."""
        if self._free:
            self._free -= 1
            return True
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(waiter)
        timer = loop.call_later(timeout_ms / 1000, _give_up, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.result():
                self.leave()
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Make place for another."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(True)
                return
        self._free += 1


def _give_up(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


class _Flight:
    """One call under way, and what has arrived for it."""

    __slots__ = ("_loop", "_until", "_waiter", "call", "error", "ids", "line", "replies")

    def __init__(self, call: Call, loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.line: _Line | None = None
        """Where its request waits to be sent."""
        self.ids: list[int] = []
        self.replies: list[tuple[Any, ...]] = []
        self.error: Rejected | None = None
        self._loop = loop
        self._until = 0.0
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Something has happened."""
        if self._waiter is not None:
            set_once(self._waiter)

    def sent(self, now: float) -> None:
        """Its request was taken by the connection."""
        self.line = None
        self.call.sent(now)
        if self.call.wait_until < self._until:
            self.wake()

    async def pause(self, until: float) -> None:
        """Until something happens, and no longer than that."""
        if self.replies or self.error is not None:
            return
        self._until = until
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_later(max(0.0, until - now_ms()) / 1000, set_once, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None


class _Line:
    """The connection to one endpoint and what waits to go out on it."""

    def __init__(
        self,
        context: zmq.Context[Any],
        endpoint: str,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[bytes], None],
    ) -> None:
        self._socket = connect(context, endpoint)
        self._loop = loop
        self._deliver = deliver
        self._queue: dict[_Flight, bytes] = {}
        self._scheduled = False
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        loop.add_reader(self._descriptor, self._turn)

    def put(self, flight: _Flight, body: bytes) -> None:
        """Send it at the end of this turn of the loop, or when there is a connection."""
        flight.line = self
        self._queue[flight] = body
        self._soon()

    def withdraw(self, flight: _Flight) -> None:
        """Do not send it after all."""
        flight.line = None
        del self._queue[flight]

    def close(self) -> None:
        """Nothing is called back after this."""
        self._loop.remove_reader(self._descriptor)
        self._socket.close()

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._socket.closed:
            return
        self._flush()
        for _ in range(RECEIVES_MAX):
            try:
                body = self._socket.recv_multipart(zmq.NOBLOCK)[-1]
            except zmq.Again:
                break
            self._deliver(body)
        wanted = zmq.POLLIN | zmq.POLLOUT if self._queue else zmq.POLLIN
        if events(self._socket) & wanted:
            self._soon()

    def _flush(self) -> None:
        while self._queue and events(self._socket) & zmq.POLLOUT:
            batch: dict[_Flight, bytes] = {}
            size = 0
            for flight, body in self._queue.items():
                size += len(body)
                if batch and (size > BATCH_BYTES or len(batch) == BATCH_REQUESTS):
                    break
                batch[flight] = body
            try:
                self._socket.send_multipart((b"", b"".join(batch.values())), zmq.NOBLOCK)
            except zmq.Again:
                return
            now = now_ms()
            for flight in batch:
                del self._queue[flight]
                flight.sent(now)


class AsyncChannel:
    """All connections of one asynchronous store."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.context = open_context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lines: dict[str, _Line] = {}
        self._flights: dict[int, _Flight] = {}
        self._under_way: set[_Flight] = set()
        self._idle: asyncio.Future[None] | None = None
        self._over = False
        self._writes = _Room(WRITES_MAX)
        self._others = _Room(OTHERS_MAX)

    def check_usable(self) -> asyncio.AbstractEventLoop:
        """The loop that it belongs to, which is this one. Raises Rejected if it is not, or it is closed."""
        self.owner.check_usable()
        return self.check_loop()

    def check_loop(self) -> asyncio.AbstractEventLoop:
        """As `check_usable`, when it may be closed already."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif loop is not self._loop:
            raise Rejected(
                "the store belongs to the event loop that first used it: open another one in this loop"
            )
        return loop

    async def run(self, is_write: bool, timeout_ms: float, make: Callable[[float], Call]) -> Call:
        """The call that `make` makes for a beginning now, when it has its result. Raises its error."""
        started = now_ms()
        loop = self.check_usable()
        room = self._writes if is_write else self._others
        if not await room.enter(loop, timeout_ms):
            limit = WRITES_MAX if is_write else OTHERS_MAX
            raise Overloaded(f"{limit} requests of this store are waiting already")
        try:
            self.check_usable()
            call = make(started)
            try:
                await self._fly(_Flight(call, loop))
            finally:
                call.close()
        finally:
            room.leave()
        return call

    async def _fly(self, flight: _Flight) -> None:
        call = flight.call
        self._under_way.add(flight)
        try:
            until = 0.0
            while call.result is None:
                if flight.line is None:
                    send = call.next(now_ms())
                    if send is not None:
                        self._put(flight, send)
                        until = send.connect_until
                await flight.pause(call.wait_until if flight.line is None else until)
                if flight.error is not None:
                    raise call.unable(flight.error)
                replies, flight.replies = flight.replies, []
                for reply in replies:
                    call.receive(reply, now_ms())
                if call.result is None and flight.line is not None and now_ms() >= until:
                    flight.line.withdraw(flight)
                    call.blocked(now_ms())
        finally:
            self._forget(flight)

    def _put(self, flight: _Flight, send: Send) -> None:
        line = self._lines.get(send.endpoint)
        if line is None:
            assert self._loop is not None, "a request is made in a loop"
            try:
                line = _Line(self.context, send.endpoint, self._loop, self._deliver)
            except Rejected as error:
                raise flight.call.unable(error) from None
            self._lines[send.endpoint] = line
        flight.ids.append(send.request_id)
        self._flights[send.request_id] = flight
        line.put(flight, send.body)

    def _deliver(self, body: bytes) -> None:
        # Malformed: not a node that answers here. The attempts end by their time and the next endpoint is asked.
        with contextlib.suppress(codec.Malformed):
            for reply in unpack_replies(body):
                flight = self._flights.get(reply[R_REQUEST_ID])
                if flight is not None:
                    flight.replies.append(reply)
                    flight.wake()

    def _forget(self, flight: _Flight) -> None:
        if flight.line is not None:
            flight.line.withdraw(flight)
        for request_id in flight.ids:
            del self._flights[request_id]
        self._under_way.discard(flight)
        if self._idle is not None and not self._under_way:
            set_once(self._idle)

    def close(self) -> None:
        """Refuse new requests. Raises Rejected in another loop."""
        self.check_loop()
        self.owner.closed = True

    async def aclose(self) -> None:
        """After `close`: when the requests under way have their answers, release everything. Idempotent."""
        loop = self.check_loop()
        if self.owner.forked:
            return
        try:
            while self._under_way:
                if self._idle is None or self._idle.done():
                    self._idle = loop.create_future()
                await asyncio.shield(self._idle)
        finally:
            self._release()
        # Watches say goodbye in the background, which ending the context waits for.
        if not self._over:
            self._over = True
            await asyncio.to_thread(self.context.term)

    def _release(self) -> None:
        for flight in self._under_way:
            flight.error = Rejected("the store is closed")
            flight.wake()
        for line in self._lines.values():
            line.close()
        self._lines.clear()
