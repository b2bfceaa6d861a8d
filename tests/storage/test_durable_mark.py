"""The mark on disk: two slots, one synced write each, and whatever happens to one of them the other one counts.

A mark that a torn write could take away would make sound nodes SUSPECT after a power failure; one that is not synced, or
that lies about its seq, would let a node that forgot its vote vote again.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from zlib import crc32

import pytest
from disk_calls import Calls

from danube_raft.errors import DiskFailed, DiskFull, NewerFormat
from danube_raft.storage.durable_mark import (
    REASON_MAX_BYTES,
    SLOT_BYTES,
    SLOT_PLACES,
    Mark,
    MarkFile,
    MarkSlots,
    decode,
    encode,
)
from danube_raft.storage.mark_keeper import newest
from danube_raft.storage.memory_log import AFTER, BEFORE, NEVER
from danube_raft.storage.memory_mark import MemoryMark
from danube_raft.storage.recovery import Point
from danube_raft.wire.entry import HardState

MARK = Mark(Point(9, 3, bytes(range(16))), HardState(4, 2), "the log ends with entry 7")


def slots(*seqs: int) -> tuple[bytes, bytes]:
    one, other = (encode(seq, Mark(Point(seq, 1, bytes(16)))) for seq in seqs)
    return one, other


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MarkSlots:
    """Where there is nothing yet."""
    if request.param == "file":
        return MarkFile(tmp_path / "mark")
    twin = MemoryMark()
    twin.lose()
    return twin


def test_the_bytes_of_a_slot() -> None:
    """A format that changed by accident would make every node SUSPECT at its next start."""
    slot = encode(5, MARK)
    assert len(slot) == SLOT_BYTES
    numbers = (
        "01",
        f"{5:016x}",
        f"{9:016x}",
        f"{3:016x}",
        bytes(range(16)).hex(),
        f"{4:016x}",
        f"{2:016x}",
        f"{len(MARK.suspect):04x}",
    )
    assert slot[:59].hex() == "".join(numbers)
    assert slot[59 : 59 + len(MARK.suspect)] == MARK.suspect.encode()
    assert decode(slot) == (5, MARK)


@pytest.mark.parametrize("reason", ["", "é" * REASON_MAX_BYTES])
def test_a_reason_is_cut_where_it_is_too_long(reason: str) -> None:
    found = decode(encode(1, MARK._replace(suspect=reason)))
    assert found is not None
    assert found[1].suspect == reason[: REASON_MAX_BYTES // 2]


def test_every_damaged_byte_is_noticed() -> None:
    slot = encode(5, MARK)
    for place in range(SLOT_BYTES):
        assert decode(slot[:place] + bytes([slot[place] ^ 4]) + slot[place + 1 :]) is None
        assert decode(slot[:place]) is None
    assert decode(bytes(SLOT_BYTES)) is None
    assert decode(b"\0" * (SLOT_BYTES - 4) + crc32(bytes(SLOT_BYTES - 4)).to_bytes(4, "big")) is None


def test_a_newer_format_is_refused_and_no_damage() -> None:
    body = b"\x02" + encode(5, MARK)[1:-4]
    with pytest.raises(NewerFormat):
        decode(body + crc32(body).to_bytes(4, "big"))


def test_what_is_written_is_read_again(store: MarkSlots) -> None:
    assert store.read() is None
    one, other = slots(1, 0)
    store.create((one, other))
    assert store.read() == (one, other)
    third = slots(2, 2)[0]
    store.write(1, third)
    assert store.read() == (one, third)
    store.create((other, one))
    store.write(0, third)
    store.close()
    assert store.read() == (third, one)


def test_the_higher_seq_counts_and_a_damaged_slot_does_not() -> None:
    one, other = slots(7, 6)
    assert newest((one, other)) == (7, 0, Mark(Point(7, 1, bytes(16))))
    assert newest((other, one)) == (7, 1, Mark(Point(7, 1, bytes(16))))
    assert newest((one[:-1], other)) == (6, 1, Mark(Point(6, 1, bytes(16))))
    assert newest((b"", bytes(SLOT_BYTES))) is None


def test_a_write_is_one_pwrite_and_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost that a put may have to wait for; and without the sync a vote would not be safe."""
    file = MarkFile(tmp_path / "mark")
    file.create(slots(1, 0))
    file.write(1, slots(2, 2)[0])
    calls = Calls(monkeypatch)
    monkeypatch.setattr(os, "pwrite", calls._wrap("pwrite", os.pwrite, -1, None))
    file.write(0, slots(3, 3)[0])
    assert calls.made == ["pwrite", "fdatasync"]
    assert (tmp_path / "mark").stat().st_size == SLOT_PLACES[1] + SLOT_BYTES


def test_a_mark_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a mark after a crash would be taken for damage."""
    calls = Calls(monkeypatch)
    MarkFile(tmp_path / "mark").create(slots(1, 0))
    assert [name for name in calls.made if name in ("fsync", "replace")] == ["fsync", "replace", "fsync"]
    assert [path.name for path in tmp_path.iterdir()] == ["mark"]


def test_a_failed_sync_is_never_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one may say "fine" about a page that is gone."""
    file = MarkFile(tmp_path / "mark")
    file.create(slots(1, 0))
    with monkeypatch.context() as patch:
        calls = Calls(patch)
        patch.setattr(os, "fdatasync", calls._wrap("fdatasync", os.fdatasync, 1, OSError(5, "I/O error")))
        with pytest.raises(DiskFailed, match="I/O error"):
            file.write(1, slots(2, 2)[0])
    with pytest.raises(DiskFailed, match="failed before"):
        file.write(1, slots(2, 2)[0])


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, DiskFailed)])
def test_a_disk_without_room_is_told_apart_from_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[DiskFailed]
) -> None:
    """The node goes on read-only with the one, and gives the other one more chance."""
    file = MarkFile(tmp_path / "mark")
    file.create(slots(1, 0))
    calls = Calls(monkeypatch)
    failure = OSError(number, os.strerror(number))
    monkeypatch.setattr(os, "fdatasync", calls._wrap("fdatasync", os.fdatasync, 1, failure))
    with pytest.raises(DiskFailed) as failed:
        file.write(1, slots(2, 2)[0])
    assert type(failed.value) is kind


@pytest.mark.parametrize(("when", "left"), [(BEFORE, 1), (AFTER, 2)])
def test_a_failed_write_of_the_twin_may_have_taken_effect_and_ends_all_others(when: str, left: int) -> None:
    """As pwrite and then an error of the sync: whoever is told so knows nothing."""
    mark = MemoryMark()
    mark.create(slots(1, 0))
    mark.fail_next_write(when)
    for seq in (2, 3):
        with pytest.raises(DiskFailed):
            mark.write(1, slots(seq, seq)[0])
    assert mark.unsynced == left - 1, "nothing of it is safe"
    mark.close()
    held = mark.read()
    assert held is not None
    known = newest(held)
    assert known is not None
    assert known[0] == left
    mark.write(0, slots(9, 9)[0])
    mark.fail_next_write(when)
    mark.fail_next_write(NEVER)
    mark.write(1, slots(10, 10)[0])


def test_a_crash_of_the_twin_keeps_a_prefix_and_tears_at_most_one_slot() -> None:
    mark = MemoryMark()
    mark.create(slots(1, 0))
    two, three, four = (slots(seq, seq)[0] for seq in (2, 3, 4))
    for place, slot in ((1, two), (0, three), (1, four)):
        mark.write_unsynced(place, slot)
    assert mark.read() == (three, four)
    mark.crash(2, torn=True)
    assert mark.read() == (three, b"")
    assert newest((three, b"")) == (3, 0, Mark(Point(3, 1, bytes(16))))
    mark.write_unsynced(1, four)
    mark.crash()
    assert mark.read() == (three, b"")
