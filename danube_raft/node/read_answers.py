"""The answers to reads: what the history says, bounded for each turn, and nothing from a state that is known to be wrong.

When a read may be answered is decided by its level, in `reads.py`.
"""

from __future__ import annotations

from danube_raft.config import Config
from danube_raft.errors import DanubeRaftError, Overloaded
from danube_raft.kv import reads as pages
from danube_raft.kv.history import History
from danube_raft.kv.record import VALUE
from danube_raft.node.endpoints import Envelope
from danube_raft.node.oddness import Oddness
from danube_raft.node.replies import Replies
from danube_raft.wire.client import OP, REQUEST_ID, STATUS_OK, Request


class ReadAnswers:
    """Makes them, and refusals."""

    def __init__(self, config: Config, history: History, replies: Replies, oddness: Oddness) -> None:
        self._bounds = pages.Bounds(config.page_max_records, config.page_max_bytes)
        self._page_max_bytes = config.page_max_bytes
        self._turn_max_bytes = config.turn_reply_max_bytes
        self._history = history
        self._replies = replies
        self._oddness = oddness
        self._turn_bytes = 0

    def attach(self, history: History) -> None:
        """The state was replaced by a newer one."""
        self._history = history

    def turn_ended(self) -> None:
        """The next turn has its own bound."""
        self._turn_bytes = 0

    def answer(self, request: Request, envelope: Envelope, lag_ms: int | None) -> None:
        """From the state as it is now; `lag_ms` if the read was bounded by one."""
        try:
            self._oddness.admit(request)
            if self._turn_bytes > self._turn_max_bytes:
                raise Overloaded("more is being read at once than one turn may answer; try again shortly")
            result = pages.answer(self._history, request, self._bounds)
        except DanubeRaftError as error:
            self.refuse(request, envelope, error)
            return
        if request[OP] != "get":
            self._turn_bytes += self._page_max_bytes
        elif result[0] is not None:
            self._turn_bytes += len(result[0][VALUE])
        if lag_ms is not None:
            result = (*result, lag_ms)
        self._replies.add(envelope, request[REQUEST_ID], STATUS_OK, self._history.revision, result)

    def refuse(self, request: Request, envelope: Envelope, error: DanubeRaftError) -> None:
        """With this error."""
        self._replies.error(envelope, request[REQUEST_ID], self._history.revision, error)
