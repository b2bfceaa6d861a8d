"""Snapshots for an operator: made on request, handed out in pieces, over the client port.

`snapshot_take` names an index that the snapshot must reach (0: what is applied here now) and is answered at once: with
the index, and with the newest snapshot if it reaches there. If it does not, one is made, and whoever asks again, with
that index, gets it some time. Nobody waits here, so nothing is remembered of who asked.

What is applied here is at least what this node has answered to a linearizable read before, so whoever makes one first
gets a snapshot of all that was acknowledged to anybody by then.

`snapshot_piece` gives bytes of a snapshot that this node has: those of its file, so what is put together of them proves
itself. One that was replaced meanwhile has no pieces any more; at least one newer one is there then.
"""

from __future__ import annotations

from typing import Any

from danube_raft.config import Config
from danube_raft.errors import DiskFailed, NoLeader, NoSpace
from danube_raft.kv.machine import Machine
from danube_raft.node.endpoints import Envelope
from danube_raft.node.replies import Replies
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.node.snapshot_taking import Taking
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.wire.client import ARGS, OP, REQUEST_ID, STATUS_OK, Request

TAKE = "snapshot_take"
PIECE = "snapshot_piece"


class Saving:
    """Answers the two operations."""

    ops = frozenset((TAKE, PIECE))

    def __init__(self, config: Config, replies: Replies, shelf: Shelf, taking: Taking) -> None:
        self._config = config
        self._replies = replies
        self._shelf = shelf
        self._taking = taking

    def request(
        self, request: Request, envelope: Envelope, machine: Machine, caught_up: bool, now: int
    ) -> None:
        """Answer one. Raises DiskFailed when a snapshot that is there cannot be read, NoLeader when nobody knows yet how
        old the state of this node is, NoSpace when one has to be made and the disk was found full."""
        if request[OP] == TAKE:
            if not caught_up:
                raise NoLeader("this node has started and not yet heard what is committed; try again shortly")
            result = self._take(request[ARGS], machine, now)
        else:
            result = (self._piece(*request[ARGS:]),)
        self._replies.add(envelope, request[REQUEST_ID], STATUS_OK, machine.revision, result)

    def _take(self, index: int, machine: Machine, now: int) -> tuple[Any, ...]:
        index = index or machine.applied_index
        newest = self._shelf.newest
        if newest is not None and newest.index >= index:
            return index, (newest.index, newest.term, newest.size, newest.sha256)
        if self._shelf.read_only:
            raise NoSpace("the disk is full, and this node makes no snapshots: ask another one")
        # One that is being made may have begun too early; whoever asks again finds out.
        if machine.applied_index >= index and not self._taking.busy:
            self._taking.request(now)
        return index, None

    def _piece(self, index: int, term: int, offset: int, max_bytes: int) -> bytes | None:
        size = min(max_bytes, self._config.page_max_bytes)
        try:
            return self._shelf.store.read_piece(SnapshotMeta(index, term, 0), offset, size)
        except DiskFailed:
            newest = self._shelf.newest
            if newest is None or (newest.index, newest.term) == (index, term):
                raise
            return None
