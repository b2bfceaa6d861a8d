"""Consensus' part in replacing a state that is wrong, on the node that has it (INTERNALS §9, Digest).

- Its log is as good as any: it votes, acknowledges and stores. Of the state in its snapshots nothing leaves it, and of
  its log nothing is forgotten, so that it goes on behind whatever the leader sends.
- If it leads it hands leadership over. As a follower, once that can be made use of, it asks its leader, again and again, for a snapshot that reaches
  the digest that has shown it, and its own log.
- Who asks it for a snapshot while it leads is wrong too, and is not handed leadership: two of those would pass it to each
  other for ever. If there are only such, it goes on leading.
- The leader's own state may be wrong as well, where it has left out that digest. Nobody knows it before the next one.
- Such a snapshot is staged like any other, although it ends with an entry that is committed here. When it is whole, and
  this log has that very entry with the same chain, the kv-server starts again with it. One that is ahead of the log is
  installed like any other, which comes to the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from danube_raft.node.handler import KV, LOG
from danube_raft.node.snapshot_receiver import Announced, SnapshotReceiver
from danube_raft.raft.core import Core
from danube_raft.wire import local, peer

ASK_MS = 1_000
HAND_OVER_MS = 1_000
SHUN_MS = 10_000
"""So long after it last asked a peer is taken to be wrong still; leadership may have gone round meanwhile."""

log = logging.getLogger("danube_raft.snapshots")


class Replacement:
    """Of a node whose state the digest at `index` has shown to be wrong."""

    def __init__(
        self, index: int, outbox: list[tuple[str, Any]], tell: Callable[[int, peer.Message], None]
    ) -> None:
        self._index = index
        self._outbox = outbox
        self._tell = tell
        self.ready = False
        """Whether the kv-server can make use of one."""
        self._ask_at = 0
        self._hand_over_at = 0
        self._comparing: Announced | None = None
        self._shun_until: dict[int, int] = {}

    def asked(self, by: int, now: int) -> None:
        """A follower takes this node for its leader and needs what this node cannot give."""
        self._shun_until[by] = now + SHUN_MS

    def wanted(self, core: Core) -> int | None:
        """What a snapshot has to reach; None: none is wanted yet. A damaged mark says 0, which every leader has, even one
        without a snapshot."""
        return max(self._index, core.snapshot_index, 1) if self.ready else None

    def hand_over(self, core: Core, now: int) -> None:
        """Before the core's output is taken."""
        if core.role == "leader" and now >= self._hand_over_at:
            self._hand_over_at = now + HAND_OVER_MS
            if core.transfer(0, now, [by for by, until in self._shun_until.items() if now < until]) is None:
                log.info("handing leadership over: the state of this node is wrong")

    def turn(self, core: Core, receiver: SnapshotReceiver, now: int) -> None:
        """Ask, and look at what has arrived."""
        if self._comparing is None:
            self._comparing = receiver.take_owned(core)
            if self._comparing is not None:
                self._outbox.append((LOG, local.ReadPoint(self._comparing.index)))
        wanted = self.wanted(core)
        if wanted is None:
            return
        if core.role == "follower" and core.leader_id and not core.passive and now >= self._ask_at:
            self._ask_at = now + ASK_MS
            self._tell(core.leader_id, peer.AskSnapshot(wanted))

    def point_read(self, point: local.PointRead) -> None:
        """The log-writer says what the log is at the end of the snapshot."""
        found, self._comparing = self._comparing, None
        if found is None or point.index != found.index:
            self._comparing = found
        elif (point.term, point.chain) == (found.term, found.chain):
            self._outbox.append((KV, local.ReplaceState(found.index, found.term, found.sha256)))
        else:
            log.error("the leader's snapshot of index %d is not of this log: it is not used", found.index)

    def next_timer(self, core: Core | None) -> int | None:
        """When `hand_over` or `turn` is wanted."""
        if core is None or core.passive:
            return None
        if core.role == "leader":
            return self._hand_over_at
        return self._ask_at if self.ready and core.role == "follower" and core.leader_id else None
