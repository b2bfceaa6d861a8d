"""What consensus does when the disk is nearly full: below `low_space_bytes`, or twice the last snapshot if that is more.

- Growing commands are refused at the door, before they are proposed: applying has to come out the same on every
  replica, however full its disk is. Each node guards its own clients. A leader without anybody to hand over to says so
  in its heartbeats, and then every node refuses them.
- A leader that is low hands leadership to a member that is not, once in `HAND_OVER_MS` at most.
- Acks and votes go on: a cluster that stops taking part in what is written already is of no use to anybody.
- A node that found its disk full begins as a passive one: it writes nothing, and serves what it has of the committed
  log, as far as it can tell that (`Core.passive_index`).
- Low ends an eighth above where it begins, so that it does not flap.
"""

from __future__ import annotations

import logging

from danube_raft.config import MIB, Config
from danube_raft.raft.core import Core
from danube_raft.wire.local import Space

HAND_OVER_MS = 60_000
TRY_AGAIN_MS = 1_000
"""After nobody was found to hand leadership to."""

log = logging.getLogger("danube_raft.space")


class DiskSpace:
    """What is known of the room on this node's disk. `snapshot_bytes` is the size of its last snapshot."""

    def __init__(self, config: Config) -> None:
        self.low = False
        self.free_bytes: int | None = None
        self.snapshot_bytes = 0
        self._low_space_bytes = config.low_space_bytes
        self._hand_over_at = 0
        self._told = (False, -1)

    def measured(self, free_bytes: int) -> None:
        """The log-writer has looked."""
        self.free_bytes = free_bytes
        wanted = max(self._low_space_bytes, 2 * self.snapshot_bytes)
        low = free_bytes < wanted + (wanted // 8 if self.low else 0)
        if low is not self.low:
            self.low = low
            fields = {"free_bytes": free_bytes, "wanted_bytes": wanted}
            if low:
                log.warning(
                    "%d MiB are free on the disk, under %d: writes that need more are refused",
                    free_bytes // MIB,
                    wanted // MIB,
                    extra={"fields": fields},
                )
            else:
                log.info("%d MiB are free on the disk again", free_bytes // MIB, extra={"fields": fields})

    def turn(self, core: Core, now: int) -> list[Space]:
        """Tell the core, hand leadership over if that is due; news for the kv-server."""
        core.low_space = self.low
        if self.low and core.role == "leader" and now >= self._hand_over_at:
            refusal = core.transfer(0, now)
            self._hand_over_at = now + (HAND_OVER_MS if refusal is None else TRY_AGAIN_MS)
            if refusal is None:
                log.info("handing leadership over, for lack of disk space")
        news = (self.low or core.leader_low_space or core.passive, core.passive_index)
        if news == self._told:
            return []
        self._told = news
        return [Space(*news)]
