"""Who may use a store: the process that opened it, until it is closed.

A ZeroMQ socket does not survive a fork, and two processes with one session would take each other's answers. The
synchronous and the asynchronous store both ask here before they do anything.
"""

from __future__ import annotations

import os

from danube_raft.errors import Rejected


class Owner:
    """The process that made this; `closed` is set once and never taken back."""

    def __init__(self) -> None:
        self.closed = False
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this is a child of the owner: it has no use for what it inherited, and must not touch it."""
        return os.getpid() != self._pid

    def check_usable(self) -> None:
        """Raises Rejected after the end, and in a child that was forked from the owner."""
        if self.closed:
            raise Rejected("the store is closed")
        if self.forked:
            raise Rejected("the store was opened before a fork: open another one in the child process")
