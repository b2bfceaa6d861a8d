"""The forming phase over real sockets: links that come late, frames that are none, a port that is free afterwards."""

from __future__ import annotations

import logging
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq
from real_node import free_ports

from danube_raft.config import Config
from danube_raft.errors import ConfigInvalid, PortInUse
from danube_raft.node.bootstrap import belongs, held_data_dir
from danube_raft.node.endpoints import FromPeer, ToPeer, Unsent
from danube_raft.node.handler import PEERS
from danube_raft.node.questions import forming_endpoints
from danube_raft.wire import peer
from danube_raft.wire.entry import Founding

WAIT_S = 20.0
HEADER = peer.Header(0, 1, 0, 0, 0)


def configs(directory: Path, count: int) -> list[Config]:
    ports = free_ports(count)
    seeds = tuple(f"127.0.0.1:{port}" for port in ports)
    return [
        replace(Config(), data_dir=str(directory / f"n{n}"), raft_listen=seed, seed_nodes=seeds)
        for n, seed in enumerate(seeds)
    ]


def test_a_question_is_answered_on_the_link_that_asked_and_the_rest_is_refused(tmp_path: Path) -> None:
    one, two = configs(tmp_path, 2)
    edge = f"seed:{two.raft_listen}"
    with forming_endpoints(one) as mine:
        assert set(mine) == {PEERS, edge}
        link: Any = mine[edge]
        question = ToPeer(HEADER, peer.GetNodeInfo(7))
        assert link.send([question]) == [Unsent(*question)]
        with forming_endpoints(two) as theirs:
            port: Any = theirs[PEERS]
            assert link.socket.poll(WAIT_S * 1000, zmq.POLLOUT)
            assert link.send([question]) == []
            assert port.socket.poll(WAIT_S * 1000)
            (asked,) = port.receive()
            assert asked[1:] == question
            answer = peer.PrepareInitReply(True, "", 5)
            port.send([(asked.envelope, b"\xc1"), (asked.envelope, peer.pack(HEADER, answer))])
            assert link.socket.poll(WAIT_S * 1000)
            assert link.receive() == ()
            assert link.socket.poll(WAIT_S * 1000)
            assert link.receive() == (FromPeer((), HEADER, answer),)
            assert link.receive() is None


def test_the_port_is_free_as_soon_as_the_phase_is_over(tmp_path: Path) -> None:
    one, two = configs(tmp_path, 2)
    host, port = one.raft_listen.split(":")
    for _ in range(20):
        with forming_endpoints(one), forming_endpoints(two) as theirs:
            link: Any = theirs[f"seed:{one.raft_listen}"]
            assert link.socket.poll(WAIT_S * 1000, zmq.POLLOUT)
            with pytest.raises(PortInUse), forming_endpoints(one):
                pass
        with socket.socket() as probe:
            # As any server does; who still listens is in the way all the same.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
            probe.listen()


def test_a_seed_that_is_no_address_is_one_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    (one,) = configs(tmp_path, 1)
    bad = replace(one, seed_nodes=(one.raft_listen, "no host:1"))
    for _ in range(2):
        with (
            pytest.raises(ConfigInvalid, match="seed_nodes = 'no host:1': cannot connect"),
            forming_endpoints(bad),
        ):
            pass


class Waiting:
    """`belongs` in a thread, as the supervisor runs it."""

    def __init__(self, config: Config) -> None:
        self._stop, self._stopped = socket.socketpair()
        self.result: bool | None = None
        self.found: tuple[int, Founding | None] = (0, None)
        self._config = config
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with held_data_dir(self._config, inheritable=False) as data_dir:
            self.result = belongs(self._config, data_dir, (self._stopped.fileno(),))
            identity = data_dir.identity()
            assert identity is not None
            self.found = (identity.cluster_id, data_dir.founding())

    def end(self, *, stop: bool) -> None:
        if stop:
            self._stop.close()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        self._stop.close()
        self._stopped.close()


def test_a_stop_ends_the_wait_at_once_and_a_promise_binds_the_next_start(tmp_path: Path) -> None:
    one, _ = configs(tmp_path, 2)
    waiting = Waiting(one)
    waiting.end(stop=True)
    assert (waiting.result, waiting.found) == (False, (0, None))
    with held_data_dir(one, inheritable=False) as data_dir:
        data_dir.promise(Founding(77, 5, b"\x93\x90\x90\x90", 1))
        alone = replace(one, seed_nodes=())
        with pytest.raises(
            ConfigInvalid, match="has promised to join cluster 77: start it with its seed_nodes"
        ):
            belongs(alone, data_dir, ())


def test_seeds_count_until_the_node_belongs_to_a_cluster(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (one,) = configs(tmp_path, 1)
    waiting = Waiting(one)
    waiting.end(stop=False)
    assert waiting.result
    cluster_id, founding = waiting.found
    assert founding is not None
    assert founding.cluster_id == cluster_id > 0
    caplog.set_level(logging.INFO, "danube_raft.bootstrap")
    with held_data_dir(one, inheritable=False) as data_dir:
        assert belongs(one, data_dir, ())
        assert belongs(replace(one, seed_nodes=()), data_dir, ())
        assert not caplog.records
        assert belongs(replace(one, seed_nodes=("a:1",)), data_dir, ())
        (record,) = caplog.records
        assert (record.levelname, "its seed nodes a:1 are not asked again" in record.getMessage()) == (
            "INFO",
            True,
        )
    caplog.clear()
    alone = replace(one, data_dir=str(tmp_path / "alone"), seed_nodes=())
    with held_data_dir(alone, inheritable=False) as data_dir:
        assert belongs(alone, data_dir, ())
        assert data_dir.founding() is None
        assert belongs(one, data_dir, ())
        (record,) = caplog.records
        assert (record.levelname, "of which it was the first node" in record.getMessage()) == (
            "WARNING",
            True,
        )
