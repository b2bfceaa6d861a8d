"""A TCP proxy in front of one port, which breaks what passes through it on request.

One proxy stands before one target; each connection belongs to a *source*, which `source_of` names from the port that
the connection comes from, so that one proxy per target is one fault per directed link. Without `source_of` all
connections have the source "". A fault holds for the connections that are there and for those that come:

    cut          connections are reset, new ones at once after they were accepted
    black_hole   connections stay, nothing passes; what waits goes on its way when the link heals, as in TCP
    delay        every byte arrives so much later, in order

`direction` is TO_TARGET, FROM_TARGET or both. The proxy never looks at the bytes. It runs in one thread with an event
loop of its own; every public method may be called from any thread and returns when the fault is in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

TO_TARGET = "to target"
FROM_TARGET = "from target"
BOTH = (TO_TARGET, FROM_TARGET)
CHUNK_BYTES = 1 << 16
QUEUE_MAX_CHUNKS = 64
"""What one direction of a connection holds while it is delayed or black-holed; then the sender is not read any more."""
CALL_WAIT_S = 10.0


class Gate:
    """One direction of a link: what is done to its bytes now."""

    def __init__(self) -> None:
        self.closed = False
        self.delay_s = 0.0
        self.changed = asyncio.Event()

    def set(self, closed: bool, delay_s: float) -> None:
        """A change wakes all who wait at the gate; they look at it again."""
        self.closed, self.delay_s = closed, delay_s
        self.changed.set()
        self.changed = asyncio.Event()

    async def passed(self, arrived: float) -> None:
        """Return when bytes that arrived then may leave."""
        loop = asyncio.get_running_loop()
        while self.closed or loop.time() < arrived + self.delay_s:
            due = None if self.closed else arrived + self.delay_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self.changed.wait()


class Link:
    """All connections of one source."""

    def __init__(self) -> None:
        self.cut = False
        self.gates = {direction: Gate() for direction in BOTH}
        self.passed_bytes = dict.fromkeys(BOTH, 0)
        self.connections: set[asyncio.Task[None]] = set()

    def abort(self) -> None:
        """Reset every connection, with what waits at its gates."""
        for connection in self.connections:
            connection.cancel()


class Proxy:
    """Listens on a loopback port and passes on to `target` (`host:port`)."""

    def __init__(self, target: str, source_of: Callable[[int], str] | None = None, port: int = 0) -> None:
        self._target = target
        self._source_of = source_of or (lambda _port: "")
        self._links: dict[str, Link] = {}
        self._everybody: tuple[bool, dict[str, tuple[bool, float]]] = (
            False,
            dict.fromkeys(BOTH, (False, 0.0)),
        )
        self._socket = socket.create_server(("127.0.0.1", port))
        self.endpoint = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"proxy of {target}", daemon=True)
        self._thread.start()

    # ---------------------------------------------------------------- faults

    def cut(self, source: str | None = None) -> None:
        """Reset the connections of the source (None: of all), and those that it opens."""
        # The gates close too, so that what waits at them is lost with its connection.
        self._call(self._apply(source, True, BOTH, True, 0.0))

    def black_hole(self, source: str | None = None, direction: str | tuple[str, ...] = BOTH) -> None:
        """Keep the connections and pass nothing."""
        self._call(self._apply(source, False, _several(direction), True, 0.0))

    def delay(
        self, seconds: float, source: str | None = None, direction: str | tuple[str, ...] = BOTH
    ) -> None:
        """Everything arrives so much later."""
        self._call(self._apply(source, False, _several(direction), False, seconds))

    def heal(self, source: str | None = None) -> None:
        """As if nothing had been."""
        self._call(self._apply(source, False, BOTH, False, 0.0))

    # ---------------------------------------------------------------- observation

    def connections(self, source: str | None = None) -> int:
        """Connections that are open now."""
        return sum(len(link.connections) for link in self._chosen(source))

    def passed_bytes(self, direction: str, source: str | None = None) -> int:
        """Bytes that went through in that direction since the start."""
        return sum(link.passed_bytes[direction] for link in self._chosen(source))

    # ---------------------------------------------------------------- end

    def close(self) -> None:
        """Reset everything and stop listening."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CALL_WAIT_S)
            assert not self._thread.is_alive(), f"the {self._thread.name} does not end"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------- inside

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accepted, sock=self._socket))
        self._loop.run_forever()
        server.close()
        for link in self._links.values():
            link.abort()
        waiting = asyncio.all_tasks(self._loop)
        for task in waiting:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        # One more turn: the sockets of aborted connections are closed in it.
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_WAIT_S)

    def _chosen(self, source: str | None) -> list[Link]:
        if source is None:
            return list(self._links.values())
        return [self._links[source]] if source in self._links else []

    async def _apply(
        self, source: str | None, cut: bool, directions: tuple[str, ...], closed: bool, delay_s: float
    ) -> None:
        states = {way: (closed, delay_s) if way in directions else (False, 0.0) for way in BOTH}
        if source is None:
            # Sources that nothing has come from yet begin with this.
            self._everybody = (cut, states)
        links = list(self._links.values()) if source is None else [self._link(source)]
        for link in links:
            self._set(link, cut, states)
        ending = {connection for link in links if cut for connection in link.connections}
        if ending:
            await asyncio.wait(ending)

    def _link(self, source: str) -> Link:
        if source not in self._links:
            link = self._links[source] = Link()
            self._set(link, *self._everybody)
        return self._links[source]

    def _set(self, link: Link, cut: bool, states: dict[str, tuple[bool, float]]) -> None:
        link.cut = cut
        if cut:
            link.abort()
        for way, (closed, delay_s) in states.items():
            link.gates[way].set(closed, delay_s)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        connection = asyncio.current_task()
        assert connection is not None
        link: Link | None = None
        try:
            # Finding out who owns a port reads much of /proc: not in the thread that passes the bytes on.
            link = self._link(await self._loop.run_in_executor(None, self._source_of, port))
            link.connections.add(connection)
            if not link.cut:
                await self._serve(reader, writer, link)
        except asyncio.CancelledError:
            # A cut, or the proxy closes. To the streams module a cancelled task is an error to be logged.
            pass
        finally:
            if link is not None:
                link.connections.discard(connection)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
        host, _, port = self._target.rpartition(":")
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer, link, TO_TARGET))
                both.create_task(self._pump(far_reader, writer, link, FROM_TARGET))
        except* OSError:
            # One side has gone; the other is told so by its end.
            pass
        finally:
            far_writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link, way: str
    ) -> None:
        """One direction of one connection, until its end, which ends the other direction too."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_MAX_CHUNKS)

        async def send() -> None:
            while True:
                arrived, data = await waiting.get()
                await link.gates[way].passed(arrived)
                if not data:
                    raise ConnectionResetError
                link.passed_bytes[way] += len(data)
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as sending:
            sending.create_task(send())
            data = b"some"
            while data:
                data = await reader.read(CHUNK_BYTES)
                await waiting.put((self._loop.time(), data))


def _several(direction: str | tuple[str, ...]) -> tuple[str, ...]:
    return (direction,) if isinstance(direction, str) else direction
