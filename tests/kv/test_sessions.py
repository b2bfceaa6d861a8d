"""A write happens once for each (client id, serial), and what is remembered for that is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from kv_driver import Driver, code, request

from danube_raft.errors import Overloaded, StaleSerial
from danube_raft.kv import limits


@pytest.fixture
def store() -> Driver:
    return Driver()


def _put(store: Driver, serial: int, low_water: int | None = None, client_id: int = 1) -> Any:
    return store.result("put", "/a", b"x", client_id=client_id, serial=serial, low_water=low_water)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("put", ("/a", b"1", True)), ("put_with_ttl", ("/a", b"1", 50)), ("delete", ("/a", True)),
        ("delete_prefix", ("/a",)), ("compare_and_swap", ("/a", b"0", b"1")), ("allocate_id", ("c",)),
        ("compact", (99,)), ("get", ("/a",)),
    ],
)  # fmt: skip
def test_a_retry_gets_the_first_result_and_changes_nothing(
    store: Driver, op: str, args: tuple[Any, ...]
) -> None:
    """Pitfall 40: the answer was lost, the client asked another node."""
    store.do("put", "/a", b"0")
    first = store.result(op, *args, client_id=5, serial=9, low_water=9)
    store.do("put", "/b", b"0")
    revision = store.machine.revision
    assert store.result(op, *args, client_id=5, serial=9, low_water=9) == first
    assert store.machine.revision == revision
    store.check_equal()


def test_a_retry_in_the_same_batch_is_found_too(store: Driver) -> None:
    put = request("put", "/a", b"x", client_id=1, serial=1, low_water=1)
    assert store.batch([put, put]) == [(0, 2, (2, 1, None))] * 2


def test_serials_may_come_in_any_order(store: Driver) -> None:
    assert _put(store, 3, 1)[1] == 2
    assert _put(store, 1, 1)[1] == 3
    assert _put(store, 3, 1)[1] == 2
    assert _put(store, 2, 1)[1] == 4


def test_what_is_below_the_low_water_is_forgotten_and_refused(store: Driver) -> None:
    for serial in range(1, 6):
        _put(store, serial, 1)
    _put(store, 6, 5)
    session = store.machine.sessions.by_client[1]
    assert list(session.results) == [5, 6]
    assert _put(store, 4, 1)[0] == code(StaleSerial)
    assert store.read("get", "/a")[0][4] == 6


def test_without_a_low_water_each_serial_gives_up_the_ones_before(store: Driver) -> None:
    for serial in range(1, 1_000):
        assert _put(store, serial)[0] == 0
    assert len(store.machine.sessions.by_client[1].results) == 1
    assert _put(store, 999)[1] == 1_000
    assert _put(store, 998)[0] == code(StaleSerial)


def test_no_result_is_dropped_that_may_still_be_asked_for(store: Driver) -> None:
    """Dropping the oldest would answer StaleSerial, which says not applied, to a write that was applied."""
    for serial in range(1, limits.MAX_SESSION_SERIALS + 1):
        _put(store, serial, 1)
    revision = store.machine.revision
    assert _put(store, 500, 1)[0] == code(Overloaded)
    assert store.machine.revision == revision
    assert _put(store, 1, 1)[:2] == (0, 2)
    assert _put(store, 500, 2)[0] == 0


def test_an_idle_session_is_dropped_by_cluster_time(store: Driver) -> None:
    _put(store, 1, client_id=1)
    store.now += 1_000
    _put(store, 1, client_id=2)
    store.now += limits.SESSION_IDLE_MS - 1_000
    store.tick(0)
    assert list(store.machine.sessions.by_client) == [2]
    _put(store, 2, client_id=2)
    store.now += limits.SESSION_IDLE_MS - 1
    store.tick(0)
    assert len(store.machine.sessions) == 1
    store.tick(1)
    assert len(store.machine.sessions) == 0
    store.check_equal()


def test_above_the_limit_the_session_that_wrote_longest_ago_goes(
    store: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_SESSIONS", 3)
    for client_id in (1, 2, 3):
        store.now += 1
        _put(store, 1, client_id=client_id)
    store.now += 1
    _put(store, 2, client_id=1)
    _put(store, 1, client_id=4)
    assert list(store.machine.sessions.by_client) == [3, 1, 4]
    store.check_equal()


def test_a_large_result_is_kept_without_its_record(store: Driver) -> None:
    store.do("put", "/a", b"x" * limits.MAX_KEPT_RESULT_BYTES)
    first = store.result("delete", "/a", True, client_id=1, serial=1, low_water=1)
    assert len(first[2][1][1]) == limits.MAX_KEPT_RESULT_BYTES
    again = store.result("delete", "/a", True, client_id=1, serial=1, low_water=1)
    assert again == (0, 3, (1, None))
    assert store.machine.sessions.kept_bytes == 0


def test_kept_records_count_for_the_size_of_the_state_until_they_are_forgotten(store: Driver) -> None:
    store.do("put", "/a", b"x" * 1_000)
    for serial in (1, 2, 3):
        store.result("put", "/a", b"x" * 1_000, True, client_id=1, serial=serial, low_water=1)
    kept = store.machine.sessions.kept_bytes
    assert kept > 3_000
    assert store.machine.state_bytes == store.machine.history.state_bytes + kept
    _put(store, 4, 3)
    assert store.machine.sessions.kept_bytes == kept // 3
    _put(store, 50, 50)
    assert store.machine.sessions.kept_bytes == 0
    store.result("put", "/a", b"x", True, client_id=1, serial=51, low_water=51)
    store.tick(limits.SESSION_IDLE_MS)
    assert store.machine.sessions.kept_bytes == 0


def test_requests_without_a_session_apply_each_time(store: Driver) -> None:
    assert [store.do("put", "/a", b"x")[1] for _ in range(2)] == [1, 2]
    assert len(store.machine.sessions) == 0


def test_a_low_water_that_jumps_keeps_what_is_at_it(store: Driver) -> None:
    for serial in (1, 2, 900):
        _put(store, serial, 1)
    _put(store, 901, 900)
    assert list(store.machine.sessions.by_client[1].results) == [900, 901]
    _put(store, 2_000, 901)
    _put(store, 2_001, 2_000)
    assert list(store.machine.sessions.by_client[1].results) == [2_000, 2_001]
