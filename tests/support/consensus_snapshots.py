"""One consensus process stepped by hand that makes, sends and receives snapshots; see lone_consensus.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lone_consensus import CONFIGURATION, FOUNDING, Alone

from danube_raft.config import Config
from danube_raft.node.endpoints import ToPeer
from danube_raft.node.handler import KV, LINKS, LOG
from danube_raft.node.snapshot_sender import RESEND_HEARTBEATS
from danube_raft.wire import local, peer
from danube_raft.wire.entry import (
    KIND_BATCH,
    NO_ORIGIN,
    VOTER,
    Configuration,
    Entry,
    HardState,
    Member,
    pack_configuration,
)

CHAIN = bytes(range(16))
SHA = bytes(32)
OTHERS = pack_configuration(
    Configuration((*CONFIGURATION.members, Member(4, VOTER, "127.0.0.1:4", "127.0.0.1:14")))
)
TINY = replace(Config(), snapshot_tail_entries=2, snapshot_piece_bytes=100)
SILENCE_MS = RESEND_HEARTBEATS * TINY.heartbeat_ms


def recovered(purged: int = 0, last: int = 9, term: int = 1) -> local.Recovered:
    """Entries up to `last`, all of one term."""
    beginning = purged if purged else 1
    runs = ((purged + 1, term),) if last > purged else ()
    configurations = ((beginning, FOUNDING.configuration),)
    return local.Recovered(
        HardState(term, 0), purged, term if purged else 0, last, last * 10, runs, configurations, "", 9
    )


def entries(first: int, last: int, term: int = 2, size: int = 10) -> tuple[Entry, ...]:
    return tuple(
        Entry(index, term, KIND_BATCH, index * 10, 0, NO_ORIGIN, bytes(size))
        for index in range(first, last + 1)
    )


def done(index: int, term: int = 2, size: int = 250) -> local.SnapshotDone:
    return local.SnapshotDone(index, term, CHAIN, size, SHA, index * 10, FOUNDING.configuration)


def sent_to(node: Alone, edge: str, *kinds: type) -> list[Any]:
    """What was sent on an edge of these kinds, in order, taken; for peers (receiver, message)."""
    found: list[Any] = []
    for to, item in node.sent:
        if to != edge:
            continue
        message = item.message if isinstance(item, ToPeer) else item
        if isinstance(message, kinds):
            found.append((item.header.receiver, message) if isinstance(item, ToPeer) else message)
    node.sent.clear()
    return found


def led(config: Config = TINY, upto: int = 20, size: int = 10) -> Alone:
    """A follower of node 1 in term 2 that has applied everything up to `upto`."""
    node = Alone(config=config)
    node.follow(1)
    node.hear(1, peer.AppendEntries(1, 1, upto, 0, entries(2, upto, size=size)))
    node.receive(LOG, local.LogChunk(1, entries(1, 1, 1)))
    node.turn()
    node.receive(KV, local.Applied(upto))
    node.turn()
    node.sent.clear()
    return node


def take_snapshots(node: Alone, *indexes: int) -> list[local.Purge]:
    for index in indexes:
        node.receive(KV, done(index))
        node.turn()
    purges: list[local.Purge] = sent_to(node, LOG, local.Purge)
    return purges


def leading(size: int = 250, config: Config = TINY, snapshots: tuple[int, ...] = (10, 15)) -> Alone:
    """Node 2 leads term 2, has purged its log, and node 3 has nothing."""
    node = Alone(config=config)
    node.lead()
    for index in range(3, 21):
        node.receive(KV, local.Propose(index, b"batch"))
        node.turn()
    node.hear(1, peer.AppendReply(True, 20, 0, 0, True))
    node.receive(LOG, local.LogChunk(1, entries(1, 1, 1)))
    node.turn()
    node.receive(KV, local.Applied(20))
    for index in snapshots:
        node.receive(KV, done(index, size=size))
    node.turn()
    node.sent.clear()
    node.hear(3, peer.AppendReply(False, 1, 0, 0, True))
    return node


def read(node: Alone, data: bytes = b"x" * 1_000) -> list[tuple[int, peer.InstallSnapshot]]:
    """The log-writer reads what is asked for; what is sent."""
    for piece in sent_to(node, LOG, local.ReadPiece):
        part = data[piece.offset : piece.offset + piece.max_bytes]
        node.receive(LOG, local.Piece(piece.index, piece.term, piece.offset, part))
    node.turn()
    found: list[tuple[int, peer.InstallSnapshot]] = [
        (item.header.receiver, item.message)
        for edge, item in node.sent
        if edge == LINKS and isinstance(item, ToPeer) and isinstance(item.message, peer.InstallSnapshot)
    ]
    return found


def wait(node: Alone, ms: int, match: int = 20) -> None:
    """Time passes; node 1 answers heartbeats, so that this leader stays one, and has the log up to `match`."""
    end = node.now + ms
    while node.now < end:
        node.now = min(end, node.handler.next_timer() or end)
        node.turn()
        node.hear(1, peer.HeartbeatReply(0, match, 2, True))


def piece(index: int = 30, offset: int = 0, term: int = 2, data: bytes = b"p" * 50, **changes: Any) -> Any:
    made = peer.InstallSnapshot(index, term, CHAIN, 100, SHA, index * 10, OTHERS, offset, data)
    return made._replace(**changes)


def stage(node: Alone, offset: int, *, complete: bool = False, index: int = 30, term: int = 2) -> None:
    node.receive(LOG, local.Staged(index, term, offset, complete))
    node.turn()
