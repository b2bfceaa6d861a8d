"""Whether a majority confirms reads now: a ReadIndex of the kv-server's own, made only when somebody asks.

`/ready` asks through the supervisor. While nobody does there are no rounds, so that an idle node stays idle. A round
that is not confirmed is tried again under a new number, until `PATIENCE_MS` after the last question; then silence is
the answer.
"""

from __future__ import annotations

from collections.abc import Callable

from danube_raft.node.reads import READ_RETRY_MS
from danube_raft.wire.local import ReadConfirmed, ReadIndex

PATIENCE_MS = 2_000


class ReadProbe:
    """`take_number` gives numbers that no other round of this kv-server has."""

    def __init__(self, take_number: Callable[[], int]) -> None:
        self._take_number = take_number
        self._number = 0
        self._asked_at = 0
        self._retry_at: int | None = None
        self._until = 0

    def ask(self, now: int) -> None:
        """Somebody wants to know. A round that is under way will do."""
        self._until = now + PATIENCE_MS
        if self._retry_at is None:
            self._retry_at = now

    def again(self, now: int) -> None:
        """There is another leader: what an earlier one was asked is lost."""
        if self._retry_at is not None:
            self._retry_at = now

    def flush(self, now: int) -> list[ReadIndex]:
        """The round that is due now."""
        if self._retry_at is None or now < self._retry_at:
            return []
        if now >= self._until:
            self._retry_at = None
            self._number = 0
            return []
        self._number, self._asked_at = self._take_number(), now
        self._retry_at = now + READ_RETRY_MS
        return [ReadIndex(self._number)]

    def confirmed(self, number: int, index: int, applied_index: int) -> ReadConfirmed | None:
        """A round was answered (index -1: not confirmed): what to tell, if it was this one's."""
        if number != self._number or index < 0:
            return None
        self._number = 0
        self._retry_at = None
        return ReadConfirmed(self._asked_at, index, applied_index)

    def next_timer(self) -> int | None:
        """When `flush` has something to do."""
        return self._retry_at
