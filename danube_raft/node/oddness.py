"""What a kv-server does that knows its state to be wrong: it is *odd*, as a digest has shown (INTERNALS §9).

- The mark that is kept beside the snapshots comes before anything else: no start forgets it. From then on nothing that
  depends on the state leaves this node: no read, be it stale, no watch, no result of a write, no snapshot.
- Its log is proven by the chain and is as good as ever, so consensus goes on voting and acknowledging; it is told as
  soon as no snapshot of the wrong state is being made any more, and sees to one of the leader's.
- When that is here, proven and durable, all others go, then the mark, each durably; and the process ends, so that the
  node starts again with the only snapshot that is left. Whoever dies on the way is odd still, and asks once more. What
  this process has in memory is wrong to its end.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from danube_raft.errors import NoLeader, StateReplaced, Uncertain
from danube_raft.kv.sessions import Result
from danube_raft.node.snapshot_saving import Saving
from danube_raft.node.snapshot_taking import Taking
from danube_raft.node.streams import Streams
from danube_raft.storage.snapshot_store import Odd, SnapshotStore
from danube_raft.wire import local
from danube_raft.wire.client import OP, Request, kind_of
from danube_raft.wire.operations import READ, WATCH, WRITE

WAY_OUT = "it serves nobody until a snapshot of the leader's has replaced it, which happens by itself"

log = logging.getLogger("danube_raft.kv_server")


class Oddness:
    """Of the node whose snapshots are in `store`."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._odd: Odd | None = None
        self._told = False

    def __bool__(self) -> bool:
        return self._odd is not None

    @property
    def reason(self) -> str:
        """Why, for people; empty: it is not."""
        return "" if self._odd is None else f"{self._odd.reason}; {WAY_OUT}"

    def open(self) -> None:
        """Look for the mark. Raises DiskFailed."""
        self._odd = self._store.odd()
        if self._odd is not None:
            self._say()

    def found(self, index: int, reason: str) -> None:
        """The digest at `index` has shown it. Raises DiskFailed; even then nothing is served any more."""
        self._odd = Odd(index, reason)
        self._say()
        self._store.mark_odd(self._odd)

    def _say(self) -> None:
        fields = {"odd": self.reason}
        log.error("the state of this node is wrong: %s", self.reason, extra={"fields": fields})

    def admit(self, request: Request) -> None:
        """Raises NoLeader, which makes clients ask another node, for what would be answered from the state."""
        if self._odd is not None and (
            kind_of(request[OP]) in (READ, WATCH, WRITE) or request[OP] in Saving.ops
        ):
            raise NoLeader(f"the state of this node is wrong: {self.reason}; ask another node")

    def answerable(self, results: Sequence[Result]) -> Sequence[Result]:
        """What clients may hear of these writes, which were applied to a state that may be wrong."""
        if self._odd is None:
            return results
        error = Uncertain("the write is in the log, and the state of this node is wrong: ask another node")
        return [(error.code, 0, (error.message, error.details)) for _ in results]

    def turn(self, taking: Taking, streams: Streams, now: int) -> list[local.Odd]:
        """No snapshot of this state any more, and no watch of it. What to tell consensus, once: when no snapshot is being
        made, which could yet take the name of the leader's."""
        if self._odd is None or self._told:
            return []
        taking.stop(now)
        streams.end_all()
        if taking.busy:
            return []
        self._told = True
        return [local.Odd(self._odd.index)]

    def replace(self, replacement: local.ReplaceState) -> None:
        """There is a right state. Raises StateReplaced when this node can start again with it, or DiskFailed. Returns if it
        is not there after all: then consensus has to see to another one."""
        assert self._odd is not None, "nobody asked for it"
        for meta in self._store.newest().candidates:
            if (meta.index, meta.term, meta.sha256) == replacement:
                self._store.keep_only(meta)
                self._store.clear_odd()
                raise StateReplaced(
                    f"the state was wrong ({self._odd.reason}) and is replaced by the leader's snapshot of index "
                    f"{meta.index}: the node starts again with it"
                )
        log.warning("the leader's snapshot of index %d cannot be read any more", replacement.index)
