"""When consensus is told what was applied, which returns the credit of those entries.

With whatever else it is told in that turn, or when it adds up, or after a while: each telling wakes a process, which
costs as much as the rest of a small write.
"""

from __future__ import annotations

from danube_raft.config import Config
from danube_raft.node.proposals import NEVER

CREDIT_MS = 20
CREDIT_SHARE = 16
"""What was applied is told after this time, or when it is this fraction (1/n) of `unapplied_max_bytes`."""


class Credit:
    """What this kv-server owes."""

    def __init__(self, config: Config) -> None:
        self._max_bytes = config.unapplied_max_bytes // CREDIT_SHARE
        self._bytes = 0
        self._until = NEVER

    def owe(self, size: int, now: int) -> None:
        """Entries of so many bytes were applied."""
        self._bytes += size
        self._until = min(self._until, now + CREDIT_MS)

    def due(self, speaks: bool, now: int) -> bool:
        """Whether to tell it now; `speaks`: consensus is told something anyway. Then nothing is owed any more."""
        if self._until == NEVER or not (speaks or self._bytes >= self._max_bytes or now >= self._until):
            return False
        self._bytes, self._until = 0, NEVER
        return True

    def next_timer(self) -> int | None:
        """When it is due at the latest."""
        return None if self._until == NEVER else self._until
