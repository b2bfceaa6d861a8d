"""What a node does after its three processes have ended: start again, after what pause, or stay down.

- A failure that no restart can mend (damaged or newer data, a wrong setting) ends the node, as does a port that was
  taken before the node ever served.
- Failures in a row, each before the node had served for `STABLE_MS`, make the pause grow up to `RESTART_PAUSE_MAX_MS`;
  after `CRASHES_MAX` of them the node gives up. A start that lasted for `LASTED_MS` begins a new row.
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
CRASHES_MAX = 10
"""Failures in a row, each before the node had been ready for `STABLE_MS`, after which the node gives up."""
STABLE_MS = 1_000
LASTED_MS = 60_000
"""A start that lasted so long counts as none of a row of failures, even if the node never heard a leader."""

_NO_RESTART = (errors.Corrupt, errors.NewerFormat, errors.ConfigInvalid)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a boot ended: why in words, with which error if a process told one, and when (monotonic ms). `ready_at` 0:
    it never served; `served_before`: this boot or an earlier one of this supervisor did."""

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

    def after(self, ending: Ending) -> int:
        """The pause in ms before the next start. Raises Fatal when there is to be none."""
        error = ending.error
        if isinstance(error, _NO_RESTART):
            raise error
        if isinstance(error, errors.PortInUse) and not ending.served_before:
            raise error
        if isinstance(error, errors.StateReplaced):
            self.failures = 0
            return 0
        if isinstance(error, errors.DiskFailed):
            self._disk_failed(error, ending.ended_at)
        served = ending.ready_at and ending.ended_at - ending.ready_at > STABLE_MS
        lasted = ending.ended_at - ending.began_at > LASTED_MS
        self.failures = 1 if served or lasted else self.failures + 1
        if self.failures > CRASHES_MAX:
            raise errors.CrashLoop(
                f"{ending.reason}; the node failed {self.failures} times in a row, giving up"
            )
        return 0 if self.failures == 1 else min(RESTART_PAUSE_MS << (self.failures - 2), RESTART_PAUSE_MAX_MS)

    def _disk_failed(self, error: errors.DiskFailed, now: int) -> None:
        before, self._disk_failed_at = self._disk_failed_at, now
        if before is not None and now - before < self._disk_stable_ms:
            raise type(error)(
                f"{error.message}; the disk had failed {(now - before) // 1_000} s before, so the node stays down"
            )
