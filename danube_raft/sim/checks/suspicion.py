"""A node is SUSPECT when its disk has forgotten, until a leader has brought it up to date, and never else (INTERNALS §2).

- A node that forgot, or whose mark is damaged, comes up SUSPECT, through any number of starts; a sound one never does.
  Only where the end of it was not yet in the mark may it be SUSPECT once more.
- Meanwhile it neither votes nor campaigns, and says of every ack that it does not count.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Fact, Judged, Sent, Violation
from danube_raft.sim.checks.view import View
from danube_raft.wire import peer


class Suspicion:
    """Compares what a node takes itself for with what was done to its disk."""

    wants = (Judged, Sent)

    def __init__(self, view: View) -> None:
        self._view = view

    def take(self, fact: Fact) -> None:
        """It is as it says, and does as it is."""
        if isinstance(fact, Judged):
            suspect = self._view.replicas[fact.node].suspect
            if suspect != fact.suspect:
                what = "SUSPECT, and its disk is sound" if fact.suspect else "sound, and its disk forgot"
                raise Violation(f"node {fact.node} takes itself for {what}")
        elif isinstance(fact, Sent):
            header, message = fact
            if self._view.replicas[header.sender].suspect and _counts(message):
                raise Violation(f"{header} is of a SUSPECT node, and counts: {message}")


def _counts(message: peer.Message) -> bool:
    if isinstance(message, peer.AppendReply | peer.HeartbeatReply):
        return message.counted
    if isinstance(message, peer.VoteReply | peer.PreVoteReply):
        return message.granted
    return isinstance(message, peer.RequestVote | peer.RequestPreVote)
