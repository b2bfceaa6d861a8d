"""The follower's part in sending snapshots: pieces of the leader's go to the log-writer, and the whole into the log.

- Only the leader of the term that this node is in is listened to. Its heartbeats say that it lives; pieces do not.
- What this node has committed already it does not need: it says that it has it, once that is on its disk. Only where
  its state is wrong is such a snapshot `wanted`: see `snapshot_replacement.py`.
- A whole snapshot is installed by the core, as one write in the order of all others, once the kv-server has loaded
  what it began with: the log must not begin behind a state that is still being read. When that write is durable the
  kv-server is told, between what was committed before and what comes after.
- Of no use any more (this node is no follower, or knows more by now): the file stays, and nobody looks at it. Should
  the leader send it again the log-writer says at once that it is whole.

Decides only; what it has to say is returned.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from danube_raft.raft.core import Core
from danube_raft.storage.entry_format import CHAIN_BYTES
from danube_raft.wire import codec, local, peer
from danube_raft.wire.entry import Configuration, unpack_configuration

log = logging.getLogger("danube_raft.snapshots")


class Announced(NamedTuple):
    """A snapshot of the leader's, of which pieces arrive."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    chain: bytes
    size_bytes: int
    stamp_ms: int
    configuration: bytes
    sha256: bytes


class SnapshotReceiver:
    """What arrives and what is being installed; at most one of each."""

    def __init__(self) -> None:
        self._arriving: Announced | None = None
        self._whole = False
        """`_arriving` is on the disk, proven, and waits to be installed."""
        self._installing: Announced | None = None
        self._began_at = 0

    @property
    def arriving_index(self) -> int:
        """The snapshot that arrives or is being installed; 0: none."""
        known = self._installing or self._arriving
        return 0 if known is None else known.index

    def piece(
        self, core: Core, sender: int, piece: peer.InstallSnapshot, now: int, wanted: int | None = None
    ) -> local.StagePiece | peer.InstallSnapshotReply | None:
        """A piece of the leader's: what the log-writer has to do, or what to answer at once. None: not listened to.
        `wanted`: one that reaches so far is needed, whatever is committed."""
        if core.role != "follower" or core.leader_id != sender or _configuration(piece) is None:
            return None
        if core.passive:
            # Its disk is full, and what it says that it has would be a promise.
            return None
        if piece.index <= core.commit_index and (wanted is None or piece.index < wanted):
            if piece.index > core.durable_index:
                # It will be here, and not yet: then the leader hears it with the ack of those entries.
                return None
            return _reply(piece.index, piece.last_term, piece.size_bytes, installed=True)
        if core.installing:
            return None
        announced = Announced(
            *piece[:4],
            piece.stamp_ms,
            piece.configuration,
            piece.sha256,
        )
        if announced != self._arriving:
            self._arriving, self._whole, self._began_at = announced, False, now
            log.info(
                "receiving the snapshot of index %d (%d bytes) of node %d",
                *announced[:1],
                piece.size_bytes,
                sender,
            )
        return local.StagePiece(*announced[:4], piece.sha256, piece.offset, piece.data)

    def staged(self, staged: local.Staged) -> peer.InstallSnapshotReply | None:
        """The log-writer says how much is there: what the leader is told."""
        arriving = self._arriving
        if arriving is None or (staged.index, staged.term) != arriving[:2]:
            return None
        self._whole = staged.complete
        return _reply(staged.index, staged.term, staged.offset, installed=False)

    def take_owned(self, core: Core) -> Announced | None:
        """What is whole and ends with an entry that this log has, taken: there is nothing to install."""
        whole = self._arriving
        if whole is None or not self._whole or core.installing or not core.has(whole.index, whole.term):
            return None
        self._arriving, self._whole = None, False
        return whole

    def install(self, core: Core, now: int) -> local.InstallPoint | None:
        """Install what is whole, if it is of use. The core's output has been taken."""
        whole = self._arriving
        if whole is None or not self._whole or core.installing:
            return None
        self._arriving, self._whole = None, False
        configuration = unpack_configuration(whole.configuration)
        seq = core.install(whole.index, whole.term, configuration, whole.stamp_ms, now)
        if seq is None:
            log.info("the snapshot of index %d is of no use any more", whole.index)
            return None
        self._installing = whole
        log.info(
            "installing the snapshot of index %d, which took %d ms to arrive",
            whole.index,
            now - self._began_at,
        )
        return local.InstallPoint(
            seq, whole.index, whole.term, whole.chain, whole.stamp_ms, whole.configuration
        )

    def installed(self, core: Core) -> peer.InstallSnapshotReply | None:
        """The disk is done with something: what to tell the leader if the log begins behind the snapshot now."""
        done = self._installing
        if done is None or core.installing:
            return None
        self._installing = None
        log.info("the log begins behind the snapshot of index %d", done.index)
        return _reply(done.index, done.term, done.size_bytes, installed=True)


def _reply(index: int, term: int, offset: int, *, installed: bool) -> peer.InstallSnapshotReply:
    return peer.InstallSnapshotReply(index, term, offset, installed)


def _configuration(piece: peer.InstallSnapshot) -> Configuration | None:
    """None if no snapshot can be announced like this."""
    if len(piece.chain) != CHAIN_BYTES or min(piece.index, piece.last_term, piece.stamp_ms, piece.offset) < 0:
        return None
    try:
        return unpack_configuration(piece.configuration)
    except codec.Malformed:
        return None
