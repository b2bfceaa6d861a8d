"""Snapshots of the state: the same bytes on every replica, an equal machine out of them, and nothing out of others.

States come from random command streams over every command, session and lease. What is damaged is in
`test_snapshot_damage.py`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kv_driver import CREDIT, Driver, dump, request
from kv_replica import entries
from kv_snapshots import grown, whole

from danube_raft.errors import Rejected
from danube_raft.kv import snapshot
from danube_raft.kv.leases import Leases
from danube_raft.kv.machine import Machine
from danube_raft.kv.record import KEY
from danube_raft.kv.restorer import restore
from danube_raft.kv.snapshot import (
    encode,
)
from danube_raft.sim.digest import digest
from danube_raft.wire.entry import KIND_BATCH, KIND_CONFIGURATION, NO_ORIGIN, Entry

ROOT = Path(__file__).parent.parent.parent
SEEDS = range(20, 32)


# ---------------------------------------------------------------- the same state, the same bytes


@pytest.mark.parametrize("seed", SEEDS)
def test_a_machine_that_is_restored_again_and_again_stays_equal_to_one_that_never_was(seed: int) -> None:
    """Results, state and bytes, at every few entries of the stream; pitfall 29."""
    machine, other = Machine(), Machine()
    rng = random.Random(seed)
    for entry in entries(seed, 300):
        assert other.apply(entry) == machine.apply(entry)
        if rng.random() < 0.1:
            data = whole(machine)
            assert whole(other) == data
            other = restore([data])
            assert digest(other) == digest(machine)
            assert dump(other) == dump(machine)
            assert other.state_bytes == machine.state_bytes
    assert whole(other) == whole(machine)


def test_the_bytes_do_not_depend_on_hash_seeds_or_on_who_made_the_batches() -> None:
    program = (
        "import sys, hashlib; from kv_replica import replica; from danube_raft.kv.snapshot import encode\n"
        "data = b''.join(encode(replica(sys.argv[1] == 'origin')[0])); print(hashlib.sha256(data).hexdigest())"
    )
    support = ROOT / "tests" / "support"
    said = {
        subprocess.run(
            [sys.executable, "-c", program, role],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}{os.pathsep}{support}"},
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        ).stdout
        for role, hash_seed in (("origin", "0"), ("other", "1"), ("other", "4711"))
    }
    assert len(said) == 1
    assert len(said.pop()) == 65


def test_orders_that_decide_nothing_are_not_in_the_bytes() -> None:
    machine, other = grown(), grown()
    other.origins = dict(reversed(other.origins.items()))
    other.history.records = dict(reversed(other.history.records.items()))
    other.history.chains = dict(reversed(other.history.chains.items()))
    for session in other.sessions.by_client.values():
        session.results = dict(reversed(session.results.items()))
    assert whole(other) == whole(machine)
    assert digest(other) == digest(machine)


def test_the_order_of_sessions_is_in_the_bytes_because_the_oldest_goes_first() -> None:
    machine = grown()
    before = list(machine.sessions.by_client)
    again = restore(encode(machine))
    assert list(again.sessions.by_client) == before
    assert before != sorted(before)


def test_an_index_is_not_state() -> None:
    """Pitfall 41: the heap and the deadline at which it has a lease differ between a node that asked and the others."""
    driver = Driver()
    driver.do("put_with_ttl", "/a", b"1", 10)
    driver.do("put_with_ttl", "/a", b"1", 500)
    driver.machine.leases.due(driver.now + 50, 5)
    assert driver.machine.leases.all()[0].indexed_ms != driver.twin.leases.all()[0].indexed_ms
    assert whole(driver.machine) == whole(driver.twin)


def test_the_machine_may_go_on_while_its_chunks_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 200)
    monkeypatch.setattr(snapshot, "BLOCK_ITEMS", 5)
    stream = list(entries(23, 300))
    machine = Machine()
    for entry in stream[:200]:
        machine.apply(entry)
    expected = whole(machine)
    chunks = encode(machine)
    taken = [next(chunks)]
    for entry in stream[200:]:
        machine.apply(entry)
    taken += chunks
    assert len(taken) > 10
    assert b"".join(taken) == expected


# ---------------------------------------------------------------- an equal machine


def test_an_event_and_the_present_record_are_one_object_and_a_key_is_one_string() -> None:
    """What else: a store that takes twice its memory after every restart."""
    machine = restore(encode(grown()))
    history = machine.history
    names: dict[str, int] = {}
    held = [*history.records, *history.chains, *(r[KEY] for r in history.records.values())]
    held += [event[KEY] for event in history.events]
    held += [version[KEY] for chain in history.chains.values() for version in chain]
    held += [key for lease in machine.leases.all() for key in lease.keys]
    assert all(names.setdefault(key, id(key)) == id(key) for key in held)
    present = {key: id(record) for key, record in history.records.items()}
    versions = {id(version) for chain in history.chains.values() for version in chain}
    assert any(id(event) in present.values() for event in history.events)
    assert all(present.get(event[KEY]) == id(event) or id(event) in versions for event in history.events)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_restored_machine_will_do_is_what_the_other_will(seed: int) -> None:
    """Reads of the past, expiry in its order, watches over all kept events, dropped sessions."""
    driver = Driver()
    for entry in entries(seed, 150):
        driver.machine.apply(entry)
    driver.twin = restore(encode(driver.machine))
    history, other = driver.machine.history, driver.twin.history
    for revision in range(max(1, history.compaction_revision), history.revision + 1):
        for key in history.past_keys("", None):
            assert other.at(key, revision) == history.at(key, revision)
    for event in history.events:
        assert other.previous(event) == history.previous(event)
    assert list(other.past_keys("", None)) == list(history.past_keys("", None))
    assert other.count("/a", "/b") == history.count("/a", "/b")
    driver.now = driver.machine.cluster_ms
    for _ in range(8):
        driver.now += 40
        assert driver.twin.leases.next_deadline() == driver.machine.leases.next_deadline()
        assert driver.twin.leases.due(driver.now, 5) == driver.machine.leases.due(driver.now, 5)
        driver.expire()
        driver.result("put_with_ttl", "/a/1", b"", 30, client_id=3, serial=1000)
    driver.tick(3_600_000)
    assert len(driver.machine.sessions) == len(driver.twin.sessions) == 0
    driver.result("compact", driver.machine.revision)
    driver.check_equal()
    assert whole(driver.twin) == whole(driver.machine)


def test_a_retried_write_finds_its_first_result_in_the_snapshot() -> None:
    driver = Driver()
    driver.do("put", "/big", b"x" * 70_000)
    header: dict[str, Any] = {"client_id": 5, "low_water": 1}
    commands = [
        request("put", "/a", b"1", client_id=5, serial=1, low_water=1),
        request("put", "/a", b"2", True, serial=2, **header),
        request("put", "/big", b"3", True, serial=3, **header),
        request("compact", 900, serial=4, **header),
        request("allocate_id", "n", 5, serial=5, **header),
    ]
    first = driver.batch(commands)
    assert first is not None
    assert [result[0] for result in first] == [0, 0, 0, 8, 0]
    driver.machine, driver.twin = restore(encode(driver.twin)), restore(encode(driver.machine))
    again = driver.batch(commands)
    assert again is not None
    big = (first[2][0], first[2][1], (*first[2][2][:2], None))
    assert again == [*first[:2], big, *first[3:]]
    driver.check_equal()


def test_an_empty_store_and_one_that_is_compacted_to_its_end_are_restored() -> None:
    driver = Driver()
    assert dump(restore(encode(driver.machine))) == dump(driver.machine)
    driver.do("put", "/a", b"1")
    driver.do("delete", "/a")
    driver.do("compact", driver.machine.revision)
    assert driver.machine.history.events == []
    again = restore(encode(driver.machine))
    assert dump(again) == dump(driver.machine)


def test_configuration_time_and_index_are_in_it() -> None:
    machine = Machine()
    machine.apply(Entry(1, 3, KIND_CONFIGURATION, 77, 5, NO_ORIGIN, b"configuration"))
    machine.apply(Entry(2, 4, KIND_BATCH, 99, 5, (9, 2, 6), b""))
    again = restore(encode(machine))
    assert (again.applied_index, again.applied_term, again.cluster_ms) == (2, 4, 99)
    assert again.configuration == b"configuration"
    assert again.origins == {9: (2, 6)}
    assert again.apply(Entry(3, 4, KIND_BATCH, 99, 5, (9, 2, 6), b"")) is None


def test_large_values_and_many_keys_make_many_chunks_which_may_be_cut_anywhere() -> None:
    driver = Driver()
    for number in range(9_000):
        driver.do("put", f"/k/{number:05}", b"")
    for number in range(6):
        driver.do("put", f"/v/{number}", bytes([number]) * 1_500_000)
    chunks = list(encode(driver.machine))
    assert all(256 << 10 < len(chunk) < 2 << 20 for chunk in chunks[:-1])
    assert len(chunks) > 6
    data = b"".join(chunks)
    for size in (17, 4_099, 5 << 20):
        if size == 17:
            # Byte for byte would be slow for all of it: the first pieces are enough.
            pieces = [data[start : start + size] for start in range(0, 170_000, size)] + [data[170_000:]]
        else:
            pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert digest(restore(pieces)) == digest(driver.machine)


def test_watches_go_on_over_a_restored_history() -> None:
    driver = Driver()
    driver.do("put", "/a", b"1")
    driver.do("put", "/a", b"2")
    driver.machine = restore(encode(driver.machine))
    driver.watches.attach(driver.machine.history)
    assert driver.watch("w", "/a", 2, prev=True) == 2
    driver.watches.credit("w", CREDIT, CREDIT)
    driver.do("delete", "/a")
    assert [event[1][3] for event in driver.events()["w"]] == [2, 3, 4]


def test_an_entry_that_is_refused_is_refused_alike_after_a_restore() -> None:
    driver = Driver()
    driver.machine.leases = Leases.restore(1 << 40, [])
    driver.twin = restore(encode(driver.machine))
    assert driver.do("put_with_ttl", "/a", b"", 5)[0] == 2
    assert driver.twin.leases.all()[0].id == 1 << 40
    with pytest.raises(Rejected):
        driver.do("compact", 99)
    driver.check_equal()
