"""The checks of what leaders do find what they are there for: leading on alone, or with a disk that does not answer, handing
on what no log holds, forgetting what one before them has told to be committed. Three nodes, of which node 1 leads.
"""

from __future__ import annotations

import pytest
from facts import entry, good

from danube_raft.sim.checks.all import Checks
from danube_raft.sim.checks.facts import (
    Booted,
    Delivered,
    Issued,
    Received,
    Refused,
    Sent,
    Synced,
    Told,
    Violation,
)
from danube_raft.sim.checks.leadership_ends import Timings
from danube_raft.sim.schedule import MS
from danube_raft.wire import local, peer
from danube_raft.wire.entry import HardState

ELECTION_MS, HEARTBEAT_MS = 600, 50
LIMIT_MS = 2 * ELECTION_MS + HEARTBEAT_MS


class Reign:
    """Node 1 leads term 1 from time 0 on; `lead` lets it send heartbeats until a time."""

    def __init__(self) -> None:
        self.now_ms = 0
        timings = Timings(lambda: self.now_ms * MS, ELECTION_MS, HEARTBEAT_MS)
        self.tell = Checks((1, 2, 3), 0, timings).tell
        for node in (1, 2, 3):
            self.tell(Booted(node, 1))
        for node in (1, 2):
            write = local.Write(1, 0, (), HardState(1, 1))
            self.tell(Issued(node, write))
            self.tell(Synced(node, write))
        self.role("leader", 1)

    def role(self, role: str, term: int) -> None:
        self.tell(Told(1, local.Role(role, term, 1, 0, 0, 0)))

    def lead(self, until_ms: int, heard: bool = False, fact: type[Sent | Refused] = Sent) -> None:
        while self.now_ms < until_ms:
            self.now_ms += HEARTBEAT_MS
            self.tell(fact(peer.Header(77, 1, 2, 1, 1), peer.Heartbeat(1, 0, 0)))
            if heard:
                header = peer.Header(77, 2, 1, 1, 1)
                self.tell(Received(1, self.now_ms * MS, header, peer.HeartbeatReply(1, 0, 0, True)))


def test_a_leader_that_is_heard_may_lead_on() -> None:
    Reign().lead(10 * LIMIT_MS, heard=True)


def test_a_leader_that_nobody_hears_leads_on_for_too_long() -> None:
    reign = Reign()
    reign.lead(1_000, heard=True)
    reign.lead(1_000 + LIMIT_MS)
    with pytest.raises(Violation, match=f"{LIMIT_MS + HEARTBEAT_MS} ms after a quorum was last heard"):
        reign.lead(1_000 + LIMIT_MS + HEARTBEAT_MS)


def test_a_leader_whose_links_refuse_everything_leads_on_for_too_long() -> None:
    """Nothing leaves it, and it must notice all the same."""
    reign = Reign()
    reign.lead(1_000, heard=True)
    with pytest.raises(Violation, match="after a quorum was last heard"):
        reign.lead(1_000 + LIMIT_MS + HEARTBEAT_MS, fact=Refused)


def test_time_in_which_a_leader_was_stopped_is_not_held_against_it() -> None:
    reign = Reign()
    reign.lead(1_000, heard=True)
    reign.now_ms += 20_000
    reign.lead(21_000 + LIMIT_MS)
    with pytest.raises(Violation, match="leads on"):
        reign.lead(21_000 + 2 * LIMIT_MS)


def test_who_follows_again_is_free_to_lead_anew() -> None:
    reign = Reign()
    reign.lead(LIMIT_MS)
    reign.role("follower", 1)
    reign.role("leader", 1)
    reign.lead(2 * LIMIT_MS)


def test_a_leader_whose_disk_does_not_answer_leads_on_for_too_long() -> None:
    reign = Reign()
    reign.lead(1_000, heard=True)
    write = local.Write(2, 0, (), None)
    reign.tell(Issued(1, write))
    reign.lead(1_000 + LIMIT_MS, heard=True)
    with pytest.raises(Violation, match="after its disk was asked to write"):
        reign.lead(1_000 + LIMIT_MS + HEARTBEAT_MS, heard=True)


def test_a_disk_that_has_answered_is_no_reason_to_end() -> None:
    reign = Reign()
    write = local.Write(2, 0, (), None)
    reign.tell(Issued(1, write))
    reign.lead(1_000, heard=True)
    reign.tell(Synced(1, write))
    reign.lead(10 * LIMIT_MS, heard=True)


def test_an_entry_that_is_handed_on_and_stands_in_no_log() -> None:
    stream = good()
    stream.write(2, entry(3, 1, b"y"))
    stream.write(1, entry(3, 1, b"y"))
    with pytest.raises(Violation, match="hands on"):
        stream.checks.tell(Delivered(2, (entry(3, 1, b"z"),)))


def test_a_leader_that_lacks_what_was_told_to_be_committed_and_never_handed_on() -> None:
    stream = good()
    stream.write(1, entry(3, 1, b"y"))
    stream.write(2, entry(3, 1, b"y"))
    stream.send(1, 3, 1, peer.Heartbeat(2, 3, 0))
    stream.write(3, entry(2, 1, b"x"))
    with pytest.raises(Violation, match="leader completeness: node 3 leads term 2 without index 3"):
        stream.elect(3, 2, entry(3, 2))
