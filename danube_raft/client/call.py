"""One request from its first attempt to its outcome: every decision of the client, and no I/O.

The caller owns the sockets and the clock (`now` is monotonic milliseconds). It asks `next` what to send, tells
`sent` or `blocked`, hands every reply to `receive`, and waits until `wait_until`, until there is a `result` or
`next` raises. The synchronous and the asynchronous store share this, so both behave alike.

Rules: an attempt gets 1 s, then the next endpoint is asked, until the deadline. All attempts of a write carry the
same serial, so it happens once. Every attempt has its own request id, which tells late answers apart: a late
success counts, a late refusal settles its own attempt only. A write of which any attempt is unsettled never ends
as Rejected, unless the refusal says the same about every attempt; at the deadline it is Uncertain.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from danube_raft import errors
from danube_raft.wire import client as wire
from danube_raft.wire import codec
from danube_raft.wire.operations import WRITE

REQUEST_MS = 5_000
"""Deadline of a request unless the caller names one."""
REQUEST_MAX_MS = 2**31 - 1
"""Longest deadline, 24 days: the longest wait that every system call takes."""
ATTEMPT_MS = 1_000
"""Silence after which the next endpoint is asked."""
CONNECT_MS = 200
"""How long an endpoint that is not connected is waited for before the next one is tried."""
NODE_DEADLINE_MAX_MS = 60_000
"""Longest deadline that is named to a node, which refuses longer ones by default."""
BACKOFF_MIN_MS = 10
BACKOFF_MAX_MS = 500
"""Pause after a refusal that may pass: doubled each time, with jitter."""
WRITE_RETRY_MAX_MS = 300_000
"""A write is not repeated when it is older than this: its session may have forgotten the answer."""
WRITES_MAX = 256
"""Writes in flight in one session; a node keeps the answers of that many."""

RETRYABLE = (errors.NotLeader, errors.NoLeader, errors.Overloaded, errors.Timeout, errors.Uncertain)
"""What another node, or the same one a little later, may answer otherwise."""

_SETTLES_ALL = (
    errors.InvalidArgument, errors.KeyEmpty, errors.RequestTooLarge, errors.TooManyOperations,
    errors.DuplicateKey, errors.Compacted, errors.FutureRevision, errors.LeaseNotFound, errors.LeaseExists,
)  # fmt: skip
# Refusals that follow from the command, not from the node that gave them. An earlier attempt with the same serial
# was either never applied or gave this same answer.


class Endpoints:
    """Addresses `host:port` in the order of preference; `place` is the one that answered last, `answered` whether
    one ever has."""

    def __init__(self, names: tuple[str, ...]) -> None:
        if not names:
            raise errors.InvalidArgument("no endpoint given: expected host:port,host:port")
        for name in names:
            if not isinstance(name, str) or not _is_address(name):
                raise errors.InvalidArgument(
                    f"endpoint {name!r}: expected host:port with a port from 1 to 65535"
                )
        self.names = names
        self.place = 0
        self.answered = False

    @staticmethod
    def parse(given: str | Sequence[str]) -> Endpoints:
        """From `host:port,host:port` or a sequence of `host:port`; raises InvalidArgument."""
        if isinstance(given, str):
            return Endpoints(tuple(part.strip() for part in given.split(",") if part.strip()))
        if not isinstance(given, Sequence) or isinstance(given, bytes | bytearray | memoryview):
            raise errors.InvalidArgument(
                f"endpoints must be host:port,host:port or a sequence of host:port, not {type(given).__name__}"
            )
        return Endpoints(tuple(given))


def _is_address(name: str) -> bool:
    host, _, port = name.rpartition(":")
    if not host or not name.isascii() or any(mark in host for mark in ",/ "):
        return False
    return port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535


class Session:
    """What all requests of one store share: who it is, its serials, and the newest revision it has seen.

    Thread-safe. `low_water` is the lowest serial in flight: nodes forget the answers to all below it.
    """

    def __init__(self, client_id: int | None = None, source: random.Random | None = None) -> None:
        self.random = random.SystemRandom() if source is None else source
        """Where the client id and the jitter of pauses come from."""
        self.client_id = self.random.randrange(1, 2**53) if client_id is None else client_id
        self.token: tuple[int, int] | None = None
        self._request_ids = itertools.count(1)
        self._serials = itertools.count(1)
        self._in_flight: dict[int, None] = {}  # in serial order, as serials are given out under the lock
        self._lock = threading.Lock()

    def request_id(self) -> int:
        """A number that no other attempt of this session carries."""
        return next(self._request_ids)

    def begin_write(self) -> int:
        """A new serial, in flight until `end_write`. The caller keeps to WRITES_MAX."""
        with self._lock:
            assert len(self._in_flight) < WRITES_MAX
            serial = next(self._serials)
            self._in_flight[serial] = None
            return serial

    def end_write(self, serial: int) -> None:
        """The serial will not be sent again."""
        with self._lock:
            del self._in_flight[serial]

    def low_water(self) -> int:
        """The lowest serial in flight. There must be one."""
        with self._lock:
            return next(iter(self._in_flight))

    def observe(self, cluster_id: int, revision: int) -> None:
        """Remember the newest revision seen. Another cluster's makes that of the old one meaningless."""
        token = self.token
        if token is not None and token[0] == cluster_id and token[1] >= revision:
            return
        with self._lock:
            token = self.token
            if token is None or token[0] != cluster_id or token[1] < revision:
                self.token = (cluster_id, revision)

    def forget(self, token: tuple[int, int] | None) -> None:
        """The token belongs to another cluster. A newer one that is there by now stays."""
        with self._lock:
            if self.token is not None and token is not None and self.token[0] == token[0]:
                self.token = None


class Send(NamedTuple):
    """Send `body` to `endpoint`; if it takes none until `connect_until`, say `blocked`."""

    endpoint: str
    body: bytes
    connect_until: float
    request_id: int


class Call:
    """One request. `result` is the reply's result fields once there is one, `revision` the store's at that point."""

    def __init__(
        self,
        session: Session,
        endpoints: Endpoints,
        op: str,
        args: tuple[Any, ...],
        *,
        now: float,
        timeout_ms: int = REQUEST_MS,
        consistency: str | int | None = None,
    ) -> None:
        # The node would say the same; here it costs no round trip.
        wire.check((wire.VERSION, op, 0, timeout_ms, consistency, None, None, None, None, *args))
        self.result: tuple[Any, ...] | None = None
        self.revision = 0
        self.wait_until = now
        self.is_write = wire.kind_of(op) == WRITE
        self._session = session
        self._endpoints = endpoints
        self._op = op
        self._args = args
        self._consistency = consistency
        self._serial = session.begin_write() if self.is_write else None
        self._started = now
        self._deadline = now + timeout_ms
        self._place = endpoints.place
        self._attempts: dict[int, int] = {}  # request id -> place, of every attempt sent
        self._unsettled: set[int] = set()
        self._current = 0  # request id that an answer is waited for
        self._next_id = 0
        self._token: tuple[int, int] | None = None
        self._token_refused = False
        self._backoff_ms = BACKOFF_MIN_MS
        self._fatal = 0
        self._error: errors.DanubeRaftError | None = None

    def close(self) -> None:
        """Must be called once, whatever happened: the serial is given up."""
        if self._serial is not None:
            self._session.end_write(self._serial)

    def next(self, now: float) -> Send | None:
        """What to send now, or None: wait until `wait_until`. Raises the outcome when it is a failure."""
        if now >= self._deadline:
            raise self._failure()
        if now < self.wait_until:
            return None
        if self._current:
            self._current = 0
            self._rotate()
        if self.is_write and self._attempts and now - self._started > WRITE_RETRY_MAX_MS:
            raise self._failure()
        self._next_id = self._session.request_id()
        until = min(now + CONNECT_MS, self._deadline)
        return Send(self._endpoints.names[self._place], self._body(now), until, self._next_id)

    def sent(self, now: float) -> None:
        """The last Send was taken by its connection."""
        self._current = self._next_id
        self._attempts[self._current] = self._place
        self._unsettled.add(self._current)
        self.wait_until = min(now + ATTEMPT_MS, self._deadline)

    def blocked(self, now: float) -> None:
        """The endpoint of the last Send is not connected: nothing was sent."""
        self._rotate()
        self.wait_until = now

    def unable(self, error: errors.DanubeRaftError) -> errors.DanubeRaftError:
        """The outcome when this side cannot go on: `error`, unless an attempt of a write is unsettled."""
        return self._failure() if self.is_write and self._unsettled else error

    def receive(self, reply: tuple[Any, ...], now: float) -> None:
        """Take one reply. Those to other requests, or of a call that has ended, change nothing."""
        request_id = reply[wire.R_REQUEST_ID]
        if request_id not in self._attempts or self.result is not None:
            return
        self._endpoints.answered = True
        if reply[wire.R_STATUS] == wire.STATUS_OK:
            self.result = reply[wire.R_RESULT :]
            self.revision = reply[wire.R_REVISION]
            self._endpoints.place = self._attempts[request_id]
            self._session.observe(reply[wire.R_CLUSTER_ID], self.revision)
            return
        self._refused(request_id, error_of(reply), now)

    def _body(self, now: float) -> bytes:
        left = self._deadline - now
        # A read that no one waits for any more is of no use to a node. A write stays useful until the deadline,
        # since a late answer to it counts.
        left = min(left, NODE_DEADLINE_MAX_MS if self.is_write else ATTEMPT_MS)
        self._token = None if self.is_write else self._session.token
        session: tuple[int | None, ...] = (None, None, None)
        if self._serial is not None:
            session = (self._session.client_id, self._serial, self._session.low_water())
        head = (wire.VERSION, self._op, self._next_id, max(1, round(left)), self._consistency, self._token)
        body = codec.pack((*head, *session, *self._args))
        if len(body) > wire.MAX_REQUEST_BYTES:
            raise errors.RequestTooLarge(
                f"the request is {len(body)} bytes; at most {wire.MAX_REQUEST_BYTES} are taken"
            )
        return body

    def _refused(self, request_id: int, error: errors.DanubeRaftError, now: float) -> None:
        if isinstance(error, errors.Rejected):
            self._unsettled.discard(request_id)
        if self.is_write and self._unsettled and isinstance(error, _SETTLES_ALL):
            self._unsettled.clear()
        if request_id != self._current:
            return
        self._error = error
        if isinstance(error, errors.ClusterIdMismatch) and not self._token_refused:
            self._token_refused = True
            self._session.forget(self._token)
            self._again(now, 0)
        elif isinstance(error, errors.Fatal) and self._fatal + 1 < len(self._endpoints.names):
            self._fatal += 1
            self._rotate()
            self._again(now, 0)
        elif isinstance(error, RETRYABLE) or (self.is_write and self._unsettled):
            self._rotate()
            self._again(now, self._backoff_ms * self._session.random.uniform(0.5, 1.0))
            self._backoff_ms = min(2 * self._backoff_ms, BACKOFF_MAX_MS)
        else:
            raise error

    def _again(self, now: float, pause_ms: float) -> None:
        self._current = 0
        self.wait_until = min(now + pause_ms, self._deadline)

    def _rotate(self) -> None:
        self._place = (self._place + 1) % len(self._endpoints.names)

    def _failure(self) -> errors.DanubeRaftError:
        waited = f"within {round(self._deadline - self._started)} ms"
        names = ", ".join(self._endpoints.names)
        if not self._attempts:
            return errors.NoConnection(f"no connection to {names} {waited}; nothing was sent")
        # Connected, and never a reply: perhaps the port of something else, such as that for peers.
        hint = "" if self._endpoints.answered else "; is this a client port?"
        if self.is_write and self._unsettled:
            details = {"client_id": self._session.client_id, "serial": self._serial}
            return errors.Uncertain(
                f"no answer to {self._op} from {names} {waited}; it may be applied{hint}", details
            )
        if self._error is not None:
            return self._error
        return errors.Timeout(f"no answer to {self._op} from {names} {waited}{hint}")


def error_of(reply: tuple[Any, ...]) -> errors.DanubeRaftError:
    """The error that a reply with a status other than 0 carries."""
    result = reply[wire.R_RESULT :]
    message = str(result[0]) if result else ""
    return errors.from_wire(reply[wire.R_STATUS], message, result[1] if len(result) > 1 else None)
