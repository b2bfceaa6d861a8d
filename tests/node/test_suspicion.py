"""A SUSPECT node among its own processes: what it says to people, to the log-writer, and what it does not begin."""

from __future__ import annotations

import pytest
from lone_consensus import FOUNDING, Alone

from danube_raft.node.endpoints import ToPeer
from danube_raft.node.handler import LOG
from danube_raft.wire import local, peer
from danube_raft.wire.entry import KIND_BATCH, KIND_NOOP, Entry, HardState


def found(suspect: str) -> local.Recovered:
    """A log without anything, of a node that has promised something in term 4."""
    return local.Recovered(HardState(4, 2), 0, 0, 0, 0, (), (), suspect, 9)


def suspicious(node_id: int = 2) -> Alone:
    return Alone(node_id, recovered=found("the log is gone"))


def test_a_suspect_node_says_so_and_the_way_out(caplog: pytest.LogCaptureFixture) -> None:
    node = suspicious()
    assert "SUSPECT: the log is gone" in caplog.text
    for told in (node.handler.status(node.now), node.handler.report(node.now)):
        assert told["suspect"].startswith("the log is gone; ")
        assert "node accept-loss" in told["suspect"]


def test_a_suspect_initialiser_begins_no_new_log() -> None:
    """The cluster that it has forgotten may be in the middle of its work."""
    writes = [message for edge, message in suspicious(1).sent if edge == LOG]
    assert [write.entries for write in writes] == [()]


def test_an_initialiser_whose_loss_was_accepted_begins_anew_in_its_term() -> None:
    node = Alone(1, recovered=found(""))
    write = next(message for edge, message in node.sent if isinstance(message, local.Write))
    assert [(entry.index, entry.term, entry.payload) for entry in write.entries] == [
        (1, 1, FOUNDING.configuration)
    ]
    assert write.hard_state == HardState(4, 2), "what it has promised stays"


def test_the_log_writer_hears_of_the_end_before_anybody_else(caplog: pytest.LogCaptureFixture) -> None:
    """What is promised after it has to be behind it in the order of writes."""
    node = suspicious()
    node.term = 6
    node.sent.clear()
    entries = (
        Entry(1, 1, KIND_BATCH, 0, 0, (1, 1, 1), b"x"),
        Entry(2, 6, KIND_NOOP, 0, 0, (0, 0, 0), b""),
    )
    node.hear(1, peer.AppendEntries(0, 0, 0, 0, entries))
    assert local.LeftSuspect() not in [message for _, message in node.sent]
    node.sent.clear()
    for number in (1, 2):
        node.hear(1, peer.Heartbeat(number, 2, 0))
    said = [message for _, message in node.sent]
    assert said.count(local.LeftSuspect()) == 1
    counted = [
        place
        for place, message in enumerate(said)
        if isinstance(message, ToPeer) and getattr(message.message, "counted", False)
    ]
    assert counted
    assert said.index(local.LeftSuspect()) < counted[0]
    assert "SUSPECT no more" in caplog.text
    assert node.handler.status(node.now)["suspect"] == ""
