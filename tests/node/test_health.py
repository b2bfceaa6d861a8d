"""Health and readiness as judged from what the supervisor knows, and the HTTP port that tells it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
from real_node import free_ports, until

from danube_raft.config import Config
from danube_raft.errors import PortInUse
from danube_raft.node import health_port as port_module
from danube_raft.node.handler import CONSENSUS, KV, LOG
from danube_raft.node.health import BEHIND_MAX_ENTRIES, CONFIRMED_MS, FRESH_MS, health, readiness
from danube_raft.node.health_port import CONNECTIONS_MAX, HealthPort, health_port
from danube_raft.node.identity import Identity
from danube_raft.node.loop import monotonic_ms
from danube_raft.node.view import NodeView, ProcessView
from danube_raft.wire.local import ReadConfirmed

STUCK_MS = 5_000
LEADING = {"term": 3, "leader_id": 1, "role": "leader", "suspect": "", "missing": ""}


class Seen:
    """A view of a node that leads, and what it asks of the kv-server."""

    def __init__(self, now: int = 10_000) -> None:
        self.now = now
        self.view = NodeView()
        self.processes = {
            name: ProcessView(name, pid, STUCK_MS, now) for pid, name in enumerate((LOG, CONSENSUS, KV), 101)
        }
        for process in self.processes.values():
            process.ready = True
        self.processes[CONSENSUS].report = dict(LEADING)
        self.view.started(Identity(1, 2, 3), tuple(self.processes.values()))

    def confirm(self, at_ms: int | None = None, index: int = 5, applied_index: int = 5) -> None:
        self.view.confirm(ReadConfirmed(self.now if at_ms is None else at_ms, index, applied_index))

    def ready(self) -> list[str]:
        found = readiness(self.view, self.now)
        assert found["status"] == ("not ready" if found["reasons"] else "ready")
        reasons = found["reasons"]
        assert isinstance(reasons, list)
        return reasons


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Nobody answers in these tests but the test, which does so beforehand: waiting is of no use."""
    for name in ("CONFIRMED_MS", "NO_LEADER_MS"):
        monkeypatch.setattr(f"danube_raft.node.health.{name}", 10)
    found = Seen()
    yield found
    found.view.close()


def test_a_node_that_waits_for_the_others_is_healthy_and_not_ready(seen: Seen) -> None:
    """A supervisor of supervisors that restarted it would only keep the cluster from forming."""
    view = NodeView()
    assert health(view, 0) == {"status": "forming", "reasons": []}
    (reason,) = readiness(view, 0)["reasons"]
    assert "seed nodes" in reason
    view.close()


def test_three_processes_with_progress_are_healthy_until_one_has_none_for_too_long(seen: Seen) -> None:
    assert health(seen.view, seen.now + STUCK_MS) == {"status": "ok", "reasons": []}
    seen.processes[LOG].progress_at += 1
    seen.processes[KV].progress_at += 1
    found = health(seen.view, seen.now + STUCK_MS + 1)
    assert found["status"] == "failing"
    (reason,) = found["reasons"]
    assert "consensus (pid 102) has made no progress for 5001 ms" in reason


def test_a_node_whose_processes_ended_is_neither_until_they_are_back(seen: Seen) -> None:
    seen.confirm()
    assert seen.ready() == []
    seen.view.ended("kv-server (pid 103) ended: killed by SIGKILL")
    assert health(seen.view, seen.now)["status"] == "failing"
    assert all("killed by SIGKILL" in reason for reason in seen.ready())
    fresh = tuple(ProcessView(name, 200, STUCK_MS, seen.now) for name in (LOG, CONSENSUS, KV))
    seen.view.started(Identity(1, 2, 4), fresh)
    assert "killed by SIGKILL" in health(seen.view, seen.now)["reasons"][0]
    fresh[0].ready = True
    assert health(seen.view, seen.now)["reasons"] == []
    assert seen.ready() == ["not started yet: consensus, kv-server"]
    fresh[1].ready = fresh[2].ready = True
    fresh[1].report = dict(LEADING)
    assert "no majority" in seen.ready()[0], "what was confirmed to the boot before says nothing of this one"
    seen.confirm()
    assert seen.ready() == []
    assert seen.view.restarts == 1


def test_a_node_that_stops_is_not_ready(seen: Seen) -> None:
    seen.confirm()
    seen.view.stopping()
    assert seen.ready() == ["the node was told to stop"]


def test_a_confirmation_that_is_too_old_is_asked_for_again(seen: Seen) -> None:
    seen.confirm(seen.now - FRESH_MS)
    assert seen.ready() == []
    assert not seen.view.take_question()
    seen.confirm(seen.now - FRESH_MS - 1)
    assert "no majority confirmed a read" in seen.ready()[0]
    assert seen.view.take_question()
    assert not seen.view.take_question(), "one question is one question"


def test_who_is_missing_is_said(seen: Seen) -> None:
    seen.processes[CONSENSUS].report = {**LEADING, "leader_id": 0, "missing": "node 2 at host2:7650"}
    assert "no leader: waiting for node 2 at host2:7650" in seen.ready()[0]
    seen.processes[CONSENSUS].report = {**LEADING, "leader_id": 0}
    assert "an election is under way" in seen.ready()[0]
    seen.processes[CONSENSUS].report = {**LEADING, "missing": "node 2 at host2:7650"}
    assert "waiting for node 2" in seen.ready()[0]


def test_a_confirmed_read_counts_more_than_a_report_from_before_the_election(seen: Seen) -> None:
    seen.processes[CONSENSUS].report = {"role": "starting"}
    seen.confirm()
    assert seen.ready() == []


@pytest.mark.parametrize(("behind", "fine"), [(BEHIND_MAX_ENTRIES - 1, True), (BEHIND_MAX_ENTRIES, False)])
def test_a_node_that_is_far_behind_is_not_ready(seen: Seen, behind: int, fine: bool) -> None:
    seen.confirm(index=behind + 7, applied_index=7)
    assert (seen.ready() == []) is fine


def test_a_log_or_a_store_that_is_not_sound_is_not_ready(seen: Seen) -> None:
    seen.confirm()
    seen.processes[CONSENSUS].report = {**LEADING, "suspect": "the log ends before the mark"}
    seen.processes[CONSENSUS].report |= {"low_space": True, "disk_free_bytes": 100 << 20}
    seen.processes[KV].report = {"full": True, "odd": "at index 9 it is not what a majority has"}
    lost, odd, low, full = seen.ready()
    assert odd == "the state of this node is wrong: at index 9 it is not what a majority has"
    assert low.startswith("no space: 100 MiB are free")
    assert "the log ends before the mark" in lost
    assert "store is full" in full


def test_a_kv_server_that_has_not_caught_up_is_not_ready_and_says_for_whom_it_waits(seen: Seen) -> None:
    seen.processes[KV].ready = False
    seen.processes[CONSENSUS].report = {**LEADING, "leader_id": 0, "missing": "node 2 at host2:7650"}
    leaderless, behind = seen.ready()
    assert "waiting for node 2" in leaderless
    assert "kv-server has not caught up" in behind


def test_who_waits_for_a_confirmation_gets_it_when_it_comes() -> None:
    seen = Seen()
    answers: list[list[str]] = []
    asking = threading.Thread(target=lambda: answers.append(seen.ready()))
    asking.start()
    until(seen.view.take_question, "the question")
    assert answers == []
    seen.confirm()
    asking.join(CONFIRMED_MS / 1_000)
    assert answers == [[]]
    seen.view.close()


# ---------------------------------------------------------------- the port


class Asked:
    """A port with a healthy node behind it."""

    def __init__(self) -> None:
        self.seen = Seen(monotonic_ms())
        (self.number,) = free_ports(1)
        self.port = HealthPort(f"127.0.0.1:{self.number}", self.seen.view)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.number, timeout=5)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.number), timeout=5)

    def close(self) -> None:
        self.port.close()
        self.seen.view.close()


@pytest.fixture
def asked() -> Iterator[Asked]:
    found = Asked()
    yield found
    found.close()


def test_health_and_readiness_are_a_code_and_reasons(asked: Asked) -> None:
    answer, body = asked.ask("GET", "/health?verbose")
    assert (answer.status, json.loads(body)) == (200, {"status": "ok", "reasons": []})
    assert answer.getheader("Content-Type") == "application/json"
    asked.seen.confirm(monotonic_ms())
    answer, body = asked.ask("GET", "/ready")
    assert (answer.status, json.loads(body)["status"]) == (200, "ready")
    asked.seen.view.ended("it broke")
    for path in ("/health", "/ready"):
        answer, body = asked.ask("GET", path)
        assert answer.status == 503
        assert "it broke" in json.loads(body)["reasons"][0]


def test_other_paths_and_methods_are_refused_as_http_has_it(asked: Asked) -> None:
    assert asked.ask("GET", "/")[0].status == 404
    assert asked.ask("GET", "/health/x")[0].status == 404
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer, _ = asked.ask(method, "/health", b"body")
        assert (answer.status, answer.getheader("Allow")) == (405, "GET, HEAD")


def test_a_head_is_the_answer_without_its_body(asked: Asked) -> None:
    with asked.connect() as client:
        client.sendall(b"HEAD /metrics HTTP/1.1\r\n\r\n")
        with client.makefile("rb") as answer:
            lines = answer.read()
    head, _, body = lines.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 ")
    assert b"Content-Length: 0" not in head
    assert body == b""


@pytest.mark.parametrize(
    "sent",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"\xff\xfe\r\n\r\n", b"GET /health HTTP/9.9\r\n\r\n", b"BREW / HTTP/1.1\r\n\r\n",
     b"GET /" + b"a" * 9_000, b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 2_000],
)  # fmt: skip
def test_what_is_not_http_harms_nothing(asked: Asked, sent: bytes) -> None:
    with asked.connect() as client:
        client.sendall(sent)
        try:
            while client.recv(4_096):
                pass
        except ConnectionResetError:
            pass
    assert asked.ask("GET", "/health")[0].status == 200


def test_a_client_that_sends_a_byte_now_and_then_is_dropped(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(port_module, "HEAD_S", 0.3)
    with asked.connect() as client:
        client.settimeout(0.02)

        def is_dropped() -> bool:
            try:
                client.sendall(b"a")
                return client.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        until(is_dropped, "the connection to end", 3)
    assert asked.ask("GET", "/health")[0].status == 200
    assert capsys.readouterr().err == "", "what a client does wrong is no event of the node"


def test_a_crowd_is_bounded_and_makes_room_again(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "HEAD_S", 30.0)
    crowd = [asked.connect() for _ in range(CONNECTIONS_MAX)]
    with asked.connect() as one_more:
        assert one_more.recv(1) == b"", "closed without an answer"
    for client in crowd:
        client.close()

    def answers() -> bool:
        try:
            return asked.ask("GET", "/health")[0].status == 200
        except OSError:
            return False

    until(answers, "a place")


def test_a_port_that_is_taken_is_an_error_that_says_what_to_do(asked: Asked) -> None:
    view = NodeView()
    with pytest.raises(PortInUse, match=f"127.0.0.1:{asked.number} .health_listen.: .*give each its own"):
        HealthPort(f"127.0.0.1:{asked.number}", view)
    view.close()


def test_a_port_is_free_again_when_the_node_has_ended_and_there_may_be_none() -> None:
    (number,) = free_ports(1)
    view = NodeView()
    for _ in range(2):
        with health_port(Config(health_listen=f"127.0.0.1:{number}"), view):
            socket.create_connection(("127.0.0.1", number), timeout=5).close()
    with health_port(Config(health_listen=""), view), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", number), timeout=5)
    view.close()


def names(value: Any) -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(value)}


def test_no_thread_outlives_the_port() -> None:
    found = Asked()
    assert names("danube-raft-health")
    found.close()
    assert not names("danube-raft-health")
