"""A restored backup: what the old cluster told anybody is never mistaken for what the new one says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kv_driver import Driver, dump, request
from kv_replica import entries

from danube_raft.errors import Compacted, InvalidArgument
from danube_raft.kv.leases import Leases
from danube_raft.kv.machine import Machine
from danube_raft.kv.record import KEY, LEASE, MOD_REVISION, VALUE, VERSION
from danube_raft.kv.relocation import STEP, relocate
from danube_raft.kv.restorer import restore
from danube_raft.kv.snapshot import encode
from danube_raft.wire.arguments import COUNTERS, MAX_INTEGER
from danube_raft.wire.entry import KIND_BATCH, Entry

NEW = b"the new configuration"


def copied(machine: Machine) -> Machine:
    return restore(encode(machine))


def moved(driver: Driver) -> Driver:
    """The same, in a new cluster; both replicas of it."""
    there = Driver()
    there.machine = relocate(copied(driver.machine), NEW)
    there.twin = copied(there.machine)
    there.watches.attach(there.machine.history)
    there.now = driver.now
    return there


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 200))
def test_any_state_moves_and_is_a_state_again(seed: int, count: int) -> None:
    """The reader of snapshots proves all that the commands rely on; and nothing is lost but the past and the nodes."""
    machine = Machine()
    for entry in entries(seed, count):
        machine.apply(entry)
    before = copied(machine)
    after = relocate(machine, NEW)
    assert dump(copied(after)) == dump(after)
    assert after.revision == after.history.compaction_revision == before.revision + STEP
    assert (after.applied_index, after.applied_term) == (before.applied_index, before.applied_term)
    assert after.configuration == NEW
    assert after.origins == {}
    assert list(after.history.records) == sorted(before.history.records)
    for key, record in before.history.records.items():
        there = after.history.records[key]
        if not key.startswith(COUNTERS):
            assert there == record
            continue
        assert there[VALUE] is not None
        assert record[VALUE] is not None
        assert int(there[VALUE]) == int(record[VALUE]) + STEP
        assert (there[MOD_REVISION], there[VERSION]) == (after.revision, record[VERSION] + 1)
    assert dump(after)["leases"] == dump(before)["leases"]
    assert dump(after)["sessions"] == dump(before)["sessions"]
    assert after.leases.next_id == before.leases.next_id + STEP


@pytest.mark.parametrize("seed", range(20, 26))
def test_no_revision_and_no_id_of_the_old_cluster_is_given_out_again(seed: int) -> None:
    """The old cluster goes on after the backup, and its clients remember."""
    old = Machine()
    stream = list(entries(seed, 300))
    for entry in stream[:150]:
        old.apply(entry)
    there = Driver()
    there.machine = relocate(copied(old), NEW)
    there.twin = copied(there.machine)
    for entry in stream[150:]:
        old.apply(entry)
    first_id = there.do("allocate_id", "ids")[0]
    counter = old.history.records[COUNTERS + "ids"][VALUE]
    assert counter is not None
    assert first_id > int(counter)
    revision, _ = there.do("put", "/a/1", b"")[:2]
    assert revision > old.revision
    there.do("put_with_ttl", "/new", b"", 10)
    assert there.machine.history.records["/new"][LEASE] >= old.leases.next_id
    there.check_equal()


def test_whoever_goes_on_from_the_old_cluster_is_told_that_its_past_is_gone() -> None:
    driver = Driver()
    for number in range(5):
        driver.do("put", "/a", b"%d" % number)
    there = moved(driver)
    last = driver.machine.revision
    for revision in (1, last, last + 1, last + STEP - 1):
        with pytest.raises(Compacted):
            there.read("get", "/a", revision)
    for start in (2, last, last + 1, last + STEP):
        with pytest.raises(Compacted):
            there.watch(start, "/a", start)
    there.watch("new", "/a", last + STEP + 1)
    there.do("put", "/a", b"new")
    assert [event[1][MOD_REVISION] for event in there.events()["new"]] == [last + STEP + 1]


def test_what_was_read_before_the_backup_still_compares_equal_and_what_came_later_does_not() -> None:
    driver = Driver()
    known = driver.do("put", "/a", b"1")[0]
    there = moved(driver)
    lost = driver.do("put", "/a", b"2")[0]
    assert there.do("compare_and_swap", "/a", lost, b"3")[0] is False
    assert there.do("compare_and_swap", "/a", known, b"3")[0] is True


def test_a_write_that_is_repeated_happens_once_in_the_restored_store() -> None:
    driver = Driver()
    header = {"client_id": 5, "low_water": 1}
    counted = request("allocate_id", "n", 3, serial=1, **header)
    first = driver.batch([counted])
    there = moved(driver)
    later = request("put", "/late", b"", serial=2, **header)
    driver.batch([later])
    assert there.batch([counted]) == first
    assert there.value("/late") is None
    again = there.batch([later])
    assert again is not None
    assert again[0][0] == 0
    assert there.value("/late") == b""
    assert there.do("allocate_id", "n")[0] == 3 + STEP + 1
    there.check_equal()


def test_a_lease_has_the_time_that_it_had_left() -> None:
    driver = Driver()
    driver.do("put_with_ttl", "/a", b"", 1_000)
    driver.tick(600)
    there = moved(driver)
    there.now += 399
    assert there.expire() == 0
    there.now += 1
    assert there.expire() == 1
    assert there.value("/a") is None
    there.check_equal()


def test_batches_of_the_old_nodes_mean_nothing_any_more() -> None:
    """Its node ids are the new cluster's to give out, however unlikely."""
    driver = Driver()
    driver.do("put", "/a", b"1")
    there = moved(driver)
    origin = (7, 1, 1)
    assert there.batch([request("put", "/b", b"")], origin) is not None


def test_a_counter_that_has_no_ids_left_hands_out_none() -> None:
    driver = Driver()
    for _ in range(2):
        driver.do("allocate_id", "n", 1_000_000)
    key = COUNTERS + "n"
    for machine in (driver.machine, driver.twin):
        record = machine.history.records[key]
        full = b"%d" % (MAX_INTEGER - 5)
        machine.history.put(record, (key, full, *record[2:3], machine.revision + 1, 3, *record[5:]))
    there = moved(driver)
    assert there.value(key) == b"%d" % MAX_INTEGER
    with pytest.raises(InvalidArgument, match="no ids left"):
        there.do("allocate_id", "n")


def test_a_store_whose_revisions_are_used_up_does_not_move() -> None:
    machine = Machine()
    machine.leases = Leases.restore(MAX_INTEGER - STEP - 1, [])
    with pytest.raises(InvalidArgument, match="too often"):
        relocate(machine, NEW)


def test_the_new_cluster_goes_on_behind_the_last_entry() -> None:
    machine = Machine()
    for entry in entries(20, 10):
        machine.apply(entry)
    after = relocate(copied(machine), NEW)
    assert after.apply(Entry(11, 2, KIND_BATCH, machine.cluster_ms, 1, (1, 1, 1), b"")) == []
    assert all(record[KEY] == key for key, record in after.history.records.items())
