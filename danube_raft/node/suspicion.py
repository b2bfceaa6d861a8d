"""Whether this node is SUSPECT, for people and for the log-writer.

The core decides what follows from it and when it ends; the durable mark keeps it over a crash. Here it is said loudly,
once at the start and once at the end, and the log-writer is told of the end before anything is sent to anybody: then
what this node promises from now on is behind that in the order of its writes.
"""

from __future__ import annotations

import logging

from danube_raft.raft.core import Core
from danube_raft.wire import local

WAY_OUT = (
    "a leader brings it up to date; if so many nodes are SUSPECT or gone for good that none can be elected, stop this one "
    "and accept the loss with `danube-raft node accept-loss`"
)

log = logging.getLogger("danube_raft.consensus")


class Suspicion:
    """Follows the core's."""

    def __init__(self) -> None:
        self._reason = ""

    def begin(self, reason: str) -> None:
        """What the log-writer has found; empty: nothing."""
        self._reason = reason
        if reason:
            log.warning(
                "SUSPECT: %s; this node does not vote, and its acks do not count; %s",
                reason,
                WAY_OUT,
                extra={"fields": {"suspect": reason}},
            )

    def end(self, core: Core) -> list[local.Message]:
        """What the log-writer has to know, if it is over."""
        if not self._reason or core.suspect:
            return []
        self._reason = ""
        log.warning("SUSPECT no more: term %d has brought this node up to date", core.term)
        return [local.LeftSuspect()]

    def text(self, core: Core) -> str:
        """The reason, and the way out where there is no leader to help; empty when there is nothing to say."""
        return f"{core.suspect}; {WAY_OUT}" if core.suspect and not core.leader_id else core.suspect
