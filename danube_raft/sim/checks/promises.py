"""Nothing leaves a node that depends on what its disk does not hold yet (Raft paper, Figure 2: "updated on stable
storage before responding to RPCs"; PITFALLS 1, 2, 19).

A vote promises that vote, a request for votes the candidate's own; an ack promises the leader's entry at the index
that it names, and all before it; so does the answer to a snapshot that it is installed.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Fact, Sent, Violation
from danube_raft.sim.checks.view import Replica, View
from danube_raft.wire import peer


class Promises:
    """Compares every vote and ack with the disk at the moment when it leaves."""

    wants = (Sent,)

    def __init__(self, view: View) -> None:
        self._view = view

    def take(self, fact: Fact) -> None:
        """The disk holds what the message says."""
        assert isinstance(fact, Sent)
        header, message = fact
        replica = self._view.replicas[header.sender]
        if isinstance(message, peer.VoteReply) and message.granted:
            self._voted(replica, header, header.receiver)
        elif isinstance(message, peer.RequestVote):
            self._voted(replica, header, header.sender)
        elif isinstance(message, peer.AppendReply) and message.success:
            if replica.hard_state.term < header.term:
                raise Violation(f"{header} acks in a term that is not durable ({replica.hard_state})")
            self._holds(replica, header, message.match_index)
        elif isinstance(message, peer.HeartbeatReply):
            self._holds(replica, header, message.match_index)
        elif isinstance(message, peer.InstallSnapshotReply) and message.installed:
            self._holds(replica, header, message.index)

    def _voted(self, replica: Replica, header: peer.Header, candidate: int) -> None:
        stored = replica.hard_state
        if stored.term <= header.term and stored != (header.term, candidate):
            raise Violation(f"{header} votes for {candidate}, but on disk is {stored}")

    def _holds(self, replica: Replica, header: peer.Header, index: int) -> None:
        if index == 0:
            return
        term = replica.durable_term_at(index)
        leader = self._view.replicas[header.receiver]
        leads = leader.role == "leader" and leader.term == header.term
        if term == 0 or (leads and leader.term_at(index) != term):
            raise Violation(
                f"{header} acks index {index}, where its disk has term {term} and the leader {leader.term_at(index)}"
            )
