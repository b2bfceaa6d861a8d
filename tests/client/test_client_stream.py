"""A watch's decisions without sockets: whole revisions, no duplicates, where to resume, credit, signs of life."""

from __future__ import annotations

from typing import Any

import pytest
from fake_node import delete_event, put_event

from danube_raft import errors
from danube_raft.client.call import Session
from danube_raft.client.stream import CREDIT_BYTES, PROBE_MS, RESUME_MIN_MS, SILENCE_MS, Options, Stream
from danube_raft.client.value import JSON
from danube_raft.wire import client as wire
from danube_raft.wire import codec


class Wire:
    """A stream that is subscribed, and its clock."""

    def __init__(self, from_revision: int = 5, cluster_id: int = 9) -> None:
        self.session = Session()
        self.stream = Stream(self.session, JSON, Options(("/a",)), from_revision, cluster_id, 0.0)
        self.cluster_id = cluster_id or 9
        self.now = 0.0
        self.watch_id = 0
        self.requests: list[tuple[Any, ...]] = []
        self.subscribe()

    def subscribe(self) -> tuple[Any, ...]:
        """The watch request."""
        self.took(self.stream.subscribe(self.now))
        request: tuple[Any, ...] = next(r for r in reversed(self.requests) if r[wire.OP] == "watch")
        self.watch_id = request[wire.REQUEST_ID]
        return request

    def took(self, body: bytes | None) -> list[tuple[Any, ...]]:
        """Requests in a body."""
        found = [wire.check(raw) for raw in codec.unpack_stream(body or b"")]
        self.requests += found
        return found

    def frame(self, *result: Any, size: int = 100, status: int = 0, request_id: int | None = None) -> int:
        """A reply on the stream; what is left of its size for the next reply in the same body."""
        head = (wire.VERSION, request_id or self.watch_id, status, self.cluster_id, 1, 1, 99)
        return self.stream.receive((*head, *result), size, self.now)

    def events(self, *events: Any, last: int, more: bool = False, size: int = 100) -> None:
        """A frame of events."""
        self.frame(wire.FRAME_EVENTS, events, last, more, size=size)

    def taken(self) -> list[tuple[int, list[str]]]:
        """All revisions that are ready, with their keys."""
        found = []
        while self.stream.ready:
            changes = self.stream.take()
            found.append((changes.revision, [event.key for event in changes.events]))
        return found


def test_a_revision_is_handed_out_whole_even_when_it_comes_in_pieces() -> None:
    link = Wire()
    link.events(put_event("/a/0", b"0", 5), put_event("/a/1", b"1", 6), last=6, more=True)
    assert link.taken() == [(5, ["/a/0"])]
    assert link.stream.next_revision == 6
    link.events(delete_event("/a/2", 6), last=6, more=True)
    assert link.taken() == []
    link.events(put_event("/a/3", b"3", 6), put_event("/a/4", b"4", 8), last=8)
    assert link.taken() == [(6, ["/a/1", "/a/2", "/a/3"]), (8, ["/a/4"])]
    assert link.stream.next_revision == 9


def test_what_comes_again_is_dropped() -> None:
    link = Wire()
    for _ in range(3):
        link.events(put_event("/a/0", b"0", 5), put_event("/a/1", b"1", 6), last=6)
    link.events(put_event("/a/old", b"0", 3), last=3)
    assert link.taken() == [(5, ["/a/0"]), (6, ["/a/1"])]
    for _ in range(2):
        link.events(put_event("/a/2", b"2", 7), last=7, more=True)
    link.events(put_event("/a/3", b"3", 7), last=7)
    assert link.taken() == [(7, ["/a/2", "/a/3"])]


def test_it_resumes_after_the_last_whole_revision() -> None:
    link = Wire()
    link.events(put_event("/a/0", b"0", 5), last=5)
    link.events(put_event("/a/1", b"1", 6), last=6, more=True)
    link.stream.lost(link.now)
    request = link.subscribe()
    assert request[wire.ARGS + 1] == 6
    link.events(put_event("/a/1", b"1", 6), put_event("/a/2", b"2", 6), last=6)
    assert link.taken() == [(5, ["/a/0"]), (6, ["/a/1", "/a/2"])]


def test_frames_of_an_earlier_subscription_are_ignored() -> None:
    link = Wire()
    old = link.watch_id
    link.stream.lost(link.now)
    link.subscribe()
    link.frame(wire.FRAME_EVENTS, (put_event("/a/1", b"1", 9),), 9, False, request_id=old)
    assert link.stream.next_revision == 5


def test_progress_moves_the_place_to_resume_from() -> None:
    link = Wire()
    link.frame(wire.FRAME_PROGRESS, 4)
    assert link.stream.next_revision == 5
    link.frame(wire.FRAME_PROGRESS, 40)
    link.stream.lost(link.now)
    assert link.subscribe()[wire.ARGS + 1] == 41
    assert link.session.token == (9, 40)


def test_credit_goes_back_when_a_revision_is_taken_and_not_before() -> None:
    link = Wire()
    link.events(put_event("/a/0", b"0", 5), last=5, size=CREDIT_BYTES)
    assert link.stream.due(link.now) is None
    link.taken()
    (credit,) = link.took(link.stream.due(link.now))
    assert credit[wire.OP] == "watch_credit"
    assert credit[wire.ARGS :] == (link.watch_id, CREDIT_BYTES)
    assert link.stream.due(link.now) is None


def test_half_a_revision_gives_its_credit_back_at_once() -> None:
    link = Wire()
    link.events(put_event("/a/0", b"0", 5), last=5, more=True, size=CREDIT_BYTES)
    assert link.took(link.stream.due(link.now))[0][wire.ARGS + 1] == CREDIT_BYTES


def test_an_answer_before_events_in_one_body_takes_none_of_their_credit() -> None:
    """The first frame of a watch comes behind its progress mark: its credit was lost, and when all of it was, the watch
    stood still for ever while its marks went on."""
    link = Wire()
    size = link.frame(wire.FRAME_PROGRESS, 4, size=CREDIT_BYTES)
    size = link.frame(0, size=size, request_id=link.requests[-1][wire.REQUEST_ID])
    assert size == CREDIT_BYTES
    events = (put_event("/a/0", b"0", 5),)
    assert link.frame(wire.FRAME_EVENTS, events, 5, False, size=size) == 0
    assert link.taken() == [(5, ["/a/0"])]
    (credit,) = link.took(link.stream.due(link.now))
    assert credit[wire.ARGS :] == (link.watch_id, CREDIT_BYTES)


def test_it_keeps_itself_alive_and_asks_for_a_sign_of_life() -> None:
    link = Wire()
    link.frame(wire.FRAME_PROGRESS, 4)
    link.now = link.stream.next_timer()
    assert link.now == PROBE_MS
    assert [r[wire.OP] for r in link.took(link.stream.due(link.now))] == ["watch_credit", "watch_progress"]
    link.now += SILENCE_MS - 1
    assert not link.stream.silent(link.now)
    link.now += 1
    assert link.stream.silent(link.now)
    link.frame(wire.FRAME_PROGRESS, 4)
    assert not link.stream.silent(link.now)


def test_a_node_that_never_says_a_word_is_given_up_soon() -> None:
    link = Wire()
    assert not link.stream.silent(SILENCE_MS - 1)
    assert link.stream.silent(SILENCE_MS)


def test_a_node_that_has_forgotten_the_watch_is_asked_anew() -> None:
    link = Wire()
    probe = link.requests[-1]
    assert probe[wire.OP] == "watch_progress"
    link.frame("no such watch", None, status=errors.InvalidArgument.code, request_id=probe[wire.REQUEST_ID])
    assert not link.stream.connected
    assert link.stream.error is None


@pytest.mark.parametrize("kind", [errors.Overloaded, errors.NoLeader, errors.Timeout, errors.Corrupt])
def test_a_failure_that_another_node_may_not_have_is_resumed(kind: type[errors.DanubeRaftError]) -> None:
    link = Wire()
    link.frame("text", None, status=kind.code)
    assert not link.stream.connected
    assert link.stream.retry_at == RESUME_MIN_MS
    assert link.stream.error is None


def test_compaction_is_told_after_all_that_came_before() -> None:
    link = Wire()
    link.events(put_event("/a/0", b"0", 5), last=5)
    link.frame("compacted", 30, status=errors.Compacted.code)
    assert link.taken() == [(5, ["/a/0"])]
    assert isinstance(link.stream.error, errors.Compacted)
    assert link.stream.error.details == 30


def test_another_cluster_is_an_error_and_not_a_gap() -> None:
    link = Wire()
    link.events(put_event("/a/0", b"0", 5), last=5)
    link.cluster_id = 10
    link.events(put_event("/a/1", b"1", 6), last=6)
    assert isinstance(link.stream.error, errors.ClusterIdMismatch)
    assert link.taken() == [(5, ["/a/0"])]


def test_pauses_grow_while_nothing_is_heard_and_shrink_when_something_is() -> None:
    link = Wire()
    pauses = []
    for _ in range(3):
        link.stream.lost(link.now)
        pauses.append(link.stream.retry_at - link.now)
        link.subscribe()
    link.frame(wire.FRAME_PROGRESS, 4)
    link.stream.lost(link.now)
    assert [*pauses, link.stream.retry_at - link.now] == [20, 40, 80, 20]


def test_bad_prefixes_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(errors.InvalidArgument):
        Options(()).check(1)
