"""A node of pretence: a thread with a ROUTER and a dict, which answers by the book unless a script says otherwise.

`script` holds what to do with the next requests, one step each: `LOST` (no answer), `refuse(error)`, `HOLD` (the
answer waits for `release`), `CUT` (no answer; the port is closed and opened again), `OK`. Every request is checked
like a node does and kept in `requests`. Other threads reach in through `do`, which runs a function on the thread.
"""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import zmq

from danube_raft.errors import DanubeRaftError, InvalidArgument
from danube_raft.wire import client as wire
from danube_raft.wire import codec
from danube_raft.wire.operations import WRITE

LIMIT_S = 10.0
CLUSTER_ID = 77
NODE_ID = 3

OK = "ok"
LOST = "lost"
HOLD = "hold"
CUT = "cut"


def refuse(error: DanubeRaftError) -> DanubeRaftError:
    """Step: answer with this error."""
    return error


class FakeNode:
    """Serves on a loopback port while it is a context."""

    def __init__(self, page: int = 3) -> None:
        self.cluster_id = CLUSTER_ID
        self.revision = 1
        self.records: dict[str, tuple[Any, ...]] = {}
        self.counters: dict[str, int] = {}
        self.applied: dict[tuple[int, int], tuple[Any, ...]] = {}
        self.requests: list[tuple[Any, ...]] = []
        self.script: deque[Any] = deque()
        self.streams: dict[int, bytes] = {}  # request id of each watch -> its connection
        self.bodies: list[int] = []  # bytes of each message
        self.connections: set[bytes] = set()
        self.leader = NODE_ID
        self.term = 1
        self._polls: list[tuple[float, bytes, int]] = []  # until when, who asks, under which request id
        self.page = page
        self.speak_first = True  # a watch begins with a progress frame
        self._held: list[tuple[bytes, bytes]] = []
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._wake_read, self._wake_write = os.pipe()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"127.0.0.1:{self._port}"
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="fake-node", daemon=True)
        self._failure: BaseException | None = None

    # ---------------------------------------------------------------- for the test

    def do(self, job: Callable[[], Any]) -> Any:
        """Run on the node's thread; the result."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._jobs.put((job, answer))
        os.write(self._wake_write, b"x")
        return answer.get(timeout=LIMIT_S)

    def until(self, condition: Callable[[], Any], what: str = "a condition") -> Any:
        """Wait for something that requests bring about."""
        deadline = time.monotonic() + LIMIT_S
        with self._news:
            while not (value := condition()):
                left = deadline - time.monotonic()
                assert left > 0, f"waited {LIMIT_S} s for {what}; requests: {self.requests}"
                self._news.wait(left)
            return value

    def of(self, op: str) -> list[tuple[Any, ...]]:
        """The requests of one operation so far."""
        return [request for request in list(self.requests) if request[wire.OP] == op]

    def release(self) -> None:
        """Send the answers that were held."""
        self.do(self._release)

    def _release(self) -> None:
        for connection, body in self._held:
            self._socket.send_multipart([connection, b"", body])
        self._held.clear()

    def frame(self, *result: Any, watch: int | None = None, times: int = 1) -> None:
        """Send a stream reply to one watch, by default the newest."""
        self.do(lambda: self._stream(watch, [self._reply(0, 0, *result)[2:]] * times))

    def _stream(self, watch: int | None, tails: list[tuple[Any, ...]]) -> None:
        request_id = watch or max(self.streams)
        for tail in tails:
            body = codec.pack((wire.VERSION, request_id, *tail))
            self._socket.send_multipart([self.streams[request_id], b"", body])

    def fail_stream(self, error: DanubeRaftError) -> None:
        """End the newest watch with an error."""
        self.do(lambda: self._stream(None, [self._reply(0, error.code, error.message, error.details)[2:]]))

    def leads(self, leader: int, term: int) -> None:
        """From now on; those who poll for it are told."""
        self.do(lambda: self._leads(leader, term))

    def _leads(self, leader: int, term: int) -> None:
        self.leader, self.term = leader, term
        self._answer_polls(math.inf)

    def _answer_polls(self, now: float) -> None:
        for until, connection, request_id in list(self._polls):
            if until <= now:
                self._polls.remove((until, connection, request_id))
                body = codec.pack(self._reply(request_id, 0, self.leader, self.term, "role"))
                self._socket.send_multipart([connection, b"", body])

    def down(self) -> None:
        """Close the port; every connection is lost and every watch forgotten."""
        self.do(self._down)

    def _down(self) -> None:
        self._poller.unregister(self._socket)
        self._socket.close()
        self.streams.clear()
        self._held.clear()
        self._polls.clear()

    def up(self) -> None:
        """Open the port again."""
        self.do(self._up)

    def _up(self) -> None:
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                self._socket.bind(f"tcp://127.0.0.1:{self._port}")
                break
            except zmq.ZMQError:
                # The old listener is closed by ZeroMQ's own thread, a moment later.
                assert time.monotonic() < deadline
        self._poller.register(self._socket, zmq.POLLIN)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.put(None)
        os.write(self._wake_write, b"x")
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        self._socket.close()
        self._context.term()
        os.close(self._wake_read)
        os.close(self._wake_write)
        if self._failure is not None:
            raise self._failure

    # ---------------------------------------------------------------- the thread

    def _serve(self) -> None:
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_read, zmq.POLLIN)
        try:
            while True:
                first = min((until for until, *_ in self._polls), default=None)
                left = None if first is None else max(0, math.ceil((first - time.monotonic()) * 1000))
                happened = self._poller.poll(left)
                self._answer_polls(time.monotonic())
                for source, _ in happened:
                    if source == self._wake_read:
                        os.read(self._wake_read, 1)
                        if (job := self._jobs.get()) is None:
                            return
                        job[1].put(job[0]())
                    elif source is self._socket and not source.closed:  # a job may just have closed it
                        connection, _, body = self._socket.recv_multipart()
                        self._body(connection, body)
        except BaseException as failure:  # noqa: BLE001 -- raised at the end of the test
            self._failure = failure

    def _body(self, connection: bytes, body: bytes) -> None:
        answers: list[bytes] = []
        self.bodies.append(len(body))
        self.connections.add(connection)
        for raw in codec.unpack_stream(body):
            request = wire.check(raw)
            step = self.script.popleft() if self.script else OK
            answer = self._step(step, connection, request)
            if answer is not None:
                answers.append(answer)
            with self._news:
                self.requests.append(request)
                self._news.notify_all()
        if answers:
            self._socket.send_multipart([connection, b"", b"".join(answers)])

    def _step(self, step: Any, connection: bytes, request: tuple[Any, ...]) -> bytes | None:
        request_id = request[wire.REQUEST_ID]
        if isinstance(step, DanubeRaftError):
            return codec.pack(self._reply(request_id, step.code, step.message, step.details))
        if step == LOST:
            return None
        if step == CUT:
            self._down()
            self._up()
            return None
        if callable(step):
            answer: bytes | None = step(request)
            return answer
        result = self._answer(connection, request)
        if result is None:
            return None
        if isinstance(result, DanubeRaftError):
            return codec.pack(self._reply(request_id, result.code, result.message, result.details))
        body = codec.pack(self._reply(request_id, 0, *result))
        if step == HOLD:
            self._held.append((connection, body))
            return None
        return body

    def _reply(self, request_id: int, status: int, *result: Any) -> tuple[Any, ...]:
        return (wire.VERSION, request_id, status, self.cluster_id, NODE_ID, 1, self.revision, *result)

    # ---------------------------------------------------------------- the dict

    def _answer(
        self, connection: bytes, request: tuple[Any, ...]
    ) -> tuple[Any, ...] | DanubeRaftError | None:
        op, args = request[wire.OP], request[wire.ARGS :]
        if op.startswith("watch"):
            watched: tuple[Any, ...] | DanubeRaftError | None
            watched = self._watch(op, connection, request[wire.REQUEST_ID], args)
            return watched
        answer: tuple[Any, ...]
        if op == "leadership_poll":
            return self._leadership_poll(connection, request[wire.REQUEST_ID], *args)
        if wire.kind_of(op) != WRITE:
            answer = getattr(self, f"_{op}")(*args)
            return answer
        once = (request[wire.CLIENT_ID], request[wire.SERIAL])
        if once not in self.applied:
            self.applied[once] = getattr(self, f"_{op}")(*args)
        return self.applied[once]

    def _put(self, key: str, value: bytes, prev: bool, ttl: int = 0) -> tuple[Any, ...]:
        self.revision += 1
        old = self.records.get(key)
        created, version = (old[2], old[4] + 1) if old else (self.revision, 1)
        self.records[key] = (key, value, created, self.revision, version, ttl, 1_700_000_000_000)
        return self.revision, version, old if prev else None

    def _put_with_ttl(self, key: str, value: bytes, ttl_ms: int, prev: bool) -> tuple[Any, ...]:
        return (*self._put(key, value, prev, ttl_ms), False)

    def _delete(self, key: str, prev: bool) -> tuple[Any, ...]:
        old = self.records.pop(key, None)
        self.revision += old is not None
        return int(old is not None), old if prev else None

    def _delete_prefix(self, prefix: str) -> tuple[Any, ...]:
        doomed = [key for key in self.records if key.startswith(prefix)]
        for key in doomed:
            del self.records[key]
        self.revision += bool(doomed)
        return (len(doomed),)

    def _compare_and_swap(self, key: str, expected: Any, new: bytes, ttl_ms: int | None) -> tuple[Any, ...]:
        old = self.records.get(key)
        fits = old is None if expected is None else old is not None and expected in (old[1], old[3])
        if not fits:
            return False, 0, 0, old
        revision, version, _ = self._put(key, new, False, ttl_ms or 0)
        return True, revision, version, None

    def _allocate_id(self, counter: str, count: int) -> tuple[Any, ...]:
        first = self.counters.get(counter, 1)
        self.counters[counter] = first + count
        return (first,)

    def _compact(self, revision: int) -> tuple[Any, ...]:
        return (revision,)

    def _get(self, key: str, revision: int | None) -> tuple[Any, ...]:
        return (self.records.get(key),)

    def _matches(self, prefix: str, token: bytes | None, limit: int | None) -> tuple[list[str], bytes | None]:
        size = min(limit or self.page, self.page)
        keys = sorted(key for key in self.records if key.startswith(prefix))
        rest = keys[int(token or b"0") :]
        following = str(len(keys) - len(rest) + size).encode() if len(rest) > size else None
        return rest[:size], following

    def _range(
        self, prefix: str, limit: int | None, token: bytes | None, revision: int | None, *more: Any
    ) -> Any:
        keys_only, count_only, _, start, end = more
        found, following = self._matches(prefix, token, limit)
        found = [key for key in found if (start or "") <= key and (end is None or key < end)]
        records = [self.records[key] for key in found]
        if keys_only:
            records = [(record[0], None, *record[2:]) for record in records]
        return [] if count_only else records, following, revision or self.revision, len(found)

    def _get_children(self, path: str, limit: int | None, token: bytes | None, revision: int | None) -> Any:
        found, following = self._matches(path.rstrip("/") + "/", token, limit)
        return found, following, revision or self.revision

    def _get_bulk(self, prefix: str, limit: int | None, token: bytes | None, revision: int | None) -> Any:
        found, following = self._matches(prefix, token, limit)
        rows = [(key, self.records[key][1], self.records[key][4]) for key in found]
        return rows, following, revision or self.revision

    def _status(self) -> tuple[Any, ...]:
        return (
            {
                "node_id": NODE_ID,
                "role": "leader",
                "term": 1,
                "leader_id": NODE_ID,
                "revision": self.revision,
            },
        )

    def _members(self) -> tuple[Any, ...]:
        return ([{"node_id": NODE_ID, "role": "leader"}],)

    def _leadership_poll(
        self, connection: bytes, request_id: int, known_term: int, known_leader: int, wait_ms: int
    ) -> tuple[Any, ...] | None:
        if wait_ms and (known_term, known_leader) == (self.term, self.leader):
            self._polls.append((time.monotonic() + wait_ms / 1000, connection, request_id))
            return None
        return self.leader, self.term, "role"

    def _watch(self, op: str, connection: bytes, request_id: int, args: tuple[Any, ...]) -> Any:
        if op == "watch":
            self.streams[request_id] = connection
            return (wire.FRAME_PROGRESS, args[1] - 1) if self.speak_first else None
        if op == "watch_cancel":
            self.streams.pop(args[0], None)
            return ()
        if op == "watch_progress" and args[0] not in self.streams:
            return InvalidArgument("no such watch")
        return None


def put_event(key: str, value: bytes, revision: int) -> tuple[Any, ...]:
    """A wire event."""
    return (wire.PUT_EVENT, (key, value, revision, revision, 1, 0, 0), None)


def delete_event(key: str, revision: int) -> tuple[Any, ...]:
    """A wire event."""
    return (wire.DELETE_EVENT, (key, None, revision, revision, 1, 0, 0), None)
