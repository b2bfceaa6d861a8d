"""Slow requests: each is said once, with the stage that took its time, and not too many of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
from stepped import SteppedNode

from danube_raft.config import Config
from danube_raft.node.handler import CONSENSUS, KV, LOG
from danube_raft.node.proposals import Proposals
from danube_raft.node.reads import Position, Reads
from danube_raft.node.slow_requests import LINES_MAX, WINDOW_MS
from danube_raft.wire.client import check, pack_request
from danube_raft.wire.codec import unpack
from danube_raft.wire.local import FreshAnswer

CONFIG = replace(Config(), slow_request_ms=1_000)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    # A node in this process may have set the package's lines apart from everybody else's.
    monkeypatch.setattr(logging.getLogger("danube_raft"), "propagate", True)
    found: list[str] = []

    class Taken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Taken()
    logger = logging.getLogger("danube_raft.slow_requests")
    monkeypatch.setattr(logger, "disabled", False)
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def served(config: Config = CONFIG) -> SteppedNode:
    node = SteppedNode(config)
    assert node.ask("put", "/first", b"v")[0] == 0
    return node


def held_up(node: SteppedNode, process: str, ms: int) -> None:
    """Nothing gets through one process for a while."""
    node.paused.add(process)
    node.settle()
    node.advance(ms)
    node.paused.discard(process)
    node.settle()


def test_a_write_whose_log_is_slow_waits_for_its_commit(lines: list[str]) -> None:
    node = served()
    node.send("put", "/k", b"v")
    held_up(node, LOG, 1_500)
    assert lines == ["slow request: put took 1500 ms, 1500 ms of it proposed, not committed"]


def test_a_write_that_is_quick_enough_is_not_mentioned(lines: list[str]) -> None:
    node = served()
    node.send("put", "/k", b"v")
    held_up(node, LOG, 999)
    assert lines == []
    node.send("put", "/k", b"v")
    held_up(node, LOG, 1_000)
    assert len(lines) == 1


def test_nothing_is_said_when_it_is_off(lines: list[str]) -> None:
    node = served(replace(CONFIG, slow_request_ms=0))
    node.send("put", "/k", b"v")
    held_up(node, LOG, 4_000)
    node.send("get", "/k", consistency="linearizable")
    held_up(node, CONSENSUS, 4_000)
    assert lines == []


def test_a_write_whose_commit_the_kv_server_takes_late_waits_for_its_apply(lines: list[str]) -> None:
    node = served()
    node.send("put", "/k", b"v")
    node.step(KV)
    held_up(node, KV, 1_200)
    assert lines == ["slow request: put took 1200 ms, 1200 ms of it committed, not applied"]


def test_a_write_without_a_leader_says_so_at_its_deadline(lines: list[str]) -> None:
    node = SteppedNode(CONFIG)
    node.paused.update((CONSENSUS, LOG))
    node.power_loss()
    node.send("put", "/k", b"v", timeout_ms=2_000)
    node.settle()
    node.advance(2_000)
    assert lines == ["slow request: put took 2000 ms, 2000 ms of it waiting for a leader that takes it"]


def test_an_uncertain_write_is_said_once_at_its_deadline(lines: list[str]) -> None:
    node = served()
    node.send("put", "/k", b"v", timeout_ms=2_000)
    held_up(node, LOG, 3_000)
    assert lines == ["slow request: put took 2000 ms, 2000 ms of it proposed, not committed"]


def test_a_linearizable_read_that_nobody_confirms_waits_for_read_index(lines: list[str]) -> None:
    node = served()
    node.send("get", "/k", consistency="linearizable")
    held_up(node, CONSENSUS, 1_100)
    assert lines == ["slow request: get took 1100 ms, 1100 ms of it waiting for ReadIndex"]


def test_a_session_read_waits_for_the_revision(lines: list[str]) -> None:
    node = served()
    node.send("get", "/k", min_revision=(77, 3))
    node.settle()
    node.advance(1_300)
    node.ask("put", "/k", b"v")
    assert lines == [
        "slow request: get took 1300 ms, 1300 ms of it waiting for the revision that its client has seen"
    ]


def test_a_read_before_the_node_has_caught_up_says_so(lines: list[str]) -> None:
    node = SteppedNode(CONFIG)
    node.paused.update((CONSENSUS, LOG))
    node.power_loss()
    node.send("get", "/k", timeout_ms=1_500)
    node.settle()
    node.advance(1_500)
    assert lines == [
        "slow request: get took 1500 ms, 1500 ms of it waiting for this node to catch up after its start"
    ]


def test_many_are_a_few_lines_and_a_number(lines: list[str]) -> None:
    node = served()
    for number in range(LINES_MAX + 40):
        node.send("put", f"/k{number}", b"v")
    held_up(node, LOG, 1_500)
    assert len(lines) == LINES_MAX
    assert node.kv.report(node.now)["slow_requests"] == LINES_MAX + 40
    node.advance(WINDOW_MS)
    assert lines[LINES_MAX:] == ["slow request: 40 more are not listed"]
    node.advance(10 * WINDOW_MS)
    assert len(lines) == LINES_MAX + 1


def test_a_write_that_is_refused_again_and_again_waits_for_a_leader_that_takes_it(lines: list[str]) -> None:
    proposals = Proposals(CONFIG)
    list(proposals.leader_changed(known=True, now=0))
    chunk = pack_request("put", 1, "/k", b"v")
    proposals.add(check(unpack(chunk)), chunk, ((), 1, 2_000))
    list(proposals.flush(0))
    proposals.rejected(1, "overloaded", False, 1)
    proposals.tick(2_000)
    assert lines == ["slow request: put took 2000 ms, 2000 ms of it waiting for a leader that takes it"]


class Reader:
    """Reads without a node around them; what was answered or refused does not matter."""

    def __init__(self, consistency: str | int) -> None:
        self.reads = Reads(CONFIG, 77, lambda *_: None, lambda *_: None)
        request = check(unpack(pack_request("get", 1, "/k", consistency=consistency)))
        self.reads.serve(request, (), CONFIG.request_timeout_ms, Position(1, 5))
        (self.question,) = self.reads.flush(0)


def test_a_read_that_was_confirmed_early_waits_for_the_apply(lines: list[str]) -> None:
    reader = Reader("linearizable")
    reader.reads.confirmed(reader.question.id, 7, 100)
    reader.reads.advance(Position(1, 6), 1_400)
    reader.reads.advance(Position(1, 7), 1_500)
    assert lines == ["slow request: get took 1500 ms, 1400 ms of it committed, not applied"]


def test_a_read_that_was_confirmed_and_never_could_be_answered_waited_for_the_apply(lines: list[str]) -> None:
    reader = Reader("linearizable")
    reader.reads.confirmed(reader.question.id, 7, 100)
    reader.reads.tick(5_000)
    assert lines == ["slow request: get took 5000 ms, 5000 ms of it committed, not applied"]


def test_a_bounded_read_waits_for_the_apply(lines: list[str]) -> None:
    reader = Reader(4_000)
    reader.reads.fresh(FreshAnswer(reader.question.id, 0, 7), 10)
    reader.reads.advance(Position(1, 7), 1_200)
    assert lines == ["slow request: get took 1200 ms, 1200 ms of it committed, not applied"]
