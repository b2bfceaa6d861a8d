"""ReadIndex: which commit index a linearizable read must wait for (§6.4 of the Raft thesis).

- A read joins the round that has not been sent yet. The round then takes the commit index, and is confirmed by a
  quorum that answers heartbeats which started after it: so nobody had been elected before the read arrived.
- The answer is at least the first index of the leader's term, and it waits until that is committed: before that, a
  new leader does not know what its predecessors committed.
- Answers count per voter and only of this term; a SUSPECT node's do not count. The caller sees to both.
- When leadership ends every waiting read is answered with -1.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from danube_raft.raft.output import ReadId

NOT_LEADER = -1


class Round(NamedTuple):
    """Reads that are confirmed together."""

    number: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index
    ids: tuple[ReadId, ...]


class ReadRounds:
    """The reads of one leadership."""

    __slots__ = ("_first_of_term", "_max_reads", "_rounds", "_unsent", "_waiting", "number")

    def __init__(self, first_of_term: int, max_reads: int) -> None:
        self.number = 0
        self._first_of_term = first_of_term
        self._max_reads = max_reads
        self._unsent: list[ReadId] = []
        self._rounds: deque[Round] = deque()
        self._waiting = 0

    def add(self, read: ReadId) -> bool:
        """Put `read` into the round that is not sent yet; False when too many wait."""
        if self._waiting >= self._max_reads:
            return False
        self._waiting += 1
        self._unsent.append(read)
        return True

    def start(self, commit_index: int) -> bool:
        """Begin a round if reads wait for one; then heartbeats with `number` must go out."""
        if not self._unsent:
            return False
        self.number += 1
        index = max(commit_index, self._first_of_term)
        self._rounds.append(Round(self.number, index, tuple(self._unsent)))
        self._unsent = []
        return True

    @property
    def waiting(self) -> bool:
        """Whether a round is under way."""
        return bool(self._rounds)

    def confirmed(self, number: int, commit_index: int) -> list[tuple[ReadId, int]]:
        """Answers to all reads up to round `number`, which a quorum has confirmed."""
        answers: list[tuple[ReadId, int]] = []
        if commit_index < self._first_of_term:
            return answers
        while self._rounds and self._rounds[0].number <= number:
            done = self._rounds.popleft()
            self._waiting -= len(done.ids)
            answers += [(read, done.index) for read in done.ids]
        return answers

    def fail(self) -> list[tuple[ReadId, int]]:
        """Leadership has ended: no read can be confirmed any more."""
        ids = [read for lost in self._rounds for read in lost.ids] + self._unsent
        return [(read, NOT_LEADER) for read in ids]
