"""A linearizable read waits for everything that was committed before it was asked (thesis §6.4; PITFALLS 38).

What counts as committed is what anybody had shown to be by then: handed to a state machine, or told to a peer.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Booted, Fact, ReadAnswered, ReadAsked, Sent, Violation
from danube_raft.sim.checks.view import View
from danube_raft.wire import peer


class ReadIndexes:
    """Remembers for each question what was committed when it was asked."""

    wants = (Booted, ReadAsked, ReadAnswered, Sent)

    def __init__(self, view: View) -> None:
        self._view = view
        self._told = 0
        self._asked: dict[int, dict[int, int]] = {}

    def take(self, fact: Fact) -> None:
        """No answer below it."""
        if isinstance(fact, Sent):
            if isinstance(fact.message, peer.AppendEntries | peer.Heartbeat):
                self._told = max(self._told, fact.message.commit_index)
        elif isinstance(fact, ReadAsked):
            committed = max(self._told, len(self._view.committed))
            self._asked.setdefault(fact.node, {})[fact.number] = committed
        elif isinstance(fact, ReadAnswered):
            committed = self._asked[fact.node].get(fact.number, 0)
            if 0 <= fact.upto < committed:
                raise Violation(
                    f"node {fact.node} may answer a read at {fact.upto}, asked when {committed} was committed"
                )
        elif isinstance(fact, Booted):
            self._asked[fact.node] = {}
