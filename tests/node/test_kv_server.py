"""The kv-server among nodes: when it serves after a start, and what it says until then."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from danube_raft.config import Config
from danube_raft.errors import NoLeader
from danube_raft.node.endpoints import Envelope, FromClient, OpenPort
from danube_raft.node.handler import CLIENTS, CONSENSUS
from danube_raft.node.identity import Identity
from danube_raft.node.kv_server import KvServer
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.storage.memory_snapshots import MemoryFolder, MemorySnapshots
from danube_raft.wire import local
from danube_raft.wire.client import pack_request, unpack_replies
from danube_raft.wire.entry import KIND_BATCH, KIND_NOOP, NO_ORIGIN, Entry

ENVELOPE: Envelope = (b"client", b"")
NOOP = Entry(1, 2, KIND_NOOP, 0, 0, NO_ORIGIN, b"")
PUT = Entry(2, 2, KIND_BATCH, 0, 0, (1, 1, 1), pack_request("put", 5, "/k", b"v"))


class Restarted:
    """A follower's kv-server after a restart; the test plays consensus and a client."""

    def __init__(self) -> None:
        self.now = 1_000
        self.sent: list[tuple[str, Any]] = []
        self.kv = KvServer(
            Config(), Identity(2, 7, 2), Counter(), 3, Shelf(MemorySnapshots(MemoryFolder(), 7), Counter())
        )
        self.kv.start(self.now)
        self.kv.receive(CONSENSUS, local.LoadSnapshot(0, 0), self.now)
        self.turn()

    def turn(self) -> None:
        self.kv.turn(self.now)
        self.sent += self.kv.outbox
        self.kv.outbox.clear()
        timer = self.kv.next_timer()
        assert timer is None or timer > self.now, (
            "a timer that is due already would keep the process from sleeping"
        )

    def hear(self, *messages: local.Message) -> None:
        for message in messages:
            self.kv.receive(CONSENSUS, message, self.now)
        self.turn()

    def ask(self, op: str, number: int, *args: Any, **header: Any) -> None:
        self.kv.receive(CLIENTS, FromClient(ENVELOPE, pack_request(op, number, *args, **header)), self.now)
        self.turn()

    @property
    def questions(self) -> int:
        return sum(isinstance(item, local.AskFresh) for edge, item in self.sent if edge == CONSENSUS)

    @property
    def is_open(self) -> bool:
        return any(isinstance(item, OpenPort) for _, item in self.sent)

    def replies(self) -> dict[int, tuple[Any, ...]]:
        bodies = [item[1] for edge, item in self.sent if edge == CLIENTS and not isinstance(item, OpenPort)]
        return {reply[1]: reply for body in bodies for reply in unpack_replies(body)}


FOLLOWER = local.Role("follower", 2, 1, 0, 0, 0)


@pytest.mark.parametrize("level", [None, "session", "stale"])
def test_a_restarted_node_serves_once_it_has_what_the_leader_had_committed(level: str | None) -> None:
    """In an unchanged term its log is full of entries of that term: the first of them says nothing about the rest."""
    node = Restarted()
    node.hear(FOLLOWER)
    node.ask("get", 1, "/k", consistency=level)
    node.hear(local.FreshAnswer(0, node.now, 2))
    node.hear(local.Committed((NOOP,)))
    assert not node.kv.ready
    assert not node.is_open
    assert node.replies() == {}
    node.hear(local.Committed((PUT,)))
    assert node.kv.ready
    assert node.is_open
    assert node.replies()[1][7][1] == b"v"


def test_it_asks_again_until_the_leader_knows_and_not_while_there_is_none() -> None:
    node = Restarted()
    node.now += 500
    node.turn()
    assert node.questions == 0
    node.hear(FOLLOWER)
    assert node.questions == 1
    node.hear(local.FreshAnswer(0, -1, 0))
    node.now = node.kv.next_timer() or 0
    node.turn()
    assert node.questions == 2
    node.hear(local.Committed((NOOP,)))
    assert node.questions == 3, "an entry of the leader's term is a reason to ask at once"
    node.hear(local.Role("follower", 2, 0, 0, 0, 0))
    node.now += 1_000
    node.turn()
    assert node.questions == 3
    node.hear(FOLLOWER, local.FreshAnswer(0, node.now, 1))
    assert node.kv.ready


def test_without_a_leader_the_port_opens_and_says_so() -> None:
    node = Restarted()
    assert not node.is_open
    node.now += Config().election_max_ms
    node.turn()
    assert node.is_open
    node.ask("get", 1, "/k", timeout_ms=100)
    node.ask("watch_poll", 2, "/", 0, 0)
    node.ask("put", 3, "/k", b"v", timeout_ms=100)
    assert node.replies() == {}
    node.now += 100
    node.turn()
    assert [node.replies()[number][2] for number in (1, 3)] == [NoLeader.code] * 2
    assert not node.kv.ready
