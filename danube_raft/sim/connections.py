"""Connections between clients and nodes, for what goes on for long: ordered both ways, known by an identity of their own.

What TCP and ZeroMQ make of a connection (`client/link.py` at one end, `ClientPort` in `node/endpoints.py` at the other):

- A direction keeps its order and loses nothing while the connection lives. Where the network is cut, what was sent
  waits and comes later; after `patience_us` of that the connection is given up, and only its node is told.
- Now and then one is *dead* from some moment on: nothing passes any more, and its client never hears why, as behind a
  firewall that has forgotten it. Only silence tells.
- A node that stops ends its connections. The client hears it a little later, once there is a way; what was under way
  arrives or not, but never without what was sent before it.
- A node sends on, and learns from the answer that it sends: to nobody (`ClientGone`), or to somebody who has not taken
  the last `queue_messages` (`ClientSlow`). It never hears of a client's end by itself.
- Each connection has a new identity, so a node never takes a new one for an old one.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from danube_raft.node.endpoints import ClientGone, ClientSlow, Envelope
from danube_raft.sim.node import Node
from danube_raft.sim.schedule import MS, SECOND, Schedule

LATENCY_US = 200
TRY_AGAIN_US = 20 * MS
"""Between two attempts to connect to a port that is not open."""
REPEAT_US = 200 * MS
"""Between two attempts to get through where the network is cut."""
HEAR_MAX_US = 300 * MS
"""How long a client may need to hear that its node has stopped."""


class Way:
    """Between the machine of a client and a node. `cuts` has the pairs that are cut at the moment."""

    __slots__ = ("_cuts", "_ends", "dead")

    def __init__(self, machine: int, node_id: int, cuts: AbstractSet[tuple[int, int]]) -> None:
        self._ends = (machine, node_id)
        self._cuts = cuts
        self.dead = False

    @property
    def cut(self) -> bool:
        """Whether nothing passes now."""
        return self.dead or self._ends in self._cuts


class _Lane:
    """One direction. `broken` is called when it was cut for longer than `patience_us` with something to carry."""

    def __init__(
        self,
        connections: Connections,
        way: Way,
        deliver: Callable[[bytes], None],
        broken: Callable[[], None],
    ) -> None:
        self.waiting: deque[tuple[int, bytes]] = deque()
        self._connections = connections
        self._way = way
        self._deliver = deliver
        self._broken = broken
        self._last_at = 0
        self._blocked_at: int | None = None
        self._moving = False

    def send(self, body: bytes) -> None:
        """Behind all that was sent before."""
        connections = self._connections
        self._last_at = max(self._last_at, connections.schedule.now + connections.latency())
        self.waiting.append((self._last_at, body))
        if not self._moving:
            self._moving = True
            connections.schedule.at(self._last_at, self._move)

    def _move(self) -> None:
        schedule = self._connections.schedule
        if self._way.cut and self.waiting:
            self._connections.counts["watch_frames_held_up"] += 1
            if self._blocked_at is None:
                self._blocked_at = schedule.now
            if schedule.now - self._blocked_at > self._connections.patience_us:
                self._moving = False
                self._broken()
            else:
                schedule.after(REPEAT_US, self._move)
            return
        self._blocked_at = None
        while self.waiting and self.waiting[0][0] <= schedule.now:
            self._deliver(self.waiting.popleft()[1])
        self._moving = bool(self.waiting)
        if self.waiting:
            schedule.at(self.waiting[0][0], self._move)


class Connection:
    """One connection, as its client sees it. `wake` is called when anything has changed here."""

    def __init__(
        self, connections: Connections, identity: bytes, way: Way, node: Node, wake: Callable[[], None]
    ) -> None:
        self.connected = False
        """Whether there is, or was, a node at the other end."""
        self.lost = False
        """Whether the client has heard that the node has gone."""
        self.inbox: deque[bytes] = deque()
        """What has arrived and was not taken."""
        self.envelope: Envelope = (identity, b"")
        self.node_id = node.node_id
        self._connections = connections
        self._way = way
        self._node = node
        self._wake = wake
        self._closed = False
        self._gone = False
        """Whether the node would find nobody."""
        self._told = False
        """Whether it has been told so."""
        self._to_node = _Lane(connections, way, self._arrive_at_node, self._break)
        self._to_client = _Lane(connections, way, self._arrive_at_client, self._break)
        connections.schedule.after(2 * connections.latency(), self._shake_hands)

    # ---------------------------------------------------------------- the client's end

    def send(self, body: bytes) -> bool:
        """False: there is no connection."""
        if not self.connected or self.lost or self._closed:
            return False
        self._to_node.send(body)
        return True

    def close(self) -> None:
        """The client leaves; what it has sent still arrives."""
        self._closed = True
        self.inbox.clear()
        if self.connected:
            self._connections.schedule.after(2 * self._connections.latency(), self._say_goodbye)

    def _say_goodbye(self) -> None:
        if self._gone or self._way.dead:
            return
        if self._way.cut or self._to_node.waiting:
            # Not heard yet: if it never is, the node's own attempts to send end it.
            self._connections.schedule.after(REPEAT_US, self._say_goodbye)
        else:
            self._give_up()

    def _shake_hands(self) -> None:
        if self._closed:
            return
        if self._node.open and not self._way.cut:
            self.connected = True
            dies_after = self._connections.life()
            if dies_after is not None:
                self._connections.schedule.after(dies_after, self._die)
            self._wake()
        else:
            self._connections.schedule.after(TRY_AGAIN_US, self._shake_hands)

    def _die(self) -> None:
        self._connections.counts["watch_connections_dead"] += not self._closed
        self._way.dead = True

    # ---------------------------------------------------------------- the node's end

    @property
    def known(self) -> bool:
        """Whether the node has reason to believe that somebody is there."""
        return self.connected and not self._told

    def answer(self, body: bytes) -> ClientGone | ClientSlow | None:
        """The node sends; what it hears of that."""
        if self._gone:
            self._told = True
            self._connections.counts["watchers_told_gone"] += 1
            return ClientGone(self.envelope[0])
        if len(self._to_client.waiting) + len(self.inbox) >= self._connections.queue_messages:
            self._connections.counts["watchers_told_slow"] += 1
            return ClientSlow(self.envelope[0])
        self._to_client.send(body)
        return None

    def _give_up(self) -> None:
        """From now on the node finds nobody here."""
        self._gone = True
        self._to_node.waiting.clear()

    def _break(self) -> None:
        """Nothing got through for too long."""
        self._connections.counts["watch_connections_broken"] += 1
        self._give_up()
        self._to_client.waiting.clear()

    def node_stopped(self, keep: bool) -> None:
        """The node is gone; `keep`: what it has sent still arrives."""
        self._give_up()
        if not keep:
            self._to_client.waiting.clear()
        self._connections.schedule.after(self._connections.hearing(), self._hear_end)

    def _hear_end(self) -> None:
        if self._closed or self._way.dead:
            return
        if self._way.cut or self._to_client.waiting:
            self._connections.schedule.after(REPEAT_US, self._hear_end)
        else:
            self.lost = True
            self._wake()

    def _arrive_at_node(self, body: bytes) -> None:
        if self._gone:
            # Nobody is there any more: that is what a client hears that sends again after a long cut.
            self._hear_end()
        else:
            self._node.from_client(self.envelope, body)

    def _arrive_at_client(self, body: bytes) -> None:
        if not self._closed:
            self.inbox.append(body)
            self._wake()


class Connections:
    """All of a world. `counts` says what happened to them."""

    def __init__(
        self,
        schedule: Schedule,
        source: random.Random,
        nodes: Mapping[str, Node],
        cuts: AbstractSet[tuple[int, int]],
        queue_messages: int,
    ) -> None:
        self.schedule = schedule
        self.patience_us = source.choice((500, 3_000, 20_000)) * MS
        self.queue_messages = queue_messages
        self._dead_chance = source.choice((0.0, 0.0, 0.1))
        self.counts: Counter[str] = Counter()
        self._random = source
        self._nodes = nodes
        self._cuts = cuts
        self._by_identity: dict[bytes, Connection] = {}
        self._made = 0

    def heal(self) -> None:
        """None dies silently any more; those that are dead stay so."""
        self._dead_chance = 0.0

    def latency(self) -> int:
        """Of one message, in microseconds."""
        return LATENCY_US // 2 + int(self._random.expovariate(1 / LATENCY_US))

    def hearing(self) -> int:
        """How long it takes to hear of an end, in microseconds."""
        return self._random.randrange(100, self._random.choice((1 * MS, HEAR_MAX_US)))

    def life(self) -> int | None:
        """After how long a new connection dies, in microseconds; None: never by itself."""
        if self._random.random() >= self._dead_chance:
            return None
        return self._random.randrange(5 * SECOND)

    def known(self, node_id: int) -> int:
        """How many connections the node has reason to believe in."""
        return sum(each.node_id == node_id and each.known for each in self._by_identity.values())

    def open(self, machine: int, endpoint: str, wake: Callable[[], None]) -> Connection:
        """Begin to connect; `connected` says when it is done."""
        self._made += 1
        identity = b"connection-%d" % self._made
        node = self._nodes[endpoint]
        connection = Connection(self, identity, Way(machine, node.node_id, self._cuts), node, wake)
        self._by_identity[identity] = connection
        return connection

    def answer(self, envelope: Envelope, body: bytes) -> ClientGone | ClientSlow | None:
        """A node sends over one of them; what it hears of that."""
        return self._by_identity[envelope[0]].answer(body)

    def node_stopped(self, node_id: int) -> None:
        """All connections of this node end."""
        for identity, connection in list(self._by_identity.items()):
            if connection.node_id == node_id and connection.connected:
                connection.node_stopped(keep=self._random.random() < 0.5)
                # A node that starts again knows nothing of it.
                del self._by_identity[identity]
