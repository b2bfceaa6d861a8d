"""What a node does about a full disk: it gives the ballast up and serves what is there, read-only, until there is room
again for writes and for the ballast.

No clock and no process here: times are arguments.
"""

from __future__ import annotations

import logging
from pathlib import Path

from danube_raft.config import Config
from danube_raft.storage.disk_space import Ballast, free_bytes

log = logging.getLogger("danube_raft.supervisor")


class FullDisk:
    """Whether the disk under `data_dir` was found full."""

    def __init__(self, config: Config, data_dir: Path) -> None:
        self._config = config
        self._path = data_dir
        self._ballast = Ballast(data_dir, config.ballast_bytes)
        self.read_only = False

    def prepare(self) -> None:
        """Before a start: a node that may write has its ballast."""
        if not self.read_only:
            self._ballast.take(self._config.low_space_bytes)

    def found(self, reason: str) -> bool:
        """The disk has refused something for want of room. False if it was known and there is nothing left to give."""
        if self.read_only:
            return False
        self.read_only = True
        self._ballast.give_up()
        log.warning("%s; the node goes on read-only until there is room on the disk", reason)
        return True

    def has_room_again(self) -> bool:
        """It was full, and now there is enough to write again, and for the ballast."""
        config = self._config
        return self.read_only and free_bytes(self._path) >= config.low_space_bytes + 2 * config.ballast_bytes

    def over(self) -> None:
        """The next start is one as usual."""
        self.read_only = False
