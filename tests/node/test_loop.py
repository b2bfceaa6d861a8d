"""The loop and its sockets: drain then work, one send per edge, and what a port does with bad frames."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from danube_raft.config import Config
from danube_raft.errors import DiskFailed, DiskFull, Fatal, PortInUse
from danube_raft.node.endpoints import (
    ClientGone,
    ClientPort,
    ClientSlow,
    Endpoint,
    FromClient,
    FromPeer,
    LocalEdge,
    OpenPort,
    PeerPort,
    drained,
)
from danube_raft.node.handler import KV, SUPERVISOR
from danube_raft.node.loop import Loop
from danube_raft.wire import local, peer

WAIT_MS = 5_000


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(linger=0)


class Recorder:
    """A handler that answers each ReadIndex and writes down what it is called with."""

    def __init__(self) -> None:
        self.outbox: list[tuple[str, Any]] = []
        self.calls: list[str] = []
        self.clock: list[int] = []
        self.ready = True
        self.done = False
        self.timer: int | None = None

    def start(self, now: int) -> None:
        self.calls.append("start")

    def receive(self, edge: str, message: Any, now: int) -> None:
        self.calls.append(f"receive {message.id}")
        self.outbox.append((edge, local.ReadReady(message.id, 0)))

    def turn(self, now: int) -> None:
        self.calls.append("turn")
        self.clock.append(now)
        if self.timer is not None and now >= self.timer:
            self.calls.append("timer")
            self.timer = None

    def next_timer(self) -> int | None:
        return self.timer

    def close(self) -> None:
        self.calls.append("close")


class Running:
    """A loop in a thread, with the far ends of its edges in the test's hands."""

    def __init__(self, context: zmq.Context[Any], handler: Recorder, before: int = 0) -> None:
        self.kv = LocalEdge(context, f"inproc://{KV}", True, 3)
        self.supervisor = LocalEdge(context, "inproc://supervisor", True, 3)
        near: dict[str, Endpoint] = {
            KV: LocalEdge(context, f"inproc://{KV}", False, 3),
            SUPERVISOR: LocalEdge(context, "inproc://supervisor", False, 3),
        }
        if before:
            self.kv.send([local.ReadIndex(number) for number in range(before)])
        self.loop = Loop(
            "consensus", 44, handler, near, Config(), report=lambda now: {"turns": len(handler.calls)}
        )
        self.thread = threading.Thread(target=self._run, args=(near,))
        self.thread.start()

    def _run(self, near: dict[str, Endpoint]) -> None:
        self.loop.run()
        for edge in near.values():
            edge.close()

    def stop(self) -> None:
        self.supervisor.send([local.Stop()])
        self.thread.join(WAIT_MS / 1000)
        assert not self.thread.is_alive()
        self.kv.close()
        self.supervisor.close()


def test_a_turn_drains_everything_works_once_and_answers_in_one_frame(context: zmq.Context[Any]) -> None:
    handler = Recorder()
    running = Running(context, handler, before=5)
    assert running.kv.socket.poll(WAIT_MS)
    frame = running.kv.socket.recv()
    running.stop()
    assert [message for _, message in local.unpack(frame)] == [
        local.ReadReady(number, 0) for number in range(5)
    ]
    assert handler.calls[:8] == ["start", "turn", *[f"receive {n}" for n in range(5)], "turn"]


def test_ready_comes_first_and_progress_follows(context: zmq.Context[Any]) -> None:
    running = Running(context, Recorder())
    assert running.supervisor.socket.poll(WAIT_MS)
    heard = [*drained(running.supervisor)]
    running.stop()
    assert heard[:2] == [local.Ready("consensus", 44), local.Progress(1)]


def test_the_report_goes_along_with_progress(context: zmq.Context[Any]) -> None:
    running = Running(context, Recorder())
    assert running.supervisor.socket.poll(WAIT_MS)
    heard = [*drained(running.supervisor)]
    running.stop()
    assert heard[2:3] == [local.Status({"turns": 2})]


def test_what_the_supervisor_asks_is_for_the_handler_and_only_stop_for_the_loop(
    context: zmq.Context[Any],
) -> None:
    handler = Recorder()
    running = Running(context, handler)
    assert running.supervisor.socket.poll(WAIT_MS)
    list(drained(running.supervisor))
    running.supervisor.send([local.ReadIndex(7)])
    assert running.supervisor.socket.poll(WAIT_MS)
    heard = [*drained(running.supervisor)]
    running.stop()
    assert local.ReadReady(7, 0) in heard
    assert "receive 7" in handler.calls


def test_a_timer_wakes_the_loop(context: zmq.Context[Any]) -> None:
    handler = Recorder()
    handler.timer = 0
    running = Running(context, handler)
    running.kv.send([local.ReadIndex(1)])
    assert running.kv.socket.poll(WAIT_MS)
    running.stop()
    assert "timer" in handler.calls
    assert handler.clock == sorted(handler.clock)


def test_the_time_of_a_turn_is_read_after_its_messages(context: zmq.Context[Any]) -> None:
    """A stamp older than what it is put on would let a TTL end early."""
    ticks = iter(range(1_000_000))
    received: list[int] = []

    class Stamped(Recorder):
        def receive(self, edge: str, message: Any, now: int) -> None:
            received.append(next(ticks))

    handler = Stamped()
    near = {
        KV: LocalEdge(context, f"inproc://{KV}", True, 3),
        SUPERVISOR: LocalEdge(context, "inproc://supervisor", True, 3),
    }
    far = {name: LocalEdge(context, f"inproc://{name}", False, 3) for name in near}
    far[KV].send([local.ReadIndex(1)])
    far[SUPERVISOR].send([local.Stop()])
    Loop("log", 1, handler, near, Config(), clock=lambda: next(ticks)).run()
    assert received
    assert handler.clock[-1] > received[-1]
    for edge in (*near.values(), *far.values()):
        edge.close()


@pytest.mark.parametrize("paused_ms", [0, 60_000])
def test_after_a_pause_all_that_waits_comes_before_the_timers(
    context: zmq.Context[Any], paused_ms: int
) -> None:
    """More waits than one turn takes. Without the pause a timer that is due need not wait for all of it."""
    waiting, now = 50, 0

    class Paused(Recorder):
        def turn(self, now_ms: int) -> None:
            nonlocal now
            super().turn(now_ms)
            if len(self.clock) == 1:
                far[KV].send([local.ReadIndex(0)])
                for number in range(1, waiting):
                    far[KV].send([local.ReadIndex(number)])
                now += paused_ms
                self.timer = now
            self.done = f"receive {waiting - 1}" in self.calls

    handler = Paused()
    near = {KV: LocalEdge(context, f"inproc://{KV}", True, 3)}
    far = {KV: LocalEdge(context, f"inproc://{KV}", False, 3)}
    Loop("consensus", 1, handler, near, Config(drain_max_messages=5), clock=lambda: now).run()
    before = handler.calls[: handler.calls.index("timer")]
    assert sum(call.startswith("receive") for call in before) == (waiting if paused_ms else 5)
    for edge in (*near.values(), *far.values()):
        edge.close()


def test_a_long_queue_is_taken_in_turns(context: zmq.Context[Any]) -> None:
    """Or nothing is said of progress, and no credit returned, until it is empty."""
    ticks = iter(range(0, 100_000_000, 30))

    class Counting(Recorder):
        def receive(self, edge: str, message: Any, now: int) -> None:
            self.calls.append("receive")

    handler = Counting()
    near = {
        KV: LocalEdge(context, f"inproc://{KV}", True, 3),
        SUPERVISOR: LocalEdge(context, "inproc://supervisor", True, 3),
    }
    far = {name: LocalEdge(context, f"inproc://{name}", False, 3) for name in near}
    for number in range(40):
        far[KV].send([local.ReadIndex(number)])
    loop = Loop("log", 1, handler, near, Config(), clock=lambda: next(ticks))
    thread = threading.Thread(target=loop.run)
    thread.start()
    while handler.calls.count("receive") < 40 and thread.is_alive():
        thread.join(0.01)
    far[SUPERVISOR].send([local.Stop()])
    thread.join(WAIT_MS / 1000)
    assert not thread.is_alive()
    assert max(len(row) for row in "".join(c[0] for c in handler.calls).split("t")) <= 5
    for edge in (*near.values(), *far.values()):
        edge.close()


def test_a_send_to_a_process_that_is_gone_ends_the_boot(context: zmq.Context[Any]) -> None:
    near = LocalEdge(context, "inproc://edge", True, 3)
    with pytest.raises(Fatal, match="gone"):
        near.send([local.Stop()])
    near.close()


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, DiskFailed), (errno.EADDRINUSE, Fatal)]
)
def test_no_room_for_a_socket_file_is_the_disks_failure(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Fatal]
) -> None:
    """It has an exit code of its own, and starting again and again does not make room."""

    def refuse(_socket: Any, _address: str) -> None:
        raise zmq.ZMQError(number)

    monkeypatch.setattr(zmq.Socket, "bind", refuse)
    with pytest.raises(Fatal, match=zmq.strerror(number)) as refused:
        LocalEdge(context, "ipc://edge", True, 1)
    assert type(refused.value) is kind


def test_messages_of_another_boot_epoch_are_dropped(context: zmq.Context[Any]) -> None:
    old, new = LocalEdge(context, "inproc://edge", True, 3), LocalEdge(context, "inproc://edge", False, 4)
    new.send([local.Durable(1)])
    assert old.socket.poll(WAIT_MS)
    assert list(drained(old)) == []
    new.close()
    old.close()


def test_the_loop_ends_when_its_stop_descriptor_closes(context: zmq.Context[Any]) -> None:
    readable, writable = os.pipe()
    near: dict[str, Endpoint] = {SUPERVISOR: LocalEdge(context, "inproc://supervisor", True, 3)}
    far = LocalEdge(context, "inproc://supervisor", False, 3)
    thread = threading.Thread(target=Loop("log", 1, Recorder(), near, Config(), (readable,)).run)
    thread.start()
    os.close(writable)
    thread.join(WAIT_MS / 1000)
    assert not thread.is_alive()
    os.close(readable)
    near[SUPERVISOR].close()
    far.close()


# ---------------------------------------------------------------- ports


def dealer(context: zmq.Context[Any], address: str) -> zmq.Socket[bytes]:
    sock: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    sock.linger = 0
    sock.connect(f"tcp://{address}")
    return sock


def received(port: ClientPort | PeerPort, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count and port.socket.poll(WAIT_MS):
        found += drained(port)
    return found


def test_the_client_port_takes_bodies_and_drops_and_counts_the_rest(context: zmq.Context[Any]) -> None:
    address, counters = free_address(), Counter[str]()
    port = ClientPort(context, Config(client_listen=address), counters)
    port.send([OpenPort()])
    client = dealer(context, address)
    client.send_multipart([b"x"])
    client.send_multipart([b""] * 300)
    client.send_multipart([b"not empty", b"body"])
    client.send_multipart([b"", b"body"])
    client.send_multipart([b"correlation", b"", b"body"])
    first, second = received(port, 2)
    assert isinstance(first, FromClient)
    assert (first.envelope[1:], first.body) == ((b"",), b"body")
    assert (second.envelope[1:], second.body) == ((b"correlation", b""), b"body")
    assert counters == {"client_frames_refused": 3}
    port.send([(second.envelope, b"answer")])
    assert client.poll(WAIT_MS)
    assert client.recv_multipart() == [b"correlation", b"", b"answer"]
    client.close()
    port.close()


def test_an_answer_to_a_connection_that_is_gone_is_reported(context: zmq.Context[Any]) -> None:
    port = ClientPort(context, Config(client_listen=free_address()), Counter())
    assert port.send([((b"nobody", b""), b"answer")] * 2) == [ClientGone(b"nobody")]
    port.close()


def test_a_full_connection_loses_everything_from_the_first_frame_on_and_is_reported(
    context: zmq.Context[Any],
) -> None:
    """A later frame of a watch that arrives without an earlier one would be a gap that nobody notices."""
    address, counters = free_address(), Counter[str]()
    port = ClientPort(context, Config(client_listen=address, client_queue_max_messages=10), counters)
    port.send([OpenPort()])
    slow, quick = (context.socket(zmq.DEALER) for _ in range(2))
    slow.rcvhwm = 1
    for sock in (slow, quick):
        sock.linger = 0
        sock.connect(f"tcp://{address}")
        sock.send_multipart([b"", b"body"])
        (item,) = received(port, 1)
        if sock is slow:
            envelope = item.envelope
        else:
            other = item.envelope
    messages: list[Any] = [(envelope, b"%d" % n + b"x" * 1_000_000) for n in range(200)]
    assert port.send([*messages, (other, b"fine")]) == [ClientSlow(envelope[0])]
    taken = 200 - counters["client_replies_dropped"]
    assert 0 < taken < 200
    assert quick.poll(WAIT_MS)
    numbers = [int(slow.recv_multipart()[-1].split(b"x")[0]) for _ in range(taken)]
    assert numbers == list(range(taken))
    assert not slow.poll(50)
    for sock in (slow, quick):
        sock.close()
    port.close()


def test_an_oversized_frame_costs_its_sender_the_connection_and_nobody_else(
    context: zmq.Context[Any],
) -> None:
    address = free_address()
    port = ClientPort(context, Config(client_listen=address, client_frame_max_bytes=4_096), Counter())
    port.send([OpenPort()])
    bad, good = dealer(context, address), dealer(context, address)
    bad.send_multipart([b"", b"x" * 5_000])
    good.send_multipart([b"", b"fine"])
    (item,) = received(port, 1)
    assert item.body == b"fine"
    for sock in (bad, good):
        sock.close()
    port.close()


def test_the_peer_port_takes_peer_messages_and_drops_and_counts_the_rest(context: zmq.Context[Any]) -> None:
    address, counters = free_address(), Counter[str]()
    port = PeerPort(context, Config(raft_listen=address), counters)
    sender = dealer(context, address)
    header = peer.Header(1, 2, 3, 4, 5)
    for frames in ([b""], [b"\xc1"], [b"a", b"b", b"c", b"d"], [peer.pack(header, peer.TimeoutNow())]):
        sender.send_multipart(frames)
    (item,) = received(port, 1)
    assert isinstance(item, FromPeer)
    assert (item.header, item.message) == (header, peer.TimeoutNow())
    assert counters == {"peer_frames_refused": 3}
    sender.close()
    port.close()


def test_bytes_that_are_no_zeromq_at_all_do_no_harm(context: zmq.Context[Any]) -> None:
    address = free_address()
    port = ClientPort(context, Config(client_listen=address), Counter())
    port.send([OpenPort()])
    host, number = address.split(":")
    with socket.create_connection((host, int(number)), timeout=5) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(2_000))
    client = dealer(context, address)
    client.send_multipart([b"", b"body"])
    (item,) = received(port, 1)
    assert item.body == b"body"
    client.close()
    port.close()


def test_a_port_listens_on_an_ipv6_address(context: zmq.Context[Any]) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            address = f"[::1]:{probe.getsockname()[1]}"
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    port = ClientPort(context, Config(client_listen=address), Counter())
    port.send([OpenPort()])
    client = context.socket(zmq.DEALER)
    client.linger = 0
    client.ipv6 = True
    client.connect(f"tcp://{address}")
    client.send_multipart([b"", b"body"])
    (item,) = received(port, 1)
    assert item.body == b"body"
    client.close()
    port.close()


def test_a_taken_port_is_one_clear_error(context: zmq.Context[Any]) -> None:
    address = free_address()
    first = PeerPort(context, Config(raft_listen=address), Counter())
    with pytest.raises(PortInUse, match=address):
        PeerPort(context, Config(raft_listen=address), Counter())
    first.close()
