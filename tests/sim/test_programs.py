"""What a program was shown is known to the simulator from the answers themselves, so that a session which forgets some of
it is found out; and several clients may be one program, with several writes under way. The node here is pretence and says
what the test wants.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from danube_raft import errors
from danube_raft.client.call import Session
from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.client import Client
from danube_raft.sim.history import OK, Operation
from danube_raft.sim.program import Program, Programs
from danube_raft.sim.run import simulate
from danube_raft.sim.schedule import MS, Schedule
from danube_raft.sim.settings import WATCHING, Options, choose
from danube_raft.wire import client as wire
from danube_raft.wire import codec

CLUSTER_ID = 77


class Desk:
    """One program, whose client asks a node of pretence."""

    def __init__(self) -> None:
        self.schedule = Schedule()
        self.program = Program(random.Random(1))
        self.requests: list[wire.Request] = []
        self.client = self.new_client(1)

    def new_client(self, number: int) -> Client:
        return Client(number, ("one:1",), self.schedule, self.program, self._transmit, _ignored)

    def _transmit(self, _number: int, _endpoint: str, body: bytes) -> bool:
        self.requests += [wire.check(raw) for raw in codec.unpack_stream(body)]
        return True

    def begin(self, op: str, *args: Any, client: Client | None = None) -> wire.Request:
        (client or self.client).begin(op, args, None, 5_000)
        return self.requests[-1]

    def answer(
        self,
        request: wire.Request,
        revision: int,
        *result: Any,
        status: int = 0,
        client: Client | None = None,
    ) -> Operation:
        asked = client or self.client
        head = (wire.VERSION, request[wire.REQUEST_ID], status, CLUSTER_ID, 1, 1, revision)
        asked.reply(codec.pack((*head, *result)), 1, self.schedule.now)
        return asked.operations[-1]


def _ignored(_: Operation) -> None:
    pass


def test_every_answer_shows_its_revision_and_an_error_none() -> None:
    desk = Desk()
    assert desk.answer(desk.begin("get", "/k"), 7, None).outcome == OK
    assert desk.program.seen == 7
    desk.answer(desk.begin("put", "/k", b"a"), 9, 9, 1, None)
    assert desk.client.operations[-1].seen_before == 7
    desk.answer(desk.begin("get", "/k"), 8, None)
    assert (desk.program.seen, desk.client.operations[-1].seen_before) == (9, 9)
    error = errors.InvalidArgument("no")
    desk.answer(desk.begin("get", "/k"), 12, error.message, None, status=error.code)
    assert desk.program.seen == 9


def test_an_answer_that_nobody_waits_for_any_more_shows_nothing() -> None:
    desk = Desk()
    request = desk.begin("get", "/k")
    desk.schedule.run_until(6_000 * MS)
    assert not desk.client.busy
    desk.answer(request, 7, None)
    assert desk.program.seen == 0


def test_clients_of_one_program_share_its_session_and_what_it_was_shown() -> None:
    desk = Desk()
    other = desk.new_client(2)
    first = desk.begin("put", "/k", b"a")
    second = desk.begin("put", "/k", b"b", client=other)
    assert first[wire.CLIENT_ID] == second[wire.CLIENT_ID]
    assert [(each[wire.SERIAL], each[wire.LOW_WATER]) for each in (first, second)] == [(1, 1), (2, 1)]
    desk.answer(second, 7, 7, 1, None, client=other)
    desk.begin("get", "/k", client=other)
    assert other.operations[-1].seen_before == 7
    desk.answer(first, 9, 9, 1, None)
    assert desk.begin("put", "/k", b"c")[wire.LOW_WATER] == 3
    assert desk.client.operations[-1].seen_before == 9


def test_writes_that_are_under_way_side_by_side_are_counted() -> None:
    desk = Desk()
    other = desk.new_client(2)
    put = desk.begin("put", "/k", b"a")
    desk.answer(desk.begin("get", "/k", client=other), 5, None, client=other)
    desk.answer(put, 7, 7, 1, None)
    put = desk.begin("put", "/k", b"b", client=other)
    assert desk.program.side_by_side == 0
    desk.begin("put", "/k", b"c")
    assert desk.program.side_by_side == 1
    desk.answer(put, 9, 9, 1, None, client=other)
    desk.schedule.run_until(6_000 * MS)
    assert not desk.client.busy
    assert (desk.program.side_by_side, desk.program.writes) == (1, 0)


def test_in_a_share_of_the_worlds_two_to_four_clients_are_one_program() -> None:
    sizes: set[int] = set()
    worlds = 0
    for seed in range(100):
        settings = choose(Options(seed))
        made = programs(seed)
        clients = [made.of(number) for number in range(settings.clients)]
        together = Counter(clients)
        for place in range(settings.watchers):
            own = made.of(WATCHING + place) not in clients
            assert own == (len(together) == len(clients)), "a watch belongs to the program of its machine"
        probe = made.of(settings.clients)
        assert probe not in clients
        sizes.update(together.values())
        worlds += len(together) < len(clients)
    assert 15 <= worlds <= 35
    assert sizes == {1, 2, 3, 4}


def test_writes_are_side_by_side_only_where_sessions_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for share in (0.0, 1.0):
        monkeypatch.setattr("danube_raft.sim.program.SHARED_SHARE", share)
        found.append(simulate(Options(2, 3, 4.0)).effects["writes_side_by_side"] > 0)
    assert found == [False, True]


def programs(seed: int) -> Programs:
    return Programs(choose(Options(seed)), lambda name: random.Random(f"{seed}/{name}"))


def test_a_session_that_takes_notice_of_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "observe", lambda *_: None)
    with pytest.raises(Violation, match="is taken back"):
        _run_some()


def _run_some() -> None:
    for seed in range(1, 20):
        simulate(Options(seed, 3, 4.0))
