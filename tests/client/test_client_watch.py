"""A watch of either store with its sockets against a scripted node: it goes on over everything, ends when told, hangs never."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from blocking_store import Make, closed
from fake_node import FakeNode, put_event

from danube_raft import MetadataStore, Watch, errors
from danube_raft.client import stream
from danube_raft.wire import client as wire

LIMIT_MS = 10_000


def push(node: FakeNode, revision: int, times: int = 1) -> None:
    """One event to the newest watch."""
    event = put_event(f"/a/{revision}", str(revision).encode(), revision)
    node.frame(wire.FRAME_EVENTS, (event,), revision, False, times=times)


def take(watch: Watch, count: int) -> list[int]:
    """The revisions of the next events."""
    found: list[int] = []
    while len(found) < count:
        events = watch.changes(LIMIT_MS)
        assert events, f"only {found} came"
        found += [event.revision for event in events]
    return found


def opened(node: FakeNode, watch: Watch, count: int = 1) -> None:
    """Let the watch subscribe; nothing has happened yet."""
    while len(node.of("watch")) < count:
        assert watch.changes(20) == []


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run elsewhere; what it returned or raised."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 -- shown by the test that asked
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer helps: what happens must be noticed when it happens."""
    monkeypatch.setattr(stream, "SILENCE_MS", 600_000)
    monkeypatch.setattr(stream, "PROBE_MS", 600_000)


def test_it_begins_after_the_revision_at_which_it_was_opened(node: FakeNode, store: MetadataStore) -> None:
    store.put("/a/0", 0)
    with store.watch("/a/") as watch:
        assert watch.revision == 2
        opened(node, watch)
        assert node.of("watch")[0][wire.ARGS :][:2] == (("/a/",), 3)
        push(node, 3)
        event = next(watch)
        assert (event.kind, event.key, event.value, event.revision) == ("put", "/a/3", 3, 3)
        assert watch.revision == 3
    assert node.until(lambda: node.of("watch_cancel"))


def test_the_options_go_to_the_node(node: FakeNode, store: MetadataStore) -> None:
    with store.watch(["/a", "/b"], from_revision=4, prev=True, keys_only=True, puts=False) as watch:
        opened(node, watch)
        prefixes, start, _, *flags = node.of("watch")[0][wire.ARGS :]
        assert (prefixes, start, flags) == (("/a", "/b"), 4, [True, True, False, True])


@pytest.mark.usefixtures("patient")
def test_a_lost_connection_is_resumed_from_the_next_revision(node: FakeNode, store: MetadataStore) -> None:
    with store.watch("/a/", from_revision=2) as watch:
        opened(node, watch)
        push(node, 2)
        push(node, 3, times=2)
        assert take(watch, 2) == [2, 3]
        node.down()
        node.up()
        thread, outcome = in_thread(lambda: take(watch, 2))
        node.until(lambda: len(node.of("watch")) == 2, "a second subscription")
        assert node.of("watch")[1][wire.ARGS + 1] == 4
        push(node, 3)
        push(node, 4)
        push(node, 5)
        thread.join(LIMIT_MS / 1000)
        assert outcome == [[4, 5]]


def test_it_moves_to_another_endpoint(node: FakeNode, make: Make) -> None:
    with (
        FakeNode() as other,
        make(f"{node.endpoint},{other.endpoint}") as store,
        store.watch("/a/", from_revision=2) as watch,
    ):
        opened(node, watch)
        push(node, 2)
        assert take(watch, 1) == [2]
        node.down()
        thread, outcome = in_thread(lambda: take(watch, 1))
        other.until(lambda: other.of("watch"), "a subscription at the other node")
        assert other.of("watch")[0][wire.ARGS + 1] == 3
        push(other, 3)
        thread.join(LIMIT_MS / 1000)
        assert outcome == [[3]]
        node.up()


def test_a_node_that_falls_silent_is_left(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    monkeypatch.setattr(stream, "SILENCE_MS", 60)
    node.speak_first = False
    with (
        FakeNode() as other,
        make(f"{node.endpoint},{other.endpoint}") as store,
        store.watch("/a/", from_revision=2) as watch,
    ):
        thread, outcome = in_thread(lambda: take(watch, 1))
        other.until(lambda: other.of("watch"))
        monkeypatch.setattr(stream, "SILENCE_MS", 10_000)
        other.until(lambda: other.streams)
        push(other, 2)
        thread.join(LIMIT_MS / 1000)
        assert outcome == [[2]]


def test_a_watch_waits_for_a_node_that_is_not_there_yet(node: FakeNode, make: Make) -> None:
    node.down()
    with make(node.endpoint) as store, store.watch("/a/", from_revision=2) as watch:
        assert watch.changes(50) == []
        assert not watch.connected
        node.up()
        thread, outcome = in_thread(lambda: take(watch, 1))
        node.until(lambda: node.of("watch"))
        push(node, 2)
        thread.join(LIMIT_MS / 1000)
        assert outcome == [[2]]


def test_compacted_is_raised_with_its_revision(node: FakeNode, store: MetadataStore) -> None:
    with store.watch("/a/", from_revision=2) as watch:
        opened(node, watch)
        push(node, 2)
        node.fail_stream(errors.Compacted("gone", 30))
        assert next(watch).revision == 2
        with pytest.raises(errors.Compacted) as caught:
            next(watch)
        assert caught.value.details == 30


@pytest.mark.usefixtures("patient")
def test_close_from_another_thread_ends_the_iteration(node: FakeNode, store: MetadataStore) -> None:
    watch = store.watch("/a/", from_revision=2)
    thread, outcome = in_thread(lambda: list(watch))
    node.until(lambda: node.of("watch"))
    watch.close()
    watch.close()
    thread.join(LIMIT_MS / 1000)
    assert outcome == [[]]
    assert list(watch) == []


def test_closing_the_store_ends_its_watches(node: FakeNode, make: Make) -> None:
    store = make(node.endpoint)
    threads = [in_thread(lambda: list(store.watch("/a/", from_revision=2))) for _ in range(3)]
    node.until(lambda: len(node.of("watch")) == 3)
    store.close()
    for thread, outcome in threads:
        thread.join(LIMIT_MS / 1000)
        assert outcome == [[]]
    assert closed(store)


def test_a_watch_closes_while_no_node_can_be_reached(make: Make) -> None:
    with make("127.0.0.1:1") as store:
        watch = store.watch("/a/", from_revision=2)
        thread, outcome = in_thread(lambda: list(watch))
        watch.close()
        thread.join(LIMIT_MS / 1000)
        assert outcome == [[]]


def test_events_of_one_revision_come_together(node: FakeNode, store: MetadataStore) -> None:
    with store.watch("/a/", from_revision=2) as watch:
        opened(node, watch)
        first, second, third = (put_event(f"/a/{key}", b"1", 2) for key in "123")
        node.frame(wire.FRAME_EVENTS, (first, second), 2, True)
        assert watch.changes(50) == []
        node.frame(wire.FRAME_EVENTS, (third,), 2, False)
        assert next(watch).key == "/a/1"
        assert watch.revision == 1, "the revision counts when all of it was handed out"
        assert [event.key for event in watch.changes()] == ["/a/2", "/a/3"]
        assert watch.revision == 2


def test_credit_is_sent_as_events_are_taken(
    node: FakeNode, store: MetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CREDIT_BYTES", 200)
    with store.watch("/a/", from_revision=2) as watch:
        opened(node, watch)
        for revision in range(2, 8):
            push(node, revision)
        assert take(watch, 6) == list(range(2, 8))
        node.until(lambda: sum(r[wire.ARGS + 1] for r in node.of("watch_credit")) >= 100)


def test_list_and_watch_leaves_nothing_between(node: FakeNode, store: MetadataStore) -> None:
    for number in range(5):
        store.put(f"/a/{number}", number)
    listing = store.list_and_watch("/a/")
    with listing.watch as watch:
        assert [record.value for record in listing.records] == list(range(5))
        assert listing.revision == 6
        opened(node, watch)
        assert node.of("watch")[0][wire.ARGS + 1] == 7


def test_a_watch_that_finds_another_cluster_says_so(node: FakeNode, store: MetadataStore) -> None:
    store.put("/a/0", 0)
    with store.watch("/a/") as watch:
        opened(node, watch)
        node.cluster_id += 1
        node.down()
        node.up()
        with pytest.raises(errors.ClusterIdMismatch):
            take(watch, 1)
