"""Which of a node's two snapshots are in doubt: whole when they were made, and of no use to those who got them.

- A file may rot while the node runs, which does not read it any more. Who sends it finds out: a piece cannot be read, or
  a peer has got all of it and wants it from its beginning.
- The older of the two is sent then, to which the log goes back; and the kv-server makes another one in place of the
  newest, of the same entry if nothing was applied since: one state makes the same file.
- A doubt may be wrong: the peer's disk may be to blame. So nothing is deleted or forgotten for it, the replacement is not
  replaced, and sending the same again rests for `snapshot_rest_max_ms` each time.
"""

from __future__ import annotations

import logging

from danube_raft.config import Config
from danube_raft.wire.local import SnapshotDone, WantSnapshot

log = logging.getLogger("danube_raft.snapshots")


class Doubts:
    """Of one node. A snapshot is known by its (index, term)."""

    def __init__(self, config: Config) -> None:
        self.pause_ms = config.snapshot_rest_max_ms
        self._kept: tuple[SnapshotDone, ...] = ()
        self._points: set[tuple[int, int]] = set()
        self._warned: set[tuple[int, int]] = set()
        self._ask_at = 0

    def holds(self, snapshot: SnapshotDone) -> bool:
        """Whether that one is in doubt."""
        return snapshot[:2] in self._points

    def best(self, newest: SnapshotDone | None, older: SnapshotDone | None) -> SnapshotDone | None:
        """Which of the two that are kept is sent: the newest that is not in doubt; if all are, the newest. Without a newest
        one none is."""
        self._kept = () if newest is None else (newest,) if older is None else (newest, older)
        kept = {each[:2] for each in self._kept}
        self._points &= kept
        self._warned &= kept
        return next((each for each in self._kept if not self.holds(each)), newest)

    def add(self, snapshot: SnapshotDone, reason: str) -> bool:
        """It was not of use. False: it is none of the two any more, and may be gone."""
        if snapshot not in self._kept:
            return False
        point = snapshot[:2]
        if point not in self._warned:
            if snapshot != self._kept[0]:
                todo = "a newer one is sent"
            elif snapshot.instead:
                todo = (
                    "so did the one before it, so look after whoever gets it; the next one is made as usual"
                )
            else:
                todo = "another one is made in its place"
            log.warning("the snapshot of index %d seems to be damaged: %s; %s", snapshot.index, reason, todo)
        self._points.add(point)
        self._warned.add(point)
        return True

    def made(self, snapshot: SnapshotDone) -> None:
        """This one is new, be it of the same entry as one before."""
        self._points.discard(snapshot[:2])

    def wish(self, newest: SnapshotDone | None, now: int) -> WantSnapshot | None:
        """What to ask of the kv-server."""
        if newest is None or newest.instead or not self.holds(newest) or now < self._ask_at:
            return None
        self._ask_at = now + self.pause_ms
        return WantSnapshot(newest.index, instead=True)
