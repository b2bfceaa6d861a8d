"""The log line of a node that knows no leader: for whom it waits. After `SAY_MS` without one, then every `SAY_LATER_MS`."""

from __future__ import annotations

import logging

from danube_raft.node.roster import Roster
from danube_raft.raft.core import Core

SAY_MS = 5_000
SAY_LATER_MS = 10_000

log = logging.getLogger("danube_raft.consensus")


class Leaderless:
    """`say_at` is when it wants to speak next, None while there is a leader."""

    def __init__(self, roster: Roster) -> None:
        self.say_at: int | None = None
        self._roster = roster

    def turn(self, core: Core, now: int) -> None:
        """Speak if it is time."""
        if core.leader_id:
            self.say_at = None
        elif self.say_at is None:
            self.say_at = now + SAY_MS
        elif now >= self.say_at:
            self.say_at = now + SAY_LATER_MS
            missing = self._roster.missing(now)
            log.info("no leader; %s", f"waiting for {missing} to answer" if missing else "asking for votes")
