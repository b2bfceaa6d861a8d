"""`snapshot save`: a file that is whole and what was announced, or the one that was there before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from danube_raft_cli import saving
from fake_node import FakeNode
from saved_snapshots import saved

from danube_raft.client.operation import SavedMeta
from danube_raft.errors import Corrupt, DiskFailed, DiskFull, NoLeader, NoSpace, Rejected, Timeout
from danube_raft.storage.snapshot_file import glance

Run = Callable[..., Any]


class Store:
    """A node that makes a snapshot when it was asked `after` times, and then has it."""

    def __init__(self, file: Path, after: int = 1) -> None:
        meta = glance(file)
        self.data = file.read_bytes()
        self.found = SavedMeta(meta.index, meta.term, meta.size, meta.sha256)
        self.asked: list[Any] = []
        self.left = after
        self.replaced = 0
        """So many times, the first pieces are there and the rest is not."""
        self.piece_bytes = 1_000

    def get(self, key: str, consistency: str) -> None:
        """The read that comes first."""
        self.asked.append(("get", consistency))

    def snapshot_take(self, index: int = 0) -> tuple[int, SavedMeta | None]:
        """Not yet, or this one."""
        self.asked.append(("take", index))
        self.left -= 1
        return self.found.index, self.found if self.left < 0 else None

    def snapshot_piece(self, meta: SavedMeta, offset: int) -> bytes | None:
        """From the middle on it may be gone."""
        assert meta == self.found
        if offset and self.replaced:
            self.replaced -= 1
            return None
        return self.data[offset : offset + self.piece_bytes]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(saving, "ASK_AGAIN_S", 0)
    return Store(saved(tmp_path))


def test_what_arrives_is_saved_under_its_name_only(store: Any, tmp_path: Path) -> None:
    file = tmp_path / "out.snap"
    meta = saving.save(store, file, 1_000)
    assert file.read_bytes() == store.data
    assert meta == glance(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.snap", "out.snap"]
    assert file.stat().st_mode & 0o077 == 0, "it is all that the store knows"


def test_all_that_was_acknowledged_before_is_in_it(store: Any, tmp_path: Path) -> None:
    """A linearizable read comes first, and what is asked for again is the index that was named after it."""
    store.left = 2
    saving.save(store, tmp_path / "out", 1_000)
    index = store.found.index
    assert store.asked == [("get", "linearizable"), ("take", 0), ("take", index), ("take", index)]


@pytest.mark.parametrize("damage", ["flip", "short", "other"])
def test_what_is_not_what_was_announced_is_refused_and_the_old_file_stays(
    store: Any, tmp_path: Path, damage: str
) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"last week's")
    if damage == "flip":
        store.data = store.data[:300] + bytes((store.data[300] ^ 1,)) + store.data[301:]
    elif damage == "short":
        store.found = store.found._replace(size_bytes=store.found.size_bytes - 1)
        store.data = store.data[:-1]
    else:
        store.found = store.found._replace(sha256=b"x" * 32)
    with pytest.raises(Corrupt):
        saving.save(store, file, 1_000)
    assert file.read_bytes() == b"last week's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.snap", "out"]


def test_a_snapshot_that_is_replaced_meanwhile_is_fetched_anew(store: Any, tmp_path: Path) -> None:
    store.replaced = 2
    saving.save(store, tmp_path / "out", 1_000)
    assert (tmp_path / "out").read_bytes() == store.data
    store.replaced = 99
    with pytest.raises(Timeout, match="replaced"):
        saving.save(store, tmp_path / "other", 1_000)
    assert not (tmp_path / "other").exists()


def test_a_node_that_makes_none_is_not_waited_for_for_ever(store: Any, tmp_path: Path) -> None:
    store.left = 1 << 60
    with pytest.raises(Timeout, match="made no snapshot within 20 ms"):
        saving.save(store, tmp_path / "out", 20)


def test_a_place_that_cannot_be_written_is_said(store: Any, tmp_path: Path) -> None:
    with pytest.raises(DiskFailed, match="cannot write"):
        saving.save(store, tmp_path / "none" / "out", 1_000)


def test_no_node_is_asked_for_what_cannot_be_written_here(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "save", lambda *_: pytest.fail("asked"))
    done = run("snapshot", "save", str(tmp_path / "none" / "out"), "--endpoints", "127.0.0.1:1,127.0.0.1:2")
    assert done.code == DiskFailed.exit_code
    assert "cannot write" in done.err
    saving.check_place(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_goes_to_the_next_endpoint_and_says_what_it_has(
    run: Run, node: FakeNode, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        saving, "save", lambda opened, file, wait_ms: (opened.status(), saving_of(store, file))[1]
    )

    def saving_of(store: Any, file: Path) -> Any:
        file.write_bytes(store.data)
        return glance(file)

    endpoints = ("--endpoints", f"127.0.0.1:1,{node.endpoint}", "--timeout", "300ms")
    done = run("snapshot", "save", str(tmp_path / "out"), *endpoints, "-o", "json")
    assert (done.code, done.err) == (0, "")
    assert done.json["endpoint"] == node.endpoint
    assert done.json["sha256"] == store.found.sha256.hex()
    nowhere = run(
        "snapshot", "save", str(tmp_path / "out"), "--endpoints", "127.0.0.1:1", "--timeout", "300ms"
    )
    assert nowhere.code == 4


@pytest.mark.parametrize(
    "error", [NoLeader("not caught up"), NoSpace("the disk is full"), Timeout("made none")]
)
def test_a_node_that_can_make_none_is_passed_over(
    run: Run, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Rejected
) -> None:
    """Another one may have room, and a leader; the last one's answer is the command's."""
    left = [error]

    def save(opened: Any, file: Path, wait_ms: int) -> Any:
        if left:
            raise left.pop()
        file.write_bytes(store.data)
        return glance(file)

    monkeypatch.setattr(saving, "save", save)
    command = ("snapshot", "save", str(tmp_path / "out"), "-o", "json", "--endpoints")
    done = run(*command, "127.0.0.1:1,127.0.0.1:2")
    assert (done.code, done.err) == (0, "")
    assert done.json["endpoint"] == "127.0.0.1:2"
    left[:] = [error, error]
    assert run(*command, "127.0.0.1:1,127.0.0.1:2").code != 0
    assert left == []


@pytest.mark.parametrize("error", [Corrupt("a checksum is wrong"), DiskFailed("cannot read it")])
def test_a_node_whose_snapshot_is_bad_is_named_and_passed_over(
    run: Run, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Corrupt | DiskFailed
) -> None:
    """The others have one of their own. Its operator has to hear of it all the same."""
    left: list[Exception] = [error]

    def save(opened: Any, file: Path, wait_ms: int) -> Any:
        if left:
            raise left.pop()
        file.write_bytes(store.data)
        return glance(file)

    monkeypatch.setattr(saving, "save", save)
    command = ("snapshot", "save", str(tmp_path / "out"), "-o", "json", "--endpoints")
    done = run(*command, "127.0.0.1:1,127.0.0.1:2")
    assert (done.code, done.json["endpoint"]) == (0, "127.0.0.1:2")
    said = f"warning: the snapshot of 127.0.0.1:1 is of no use: {error.message}; asking 127.0.0.1:2\n"
    assert done.err == said
    left[:] = [error, error]
    assert run(*command, "127.0.0.1:1,127.0.0.1:2").code == error.exit_code
    assert left == []


def test_a_file_for_which_there_is_no_room_here_is_asked_of_nobody_else(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Exception] = [NoLeader("never asked"), DiskFull("no room for it")]

    def save(opened: Any, file: Path, wait_ms: int) -> Any:
        raise left.pop()

    monkeypatch.setattr(saving, "save", save)
    endpoints = ("--endpoints", "127.0.0.1:1,127.0.0.1:2")
    assert run("snapshot", "save", str(tmp_path / "out"), *endpoints).code == DiskFull.exit_code
    assert len(left) == 1
