"""When a node that has started may serve reads: once everything is applied that the leader had committed at first hearing.

Until then the state machine shows a past that nobody should be told. The question goes to consensus, again and again
while a leader is known, until it can say how far to go; then that index only has to be reached.
"""

from __future__ import annotations

from danube_raft.node.proposals import NEVER
from danube_raft.wire.local import AskFresh, FreshAnswer

QUESTION = 0
"""The number of the question how far to catch up; those of reads begin with 1."""
ASK_MS = 20
UNKNOWN = -1


class CatchUp:
    """`done` once and for all."""

    def __init__(self) -> None:
        self.done = False
        self._index = UNKNOWN
        self._ask_at = NEVER

    def new_leader(self, known: bool, now: int) -> None:
        """Only a leader can tell."""
        if not self.done and self._index == UNKNOWN:
            self._ask_at = now if known else NEVER

    def own_term_applied(self, now: int) -> None:
        """An entry of the leader's own term: now it knows what was committed before."""
        if self._ask_at != NEVER:
            self._ask_at = now

    def questions(self, now: int) -> list[AskFresh]:
        """What to ask now."""
        if now < self._ask_at:
            return []
        self._ask_at = now + ASK_MS
        return [AskFresh(QUESTION)]

    def answered(self, answer: FreshAnswer) -> bool:
        """To how far, if a leader was heard; whether it was this question."""
        if answer.id == QUESTION and answer.heard_at_ms >= 0 and self._index == UNKNOWN:
            self._index = answer.index
            self._ask_at = NEVER
        return answer.id == QUESTION

    def reads_only(self, index: int) -> None:
        """The disk is full, and `index` is as far as this node will ever get: what a leader has beyond it never comes."""
        self._index = index
        self._ask_at = NEVER

    def reached(self, applied_index: int) -> bool:
        """Everything up to `applied_index` is applied; whether that is enough, for the first time."""
        if self.done or self._index == UNKNOWN or applied_index < self._index:
            return False
        self.done = True
        return True

    def next_timer(self) -> int | None:
        """When to ask again."""
        return None if self._ask_at == NEVER else self._ask_at
