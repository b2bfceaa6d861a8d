"""What a node does about a full disk: it gives the ballast up and serves what is there, read-only, until there is room
again for writes and for the ballast.

What the file system says of its room is not all: it may be out of inodes, the user over a quota, or what is to be
written larger than the room there is. So a disk that is full again soon after it had room again is held for full for a
while, whatever it says; the while doubles each time.

No clock and no process here: times are arguments.
"""

from __future__ import annotations

import logging
from pathlib import Path

from danube_raft.config import Config
from danube_raft.storage.disk_space import Ballast, free_bytes

SOON_MS = 60_000
"""A disk that is full again within this after there was room on it had none for what the node has to write."""
HOLD_MS = 1_000
HOLD_MAX_MS = 300_000

log = logging.getLogger("danube_raft.supervisor")


class FullDisk:
    """Whether the disk under `data_dir` was found full."""

    def __init__(self, config: Config, data_dir: Path) -> None:
        self._config = config
        self._path = data_dir
        self._ballast = Ballast(data_dir, config.ballast_bytes)
        self.read_only = False
        self._hold_ms = 0
        self._held_until = 0
        self._over_at: int | None = None

    def prepare(self) -> None:
        """Before a start: a node that may write has its ballast."""
        if not self.read_only:
            self._ballast.take(self._config.low_space_bytes)

    def found(self, reason: str, now: int) -> bool:
        """The disk has refused something for want of room. False if it was known and there is nothing left to give."""
        if self.read_only:
            return False
        self.read_only = True
        self._ballast.give_up()
        soon = self._over_at is not None and now - self._over_at < SOON_MS
        self._hold_ms = min(max(2 * self._hold_ms, HOLD_MS), HOLD_MAX_MS) if soon else 0
        self._held_until = now + self._hold_ms
        said = "%s; the node goes on read-only until there is room on the disk, for %d ms at least"
        log.warning(said, reason, self._hold_ms)
        return True

    def has_room_again(self, now: int) -> bool:
        """It was full, and now there is enough to write again, and for the ballast."""
        if not self.read_only or now < self._held_until:
            return False
        return free_bytes(self._path) >= self._config.low_space_bytes + 2 * self._config.ballast_bytes

    def over(self, now: int) -> None:
        """The next start is one as usual."""
        self._over_at = now
        self.read_only = False
