"""What a node does after its three processes have ended: start again, after what pause, or stay down.

- A failure that no restart can mend (damaged or newer data, a wrong setting) ends the node, as does a port that was
  taken before the node ever served.
- The first failure is answered at once. Each further one in a row doubles the pause, from `RESTART_PAUSE_MS` up to
  `RESTART_PAUSE_MAX_MS`. A boot that was ready for `LASTED_MS` begins a new row.
- A row is a crash loop, which ends the node, after `UNREADY_MAX` boots in succession that were never ready, or after
  `SHORT_LIVES_MAX` in all. The second limit is the looser one: a node that serves for a while each time is of some use,
  and one that somebody kills as soon as it is back, again and again, looks the same.
- What the supervisor itself cannot do at a start (make a process, write the boot epoch) counts as a boot that failed.
- A node whose wrong state was replaced has not failed: it starts again at once.
- A disk that refused something gets one more chance: the next boot opens and proves the whole log. If it refuses again
  within `disk_stable_ms`, the node stays down with the exit code of a disk, however well it served in between: a disk
  that fails now and then loses data sooner or later, and the others do better without this node.

No clock and no process here: times are arguments, what ends the node is raised.
"""

from __future__ import annotations

from dataclasses import dataclass

from danube_raft import errors
from danube_raft.config import Config

RESTART_PAUSE_MS = 50
RESTART_PAUSE_MAX_MS = 5_000
LASTED_MS = 60_000
"""A boot that was ready for so long begins a new row; so does one that was never ready, as a node without a majority
may be, and took so long to fail."""
UNREADY_MAX = 10
"""Boots in succession that failed before they were ready, after which the node gives up: some 20 s, mostly pauses."""
SHORT_LIVES_MAX = 50
"""Boots in a row that failed, ready or not, after which the node gives up: four minutes of pauses, and their lives."""

_NO_RESTART = (errors.Corrupt, errors.NewerFormat, errors.ConfigInvalid)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a boot ended: why in words, with which error if one was told, and when (monotonic ms). `ready_at` 0: it never
    was ready; `served_before`: this boot or an earlier one of this supervisor was."""

    reason: str
    error: errors.DanubeRaftError | None
    began_at: int
    ready_at: int
    ended_at: int
    served_before: bool


class Restarts:
    """The row of failures of one node."""

    def __init__(self, config: Config) -> None:
        self._disk_stable_ms = config.disk_stable_ms
        self._disk_failed_at: int | None = None
        self.failures = 0
        self._unready = 0

    def after(self, ending: Ending) -> int:
        """The pause in ms before the next start. Raises Fatal when there is to be none."""
        error = ending.error
        if isinstance(error, _NO_RESTART):
            raise error
        if isinstance(error, errors.PortInUse) and not ending.served_before:
            raise error
        if isinstance(error, errors.StateReplaced):
            self.failures = self._unready = 0
            return 0
        if isinstance(error, errors.DiskFailed):
            self._disk_failed(error, ending.ended_at)
        if ending.ended_at - (ending.ready_at or ending.began_at) > LASTED_MS:
            self.failures = self._unready = 0
        self.failures += 1
        self._unready = 0 if ending.ready_at else self._unready + 1
        self._give_up_if_in_vain(ending.reason)
        return 0 if self.failures == 1 else min(RESTART_PAUSE_MS << (self.failures - 2), RESTART_PAUSE_MAX_MS)

    def _give_up_if_in_vain(self, reason: str) -> None:
        if self._unready > UNREADY_MAX:
            how = f"{self._unready} times in a row before it was ready"
        elif self.failures > SHORT_LIVES_MAX:
            how = f"{self.failures} times in a row and was never ready for {LASTED_MS // 1_000} s"
        else:
            return
        raise errors.CrashLoop(f"{reason}; the node failed {how}, giving up")

    def _disk_failed(self, error: errors.DiskFailed, now: int) -> None:
        before, self._disk_failed_at = self._disk_failed_at, now
        if before is not None and now - before < self._disk_stable_ms:
            raise type(error)(
                f"{error.message}; the disk had failed {(now - before) // 1_000} s before, so the node stays down"
            )
