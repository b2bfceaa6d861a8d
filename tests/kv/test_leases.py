"""Keys with a time to live: in cluster time, renewed without noise, and never killed by an expiry of another life."""

from __future__ import annotations

import pytest
from kv_driver import Driver

from danube_raft.kv.leases import Leases


@pytest.fixture
def store() -> Driver:
    return Driver()


def _due(store: Driver) -> tuple[tuple[int, int], ...]:
    return tuple(store.machine.leases.due(store.now, 1_000))


def test_a_key_goes_at_its_deadline_and_not_before(store: Driver) -> None:
    store.do("put_with_ttl", "/t", b"1", 100)
    store.now += 99
    assert _due(store) == ()
    assert store.do("expire", ((1, 0),)) == (0,)
    assert store.value("/t") == b"1"
    store.now += 1
    assert _due(store) == ((1, 0),)
    store.watch("w", "/t")
    assert store.do("expire", _due(store)) == (1,)
    assert store.value("/t") is None
    assert [(k, r[0]) for k, r, _ in store.events()["w"]] == [(1, "/t")]
    assert store.machine.leases.next_deadline() is None


def test_a_repeat_with_the_same_value_only_renews(store: Driver) -> None:
    first = store.result("put_with_ttl", "/t", b"1", 100)
    store.watch("w", "/t")
    store.now += 60
    assert first == (0, 2, (2, 1, None, False))
    assert store.result("put_with_ttl", "/t", b"1", 200) == (0, 2, (2, 1, None, True))
    assert store.events() == {}
    assert store.machine.leases.next_deadline() == 1_060 + 200
    assert store.machine.leases.get(1).ttl_ms == 200  # type: ignore[union-attr]


def test_another_value_is_an_ordinary_put_that_renews_too(store: Driver) -> None:
    store.do("put_with_ttl", "/t", b"1", 100)
    store.now += 60
    assert store.do("put_with_ttl", "/t", b"2", 100) == (3, 2, None, False)
    assert store.machine.leases.next_deadline() == 1_160
    assert len(store.machine.leases) == 1


def test_the_same_value_on_a_key_without_a_lease_is_an_ordinary_put(store: Driver) -> None:
    store.do("put", "/t", b"1")
    assert store.do("put_with_ttl", "/t", b"1", 100) == (3, 2, None, False)


@pytest.mark.parametrize("write", ["put", "cas", "delete", "delete_prefix"])
def test_other_writes_clear_the_ttl(store: Driver, write: str) -> None:
    """Pitfall 43: the seed's index of TTLs was not cleared, and a later life of the key was killed."""
    store.do("put_with_ttl", "/t", b"1", 100)
    if write == "put":
        store.do("put", "/t", b"1")
    elif write == "cas":
        store.do("compare_and_swap", "/t", b"1", b"2")
    else:
        store.do(write, "/t")
        store.do("put", "/t", b"1")
    old = ((1, 0),)
    store.now += 1_000
    assert _due(store) == ()
    assert store.do("expire", old) == (0,)
    assert store.value("/t") is not None
    assert store.read("get", "/t")[0][5] == 0
    assert len(store.machine.leases) == 0
    store.check_equal()


def test_a_swap_with_a_ttl_holds_a_lease(store: Driver) -> None:
    store.do("compare_and_swap", "/t", None, b"1", 100)
    store.do("compare_and_swap", "/t", b"1", b"2", 300)
    assert len(store.machine.leases) == 1
    store.now += 299
    assert store.expire() == 0
    store.now += 1
    assert store.expire() == 1
    assert store.value("/t") is None


def test_a_renewed_key_is_not_killed_by_an_older_expire(store: Driver) -> None:
    """Pitfall 43: the renewal was committed first, so it wins."""
    store.do("put_with_ttl", "/t", b"1", 100)
    store.now += 100
    proposed = _due(store)
    assert store.do("put_with_ttl", "/t", b"1", 1)[3] is True
    store.now += 50
    assert store.do("expire", proposed) == (0,)
    assert store.value("/t") == b"1"
    assert store.expire() == 1


def test_an_expire_from_an_earlier_life_of_the_key_does_nothing(store: Driver) -> None:
    store.do("put_with_ttl", "/t", b"1", 100)
    store.now += 100
    proposed = _due(store)
    store.do("delete", "/t")
    store.do("put_with_ttl", "/t", b"1", 1)
    store.now += 50
    assert store.do("expire", proposed) == (0,)
    assert store.value("/t") == b"1"


def test_an_expire_proposed_twice_deletes_once(store: Driver) -> None:
    store.do("put_with_ttl", "/t", b"1", 100)
    store.watch("w", "")
    store.now += 100
    proposed = _due(store)
    assert [store.do("expire", proposed), store.do("expire", proposed)] == [(1,), (0,)]
    assert len(store.events()["w"]) == 1


def test_the_entry_of_a_slow_leader_expires_nothing_early(store: Driver) -> None:
    """Pitfall 43: the proposer may have counted a stall; what counts is the stamp of the entry."""
    store.do("put_with_ttl", "/t", b"1", 100)
    store.now += 50
    assert store.do("expire", ((1, 0),)) == (0,)
    assert store.value("/t") == b"1"


def test_a_new_leader_gives_no_lease_its_time_back(store: Driver) -> None:
    """Pitfall 43: a term opens with a no-op, and with elections often enough nothing would ever expire."""
    store.do("put_with_ttl", "/t", b"1", 100)
    store.tick(60)
    store.now += 40
    assert _due(store) == ((1, 0),)
    assert store.expire() == 1


def test_each_expired_lease_takes_a_revision(store: Driver) -> None:
    for n in range(3):
        store.do("put_with_ttl", f"/t{n}", b"1", 100)
    store.now += 100
    assert store.result("expire", _due(store)) == (0, 7, (3,))


def test_due_is_bounded_and_names_the_longest_due_first(store: Driver) -> None:
    for n in range(5):
        store.do("put_with_ttl", f"/t{n}", b"1", 100 - n)
    assert store.machine.leases.due(10_000, 2) == [(5, 0), (4, 0)]
    assert store.machine.leases.due(10_000, 9) == [(5, 0), (4, 0), (3, 0), (2, 0), (1, 0)]
    assert store.machine.leases.next_deadline() == 1_096


def test_a_lease_that_was_moved_to_and_fro_is_due_once(store: Driver) -> None:
    """Named twice, it would take the place of another in an Expire."""
    for ttl_ms in (100, 50, 100):
        store.do("put_with_ttl", "/t", b"1", ttl_ms)
    store.now += 60
    assert _due(store) == ()
    store.now += 140
    assert _due(store) == ((1, 2),)
    assert _due(store) == ((1, 2),)


def test_the_index_stays_as_small_as_the_leases() -> None:
    """Renewals and ended leases must not fill the heap."""
    leases = Leases()
    kept = leases.hold("/kept", 0, 10**9, 0)
    for n in range(10_000):
        ended = leases.hold("/ended", 0, 10**9, n)
        leases.detach(ended, "/ended")
        assert leases.hold("/kept", kept, 10**8 - 3 * n, n) == kept
    assert len(leases._heap) < 2_000
    assert leases.next_deadline() == leases.get(kept).deadline_ms  # type: ignore[union-attr]
    assert len(leases) == 1


def test_all_keys_of_a_lease_go_in_one_revision_in_the_order_of_their_names(store: Driver) -> None:
    """Whatever order they were attached in, as leases that are granted by themselves will allow."""
    store.do("put_with_ttl", "/b", b"1", 100)
    store.do("put", "/a", b"1")
    for machine in (store.machine, store.twin):
        lease = machine.leases.get(1)
        assert lease is not None
        lease.private = False
        lease.keys["/a"] = None
    store.watch("w", "")
    store.now += 100
    assert store.do("expire", _due(store)) == (1,)
    assert [(r[0], r[3]) for _, r, _ in store.events()["w"]] == [("/a", 4), ("/b", 4)]
    store.check_equal()
