"""The links to other nodes: two DEALERs per peer, so that heartbeats and votes never queue behind data.

- control carries what is small and urgent: votes, heartbeats, acks, read indexes, refusals. bulk carries entries,
  snapshots and forwarded batches. Each lane keeps its order as long as its connection lives.
- A link that is down or full takes nothing (`IMMEDIATE`, `DONTWAIT`, a short queue): the handler hears at once, as
  `Unsent`, and nothing is ever delivered minutes later. What is queued goes with the connection; Raft repeats it.
- Reconnecting backs off to `RECONNECT_MAX_MS`; a connection whose far end is silent for `DEAD_MS` on the TCP level is
  given up. ZeroMQ's own heartbeat does the same for a host that vanished while nothing was being sent. Neither says
  that the process at the far end makes progress: that is what the answers of Raft are for.

Nothing is received here: answers come as messages of their own, to the port in endpoints.py.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import zmq

from danube_raft.node.endpoints import Peers, ToPeer, Unsent
from danube_raft.wire import peer

QUEUE_MESSAGES = 96
"""More than the window of unanswered AppendEntries: the window fills first."""
RECONNECT_MS = 20
RECONNECT_MAX_MS = 500
DEAD_MS = 5_000
ALIVE_MS = 2_000

_BULK = (peer.AppendEntries, peer.InstallSnapshot, peer.ForwardBatch)


log = logging.getLogger("danube_raft.links")


class _Link:
    """The two sockets to one peer."""

    def __init__(self, context: zmq.Context[Any], address: str) -> None:
        self.address = address
        self.control = _connect(context, address)
        self.bulk = _connect(context, address)

    def close(self) -> None:
        self.control.close()
        self.bulk.close()


class PeerLinks:
    """Everything that this node says to others."""

    socket = None
    """There is nothing to wait for."""

    def __init__(self, context: zmq.Context[Any], counters: Counter[str]) -> None:
        self._context = context
        self._counters = counters
        self._links: dict[int, _Link] = {}

    def receive(self) -> Sequence[Any] | None:
        """Never anything."""
        return None

    def send(self, messages: list[Peers | ToPeer]) -> list[Unsent]:
        """Each on its lane. Returns what was not taken."""
        unsent = []
        for message in messages:
            if isinstance(message, Peers):
                self._keep(message)
            elif not self._sent(message):
                self._counters["peer_messages_unsent"] += 1
                unsent.append(Unsent(*message))
        return unsent

    def close(self) -> None:
        """Drop the connections and what is queued."""
        self._keep(Peers(()))

    def _sent(self, message: ToPeer) -> bool:
        link = self._links.get(message.header.receiver)
        if link is None:
            return False
        lane = link.bulk if isinstance(message.message, _BULK) else link.control
        try:
            lane.send(peer.pack(*message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _keep(self, peers: Peers) -> None:
        wanted = dict(peers.addresses)
        for node_id, link in list(self._links.items()):
            if wanted.get(node_id) != link.address:
                self._links.pop(node_id).close()
        for node_id, address in wanted.items():
            if node_id not in self._links:
                try:
                    self._links[node_id] = _Link(self._context, address)
                except zmq.ZMQError as error:
                    # Another node's setting: no reason for this one to end. Nothing is sent there.
                    log.warning("node %d has the address %r: %s", node_id, address, error.strerror or error)


def _connect(context: zmq.Context[Any], address: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.sndhwm = QUEUE_MESSAGES
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    socket.setsockopt(zmq.TCP_MAXRT, DEAD_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, ALIVE_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, DEAD_MS)
    socket.ipv6 = address.startswith("[")
    try:
        socket.connect(f"tcp://{address}")
    except zmq.ZMQError:
        socket.close()
        raise
    return socket
