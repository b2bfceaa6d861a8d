"""Both stores against a scripted node: operations, outcomes, threads, ends."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from blocking_store import Make, closed
from fake_node import CUT, HOLD, LOST, FakeNode, refuse

from danube_raft import ABSENT, MetadataStore, MetaOptions, Revision, errors
from danube_raft.client import call
from danube_raft.wire import client as wire

NOWHERE = "127.0.0.1:1"


def test_values_are_json_in_one_spelling(node: FakeNode, store: MetadataStore) -> None:
    written = store.put("/a", {"b": [1, None], "a": "ü"})
    assert (written.revision, written.version, written.previous) == (2, 1, None)
    assert node.records["/a"][1] == '{"a":"ü","b":[1,null]}'.encode()
    record = store.get("/a")
    assert record is not None
    assert (record.value, record.version, record.mod_revision) == ({"a": "ü", "b": [1, None]}, 1, 2)
    assert store.get("/missing") is None


def test_raw_stores_bytes_as_they_are(node: FakeNode, make: Make) -> None:
    with make(node.endpoint, raw=True) as store:
        store.put("/a", b"\xff\x00")
        record = store.get("/a")
        assert record is not None
        assert record.value == b"\xff\x00"
        with pytest.raises(errors.InvalidArgument, match="must be bytes"):
            store.put("/a", "text")


def test_what_is_no_json_is_refused_both_ways(node: FakeNode, store: MetadataStore, make: Make) -> None:
    for value in (float("nan"), {1, 2}, object()):
        with pytest.raises(errors.InvalidArgument, match="JSON"):
            store.put("/a", value)
    assert not node.requests
    with make(node.endpoint, raw=True) as other:
        other.put("/a", b"\xff")
    record = store.get("/a")
    assert record is not None
    with pytest.raises(errors.InvalidArgument, match="raw=True"):
        record.value  # noqa: B018 -- reading it is what raises


def test_a_put_returns_the_record_before_it_when_asked(store: MetadataStore) -> None:
    store.put("/a", 1)
    previous = store.put("/a", 2, prev=True).previous
    assert previous is not None
    assert previous.value == 1
    assert store.put("/a", 3, MetaOptions.WITH_PREV_KEY).previous is not None
    assert store.put_with_ttl("/a", 4, 500, prev=True).previous is not None


def test_listings_are_paged_at_the_revision_of_their_first_page(node: FakeNode, store: MetadataStore) -> None:
    for number in range(8):
        store.put(f"/t/{number}", number)
    assert [record.value for record in store.get_prefix("/t/")] == list(range(8))
    pages = node.of("range")
    assert [page[wire.ARGS + 3] for page in pages] == [None, 9, 9]
    assert pages[0][wire.ARGS + 2] is None
    assert all(page[wire.ARGS + 2] for page in pages[1:])
    assert [len(page) for page in store.pages("/t/")] == [3, 3, 2]
    assert store.keys("/t/") == [f"/t/{number}" for number in range(8)]
    assert store.count("/t/") == 8
    assert store.get_children("/t") == store.get_childrens("/t") == store.keys("/t/")
    assert store.get_bulk("/t/")[3] == ("/t/3", b"3", 1)
    before = len(node.of("range"))
    assert [record.value for record in store.get_prefix("/t/", limit=5)] == list(range(5))
    assert len(node.of("range")) == before + 2, "nothing is asked for beyond the limit"
    assert len(store.get("/t/", MetaOptions.WITH_PREFIX)) == 8
    assert [r.key for r in store.range("/t/2", "/t/4")] == ["/t/2", "/t/3"]


def test_the_pages_after_the_first_are_waited_for_by_a_node_that_is_behind(
    node: FakeNode, store: MetadataStore
) -> None:
    """With `stale` a listing that went on at another node ended with FutureRevision, about a revision that nobody had asked
    for."""
    for number in range(5):
        store.put(f"/t/{number}", number)
    assert len(store.get_prefix("/t/", consistency="stale")) == 5
    first, second = node.of("range")
    assert first[wire.CONSISTENCY] == "stale"
    assert second[wire.CONSISTENCY] in (None, "session")
    assert second[wire.MIN_REVISION] == (node.cluster_id, 6)


def test_compare_and_swap_takes_a_value_a_revision_or_absent(store: MetadataStore) -> None:
    first = store.compare_and_swap("/a", ABSENT, 1)
    assert first
    assert (first.swapped, first.version) == (True, 1)
    failed = store.compare_and_swap("/a", ABSENT, 2)
    assert not failed
    assert failed.current is not None
    assert failed.current.value == 1
    assert store.compare_and_swap("/a", 1, 2)
    assert store.compare_and_swap("/a", Revision(failed.current.mod_revision + 1), None)
    assert store.compare_and_swap("/a", None, 4), "None is the JSON value null"


def test_small_operations(store: MetadataStore) -> None:
    store.put("/a/1", 1)
    store.put("/a/2", 1)
    assert store.delete("/a/1") == 1
    assert store.delete("/a/1") == 0
    assert store.delete_prefix("/a/") == 1
    assert store.allocate_monotonic_id("ids") == 1
    assert store.allocate_monotonic_id("ids", 10) == 2
    assert store.allocate_monotonic_id("ids") == 12
    assert store.compact(3) == 3
    assert store.status()["role"] == "leader"
    assert store.members() == [{"node_id": 3, "role": "leader"}]


def test_reads_carry_what_this_client_has_seen_and_the_level_asked_for(node: FakeNode, make: Make) -> None:
    with make(node.endpoint, consistency="linearizable") as store:
        store.put("/a", 1)
        store.get("/a")
        store.get("/a", consistency=250)
        first, second = node.of("get")
        assert first[wire.MIN_REVISION] == (node.cluster_id, 2)
        assert (first[wire.CONSISTENCY], second[wire.CONSISTENCY]) == ("linearizable", 250)


def test_a_lost_answer_is_asked_again_and_applied_once(node: FakeNode, store: MetadataStore) -> None:
    def applied_but_mute(request: tuple[Any, ...]) -> None:
        node._answer(b"", request)

    node.script.append(applied_but_mute)
    assert store.put("/a", 1).version == 1
    first, second = node.of("put")
    assert first[wire.CLIENT_ID : wire.SERIAL + 1] == second[wire.CLIENT_ID : wire.SERIAL + 1]
    assert first[wire.REQUEST_ID] != second[wire.REQUEST_ID]
    assert node.revision == 2


def test_an_overloaded_node_is_asked_again(node: FakeNode, store: MetadataStore) -> None:
    node.script += [refuse(errors.Overloaded("full")), refuse(errors.NoLeader())]
    assert store.put("/a", 1).version == 1
    assert len({request[wire.SERIAL] for request in node.of("put")}) == 1


def test_a_late_answer_of_an_earlier_request_is_ignored(
    node: FakeNode, store: MetadataStore, make: Make
) -> None:
    node.script += [HOLD, LOST]
    with pytest.raises(errors.Timeout), make(node.endpoint, timeout_ms=150) as hasty:
        hasty.get("/a")
    node.script.clear()
    node.script += [HOLD]
    before = len(node.of("get"))

    def release_late() -> None:
        node.until(lambda: len(node.of("get")) >= before + 2)
        node.release()

    threading.Thread(target=release_late).start()
    assert store.get("/a") is None  # its first answer comes after the second attempt was sent
    store.put("/a", 1)
    record = store.get("/a")
    assert record is not None
    assert record.value == 1


def test_a_lost_connection_is_opened_again(node: FakeNode, store: MetadataStore) -> None:
    store.put("/a", 1)
    node.script.append(CUT)
    assert store.put("/a", 2).version == 2
    assert node.revision == 3


def test_a_write_that_is_never_answered_is_uncertain(node: FakeNode, make: Make) -> None:
    node.script += [LOST] * 9
    with make(node.endpoint, timeout_ms=600) as store:
        with pytest.raises(errors.Uncertain) as caught:
            store.put("/a", 1)
        assert caught.value.details["serial"] == 1
        node.script.clear()
        store.put("/a", 2)
        assert node.requests[-1][wire.SERIAL : wire.LOW_WATER + 1] == (2, 2)


def test_no_node_at_all_is_no_connection_within_the_deadline(make: Make) -> None:
    with (
        make(NOWHERE, timeout_ms=300) as store,
        pytest.raises(errors.NoConnection, match="nothing was sent"),
    ):
        store.put("/a", 1)


def test_nothing_is_delivered_to_a_node_that_comes_up_after_the_deadline(node: FakeNode, make: Make) -> None:
    with make(node.endpoint, timeout_ms=200) as store:
        store.put("/a", 1)
        node.down()
        with pytest.raises((errors.NoConnection, errors.Uncertain)):
            store.put("/a", 2)
        node.up()
        with make(node.endpoint) as other:
            other.put("/b", 1)
    assert [request[wire.ARGS] for request in node.of("put")] == ["/a", "/b"]


def test_the_next_endpoint_serves_when_the_first_is_dead(node: FakeNode, make: Make) -> None:
    with make(f"{NOWHERE},{node.endpoint}") as store:
        assert store.put("/a", 1).version == 1
        assert store._terms.endpoints.place == 1


def test_refusals_reach_the_caller_with_their_details(node: FakeNode, store: MetadataStore) -> None:
    node.script.append(refuse(errors.Compacted("compacted at 7", 7)))
    with pytest.raises(errors.Compacted, match="compacted at 7") as caught:
        store.get("/a", revision=3)
    assert caught.value.details == 7
    node.script.append(refuse(errors.StaleSerial("too old")))
    with pytest.raises(errors.Rejected):
        store.put("/a", 1)


def test_sixteen_threads_share_one_store(node: FakeNode, store: MetadataStore) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(1, 31):
                assert store.put(f"/threads/{name}", number).version == number
                record = store.get(f"/threads/{name}")
                assert record is not None
                assert record.value == number
        except BaseException as failure:  # noqa: BLE001 -- shown at the end of the test
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert len(store.keys("/threads/")) == 16
    puts = node.of("put")
    assert sorted({put[wire.SERIAL] for put in puts}) == list(range(1, 481))
    assert all(put[wire.LOW_WATER] <= put[wire.SERIAL] for put in puts)
    if isinstance(store, MetadataStore):
        assert len(store._pool._idle) <= 16


def test_a_closed_store_says_so_and_lets_requests_under_way_end(node: FakeNode) -> None:
    store = MetadataStore(node.endpoint)
    node.script.append(HOLD)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(store.put("/a", 1)))
    thread.start()
    node.until(lambda: node.of("put"))
    store.close()
    store.close()
    node.release()
    thread.join(10)
    assert answers[0].version == 1
    with pytest.raises(errors.Rejected, match="closed"):
        store.get("/a")
    assert closed(store)


def test_a_store_does_not_survive_a_fork(store: MetadataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("/a", 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(errors.Rejected, match="fork"):
            store.get("/a")
    assert store.get("/a") is not None


def test_rubbish_from_the_other_end_is_as_good_as_silence(node: FakeNode, make: Make) -> None:
    node.script += [lambda _: b"\xc1\xc1", lambda _: b"\x93\x01\x02\x03"]
    with make(node.endpoint) as store:
        assert store.put("/a", 1).version == 1


def test_status_asks_the_endpoint_that_is_named(node: FakeNode, make: Make) -> None:
    with make(NOWHERE, timeout_ms=2_000) as store:
        assert store.status(node.endpoint)["node_id"] == 3


def test_more_threads_than_channels_wait_their_turn(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danube_raft.client.channel.CHANNELS_MAX", 1)
    node.script += [LOST] * 30
    with MetadataStore(node.endpoint, timeout_ms=400) as store:
        outcomes: list[BaseException] = []

        def get() -> None:
            try:
                store.get("/a")
            except errors.DanubeRaftError as error:
                outcomes.append(error)

        first = threading.Thread(target=get)
        first.start()
        node.until(lambda: node.of("get"))
        store._terms.timeout_ms = 50
        get()
        first.join(10)
    assert {type(outcome) for outcome in outcomes} == {errors.Overloaded, errors.Timeout}


def test_the_attempt_timeout_is_what_the_contract_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert (call.ATTEMPT_MS, call.REQUEST_MS, call.WRITES_MAX, call.WRITE_RETRY_MAX_MS) == (
        1000,
        5000,
        256,
        300_000,
    )
