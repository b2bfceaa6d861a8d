"""What a follower says of a snapshot is true on its disk."""

from __future__ import annotations

from lone_consensus import CLUSTER, FOUNDING, Alone

from danube_raft.node.endpoints import FromPeer
from danube_raft.node.handler import LINKS, LOG, PEERS
from danube_raft.storage.entry_format import ZERO_CHAIN
from danube_raft.wire import local, peer
from danube_raft.wire.entry import KIND_NOOP, NO_ORIGIN, Entry


def piece(index: int, term: int = 2) -> peer.InstallSnapshot:
    return peer.InstallSnapshot(index, term, ZERO_CHAIN, 100, b"s" * 32, 0, FOUNDING.configuration, 0, b"x")


def test_it_has_what_is_committed_only_when_its_disk_does() -> None:
    """Found by seed 65: a follower whose disk hung knew that its newest entries were committed, and told a leader that
    asked by snapshot that it had them. Persist, then promise."""
    node = Alone()
    node.follow(1)
    entries = tuple(Entry(index, 2, KIND_NOOP, 0, 0, NO_ORIGIN, b"") for index in (2, 3))
    header = peer.Header(CLUSTER, 1, node.node_id, node.term, 1)
    append = peer.AppendEntries(1, 1, 3, 0, entries)
    node.receive(PEERS, FromPeer((b"p",), header, append))
    node.handler.turn(node.now)
    writes = [each for _, each in node.handler.outbox if isinstance(each, local.Write)]
    node.handler.outbox.clear()
    node.hear(1, piece(3))
    assert node.take(LINKS, peer.InstallSnapshotReply) == []
    node.receive(LOG, local.Durable(writes[-1].seq))
    node.turn()
    node.hear(1, piece(3))
    assert node.take(LINKS, peer.InstallSnapshotReply) == [
        (1, peer.InstallSnapshotReply(3, 2, 100, installed=True))
    ]
