"""The mark of a state that is wrong: it outlives the process, on a disk and in its twin, and is no snapshot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from danube_raft.errors import DiskFailed
from danube_raft.storage.entry_format import ZERO_CHAIN
from danube_raft.storage.memory_snapshots import COMMIT, MemoryFolder, MemorySnapshots
from danube_raft.storage.snapshot_store import Odd
from danube_raft.storage.snapshots import Snapshots

CLUSTER = 7
ODD = Odd(9, "at index 9 it is not what a majority has")
Boot = Callable[[], Snapshots]


@pytest.fixture(params=["disk", "memory"])
def boot(request: pytest.FixtureRequest, tmp_path: Path) -> Boot:
    """A new process on the same place."""
    folder = MemoryFolder()

    def made() -> Snapshots:
        on_disk = Snapshots(tmp_path / "snapshots", CLUSTER)
        store = on_disk if request.param == "disk" else MemorySnapshots(folder, CLUSTER)
        store.open()
        return store

    return made


def add(store: Snapshots, index: int) -> None:
    writer = store.writer(index, 1, ZERO_CHAIN)
    writer.write(b"state")
    writer.commit()


def held(store: Snapshots) -> list[int]:
    found = store.newest()
    assert found.skipped == [], "the mark is no snapshot that cannot be read"
    return [meta.index for meta in found.candidates]


def test_it_stays_until_it_is_cleared(boot: Boot) -> None:
    assert boot().odd() is None
    boot().mark_odd(ODD)
    assert boot().odd() == ODD
    boot().mark_odd(Odd(10, "again"))
    assert boot().odd() == Odd(10, "again")
    boot().clear_odd()
    assert boot().odd() is None
    boot().clear_odd()


def test_one_snapshot_is_kept_and_the_mark_beside_it(boot: Boot) -> None:
    store = boot()
    for index in (3, 5, 8):
        add(store, index)
    store.mark_odd(ODD)
    store.keep_only(store.newest().candidates[1])
    assert held(boot()) == [5]
    assert boot().odd() == ODD


def test_the_mark_survives_what_tidies_up_snapshots(boot: Boot) -> None:
    store = boot()
    for index in (3, 5):
        add(store, index)
    store.mark_odd(ODD)
    store.delete_before(store.newest().candidates[0])
    assert held(store) == [5]
    assert boot().odd() == ODD


@pytest.mark.parametrize("content", [b"", b"x", b"\x93\x01\x02", b"\x93\x02\x09\xa1r", b"\x93\x01\xa1x\xa1r"])
def test_a_damaged_mark_is_one_all_the_same(tmp_path: Path, content: bytes) -> None:
    store = Snapshots(tmp_path, CLUSTER)
    (tmp_path / "odd").write_bytes(content)
    odd = store.odd()
    assert odd is not None
    assert odd.index == 0
    assert "damaged" in odd.reason


def test_a_disk_that_refuses_the_mark_says_so() -> None:
    folder = MemoryFolder()
    folder.fail_next(COMMIT)
    with pytest.raises(DiskFailed):
        MemorySnapshots(folder, CLUSTER).mark_odd(ODD)
    assert MemorySnapshots(folder, CLUSTER).odd() is None
