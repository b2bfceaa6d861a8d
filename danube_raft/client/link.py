"""One connection for something that goes on for long (a watch, a look at who leads), and how to wait on it.

What is done over a link is written once, as a generator of `Steps`: it sends and receives without ever blocking,
and yields a `Wait` where there is nothing to do but wait. Whoever drives it does the waiting: a thread with a
poller (`Waiter`, here), a task with the event loop (`async_link.py`). A wait may end early for any reason or none:
the generator looks for itself at what has happened. It may be abandoned at any yield and begun anew.

A link has its own DEALER, and a monitor on it that tells at once when the connection is gone: ZeroMQ reconnects by
itself, but the node at the other end knows nothing of a watch any more.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

import zmq

from danube_raft.client.channel import connect, events, no_socket, now_ms, whole_ms

T = TypeVar("T")


class Link:
    """A DEALER to one endpoint and its monitor. Raises Overloaded when there is no room for them."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self.socket = connect(context, endpoint)
        try:
            self.monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        except zmq.ZMQError as error:
            self.socket.close()
            raise no_socket(error) from None

    @property
    def connected(self) -> bool:
        """Whether something could be sent now."""
        return bool(events(self.socket) & zmq.POLLOUT)

    @property
    def lost(self) -> bool:
        """Whether a connection that was there is gone."""
        return bool(events(self.monitor) & zmq.POLLIN)

    def ready(self, flags: int) -> bool:
        """Whether a wait with these flags is over. Asks both sockets, as a wait on their descriptors requires."""
        happened = events(self.socket) & flags
        return self.lost or bool(happened)

    def send(self, body: bytes) -> bool:
        """False: there is no connection."""
        try:
            self.socket.send_multipart((b"", body), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> bytes | None:
        """The next body that has arrived, or None."""
        try:
            return self.socket.recv_multipart(zmq.NOBLOCK)[-1]
        except zmq.Again:
            return None

    def close(self, linger_ms: int = 0) -> None:
        """Close all."""
        self.socket.disable_monitor()
        self.socket.close(linger=linger_ms)
        self.monitor.close(linger=0)


class Wait(NamedTuple):
    """Until when at most, and on what: the end of a connection, and what `flags` name of the socket."""

    until: float
    link: Link | None = None
    flags: int = zmq.POLLIN


Steps: TypeAlias = Generator[Wait, None, T]


class Waiter:
    """Waits in the calling thread; something readable on `wake` ends it early, for good."""

    def __init__(self, wake: int) -> None:
        self._wake = wake
        self._poller = self._made_for(None, 0)
        self._link: Link | None = None
        self._flags = 0

    def run(self, steps: Steps[T]) -> T:
        """Drive to the end; its result or error."""
        try:
            while True:
                self._wait(next(steps))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    def _wait(self, wait: Wait) -> None:
        if wait.link is not self._link or wait.flags != self._flags:
            self._poller = self._made_for(wait.link, wait.flags)
            self._link, self._flags = wait.link, wait.flags
        self._poller.poll(whole_ms(wait.until - now_ms()))

    def _made_for(self, link: Link | None, flags: int) -> zmq.Poller:
        poller = zmq.Poller()
        poller.register(self._wake, zmq.POLLIN)
        if link is not None:
            poller.register(link.monitor, zmq.POLLIN)
            poller.register(link.socket, flags)
        return poller
