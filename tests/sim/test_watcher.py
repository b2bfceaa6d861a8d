"""Connections of the simulated world do what TCP and ZeroMQ do, and a watcher over them what a program does: it goes on
elsewhere from what it has, stops to read, hands over. The nodes here are pretence and say what the test wants.
"""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from danube_raft import errors
from danube_raft.client.call import CONNECT_MS, Session
from danube_raft.client.stream import PROBE_MS, SILENCE_MS, Options
from danube_raft.node.endpoints import ClientGone, ClientSlow, Envelope
from danube_raft.node.handler import CLIENTS, KV
from danube_raft.sim.checks.facts import Fact, Framed, HandedOut, Marked, Subscribed
from danube_raft.sim.client import Client
from danube_raft.sim.connections import Connections
from danube_raft.sim.history import OK, REJECTED, Operation
from danube_raft.sim.node import Node
from danube_raft.sim.program import Program
from danube_raft.sim.schedule import MS, SECOND, Schedule
from danube_raft.sim.settings import Options as WorldOptions
from danube_raft.sim.trace import Trace
from danube_raft.sim.watcher import LISTING, PAST, PRESENT, Habits, Surface, Watcher
from danube_raft.sim.world import World
from danube_raft.wire import client as wire
from danube_raft.wire import codec

QUEUE = 3
MACHINE = 0


class Port:
    """A node of pretence: keeps what arrives."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.open = True
        self.got: list[tuple[Envelope, bytes]] = []

    def from_client(self, envelope: Envelope, body: bytes) -> None:
        self.got.append((envelope, body))


class Place:
    """Two nodes, `one:1` and `two:2`, and the network before them."""

    def __init__(self, seed: int = 1) -> None:
        self.schedule = Schedule()
        self.ports = {"one:1": Port(1), "two:2": Port(2)}
        self.cuts: set[tuple[int, int]] = set()
        self.woken = 0
        nodes = cast("dict[str, Node]", self.ports)
        self.connections = Connections(self.schedule, random.Random(seed), nodes, self.cuts, QUEUE)
        self.connections.life = lambda: None  # type: ignore[method-assign]

    def run(self, ms: float) -> None:
        self.schedule.run_until(self.schedule.now + round(ms * MS))

    def _wake(self) -> None:
        self.woken += 1

    def connect(self, endpoint: str = "one:1") -> Any:
        connection = self.connections.open(MACHINE, endpoint, self._wake)
        self.run(50)
        return connection


# ---------------------------------------------------------------- connections


def test_a_connection_keeps_the_order_of_both_directions_and_has_an_identity_of_its_own() -> None:
    place = Place()
    connection, other = place.connect(), place.connect()
    assert connection.connected
    assert connection.envelope != other.envelope
    for number in range(20):
        assert connection.send(b"%d" % number)
    for number in range(QUEUE):
        assert place.connections.answer(connection.envelope, b"%d" % number) is None
    place.run(100)
    assert place.ports["one:1"].got == [(connection.envelope, b"%d" % number) for number in range(20)]
    assert list(connection.inbox) == [b"0", b"1", b"2"]
    assert not other.inbox


def test_there_is_no_connection_to_a_port_that_is_not_open() -> None:
    place = Place()
    place.ports["one:1"].open = False
    connection = place.connect()
    assert not connection.connected
    assert not connection.send(b"x")
    place.ports["one:1"].open = True
    place.run(50)
    assert connection.connected


def test_what_is_sent_over_a_cut_comes_later_and_in_order() -> None:
    place = Place()
    place.connections.patience_us = 3 * SECOND
    connection = place.connect()
    place.cuts.add((MACHINE, 1))
    connection.send(b"0")
    place.connections.answer(connection.envelope, b"0")
    place.run(2_000)
    assert not place.ports["one:1"].got
    assert not connection.inbox
    place.cuts.clear()
    connection.send(b"1")
    place.connections.answer(connection.envelope, b"1")
    place.run(500)
    assert [body for _, body in place.ports["one:1"].got] == [b"0", b"1"]
    assert list(connection.inbox) == [b"0", b"1"]
    assert not connection.lost


def test_after_a_long_cut_the_node_finds_nobody_and_the_client_hears_when_it_sends() -> None:
    place = Place()
    place.connections.patience_us = 1 * SECOND
    connection = place.connect()
    place.cuts.add((MACHINE, 1))
    assert place.connections.answer(connection.envelope, b"0") is None
    place.run(2_000)
    assert place.connections.known(1) == 1, "nobody has told the node"
    assert place.connections.answer(connection.envelope, b"1") == ClientGone(connection.envelope[0])
    assert place.connections.known(1) == 0
    place.cuts.clear()
    place.run(1_000)
    assert not connection.lost
    connection.send(b"?")
    place.run(500)
    assert connection.lost
    assert not connection.inbox
    assert not place.ports["one:1"].got


def test_a_node_that_stops_ends_its_connections_and_a_part_of_what_was_under_way_is_lost() -> None:
    kept: set[tuple[bytes, ...]] = set()
    for seed in range(20):
        place = Place(seed)
        connection, other = place.connect(), place.connect("two:2")
        place.connections.answer(connection.envelope, b"0")
        place.connections.answer(connection.envelope, b"1")
        place.connections.node_stopped(1)
        place.run(1_000)
        assert (connection.lost, other.lost) == (True, False)
        assert not connection.send(b"x")
        kept.add(tuple(connection.inbox))
    assert kept == {(), (b"0", b"1")}


def test_nobody_hears_of_an_end_beyond_a_cut() -> None:
    place = Place()
    connection = place.connect()
    place.cuts.add((MACHINE, 1))
    place.connections.node_stopped(1)
    place.run(5_000)
    assert not connection.lost
    place.cuts.clear()
    place.run(500)
    assert connection.lost


def test_a_client_that_does_not_take_its_messages_is_slow() -> None:
    place = Place()
    connection = place.connect()
    heard = [place.connections.answer(connection.envelope, b"x") for _ in range(QUEUE + 1)]
    assert heard == [None] * QUEUE + [ClientSlow(connection.envelope[0])]
    place.run(100)
    assert place.connections.answer(connection.envelope, b"x") == ClientSlow(connection.envelope[0])
    connection.inbox.popleft()
    assert place.connections.answer(connection.envelope, b"x") is None


def test_a_client_that_has_left_is_gone_after_its_last_word() -> None:
    place = Place()
    connection = place.connect()
    connection.send(b"bye")
    connection.close()
    assert place.connections.answer(connection.envelope, b"x") is None, "not heard yet"
    place.run(500)
    assert [body for _, body in place.ports["one:1"].got] == [b"bye"]
    assert place.connections.answer(connection.envelope, b"x") == ClientGone(connection.envelope[0])


def test_a_dead_connection_says_nothing_to_its_client() -> None:
    place = Place()
    place.connections.life = lambda: 100 * MS  # type: ignore[method-assign]
    connection = place.connect()
    place.run(200)
    connection.send(b"?")
    place.connections.answer(connection.envelope, b"x")
    place.connections.node_stopped(1)
    place.run(60_000)
    assert not connection.lost
    assert not connection.inbox
    assert not place.ports["one:1"].got


def test_a_node_hears_once_per_turn_what_became_of_its_answers_and_drops_what_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A later frame of a watch must never arrive without the earlier one."""
    taken: list[bytes] = []

    def answer(
        _self: World, _node: int, envelope: Envelope, body: bytes, _made_at: int
    ) -> ClientSlow | ClientGone | None:
        if body == b"full":
            return ClientSlow(envelope[0])
        taken.append(body)
        return None

    monkeypatch.setattr(World, "_to_client", answer)
    node = World(WorldOptions(1, 1)).nodes[1]
    node.boot()
    one, two = (b"one", b""), (b"two", b"")
    said = [(one, b"1"), (one, b"full"), (two, b"2"), (one, b"3"), (one, b"full")]
    trouble = node._emit(KV, [(CLIENTS, each) for each in said])
    assert trouble == [(CLIENTS, ClientSlow(b"one"))]
    assert taken == [b"1", b"2"]


# ---------------------------------------------------------------- a watcher


class Store:
    """What a watcher asks where to begin."""

    number = 7

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.pages = 0
        self.program = Program(random.Random(1))

    def begin(self, op: str, *_: Any) -> None:
        self.asked.append(op)

    def list_prefix(self, prefix: str, *_: Any) -> None:
        self.asked.append(f"list {prefix}")

    def list_on(self, _timeout_ms: int) -> bool:
        self.pages -= 1
        return self.pages >= 0


class Show(Place):
    """A watcher, and what it is told and tells."""

    def __init__(self, begin: str = PAST, pause: float = 0.0, reopen: float = 0.0) -> None:
        super().__init__()
        self.facts: list[Fact] = []
        self.store = Store()
        around = Surface(self.schedule, Trace(), self.connections, self.facts.append)
        habits = Habits(Options(("/a/",)), begin, pause, 3.0, reopen)
        store = cast("Client", self.store)
        self.watcher = Watcher(store, MACHINE, tuple(self.ports), habits, around, random.Random(3))
        self.watcher.start()
        self.run(50)

    def requests(self) -> list[tuple[int, Envelope, tuple[Any, ...]]]:
        """(node id, envelope, request) of all that has arrived since the last look."""
        found = []
        for port in self.ports.values():
            for envelope, body in port.got:
                found += [(port.node_id, envelope, wire.check(raw)) for raw in codec.unpack_stream(body)]
            port.got.clear()
        return found

    def subscribed(self) -> tuple[int, int]:
        """(node id, revision) of the one watch request that has arrived; answers from now on go to it."""
        ((node, self.envelope, request),) = [r for r in self.requests() if r[2][wire.OP] == "watch"]
        self.watch_id = request[wire.REQUEST_ID]
        return node, request[wire.ARGS + 1]

    def answer(self, *result: Any, status: int = 0) -> None:
        head = (wire.VERSION, self.watch_id, status, 77, 1, 1, 9)
        assert self.connections.answer(self.envelope, codec.pack((*head, *result))) is None
        self.run(20)

    def events(self, *revisions: int) -> None:
        raw = [(wire.PUT_EVENT, ("/a/k", b"v", 2, each, each, 0, 0), None) for each in revisions]
        self.answer(wire.FRAME_EVENTS, raw, revisions[-1], False)

    def told(self) -> list[tuple[str, int]]:
        """What it has told the checks since the last look."""
        found = [("mark" if isinstance(each, Marked) else "events", each.revision) for each in self.facts
                 if isinstance(each, HandedOut | Marked)]  # fmt: skip
        self.facts.clear()
        return found

    def ended(self, kind: str, outcome: str, result: tuple[Any, ...] = (), revision: int = 0) -> None:
        operation = Operation(7, kind, ("/a/",), None, 0).end(outcome, 1, result, revision)
        self.watcher.told(operation)
        self.run(150)


def test_it_hands_out_what_comes_and_says_how_far_it_is() -> None:
    show = Show()
    assert show.subscribed()[1] == 1
    show.answer(wire.FRAME_PROGRESS, 3)
    show.events(4, 6)
    show.answer(wire.FRAME_PROGRESS, 9)
    assert show.told() == [("mark", 3), ("events", 4), ("events", 6), ("mark", 9)]
    (log,) = show.watcher.watches
    assert (log.start, log.revision, log.open) == (1, 9, True)
    assert [revision for revision, _ in log.changes] == [4, 6]
    assert log.marks == [(0, 3), (2, 9)]


def test_the_checks_are_told_what_it_asks_for_and_each_frame_as_it_came() -> None:
    """Also of what its own client drops."""
    show = Show()
    first, _ = show.subscribed()
    show.events(4)
    show.connections.node_stopped(first)
    show.run(1_000)
    show.subscribed()
    show.facts.clear()
    show.answer(wire.FRAME_PROGRESS, 2)
    show.events(4, 4, 5)
    show.watch_id += 1
    show.answer(wire.FRAME_PROGRESS, 9)
    show.watch_id -= 1
    show.answer("it is gone", None, status=errors.Overloaded.code)
    told = [each.result for each in show.facts if isinstance(each, Framed)]
    assert [(kind, *rest[1:]) for kind, *rest in told] == [
        (wire.FRAME_PROGRESS,),
        (wire.FRAME_EVENTS, 5, False),
    ]
    assert [record[3] for _, record, _ in told[1][1]] == [4, 4, 5]
    show.run(1_000)
    assert [each.revision for each in show.facts if isinstance(each, Subscribed)] == [6]


def test_what_it_hands_out_and_marks_is_what_its_program_has_seen() -> None:
    """Whatever the session of the product makes of it."""
    show = Show()
    show.subscribed()
    show.store.program.session = Session()
    show.answer(wire.FRAME_PROGRESS, 3)
    assert show.store.program.seen == 3
    show.events(4)
    assert show.store.program.seen == 4


def test_it_goes_on_at_another_node_from_what_it_has_when_its_node_stops() -> None:
    show = Show()
    first, _ = show.subscribed()
    show.events(4)
    show.connections.node_stopped(first)
    show.run(1_000)
    node, revision = show.subscribed()
    assert (node != first, revision) == (True, 5)
    assert len(show.watcher.watches) == 1
    assert show.watcher.counts["watches_resumed_elsewhere"] == 1


def test_it_tries_the_other_node_when_one_is_not_there() -> None:
    show = Show()
    first, _ = show.subscribed()
    down = next(port for port in show.ports.values() if port.node_id != first)
    down.open = False
    show.connections.node_stopped(first)
    show.run(CONNECT_MS / 2 + 300)
    assert not show.requests()
    show.run(CONNECT_MS + 1_000)
    assert show.subscribed() == (first, 1)


def test_beyond_a_cut_it_notices_only_by_silence() -> None:
    show = Show()
    first, _ = show.subscribed()
    show.answer(wire.FRAME_PROGRESS, 1)
    show.cuts.add((MACHINE, first))
    show.run(PROBE_MS + SILENCE_MS - 500)
    assert not show.requests()
    show.run(2_000)
    assert show.subscribed()[0] != first
    assert show.watcher.counts["watches_silent"] == 1


def test_a_node_that_answers_probes_is_not_silent() -> None:
    show = Show()
    show.subscribed()
    for _ in range(4):
        show.answer(wire.FRAME_PROGRESS, 1)
        show.run(PROBE_MS)
        assert [request[wire.OP] for *_, request in show.requests()] == ["watch_credit", "watch_progress"]


def test_while_it_does_not_read_messages_wait_until_there_is_no_room() -> None:
    show = Show(pause=1.0)
    show.subscribed()
    show.events(4)
    for revision in range(5, 5 + QUEUE):
        show.events(revision)
    assert show.told() == [("events", 4)]
    assert show.connections.answer(show.envelope, b"x") == ClientSlow(show.envelope[0])
    show.watcher.settle()
    assert show.told() == [("events", 5), ("events", 6), ("events", 7)]


def test_a_pause_ends_by_itself() -> None:
    show = Show(pause=1.0)
    show.subscribed()
    show.events(4)
    show.events(5)
    show.run(3_100)
    assert show.told() == [("events", 4), ("events", 5)]


def test_a_program_hands_over_to_a_new_watch_from_where_it_stood() -> None:
    show = Show(reopen=1.0)
    _, envelope = show.subscribed(), show.envelope
    show.events(4, 6)
    show.run(1_500)
    assert show.subscribed()[1] == 5
    assert show.envelope != envelope
    first, second = show.watcher.watches
    assert (first.closed, first.revision, second.start) == (True, 4, 5)


def test_it_begins_at_the_revision_that_it_was_told() -> None:
    show = Show(begin=PRESENT)
    show.ended("get", REJECTED)
    assert show.store.asked == ["get", "get"]
    show.ended("get", OK, (None,), 12)
    assert show.subscribed()[1] == 13


def test_it_begins_after_the_listing_however_many_pages_that_has() -> None:
    show = Show(begin=LISTING)
    show.store.pages = 1
    show.ended("range", OK, ((), b"token", 11), 30)
    assert not show.requests()
    show.ended("range", OK, ((), None, 11), 31)
    assert show.store.asked == ["list /a/"]
    assert show.subscribed()[1] == 12


def test_after_compacted_it_lists_anew() -> None:
    show = Show()
    show.subscribed()
    show.events(4)
    error = errors.Compacted("gone", 9)
    show.answer(error.message, error.details, status=error.code)
    (log,) = show.watcher.watches
    assert (log.open, log.compacted, log.revision) == (False, 9, 4)
    assert show.store.asked == ["list /a/"]
    show.ended("range", OK, ((), None, 11), 11)
    assert show.subscribed()[1] == 12
    assert len(show.watcher.watches) == 2
