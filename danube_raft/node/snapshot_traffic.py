"""Consensus' part in snapshots: the hub between kv-server, log-writer and peers (INTERNALS §9).

- Start: the kv-server names the snapshots that it has, the log says which of them it goes on from, and the newest of
  those is loaded. With none of them and a log that is purged this node has lost its past, and ends.
- Nothing is staged before the kv-server has spoken: it removes what was left unfinished by the boot before.
- The log is forgotten only as far as `retention.py` allows, and never beyond what is applied; where the disk was found
  full it stays as it is, and nothing is staged or installed.
- A snapshot that rots while the node runs is replaced, and not sent again and again (`snapshot_doubts.py`).
- A node whose state is wrong hands out no snapshot and forgets nothing of its log (`snapshot_replacement.py`); one that
  leads such a node has a snapshot made that it can use.
- A point of the log that an installation is about to replace is not told: the snapshot for which it was asked is given up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from danube_raft.config import Config
from danube_raft.errors import Corrupt, DiskFailed, NewerFormat
from danube_raft.node.handler import KV, LOG
from danube_raft.node.retention import Retention
from danube_raft.node.snapshot_doubts import Doubts
from danube_raft.node.snapshot_receiver import SnapshotReceiver
from danube_raft.node.snapshot_replacement import Replacement
from danube_raft.node.snapshot_sender import SnapshotSender
from danube_raft.raft.core import Core
from danube_raft.storage.entry_format import NEWER_WAY_OUT, WAY_OUT
from danube_raft.wire import local, peer
from danube_raft.wire.entry import Entry, pack_configuration

log = logging.getLogger("danube_raft.snapshots")

NONE_FITS = f"the log begins behind entry {{index}} and no snapshot is left from which it goes on; {WAY_OUT}"
NEWER_IS_LEFT = (
    "the log begins behind entry {index}: of the snapshots that this version can read none goes on from there, and "
    f"{{newer}} is of a later one; {NEWER_WAY_OUT}"
)
UNREADABLE_IS_LEFT = "the log begins behind entry {index}: no snapshot goes on from there, and the disk could not read {name}, which may"


class SnapshotTraffic:
    """Everything about snapshots that passes through consensus. `outbox` is consensus' own; `tell` sends to a peer, in the
    term that this node is in."""

    def __init__(
        self, config: Config, outbox: list[tuple[str, Any]], tell: Callable[[int, peer.Message], None]
    ) -> None:
        self._outbox = outbox
        self._tell = tell
        self._retention = Retention(config)
        self._doubts = Doubts(config)
        self._sender = SnapshotSender(config, self._doubts)
        self._receiver = SnapshotReceiver()
        self._replacement: Replacement | None = None
        self._heard_kv = False
        self._found: local.SnapshotsFound | None = None
        self._chosen: tuple[int, int] | None = None
        self._may_purge = False
        self._pinned: int | None = None

    @property
    def newest_index(self) -> int:
        """Where the newest snapshot of this node ends; 0: there is none."""
        newest = self._retention.newest
        return 0 if newest is None else newest.index

    @property
    def arriving_index(self) -> int:
        """Where the snapshot ends that this node is getting from the leader; 0: none."""
        return self._receiver.arriving_index

    def turn(self, core: Core, kv_loaded: bool, now: int) -> None:
        """What follows from all that has arrived. The core's output has been taken and passed on."""
        self._choose(core)
        if self._replacement is not None:
            self._replacement.turn(core, self._receiver, now)
        point = self._receiver.install(core, now) if kv_loaded else None
        if point is not None:
            self._outbox.append((LOG, point))
        newest = None if self._replacement is not None else self._retention.newest
        best = self._doubts.best(newest, self._retention.older)
        pieces = self._sender.turn(core.progress, core.followers, best, core.snapshot_index, now)
        self._outbox.extend([(LOG, piece) for piece in pieces])
        wish = self._doubts.wish(newest, now)
        if wish is not None:
            self._outbox.append((KV, wish))
        pinned = self._sender.pinned(now)
        if self._may_purge or pinned != self._pinned:
            self._pinned = pinned
            self._purge(core, pinned, now)

    def hand_over(self, core: Core, now: int) -> None:
        """A leader whose state is wrong leads no longer than it must. The core's output is about to be taken."""
        if self._replacement is not None:
            self._replacement.hand_over(core, now)

    def next_timer(self, core: Core | None) -> int | None:
        """When `turn` is wanted."""
        if self._replacement is not None:
            return self._replacement.next_timer(core)
        return self._sender.next_timer()

    # ---------------------------------------------------------------- kv-server

    def from_kv(self, core: Core | None, message: local.Message) -> None:
        """What the kv-server says of its snapshots."""
        if isinstance(message, local.SnapshotsFound):
            self._heard_kv = True
            self._found = message
        elif isinstance(message, local.SnapshotDone):
            assert core is not None, "it was told which one to load"
            # What was made before an installation is of no use behind it.
            if message.index >= core.snapshot_index:
                self._done(message)
        elif isinstance(message, local.Odd):
            if self._replacement is None:
                self._replacement = Replacement(message.index, self._outbox, self._tell)
                self._sender.stop()
            self._replacement.ready = message.replaceable
        elif isinstance(message, local.AskPoint):
            assert core is not None, "it has applied what it asks about"
            if not core.installing and message.index >= core.snapshot_index:
                self._outbox.append((LOG, local.ReadPoint(message.index)))

    def _done(self, snapshot: local.SnapshotDone) -> None:
        if snapshot.instead:
            self._retention.replaced(snapshot)
        elif self._retention.done(snapshot):
            self._may_purge = True
        self._doubts.made(snapshot)

    def _choose(self, core: Core) -> None:
        """Answer the kv-server, if it waits. Raises Corrupt when there is nothing to begin with, NewerFormat when there may
        be something for a later version, DiskFailed when there may be and the disk failed."""
        found, self._found = self._found, None
        if found is None:
            return
        fit = next((point for point in found.points if core.has(*point)), None)
        if fit is None and core.snapshot_index:
            if found.unreadable:
                raise DiskFailed(UNREADABLE_IS_LEFT.format(index=core.snapshot_index, name=found.unreadable))
            if found.newer:
                raise NewerFormat(NEWER_IS_LEFT.format(index=core.snapshot_index, newer=found.newer))
            raise Corrupt(NONE_FITS.format(index=core.snapshot_index))
        if self._chosen is not None:
            older = "the whole log" if fit is None else f"the older one of index {fit[0]}"
            log.warning(
                "the snapshot of index %d cannot be used: this node begins with %s", self._chosen[0], older
            )
        self._chosen = fit
        self._outbox.append((KV, local.LoadSnapshot(*(fit or (0, 0)))))

    def committed(self, entries: tuple[Entry, ...]) -> None:
        """What the kv-server gets."""
        self._retention.committed(entries)

    # ---------------------------------------------------------------- log-writer

    def from_log(self, core: Core, message: local.Message, now: int) -> None:
        """What the log-writer answers."""
        if isinstance(message, local.PointRead):
            if self._replacement is not None:
                self._replacement.point_read(message)
            else:
                self._outbox.append((KV, message))
        elif isinstance(message, local.Piece):
            for to, piece in self._sender.piece_read(message, now):
                self._tell(to, piece)
        elif isinstance(message, local.Staged):
            self._answer(core, self._receiver.staged(message))

    def durable(self, core: Core) -> local.InstallSnapshot | None:
        """The disk is done with something: what the kv-server has to load before it gets what is committed next."""
        reply = self._receiver.installed(core)
        if reply is None:
            return None
        self._retention.installed(reply.index)
        self._answer(core, reply)
        return local.InstallSnapshot(reply.index, reply.last_term)

    def _answer(self, core: Core, reply: peer.InstallSnapshotReply | None) -> None:
        if reply is not None and core.leader_id and core.role == "follower":
            self._tell(core.leader_id, reply)

    def _purge(self, core: Core, pinned: int | None, now: int) -> None:
        if core.passive or self._replacement is not None:
            return
        wanted = self._retention.purge_to(pinned)
        index = min(wanted, core.applied_index)
        # The kv-server may have said that it has a snapshot before it says that it has applied so much.
        self._may_purge = index < wanted
        if index <= core.snapshot_index:
            return
        configuration = pack_configuration(core.configuration_at(index))
        self._outbox.append((LOG, local.Purge(index, self._retention.stamp_at(index), configuration)))
        core.purge(index, now)
        self._retention.forgotten(index)

    # ---------------------------------------------------------------- peers

    def from_peer(self, core: Core, header: peer.Header, message: peer.Message, now: int) -> bool:
        """A piece, or an answer to one; False if it is not listened to."""
        if header.term != core.term or not self._heard_kv:
            return False
        if isinstance(message, peer.InstallSnapshotReply):
            self._sender.replied(header, message, now)
            return True
        if isinstance(message, peer.AskSnapshot):
            self._asked(core, header.sender, message.index, now)
            return True
        assert isinstance(message, peer.InstallSnapshot)
        wanted = None if self._replacement is None else self._replacement.wanted(core)
        todo = self._receiver.piece(core, header.sender, message, now, wanted)
        if isinstance(todo, local.StagePiece):
            self._outbox.append((LOG, todo))
        else:
            self._answer(core, todo)
        return todo is not None

    def _asked(self, core: Core, by: int, index: int, now: int) -> None:
        """The state of a follower is wrong. Whose own is wrong too is of no help."""
        if core.role != "leader":
            return
        if self._replacement is not None:
            self._replacement.asked(by, now)
            return
        self._sender.asked(by, index, now)
        if self.newest_index < index:
            self._outbox.append((KV, local.WantSnapshot(index)))

    def unsent(self, to: int) -> None:
        """A piece for that peer did not leave."""
        self._sender.unsent(to)
