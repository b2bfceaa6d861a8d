"""How long a node rests between two snapshots: as long as one costs, so that what costs little bounds the log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from stepped_kv import SteppedKv, chain, members, puts

from danube_raft.config import Config
from danube_raft.node.snapshot_rest import GUESS_MIN_MS, REST_MIN_MS, SHARE, Rest, guessed_ms
from danube_raft.wire import local

MOST_MS = 30_000
FEW = replace(Config(), snapshot_log_bytes=1_000, snapshot_rest_max_ms=MOST_MS, snapshot_max_ms=30_000)
FIRST_MS = max(SHARE * GUESS_MIN_MS, REST_MIN_MS)
"""The rest after the start of a node with hardly any state."""


@pytest.fixture
def node(tmp_path: Path) -> SteppedKv:
    node = SteppedKv(tmp_path, FEW)
    node.hear(local.LoadSnapshot(0, 0))
    return node


def taken(node: SteppedKv, took_ms: int) -> int:
    """One that is due now is made, and takes so long; when it was due."""
    due_at = node.now
    (asked,) = node.take(local.AskPoint)
    node.advance(took_ms)
    node.hear(local.PointRead(asked.index, 1, chain(asked.index)))
    assert len(node.take(local.SnapshotDone)) == 1
    return due_at


def due_at(node: SteppedKv) -> int:
    """Time passes until the node begins one."""
    while not any(isinstance(message, local.AskPoint) for _, message in node.sent):
        timer = node.kv.next_timer()
        assert timer is not None, "it never will"
        node.advance(timer - node.now)
    return node.now


@pytest.mark.parametrize(
    ("took_ms", "rest_ms"),
    [(20, REST_MIN_MS), (3_000, 3_000 * SHARE), (20_000, MOST_MS)],
    ids=["small", "middling", "large"],
)
def test_the_rest_is_in_proportion_to_what_the_last_one_took(
    node: SteppedKv, took_ms: int, rest_ms: int
) -> None:
    """Between its bounds. At 10 MB/s of log each second of it is 20 MB on the disk, since two snapshots are kept."""
    node.commit(*puts(1, 20))
    due_at(node)
    began = taken(node, took_ms)
    node.commit(*puts(21, 60))
    assert due_at(node) == began + rest_ms


def test_before_the_first_the_rest_goes_by_the_size_of_the_state(node: SteppedKv) -> None:
    """What a snapshot of it takes is not known yet; a small one need not wait for the longest rest."""
    began = node.now
    node.commit(*puts(1, 20))
    assert due_at(node) == began + FIRST_MS


def test_a_node_with_much_state_rests_as_long_as_it_may_before_its_first() -> None:
    rest = Rest(FEW)
    rest.made(guessed_ms(1 << 30))
    assert rest.ms == MOST_MS


def test_the_rest_grows_again_when_one_took_longer(node: SteppedKv) -> None:
    node.commit(*puts(1, 20))
    due_at(node)
    taken(node, 20)
    node.commit(*puts(21, 60))
    due_at(node)
    began = taken(node, 1_500)
    node.commit(*puts(61, 140))
    assert due_at(node) == began + 1_500 * SHARE


@pytest.mark.parametrize("goes_on", [False, True], ids=["quiet", "under load"])
def test_a_failure_says_nothing_of_what_one_costs(node: SteppedKv, goes_on: bool) -> None:
    """The pause after it is the longest rest: what failed fast, as on a full disk, is not tried all the time."""
    node.commit(*puts(1, 20))
    due_at(node)
    node.take(local.AskPoint)
    node.advance(FEW.snapshot_max_ms)
    failed_at = node.now
    node.hear(local.PointRead(20, 1, chain(20)))
    node.commit(*puts(21, 60 if goes_on else 21))
    assert due_at(node) == failed_at + MOST_MS


@pytest.mark.parametrize("node_id", [1, 5, 9])
def test_the_turns_of_all_nodes_fit_into_a_short_rest(tmp_path: Path, node_id: int) -> None:
    node = SteppedKv(tmp_path, FEW, node_id=node_id)
    node.hear(local.LoadSnapshot(0, 0))
    node.commit(members(1, *range(1, 10)), *puts(2, 20))
    node.advance(FIRST_MS)
    all_due_at = node.now
    assert due_at(node) == all_due_at + (node_id - 1) * (FIRST_MS // 9)
