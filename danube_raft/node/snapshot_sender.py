"""The leader's part in sending snapshots: one transfer for each peer that needs what only a snapshot has.

- So does a peer whose state is wrong, for as long as it asks: it gets one that reaches what it has asked for.
- The newest snapshot is sent, and stays the one of its transfer while newer ones are made. When it is gone, or the log
  behind it is, the newest one is begun.
- One that cannot be read, or that a peer refuses when it has all of it, is in doubt (`snapshot_doubts.py`): its transfer
  rests until there is another one to begin with, or for as long as a doubt says.
- The receiver says which offset it wants; nothing else is believed, so another leader goes on where one has stopped.
  Until its first word one piece is under way, then a window of `snapshot_window_pieces`.
- What is lost is noticed by silence: after `RESEND_HEARTBEATS` heartbeats without progress everything from the offset
  that is wanted is sent again, one piece first.
- A transfer is over when the peer's log is known to begin behind the snapshot: then it is a matter of entries again. The
  log is kept for it all the same until it has what the newest snapshot has.

Decides only; the pieces are read by the log-writer, and time and messages come from the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from danube_raft.config import Config
from danube_raft.node.snapshot_doubts import Doubts
from danube_raft.wire import local, peer

RESEND_HEARTBEATS = 10
ASKED_MS = 5_000
"""So long after it last asked a peer is taken to need a snapshot still; it asks every second."""

log = logging.getLogger("danube_raft.snapshots")


class Transfer:
    """One snapshot on its way to one peer."""

    __slots__ = (
        "began_at",
        "boot_epoch",
        "due_at",
        "installed",
        "next_offset",
        "reading",
        "resting",
        "snapshot",
        "wanted",
        "window",
    )

    def __init__(self, snapshot: local.SnapshotDone, now: int) -> None:
        self.snapshot = snapshot
        self.began_at = now
        """Or when the receiver answered first."""
        self.boot_epoch = 0
        """Of the receiver, as it has said last; 0: it has not."""
        self.due_at = now
        """When the silence has lasted too long."""
        self.wanted = 0
        """Offset that the receiver asks for."""
        self.next_offset = 0
        self.window = 1
        self.reading: set[int] = set()
        """Offsets that the log-writer was asked for."""
        self.installed = False
        self.resting = False
        """Whether it has shown its snapshot to be in doubt."""

    @property
    def unproven(self) -> bool:
        """Whether all of it has left, and nobody has said that it is whole."""
        return self.wanted < self.snapshot.size_bytes <= self.next_offset and not self.reading

    def again(self, offset: int) -> None:
        """From `offset` on, carefully. If all has arrived its last byte asks how it goes."""
        self.wanted = offset
        self.next_offset = min(offset, self.snapshot.size_bytes - 1)
        self.window = 1
        self.reading.clear()


class SnapshotSender:
    """All transfers of a leader."""

    def __init__(self, config: Config, doubts: Doubts) -> None:
        self._config = config
        self._doubts = doubts
        self._silence_ms = RESEND_HEARTBEATS * config.heartbeat_ms
        self._transfers: dict[int, Transfer] = {}
        self._asked: dict[int, tuple[int, int]] = {}
        """By peer: what a snapshot for it has to reach, and until when."""
        self._pins: dict[int, tuple[int, int]] = {}
        """By peer that has got one: behind which index it needs the log, and until when that is kept."""

    @property
    def offsets(self) -> dict[int, int]:
        """How much each peer has that gets a snapshot."""
        return {to: transfer.wanted for to, transfer in self._transfers.items()}

    def next_timer(self) -> int | None:
        """When `turn` is wanted."""
        return min((transfer.due_at for transfer in self._transfers.values()), default=None)

    def pinned(self, now: int) -> int | None:
        """The oldest snapshot whose log is still to be kept."""
        limit = self._config.snapshot_pin_ms
        recent = [each.snapshot.index for each in self._transfers.values() if now - each.began_at < limit]
        recent += [index for index, until in self._pins.values() if now < until]
        return min(recent, default=None)

    def asked(self, by: int, index: int, now: int) -> None:
        """A peer needs a snapshot that reaches `index`, though its log does not."""
        self._asked[by] = (index, now + ASKED_MS)

    def stop(self) -> None:
        """Nothing is sent any more, and what arrives of what was is inert."""
        self._transfers.clear()
        self._asked.clear()

    def _needs(self, progress: Mapping[int, str], newest: local.SnapshotDone | None, now: int) -> list[int]:
        """Who gets one now."""
        self._asked = {to: (index, until) for to, (index, until) in self._asked.items() if now < until}
        reached = 0 if newest is None else newest.index
        return [
            to
            for to, state in progress.items()
            if state == "snapshot" or (to in self._asked and self._asked[to][0] <= reached)
        ]

    def turn(
        self,
        progress: Mapping[int, str],
        matches: Mapping[int, int],
        newest: local.SnapshotDone | None,
        purged_index: int,
        now: int,
    ) -> list[local.ReadPiece]:
        """Begin, repeat and end transfers by what each peer is known to need and to have (see `Core.progress` and
        `Core.followers`); pieces to be read. `newest`: the one to be sent."""
        needs = self._needs(progress, newest, now)
        for to in [to for to in self._transfers if to not in needs]:
            self._end(to, now)
        reached = 0 if newest is None else newest.index
        self._pins = {to: pin for to, pin in self._pins.items() if matches.get(to, reached) < reached}
        for to in needs:
            if newest is not None:
                self._look_after(to, newest, purged_index, now)
        return [
            piece
            for transfer in self._transfers.values()
            for piece in self._wanted_pieces(transfer, purged_index)
        ]

    def piece_read(self, piece: local.Piece, now: int) -> list[tuple[int, peer.InstallSnapshot]]:
        """The log-writer has read a piece: for whom it is."""
        for to, transfer in self._transfers.items():
            whole = transfer.snapshot
            if (whole.index, whole.term) != (piece.index, piece.term) or piece.offset not in transfer.reading:
                continue
            if not piece.data:
                self._fail(transfer, "it cannot be read", now)
                continue
            transfer.reading.discard(piece.offset)
            message = peer.InstallSnapshot(
                whole.index,
                whole.term,
                whole.chain,
                whole.size_bytes,
                whole.sha256,
                whole.stamp_ms,
                whole.configuration,
                piece.offset,
                piece.data,
            )
            return [(to, message)]
        return []

    def replied(self, header: peer.Header, reply: peer.InstallSnapshotReply, now: int) -> None:
        """A receiver says what it has."""
        sender = header.sender
        transfer = self._transfers.get(sender)
        if transfer is None or (reply.index, reply.last_term) != transfer.snapshot[:2]:
            return
        restarted = transfer.boot_epoch not in (0, header.boot_epoch)
        if not transfer.boot_epoch:
            transfer.began_at = now
        transfer.boot_epoch = header.boot_epoch
        size = transfer.snapshot.size_bytes
        if reply.installed:
            # Whose state was wrong says so when it has begun with this one.
            self._asked.pop(sender, None)
            transfer.installed = True
            transfer.due_at = now + self._silence_ms
        elif reply.offset <= 0 and transfer.unproven and not restarted:
            self._fail(transfer, f"node {sender} has got all of it, and refuses it", now)
        elif reply.offset < transfer.wanted:
            # It has begun anew.
            transfer.again(max(reply.offset, 0))
            transfer.window = 0
        elif transfer.wanted < reply.offset <= size:
            transfer.wanted = reply.offset
            transfer.next_offset = max(transfer.next_offset, reply.offset)
            transfer.window = self._config.snapshot_window_pieces
            transfer.due_at = now + self._silence_ms

    def unsent(self, to: int) -> None:
        """A piece did not leave: it is repeated after the silence."""
        transfer = self._transfers.get(to)
        if transfer is not None:
            transfer.again(transfer.wanted)
            transfer.window = 0

    def _fail(self, transfer: Transfer, reason: str, now: int) -> None:
        """As it is it is of no use. Another one is begun, or this one again, after a silence or a rest."""
        transfer.again(0)
        transfer.window = 0
        transfer.resting = self._doubts.add(transfer.snapshot, reason)
        rest_ms = self._doubts.pause_ms if transfer.resting else 0
        transfer.due_at = now + max(self._silence_ms, rest_ms)

    def _look_after(self, to: int, newest: local.SnapshotDone, purged_index: int, now: int) -> None:
        transfer = self._transfers.get(to)
        if transfer is None:
            self._begin(to, newest, now)
        elif transfer.snapshot.index < purged_index:
            log.info("the snapshot of index %d for node %d was overtaken", transfer.snapshot.index, to)
            self._begin(to, newest, now)
        elif transfer.resting and not self._doubts.holds(newest):
            self._begin(to, newest, now)
        elif now >= transfer.due_at:
            if transfer.window == 0 and transfer.wanted == 0 and newest != transfer.snapshot:
                self._begin(to, newest, now)
            transfer = self._transfers[to]
            # A peer that has installed it and needs it still has lost it again.
            transfer.again(0 if transfer.installed else transfer.wanted)
            transfer.installed = transfer.resting = False
            transfer.due_at = now + self._silence_ms

    def _begin(self, to: int, snapshot: local.SnapshotDone, now: int) -> None:
        self._pins.pop(to, None)
        before = self._transfers.get(to)
        transfer = self._transfers[to] = Transfer(snapshot, now)
        if before is not None and not before.boot_epoch:
            # There is nobody who takes it: the log is not kept for that again and again.
            transfer.began_at = before.began_at
        transfer.due_at = now + self._silence_ms
        log.info(
            "sending the snapshot of index %d (%d bytes) to node %d", snapshot.index, snapshot.size_bytes, to
        )

    def _end(self, to: int, now: int) -> None:
        transfer = self._transfers.pop(to)
        took_ms = now - transfer.began_at
        self._pins[to] = (transfer.snapshot.index, transfer.began_at + self._config.snapshot_pin_ms)
        if transfer.installed:
            log.info(
                "node %d has the snapshot of index %d, after %d ms", to, transfer.snapshot.index, took_ms
            )
        else:
            log.info("node %d does not need the snapshot of index %d any more", to, transfer.snapshot.index)

    def _wanted_pieces(self, transfer: Transfer, purged_index: int) -> list[local.ReadPiece]:
        pieces: list[local.ReadPiece] = []
        whole, size = transfer.snapshot, self._config.snapshot_piece_bytes
        if transfer.installed or transfer.window == 0 or whole.index < purged_index:
            return pieces
        limit = min(transfer.wanted + transfer.window * size, whole.size_bytes)
        while transfer.next_offset < limit:
            pieces.append(local.ReadPiece(whole.index, whole.term, transfer.next_offset, size))
            transfer.reading.add(transfer.next_offset)
            transfer.next_offset += size
        return pieces
