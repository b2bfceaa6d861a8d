"""Snapshots that a client asks for: what one reaches, how it is handed out, what is said when it is gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stepped_kv import FOLLOWER, SteppedKv, chain, puts

from danube_raft.config import Config
from danube_raft.errors import DiskFailed, NoLeader, NoSpace
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.wire import local

NEVER_DUE = replace(Config(), snapshot_log_bytes=1 << 30)


class Asker:
    """Numbers the requests to one node."""

    def __init__(self, node: SteppedKv) -> None:
        self.node = node
        self.number = 100

    def ask(self, op: str, *args: Any) -> tuple[Any, ...]:
        """The one answer: (status, revision, result…)."""
        self.number += 1
        self.node.ask(op, self.number, *args)
        (reply,) = self.node.replies(self.number)
        return reply


@pytest.fixture
def node(tmp_path: Path) -> SteppedKv:
    node = SteppedKv(tmp_path, NEVER_DUE)
    node.serve()
    node.commit(*puts(1, 10))
    return node


@pytest.fixture
def asker(node: SteppedKv) -> Asker:
    return Asker(node)


def test_one_is_made_that_reaches_what_was_applied_when_it_was_asked_for(
    node: SteppedKv, asker: Asker
) -> None:
    assert asker.ask("snapshot_take")[0::2] == (0, 10)
    assert asker.ask("snapshot_take", 10)[2:] == (10, None)
    done = node.snapshot()
    index, found = asker.ask("snapshot_take", 10)[2:]
    assert (index, found) == (10, (10, 1, done.size_bytes, done.sha256))
    assert asker.ask("snapshot_take")[3] == found, "nothing was applied since"


def test_asking_again_and_again_makes_no_second_one(node: SteppedKv, asker: Asker) -> None:
    """Under writes there is always something that the one that is being made lacks."""
    asker.ask("snapshot_take")
    node.commit(*puts(11, 12))
    for _ in range(3):
        assert asker.ask("snapshot_take", 10)[3] is None
    node.snapshot()
    assert asker.ask("snapshot_take", 10)[3][0] == 10
    node.advance(5_000)
    assert node.take(local.AskPoint) == []


def test_asking_again_does_not_shorten_the_pause_after_a_failure(
    node: SteppedKv, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits asks five times a second: each time a full disk would be filled again."""

    def refuse(*_: object) -> None:
        raise DiskFailed("no space left on device")

    monkeypatch.setattr(node.store, "writer", refuse)
    asker.ask("snapshot_take")
    (asked,) = node.take(local.AskPoint)
    node.hear(local.PointRead(asked.index, 1, chain(asked.index)))
    node.advance(20)
    assert node.kv.report(node.now)["snapshots_failed"] == 1
    monkeypatch.undo()
    for _ in range(3):
        assert asker.ask("snapshot_take", 10)[3] is None
        node.advance(200)
    assert node.take(local.AskPoint) == []
    node.advance(NEVER_DUE.snapshot_rest_max_ms)
    assert node.snapshot().index == 10


def test_where_the_disk_was_found_full_what_is_there_is_handed_out_and_no_other_is_made(
    node: SteppedKv, tmp_path: Path
) -> None:
    Asker(node).ask("snapshot_take")
    done = node.snapshot()
    node.kv.close()
    full = SteppedKv(tmp_path, NEVER_DUE, boot_epoch=2, read_only=True)
    full.serve(done.index, done.term)
    asker = Asker(full)
    assert asker.ask("snapshot_take")[3][0] == done.index
    full.commit(*puts(11, 12))
    assert asker.ask("snapshot_take")[0] == NoSpace.code


def test_one_that_was_begun_earlier_does_not_do(node: SteppedKv, asker: Asker) -> None:
    """It lacks what was acknowledged since."""
    asker.ask("snapshot_take")
    node.commit(*puts(11, 12))
    assert asker.ask("snapshot_take")[2:] == (12, None)
    assert node.snapshot().index == 10
    assert asker.ask("snapshot_take", 10)[3][0] == 10
    assert asker.ask("snapshot_take", 12)[2:] == (12, None)
    assert node.snapshot().index == 12
    assert asker.ask("snapshot_take", 12)[3][0] == 12


def test_a_node_that_has_not_applied_that_much_makes_none_for_it(node: SteppedKv, asker: Asker) -> None:
    """It has restarted between two questions."""
    assert asker.ask("snapshot_take", 99)[2:] == (99, None)
    node.advance(100)
    assert node.take(local.AskPoint) == []


def test_a_node_that_does_not_know_how_old_its_state_is_takes_none(tmp_path: Path) -> None:
    node = SteppedKv(tmp_path, NEVER_DUE)
    node.hear(local.LoadSnapshot(0, 0), FOLLOWER)
    node.commit(*puts(1, 3))
    assert Asker(node).ask("snapshot_take")[0] == NoLeader.code


def test_its_pieces_are_the_file(node: SteppedKv, asker: Asker, tmp_path: Path) -> None:
    asker.ask("snapshot_take")
    done = node.snapshot()
    data, piece = b"", b"-"
    while piece:
        status, _, piece = asker.ask("snapshot_piece", done.index, done.term, len(data), 100)
        assert status == 0
        assert len(piece) <= 100
        data += piece
    path = tmp_path / SnapshotMeta(done.index, done.term, 0).name
    assert data == path.read_bytes()
    assert len(data) == done.size_bytes


def test_no_piece_is_larger_than_an_answer_may_be(tmp_path: Path) -> None:
    node = SteppedKv(tmp_path, replace(NEVER_DUE, page_max_bytes=1_024))
    node.serve()
    node.commit(*puts(1, 30))
    asker = Asker(node)
    asker.ask("snapshot_take")
    done = node.snapshot()
    assert len(asker.ask("snapshot_piece", done.index, done.term, 0)[2]) == 1_024


def test_one_that_was_replaced_has_no_pieces(node: SteppedKv, asker: Asker) -> None:
    """Whoever fetches it begins anew with a newer one."""
    for last in (10, 20, 30):
        node.commit(*puts(last + 1, last + 10))
        asker.ask("snapshot_take")
        node.snapshot()
    assert asker.ask("snapshot_piece", 20, 1, 0)[2] is None
    assert asker.ask("snapshot_piece", 30, 1, 0)[2], "the one before the newest is kept"


def test_one_that_cannot_be_read_is_an_error_and_not_the_end_of_the_node(
    node: SteppedKv, asker: Asker, tmp_path: Path
) -> None:
    asker.ask("snapshot_take")
    done = node.snapshot()
    (tmp_path / SnapshotMeta(done.index, done.term, 0).name).unlink()
    assert asker.ask("snapshot_piece", done.index, done.term, 0)[0] == DiskFailed.code
    assert asker.ask("get", "/k1")[0] == 0
