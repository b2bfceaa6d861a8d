"""Who leads, from a handle: pushed, bounded in its staleness, back by itself. Both kinds against a scripted node."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_node import LOST, NODE_ID, FakeNode, refuse

from danube_raft import Leadership, LeadershipHandle, MetadataStore, errors
from danube_raft.client import attachment
from danube_raft.client.attachment import GRACE_MS, POLL_MS, RETRY_MAX_MS, RETRY_MIN_MS, Attachment
from danube_raft.client.owner import Owner
from danube_raft.wire import client as wire
from danube_raft.wire import codec

LIMIT_MS = 10_000
NOBODY = Leadership(False, None, None, 0)


class Talk:
    """An attachment and its clock, without sockets."""

    def __init__(self) -> None:
        self.changes = 0
        self.now = 100.0
        self.attachment = Attachment(self._changed)
        self.owner = Owner()

    def _changed(self) -> None:
        self.changes += 1

    @property
    def state(self) -> Leadership:
        return self.attachment.at(self.now, self.owner)

    def ask(self) -> tuple[Any, ...]:
        """The arguments of the next poll."""
        (raw,) = codec.unpack_stream(self.attachment.request(self.now))
        self.request = wire.check(raw)
        return self.request[wire.ARGS :]

    def answer(self, leader: int, term: int, node_id: int = NODE_ID) -> None:
        """A reply to the last poll."""
        head = (wire.VERSION, self.request[wire.REQUEST_ID], 0, 9, node_id, term, 4)
        self.attachment.receive((*head, leader, term, "role"))


def test_the_first_poll_does_not_wait_and_the_next_names_what_is_known() -> None:
    talk = Talk()
    assert talk.state == NOBODY
    assert talk.ask() == (0, 0, 0)
    assert talk.attachment.give_up_at == talk.now + GRACE_MS
    talk.answer(NODE_ID, 7)
    assert talk.state == Leadership(True, NODE_ID, NODE_ID, 7)
    assert talk.ask() == (7, NODE_ID, POLL_MS)
    talk.answer(8, 9)
    assert talk.state == Leadership(False, 8, NODE_ID, 9)
    talk.ask()
    talk.answer(0, 10)
    assert talk.state == Leadership(False, None, NODE_ID, 10)
    assert talk.changes == 3
    talk.ask()
    talk.answer(0, 10)
    assert talk.changes == 3, "the same again is no change"


def test_what_was_answered_holds_until_a_second_after_the_wait_and_no_longer() -> None:
    talk = Talk()
    talk.ask()
    talk.answer(NODE_ID, 7)
    talk.ask()
    talk.now += POLL_MS + GRACE_MS - 1
    assert talk.state.is_leader
    talk.now += 1
    assert talk.state == Leadership(False, None, NODE_ID, 7)
    assert POLL_MS + GRACE_MS == 3_000


def test_a_lost_connection_is_known_at_once_and_the_next_one_asks_without_waiting() -> None:
    talk = Talk()
    talk.ask()
    talk.answer(NODE_ID, 7)
    talk.ask()
    talk.attachment.lost(talk.now)
    assert talk.state == Leadership(False, None, NODE_ID, 7)
    assert talk.changes == 2
    assert talk.ask() == (7, NODE_ID, 0)
    talk.answer(NODE_ID, 7)
    assert talk.state.is_leader
    assert talk.changes == 3


def test_answers_to_an_older_poll_change_nothing() -> None:
    talk = Talk()
    talk.ask()
    old = talk.request
    talk.attachment.lost(talk.now)
    talk.ask()
    talk.request = old
    talk.answer(NODE_ID, 7)
    assert talk.state == NOBODY
    assert talk.attachment.waiting


def test_pauses_grow_while_nothing_is_heard_and_shrink_when_something_is() -> None:
    talk = Talk()
    pauses = []
    for _ in range(8):
        talk.attachment.lost(talk.now)
        pauses.append(talk.attachment.retry_at - talk.now)
    assert pauses[:3] == [RETRY_MIN_MS, 2 * RETRY_MIN_MS, 4 * RETRY_MIN_MS]
    assert pauses[-1] == RETRY_MAX_MS
    talk.ask()
    talk.answer(NODE_ID, 7)
    talk.attachment.lost(talk.now)
    assert talk.attachment.retry_at == talk.now + RETRY_MIN_MS


@pytest.mark.parametrize("result", [(), (1,), ("1", 2), (1, None)])
def test_a_result_that_is_none_is_malformed(result: tuple[Any, ...]) -> None:
    talk = Talk()
    talk.ask()
    with pytest.raises(codec.Malformed):
        talk.attachment.receive((wire.VERSION, talk.request[wire.REQUEST_ID], 0, 9, 1, 1, 4, *result))
    assert talk.state == NOBODY


# ---------------------------------------------------------------- with sockets


@pytest.fixture
def handle(store: MetadataStore) -> Iterator[LeadershipHandle]:
    """Attached to the fake node."""
    with store.leadership() as handle:
        yield handle


def reached(handle: LeadershipHandle, **wanted: Any) -> Leadership:
    """The state, once it is as wanted."""
    deadline = time.monotonic() + LIMIT_MS / 1000
    state = handle.state
    while any(getattr(state, name) != value for name, value in wanted.items()):
        assert time.monotonic() < deadline, f"{state} is not {wanted}"
        state = handle.wait(100, state) or handle.state
    return state


def test_it_knows_and_is_told(node: FakeNode, handle: LeadershipHandle) -> None:
    assert reached(handle, is_leader=True) == Leadership(True, NODE_ID, NODE_ID, 1)
    assert (handle.is_leader, handle.current_leader, handle.node_id, handle.term) == (
        True,
        NODE_ID,
        NODE_ID,
        1,
    )
    node.until(lambda: node.of("leadership_poll")[-1][wire.ARGS :] == (1, NODE_ID, POLL_MS))
    asked = len(node.of("leadership_poll"))
    node.leads(7, 2)
    assert reached(handle, term=2) == Leadership(False, 7, NODE_ID, 2)
    node.leads(0, 3)
    assert reached(handle, term=3) == Leadership(False, None, NODE_ID, 3)
    assert len(node.of("leadership_poll")) <= asked + 2, "pushed, not asked for again and again"


def test_changes_begin_with_what_is_and_end_with_the_handle(node: FakeNode) -> None:
    # Of the asynchronous one: in `test_async_store.py`, as iterating from outside its loop is not what it is for.
    with MetadataStore(node.endpoint) as store:
        handle = store.leadership()
        reached(handle, is_leader=True)
        seen: list[Leadership] = []
        news = threading.Semaphore(0)

        def follow() -> None:
            for state in handle.changes():
                seen.append(state)
                news.release()

        thread = threading.Thread(target=follow)
        thread.start()
        for leader, term in ((0, 2), (7, 2), (NODE_ID, 4)):
            assert news.acquire(timeout=LIMIT_MS / 1000)
            node.leads(leader, term)
        assert news.acquire(timeout=LIMIT_MS / 1000)
        handle.close()
        thread.join(LIMIT_MS / 1000)
        assert [(state.current_leader, state.term) for state in seen] == [
            (NODE_ID, 1), (None, 2), (7, 2), (NODE_ID, 4)
        ]  # fmt: skip


def test_waiting_ends_in_time_and_with_the_handle(handle: LeadershipHandle) -> None:
    reached(handle, is_leader=True)
    assert handle.wait(50) is None
    assert handle.wait(LIMIT_MS, NOBODY) == handle.state, "what is known already is not waited for"
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(handle.wait()))
    thread.start()
    handle.close()
    handle.close()
    thread.join(LIMIT_MS / 1000)
    assert outcome == [None]
    assert not handle.is_leader, "nobody polls any more"
    assert handle.term == 1


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer helps: what happens must be noticed when it happens."""
    monkeypatch.setattr(attachment, "POLL_MS", 600_000)


@pytest.mark.usefixtures("patient")
def test_the_end_waits_for_no_timer(node: FakeNode, handle: LeadershipHandle) -> None:
    reached(handle, is_leader=True)
    node.until(lambda: len(node.of("leadership_poll")) == 2)
    started = time.monotonic()
    handle.close()
    assert time.monotonic() - started < LIMIT_MS / 1000


def test_waiting_for_a_node_that_was_never_there_ends_with_the_handle() -> None:
    with LeadershipHandle("127.0.0.1:1") as handle:
        outcome: list[Any] = []
        thread = threading.Thread(target=lambda: outcome.append(handle.wait()))
        thread.start()
        assert handle.wait(300) is None
    thread.join(LIMIT_MS / 1000)
    assert outcome == [None]


@pytest.mark.usefixtures("patient")
def test_a_node_that_goes_and_comes_back(node: FakeNode, handle: LeadershipHandle) -> None:
    reached(handle, is_leader=True)
    node.down()
    assert reached(handle, is_leader=False) == Leadership(False, None, NODE_ID, 1)
    node.leader, node.term = NODE_ID, 5
    node.up()
    assert reached(handle, is_leader=True).term == 5


def test_a_node_that_falls_silent_leads_no_longer(
    node: FakeNode, handle: LeadershipHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment, "POLL_MS", 50)
    monkeypatch.setattr(attachment, "GRACE_MS", 100)
    reached(handle, is_leader=True)
    node.script += [LOST] * 10_000
    node.leads(NODE_ID, 2)
    reached(handle, is_leader=False)
    node.script.clear()
    reached(handle, is_leader=True)


def test_an_idle_handle_stays_sure_over_many_polls(
    node: FakeNode, handle: LeadershipHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment, "POLL_MS", 20)
    state = reached(handle, is_leader=True)
    node.leads(NODE_ID, 2)
    state = reached(handle, term=2)
    node.until(lambda: len(node.of("leadership_poll")) > 10)
    assert handle.state == state


def test_a_refusal_is_asked_again_and_leaves_the_question_open(node: FakeNode, store: MetadataStore) -> None:
    node.script += [refuse(errors.Overloaded("full")), refuse(errors.ProtocolVersion("unknown operation"))]
    with store.leadership() as handle:
        reached(handle, is_leader=True)
        assert len(node.of("leadership_poll")) >= 3


def test_rubbish_is_as_good_as_silence(node: FakeNode, store: MetadataStore) -> None:
    node.script += [lambda _: b"\xc1\xc1", LOST]
    with store.leadership() as handle:
        reached(handle, is_leader=True)


def test_it_is_attached_to_one_endpoint(node: FakeNode, store: MetadataStore) -> None:
    with FakeNode() as other, store.leadership(other.endpoint) as handle:
        other.leads(8, 3)
        reached(handle, current_leader=8)
        assert not node.of("leadership_poll")
    for endpoint in ("nonsense", "a:1,b:2", 7750):
        with pytest.raises(errors.InvalidArgument):
            store.leadership(endpoint)  # type: ignore[arg-type]  # that is what is tested


def test_closing_the_store_ends_its_handles(node: FakeNode, make: Any) -> None:
    store = make(node.endpoint)
    handle = store.leadership()
    reached(handle, is_leader=True)
    store.close()
    assert not handle.is_leader
    with pytest.raises(errors.Rejected, match="closed"):
        store.leadership()


def test_a_handle_of_its_own_needs_no_store(node: FakeNode) -> None:
    with LeadershipHandle(node.endpoint) as handle:
        reached(handle, is_leader=True)
    assert handle._pool.context.closed
    assert not handle._thread.is_alive()
    with pytest.raises(errors.InvalidArgument):
        LeadershipHandle("nonsense")


def test_nobody_leads_in_a_child_that_was_forked(
    handle: LeadershipHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached(handle, is_leader=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        assert not handle.is_leader
        assert handle.current_leader is None
    assert handle.is_leader
