"""How long a node rests between two snapshots.

Its log goes back to the older of the two that it keeps, so a rest costs room: at 10 MB/s of log half a minute is 300 MB,
twice. A snapshot costs time of a core, though at a low priority and never more bytes than the log since the last. So
the rest is in proportion to what the last one took, that for at most one part in `SHARE` of its time a node is at it:

    rest = SHARE × duration of the last,   REST_MIN_MS ≤ rest ≤ `snapshot_rest_max_ms`

It is counted from when the last one was due. Before the first one of a boot a duration is guessed from the size of the
state. `snapshot_rest_max_ms` is also the pause after a failure, whose duration says nothing.
"""

from __future__ import annotations

from danube_raft.config import Config

SHARE = 2
REST_MIN_MS = 2_000
GUESS_MIN_MS = 500
GUESS_BYTES_PER_MS = 32 << 10


def guessed_ms(state_bytes: int) -> int:
    """How long a snapshot of such a state may well take, its history included; all members guess the same."""
    return GUESS_MIN_MS + state_bytes // GUESS_BYTES_PER_MS


class Rest:
    """The rest of one node, and until when it lasts (monotonic ms)."""

    def __init__(self, config: Config) -> None:
        self._most_ms = config.snapshot_rest_max_ms
        self._since = 0
        self.ms = self._most_ms

    @property
    def until(self) -> int:
        """The next snapshot is not due before."""
        return self._since + self.ms

    def begin(self, now: int) -> None:
        """One is due now; until it is made, the next one will be after as long as this one was."""
        self._since = now

    def made(self, took_ms: int) -> None:
        """The last one took so long."""
        self.ms = min(max(SHARE * took_ms, REST_MIN_MS), self._most_ms)
