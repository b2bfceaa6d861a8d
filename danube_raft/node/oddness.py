"""What a kv-server does that knows its state to be wrong: it is *odd*, as a digest has shown (INTERNALS §9).

- From then on nothing that depends on the state leaves this node: no read, be it stale, no watch, no result of a write,
  no revision, no snapshot.
- The mark that is kept beside the snapshots is written before anything else leaves: no start forgets it. A disk that
  refuses it does not end the process, which would begin again without it, and serve: it is tried again and again.
- Its log is proven by the chain and is as good as ever, so consensus goes on voting and acknowledging. It is told at once,
  so that it sends no snapshot, forgets nothing of the log and does not lead; and told again when the mark is durable and
  no snapshot of the wrong state is being made any more, which could yet take the name of the leader's: then it sees to
  one of those.
- When that is here, proven and durable, all others go, then the mark, each durably; and the process ends, so that the
  node starts again with the only snapshot that is left. Whoever dies on the way is odd still, and asks once more. What
  this process has in memory is wrong to its end. Threads have nobody who starts them again but the embedding program.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from danube_raft.errors import DiskFailed, NoLeader, StateReplaced, Uncertain
from danube_raft.kv.sessions import Result
from danube_raft.node.snapshot_saving import Saving
from danube_raft.node.snapshot_taking import Taking
from danube_raft.node.streams import Streams
from danube_raft.storage.snapshot_store import Odd, SnapshotStore
from danube_raft.wire import local
from danube_raft.wire.client import OP, Request, kind_of
from danube_raft.wire.operations import READ, WATCH, WRITE

MARK_MS = 1_000
"""How soon a mark that the disk has refused is tried again."""
WAY_OUT = (
    "it serves nobody until a snapshot of the leader's has replaced it, which happens by itself; a node in threads ends "
    "then, and the program that embeds it starts it again"
)

log = logging.getLogger("danube_raft.kv_server")


class Oddness:
    """Of the node whose snapshots are in `store`."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._odd: Odd | None = None
        self._marked = False
        self._mark_at = 0
        self._told: local.Odd | None = None

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
            self._marked = True
            self._say()

    def found(self, index: int, reason: str) -> None:
        """The digest at `index` has shown it. The mark is for `turn`, before anything leaves."""
        self._odd = Odd(index, reason)
        self._say()

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
        """The mark; then no snapshot of this state any more, and no watch of it. What to tell consensus."""
        if self._odd is None:
            return []
        if not self._marked and now >= self._mark_at:
            self._mark(self._odd, now)
        if self._told is None:
            taking.stop(now)
            streams.end_all()
        return self.news(taking)

    def _mark(self, odd: Odd, now: int) -> None:
        try:
            self._store.mark_odd(odd)
            self._marked = True
        except DiskFailed as error:
            self._mark_at = now + MARK_MS
            log.warning("that the state of this node is wrong is not on the disk yet: %s", error.message)

    def news(self, taking: Taking) -> list[local.Odd]:
        """What consensus does not know yet. `taking` has had its turn, or was stopped."""
        if self._odd is None:
            return []
        news = local.Odd(self._odd.index, self._marked and not taking.busy)
        if news == self._told:
            return []
        self._told = news
        return [news]

    def next_timer(self) -> int | None:
        """When `turn` is wanted."""
        return self._mark_at if self._odd is not None and not self._marked else None

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
