"""The sockets of a node, each behind one small object that turns frames into messages and back.

The rules (reasons in PITFALLS of the design): a socket belongs to one thread; nothing ever blocks; `LINGER` is
bounded; what arrives is limited in frame size and frame count, and what cannot be understood is dropped and
counted. Edges between the processes never drop (HWM 0; credits bound them) and carry the boot epoch. The client
and peer ports count what they refuse in `counters`, which `status` shows.

No decision about content is taken here, and no other file of the package but `loop.py` and `client/` touches ZeroMQ.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import zmq

from danube_raft.config import Config
from danube_raft.errors import Fatal, PortInUse
from danube_raft.storage.disk_errors import disk_failed
from danube_raft.wire import local, peer
from danube_raft.wire.codec import Malformed

LOCAL_LINGER_MS = 500
LOCAL_RECONNECT_MS = 5
"""Who connects may be there before who binds; the default of 100 ms would be most of a start."""
CLIENT_FRAMES_MAX = 4
"""Identity, REQ's correlation id, empty frame, body: nobody has reason to send more."""
PEER_FRAMES_MAX = 3
PEER_ALIVE_MS = 2_000
PEER_DEAD_MS = 10_000
_DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Why the file of an ipc address cannot be made, though the address is fine."""

Envelope = tuple[bytes, ...]
"""Frames up to and including the empty one: where an answer goes."""


class FromClient(NamedTuple):
    """One body of requests, and where the answers go."""

    envelope: Envelope
    body: bytes


class ClientGone(NamedTuple):
    """An answer found nobody: the connection with this identity is closed."""

    identity: bytes


class ClientSlow(NamedTuple):
    """An answer, and with it every later one of that turn to the same connection, was dropped: its queue is full."""

    identity: bytes


class FromPeer(NamedTuple):
    """One message from another node; `envelope` is used to answer questions only."""

    envelope: Envelope
    header: peer.Header
    message: peer.Message


class Peers(NamedTuple):
    """Sent by consensus to its links: keep links to exactly these (node id, raft address) pairs."""

    addresses: tuple[tuple[int, str], ...]


class ToPeer(NamedTuple):
    """One message for the node `header.receiver`, sent over its link."""

    header: peer.Header
    message: peer.Message


class Unsent(NamedTuple):
    """What a link did not take: it is down, or its queue is full."""

    header: peer.Header
    message: peer.Message


class OpenPort(NamedTuple):
    """Sent by a handler to its own port: start to listen now."""


class Endpoint(Protocol):
    """What the loop needs of a socket."""

    @property
    def socket(self) -> zmq.Socket[bytes] | None:
        """What to wait for; None when nothing is ever received."""

    def receive(self) -> Sequence[Any] | None:
        """The messages of the next frame that waits, none if it was refused; None: nothing waits. Never blocks."""

    def send(self, messages: list[Any]) -> list[Any]:
        """All messages of one turn, in order; never blocks. Returns what the handler has to know of those that did
        not get through."""

    def close(self) -> None:
        """Release the socket and its file or port."""


def drained(endpoint: Endpoint, limit: int = 1_000) -> Iterator[Any]:
    """The messages that wait, of at most `limit` frames."""
    for _ in range(limit):
        messages = endpoint.receive()
        if messages is None:
            return
        yield from messages


class LocalEdge:
    """One end of the edge between two processes of this node. The bound end may send after it has received."""

    def __init__(self, context: zmq.Context[Any], address: str, bind: bool, boot_epoch: int) -> None:
        self.socket = context.socket(zmq.PAIR)
        self.socket.set_hwm(0)
        self.socket.linger = LOCAL_LINGER_MS
        self.socket.reconnect_ivl = LOCAL_RECONNECT_MS
        self._boot_epoch = boot_epoch
        try:
            if bind:
                self.socket.bind(address)
            else:
                self.socket.connect(address)
        except zmq.ZMQError as error:
            self.socket.close()
            trouble = f"cannot use {address} between the processes: {zmq.strerror(error.errno or 0)}"
            if error.errno in _DISK_TROUBLE:
                way_out = "make room on the disk of the data directory, for new files as well, and start the node again"
                raise disk_failed(OSError(error.errno, trouble), f"{trouble}; {way_out}") from None
            raise Fatal(trouble) from None

    def receive(self) -> list[local.Message] | None:
        """Messages of this boot epoch."""
        try:
            frame = self.socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        epoch = self._boot_epoch
        return [message for boot_epoch, message in local.unpack(frame) if boot_epoch == epoch]

    def send(self, messages: list[local.Message]) -> list[Any]:
        """All in one frame. Raises Fatal when the process at the far end is gone, and with it this boot."""
        try:
            self.socket.send(local.pack_frame(self._boot_epoch, messages), zmq.NOBLOCK)
        except zmq.Again:
            raise Fatal("the process at the other end of an edge is gone") from None
        return []

    def close(self) -> None:
        """Unlinks the file of an ipc address that was bound."""
        self.socket.close()


def _frames(socket: zmq.Socket[bytes], limit: int) -> list[bytes] | None:
    """The frames of the next message; None for nothing there. A message of too many frames comes back empty."""
    try:
        frames = [socket.recv(zmq.NOBLOCK)]
    except zmq.Again:
        return None
    more = socket.getsockopt
    while more(zmq.RCVMORE):
        frame = socket.recv(zmq.NOBLOCK)
        if len(frames) <= limit:
            frames.append(frame)
    return frames if len(frames) <= limit else []


def _listen(socket: zmq.Socket[bytes], address: str) -> None:
    socket.ipv6 = address.startswith("[")
    try:
        socket.bind(f"tcp://{address}")
    except zmq.ZMQError as error:
        socket.close()
        raise PortInUse(f"cannot listen on {address}: {error.strerror or error}") from None


class ClientPort:
    """The ROUTER that clients talk to. Opened by `OpenPort`, when the node is able to answer."""

    def __init__(self, context: zmq.Context[Any], config: Config, counters: Counter[str]) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.MAXMSGSIZE, config.client_frame_max_bytes)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.BACKLOG, 1024)
        self.socket.sndhwm = config.client_queue_max_messages
        self._address = config.client_listen
        self._counters = counters

    def receive(self) -> Sequence[FromClient] | None:
        """A body with its envelope."""
        frames = _frames(self.socket, CLIENT_FRAMES_MAX)
        if frames is None:
            return None
        if len(frames) < 3 or frames[-2]:
            self._counters["client_frames_refused"] += 1
            return ()
        body = frames.pop()
        return (FromClient(tuple(frames), body),)

    def send(self, messages: list[tuple[Envelope, bytes] | OpenPort]) -> list[ClientGone | ClientSlow]:
        """Answers. What a full queue does not take is dropped, and all that follows to that connection in this turn:
        a later frame of a watch must never arrive without the earlier one.
        """
        troubled: dict[bytes, ClientGone | ClientSlow] = {}
        for message in messages:
            if isinstance(message, OpenPort):
                _listen(self.socket, self._address)
                continue
            envelope, body = message
            identity = envelope[0]
            if identity not in troubled:
                try:
                    self.socket.send_multipart([*envelope, body], zmq.NOBLOCK)
                    continue
                except zmq.Again:
                    troubled[identity] = ClientSlow(identity)
                except zmq.ZMQError as error:
                    if error.errno != errno.EHOSTUNREACH:
                        raise
                    troubled[identity] = ClientGone(identity)
            self._counters["client_replies_dropped"] += 1
        return list(troubled.values())

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()


class PeerPort:
    """The ROUTER that other nodes send to. It answers questions; Raft messages are one-way."""

    def __init__(self, context: zmq.Context[Any], config: Config, counters: Counter[str]) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.MAXMSGSIZE, config.peer_frame_max_bytes)
        # A host that vanished must not hold its descriptors for ever.
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, PEER_ALIVE_MS)
        self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, PEER_DEAD_MS)
        self._counters = counters
        _listen(self.socket, config.raft_listen)

    def receive(self) -> Sequence[FromPeer] | None:
        """A message that is well formed; whom it is for is checked by the handler."""
        frames = _frames(self.socket, PEER_FRAMES_MAX)
        if frames is None:
            return None
        try:
            if len(frames) >= 2:
                return (FromPeer(tuple(frames[:-1]), *peer.unpack(frames[-1])),)
        except Malformed:
            pass
        self._counters["peer_frames_refused"] += 1
        return ()

    def send(self, messages: list[tuple[Envelope, bytes]]) -> list[Any]:
        """Answers to questions; dropped when nobody waits for them any more."""
        for envelope, body in messages:
            try:
                self.socket.send_multipart([*envelope, body], zmq.NOBLOCK)
            except zmq.ZMQError:
                self._counters["peer_replies_dropped"] += 1
        return []

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()
