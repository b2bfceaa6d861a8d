"""The sockets of the forming phase: the port that answers other nodes, and one DEALER per seed to ask them.

They live in a context of their own, which is gone, and with it every connection and the port, before the processes of
the node start to listen on the same address.

- A link that is down takes nothing (`IMMEDIATE`, `DONTWAIT`): the handler hears at once, as `Unsent`. A seed that
  starts late is found within `RECONNECT_MAX_MS`.
- A name is looked up again for every new connection; a host that vanished is given up by ZeroMQ's heartbeat.
- Answers come back on the DEALER that asked; whatever else arrives there is dropped and counted.

What is asked and what the answers mean is for `forming.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import zmq

from danube_raft.config import Config
from danube_raft.errors import ConfigInvalid
from danube_raft.node.endpoints import Endpoint, FromPeer, PeerPort, ToPeer, Unsent
from danube_raft.node.handler import PEERS
from danube_raft.node.seeds import EDGE
from danube_raft.wire import peer
from danube_raft.wire.codec import Malformed

RECONNECT_MS = 50
RECONNECT_MAX_MS = 1_000
QUEUE_MESSAGES = 8
"""Questions that wait for a slow connection; more would only be old."""
ALIVE_MS = 1_000
DEAD_MS = 3_000


class SeedLink:
    """The way to one seed and back."""

    def __init__(
        self, context: zmq.Context[Any], address: str, config: Config, counters: Counter[str]
    ) -> None:
        self.socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        self._counters = counters
        self.socket.linger = 0
        self.socket.sndhwm = QUEUE_MESSAGES
        self.socket.setsockopt(zmq.MAXMSGSIZE, config.peer_frame_max_bytes)
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, ALIVE_MS)
        self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, DEAD_MS)
        self.socket.ipv6 = address.startswith("[")
        try:
            self.socket.connect(f"tcp://{address}")
        except zmq.ZMQError as error:
            self.socket.close()
            raise ConfigInvalid(
                f"seed_nodes = {address!r}: cannot connect: {error.strerror or error}"
            ) from None

    def receive(self) -> Sequence[FromPeer] | None:
        """One answer."""
        try:
            frames = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        try:
            if len(frames) == 1:
                return (FromPeer((), *peer.unpack(frames[0])),)
        except Malformed:
            pass
        self._counters["peer_frames_refused"] += 1
        return ()

    def send(self, messages: list[ToPeer]) -> list[Unsent]:
        """Questions. Returns what was not taken."""
        unsent = []
        for message in messages:
            try:
                self.socket.send(peer.pack(*message), zmq.NOBLOCK)
            except zmq.Again:
                unsent.append(Unsent(*message))
        return unsent

    def close(self) -> None:
        """Drop the connection and what is queued."""
        self.socket.close()


@contextmanager
def forming_endpoints(config: Config) -> Iterator[dict[str, Endpoint]]:
    """By edge. When this ends, the port is free again. Raises PortInUse or ConfigInvalid."""
    context: zmq.Context[Any] = zmq.Context()
    counters: Counter[str] = Counter()
    endpoints: dict[str, Endpoint] = {}
    try:
        endpoints[PEERS] = PeerPort(context, config, counters)
        for address in config.seed_nodes:
            if address != config.raft_address:
                endpoints[EDGE + address] = SeedLink(context, address, config, counters)
        yield endpoints
    finally:
        for endpoint in endpoints.values():
            endpoint.close()
        # Returns once the port is closed.
        context.term()
