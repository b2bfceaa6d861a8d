"""One request's decisions, with time as an argument and no sockets: golden behaviours of retries and outcomes."""

from __future__ import annotations

from typing import Any

import pytest

from danube_raft import errors
from danube_raft.client.call import (
    ATTEMPT_MS,
    BACKOFF_MIN_MS,
    REQUEST_MS,
    WRITE_RETRY_MAX_MS,
    WRITES_MAX,
    Call,
    Endpoints,
    Send,
    Session,
)
from danube_raft.wire import client as wire
from danube_raft.wire import codec


@pytest.fixture(autouse=True)
def impatient() -> None:
    """Real values here: time is only a number."""


class Dialogue:
    """A call and its clock."""

    def __init__(self, op: str = "put", *args: Any, names: str = "a:1,b:2,c:3", **settings: Any) -> None:
        self.session: Session = settings.pop("session", None) or Session(client_id=5)
        self.endpoints = Endpoints.parse(names)
        self.now = 0.0
        self.call = Call(self.session, self.endpoints, op, args or ("/k", b"v"), now=0.0, **settings)
        self.sends: list[tuple[str, tuple[Any, ...]]] = []

    def send(self) -> tuple[Any, ...]:
        """The request that goes out now."""
        send = self.call.next(self.now)
        assert isinstance(send, Send)
        request = wire.check(codec.unpack(send.body))
        self.sends.append((send.endpoint, request))
        self.call.sent(self.now)
        return request

    def reply(
        self, request: tuple[Any, ...], status: int = 0, *result: Any, cluster: int = 9, revision: int = 4
    ) -> None:
        """An answer to a request."""
        fields = (wire.VERSION, request[wire.REQUEST_ID], status, cluster, 1, 1, revision, *result)
        self.call.receive(fields, self.now)

    def refuse(self, request: tuple[Any, ...], error: errors.DanubeRaftError) -> None:
        """An error as answer."""
        self.reply(request, error.code, error.message, error.details)

    def wait(self) -> None:
        """Time goes on to what is waited for."""
        self.now = self.call.wait_until

    def outcome(self) -> errors.DanubeRaftError:
        """Let everything be lost until the call gives up."""
        for _ in range(1000):
            self.wait()
            try:
                if self.call.next(self.now) is not None:
                    self.call.sent(self.now)
            except errors.DanubeRaftError as error:
                return error
        raise AssertionError("the call does not end")


def test_a_lost_answer_leads_to_the_next_endpoint_with_the_same_serial() -> None:
    talk = Dialogue()
    talk.send()
    assert talk.call.wait_until == ATTEMPT_MS
    talk.wait()
    talk.send()
    talk.wait()
    talk.send()
    assert [endpoint for endpoint, _ in talk.sends] == ["a:1", "b:2", "c:3"]
    assert {(r[wire.CLIENT_ID], r[wire.SERIAL], r[wire.LOW_WATER]) for _, r in talk.sends} == {(5, 1, 1)}
    assert len({r[wire.REQUEST_ID] for _, r in talk.sends}) == 3


def test_a_late_answer_counts_whichever_attempt_it_belongs_to() -> None:
    talk = Dialogue()
    first = talk.send()
    talk.wait()
    talk.send()
    talk.reply(first, 0, 4, 1, None)
    assert talk.call.result == (4, 1, None)
    assert talk.endpoints.place == 0


def test_answers_to_other_requests_change_nothing() -> None:
    talk = Dialogue()
    request = talk.send()
    stranger = (wire.VERSION, wire.OP, request[wire.REQUEST_ID] + 100)
    talk.reply(stranger, 0, 4, 1, None)
    assert talk.call.result is None


def test_low_water_is_the_oldest_write_in_flight() -> None:
    session = Session(client_id=5)
    one, two = Dialogue(session=session), Dialogue(session=session)
    assert one.send()[wire.LOW_WATER] == 1
    assert two.send()[wire.LOW_WATER] == 1
    one.call.close()
    two.wait()
    assert two.send()[wire.LOW_WATER] == 2
    two.call.close()
    assert Dialogue(session=session).send()[wire.SERIAL : wire.LOW_WATER + 1] == (3, 3)


def test_no_more_writes_in_flight_than_a_session_may_have() -> None:
    session = Session()
    serials = [session.begin_write() for _ in range(WRITES_MAX)]
    assert serials == list(range(1, WRITES_MAX + 1))
    with pytest.raises(AssertionError):
        session.begin_write()


def test_reads_carry_no_serial_and_move_no_low_water() -> None:
    session = Session(client_id=5)
    read = Dialogue("get", "/k", session=session).send()
    assert read[wire.CLIENT_ID : wire.LOW_WATER + 1] == (None, None, None)
    assert Dialogue(session=session).send()[wire.SERIAL] == 1


@pytest.mark.parametrize("error", [errors.Overloaded("full"), errors.NotLeader("", 7), errors.NoLeader()])
def test_a_refusal_that_may_pass_is_retried_after_a_pause_that_grows(error: errors.DanubeRaftError) -> None:
    talk = Dialogue()
    pauses = []
    for _ in range(4):
        talk.refuse(talk.send(), error)
        pauses.append(talk.call.wait_until - talk.now)
        assert talk.call.next(talk.now) is None
        talk.wait()
    for number, pause in enumerate(pauses):
        assert BACKOFF_MIN_MS << number >= pause >= (BACKOFF_MIN_MS << number) / 2
    talk.reply(talk.send(), 0, 4, 1, None)
    assert talk.call.result is not None


def test_a_write_that_was_only_refused_ends_with_that_refusal() -> None:
    talk = Dialogue(timeout_ms=300)
    while talk.now < 300:
        if talk.call.next(talk.now) is None:
            talk.wait()
            continue
        talk.call.sent(talk.now)
        request = (0, 0, talk.call._current)
        talk.refuse(request, errors.Overloaded("the queue is full"))
        talk.wait()
    with pytest.raises(errors.Overloaded, match="the queue is full"):
        talk.call.next(talk.now)


def test_a_write_with_one_unanswered_attempt_ends_uncertain_whatever_the_others_said() -> None:
    talk = Dialogue(timeout_ms=2 * ATTEMPT_MS)
    talk.send()
    talk.wait()
    talk.refuse(talk.send(), errors.NoLeader())
    error = talk.outcome()
    assert isinstance(error, errors.Uncertain)
    assert error.details == {"client_id": 5, "serial": 1}


def test_a_late_refusal_settles_its_own_attempt() -> None:
    talk = Dialogue(timeout_ms=ATTEMPT_MS + 100)
    first = talk.send()
    talk.wait()
    second = talk.send()
    talk.refuse(first, errors.Timeout("never left the node"))
    assert talk.call.next(talk.now) is None
    assert talk.call.wait_until == ATTEMPT_MS + 100, "the attempt under way is not disturbed"
    talk.refuse(second, errors.Overloaded())
    talk.now = talk.call.wait_until = ATTEMPT_MS + 100
    with pytest.raises(errors.Overloaded):
        talk.call.next(talk.now)


@pytest.mark.parametrize(
    "error", [errors.InvalidArgument("bad"), errors.Compacted("gone", 7), errors.LeaseNotFound()]
)
def test_a_refusal_of_the_command_itself_is_final_at_once(error: errors.DanubeRaftError) -> None:
    talk = Dialogue()
    talk.send()
    talk.wait()
    request = talk.send()
    with pytest.raises(type(error)) as caught:
        talk.refuse(request, error)
    assert caught.value.details == error.details


def test_a_refusal_by_one_node_is_not_final_while_another_may_have_taken_the_write() -> None:
    talk = Dialogue(timeout_ms=1_500)
    talk.send()
    talk.wait()
    talk.refuse(talk.send(), errors.NoSpace())
    assert isinstance(talk.outcome(), errors.Uncertain)


def test_without_such_an_attempt_it_is_final() -> None:
    talk = Dialogue()
    request = talk.send()
    with pytest.raises(errors.NoSpace):
        talk.refuse(request, errors.NoSpace())


def test_uncertain_from_a_node_is_asked_again_with_the_same_serial() -> None:
    talk = Dialogue()
    talk.refuse(talk.send(), errors.Uncertain())
    talk.wait()
    talk.reply(talk.send(), 0, 4, 1, None)
    assert [r[wire.SERIAL] for _, r in talk.sends] == [1, 1]


def test_a_write_is_not_repeated_when_it_is_older_than_its_session_may_remember() -> None:
    talk = Dialogue(timeout_ms=2 * WRITE_RETRY_MAX_MS)
    error = talk.outcome()
    assert isinstance(error, errors.Uncertain)
    assert WRITE_RETRY_MAX_MS < talk.now <= WRITE_RETRY_MAX_MS + ATTEMPT_MS


def test_nothing_ever_sent_is_no_connection() -> None:
    talk = Dialogue()
    tried = []
    while talk.now < REQUEST_MS:
        send = talk.call.next(talk.now)
        assert send is not None
        tried.append(send.endpoint)
        talk.now = send.connect_until
        talk.call.blocked(talk.now)
    with pytest.raises(errors.NoConnection):
        talk.call.next(talk.now)
    assert tried[:4] == ["a:1", "b:2", "c:3", "a:1"]


def test_a_read_without_an_answer_is_a_timeout_and_surely_not_uncertain() -> None:
    assert isinstance(Dialogue("get", "/k").outcome(), errors.Timeout)


def test_the_token_goes_with_reads_and_only_grows() -> None:
    session = Session()
    assert Dialogue("get", "/k", session=session).send()[wire.MIN_REVISION] is None
    session.observe(9, 10)
    session.observe(9, 8)
    assert Dialogue("get", "/k", session=session).send()[wire.MIN_REVISION] == (9, 10)


def test_the_token_of_another_cluster_is_forgotten_and_the_read_repeated() -> None:
    session = Session()
    session.observe(9, 10)
    talk = Dialogue("get", "/k", session=session)
    talk.refuse(talk.send(), errors.ClusterIdMismatch())
    assert session.token is None
    again = talk.send()
    assert again[wire.MIN_REVISION] is None
    talk.reply(again, 0, None, cluster=11, revision=3)
    assert session.token == (11, 3)


def test_an_answer_from_another_cluster_replaces_the_token() -> None:
    session = Session()
    session.observe(9, 10)
    talk = Dialogue("get", "/k", session=session)
    talk.reply(talk.send(), 0, None, cluster=11, revision=3)
    assert session.token == (11, 3)


def test_a_node_that_cannot_be_used_is_passed_over_once() -> None:
    talk = Dialogue("get", "/k", names="a:1,b:2")
    talk.refuse(talk.send(), errors.Corrupt("the odd replica"))
    request = talk.send()
    assert [endpoint for endpoint, _ in talk.sends] == ["a:1", "b:2"]
    with pytest.raises(errors.Corrupt):
        talk.refuse(request, errors.Corrupt("so is this one"))


def test_the_endpoint_that_answered_is_asked_first_next_time() -> None:
    talk = Dialogue()
    talk.send()
    talk.wait()
    talk.reply(talk.send(), 0, 4, 1, None)
    following = Call(talk.session, talk.endpoints, "get", ("/k",), now=0.0)
    send = following.next(0.0)
    assert send is not None
    assert send.endpoint == "b:2"


def test_the_deadline_that_a_node_is_told_is_what_is_left() -> None:
    talk = Dialogue(timeout_ms=3_000)
    assert talk.send()[wire.TIMEOUT_MS] == 3_000
    talk.wait()
    assert talk.send()[wire.TIMEOUT_MS] == 3_000 - ATTEMPT_MS
    assert Dialogue("get", "/k").send()[wire.TIMEOUT_MS] == ATTEMPT_MS


@pytest.mark.parametrize(
    ("op", "args", "kind"),
    [
        ("put", ("", b"v"), errors.KeyEmpty),
        ("put", ("/counters/x", b"v"), errors.InvalidArgument),
        ("put", ("/" + "k" * 5000, b"v"), errors.RequestTooLarge),
        ("get", ("/k", -1), errors.InvalidArgument),
    ],
)
def test_what_a_node_would_refuse_anyway_is_refused_before_it_is_sent(
    op: str, args: tuple[Any, ...], kind: type[errors.DanubeRaftError]
) -> None:
    session = Session()
    with pytest.raises(kind):
        Dialogue(op, *args, session=session)
    assert not session._in_flight


def test_a_request_over_the_limit_is_refused_before_it_is_sent() -> None:
    talk = Dialogue("put", "/k", b"v" * wire.MAX_REQUEST_BYTES)
    with pytest.raises(errors.RequestTooLarge):
        talk.call.next(0.0)


@pytest.mark.parametrize("text", ["", "host", "host:", "host:0", ":7750", "host:70000", "a:1,b"])
def test_bad_endpoints_are_named(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="endpoint"):
        Endpoints.parse(text)
