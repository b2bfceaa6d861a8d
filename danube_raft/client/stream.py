"""A watch without its sockets: frames in, whole revisions out, and where to go on after a break.

`next_revision` is all that a watch needs to remember: everything before it has arrived here, whole. Each
subscription asks from there, so what a dead connection, another endpoint or a restarted node sends again is
recognised by its revision and dropped. A revision that comes in several frames is kept back until it is complete,
and thrown away with the connection that brought its first half.

Credit (bytes that the node may send) goes back when the caller takes a revision, so a slow reader slows its own
stream only. Every PROBE_MS the node is asked for a progress mark, which also keeps the watch alive there; a node
that sends nothing for SILENCE_MS after that is given up. `now` is monotonic milliseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from danube_raft import errors
from danube_raft.client.call import RETRYABLE, Session, error_of
from danube_raft.client.record import Event
from danube_raft.client.value import Codec
from danube_raft.wire import client as wire

CREDIT_BYTES = 1 << 20
PROBE_MS = 5_000
SILENCE_MS = 3_000
RESUME_MIN_MS = 20
RESUME_MAX_MS = 1_000
"""Pause before the next endpoint is tried, doubled while nothing is heard."""


class Changes(NamedTuple):
    """All events of one revision, and the bytes of credit that go back when they are taken."""

    revision: int
    events: list[Event]
    credit: int


class Options(NamedTuple):
    """What to watch."""

    prefixes: tuple[str, ...]
    prev: bool = False
    keys_only: bool = False
    puts: bool = True
    deletes: bool = True
    credit_bytes: int = CREDIT_BYTES
    """What the node may send ahead of the caller."""

    @staticmethod
    def of(
        prefixes: str | Sequence[str],
        from_revision: int | None,
        prev: bool,
        keys_only: bool,
        puts: bool,
        deletes: bool,
    ) -> Options:
        """As a caller gives them: one prefix or several. Raises what `check` does."""
        if isinstance(prefixes, str):
            prefixes = (prefixes,)
        elif not isinstance(prefixes, Sequence):
            raise errors.InvalidArgument(
                f"prefixes must be a string or a sequence of strings, not {type(prefixes).__name__}"
            )
        options = Options(tuple(prefixes), prev, keys_only, puts, deletes, CREDIT_BYTES)
        options.check(from_revision)
        return options

    def arguments(self, from_revision: int) -> tuple[Any, ...]:
        """Those of the wire operation."""
        return (
            self.prefixes, from_revision, self.credit_bytes, self.prev, self.keys_only, self.puts, self.deletes
        )  # fmt: skip

    def check(self, from_revision: int | None) -> None:
        """Raises InvalidArgument or RequestTooLarge; what a node would say, without a round trip."""
        arguments = self.arguments(1 if from_revision is None else from_revision)
        wire.check((wire.VERSION, "watch", 0, None, None, None, None, None, None, *arguments))
        if not self.puts and not self.deletes:
            raise errors.InvalidArgument("a watch without puts and without deletes would see nothing")


class Stream:
    """The state of one watch."""

    def __init__(
        self,
        session: Session,
        codec: Codec,
        options: Options,
        from_revision: int,
        cluster_id: int,
        now: float,
    ) -> None:
        self.ready: deque[Changes] = deque()
        self.error: errors.DanubeRaftError | None = None
        self.next_revision = from_revision
        self.connected = False
        self.retry_at = now
        self._session = session
        self._codec = codec
        self._options = options
        self._cluster_id = cluster_id
        self._watch_id = 0
        self._own_ids: deque[int] = deque(maxlen=8)
        self._gathering: dict[str, Event] = {}
        self._gathering_revision = 0
        self._credit = 0
        self._probe_at = now
        self._silent_at = now
        self._pause_ms = RESUME_MIN_MS

    # ---------------------------------------------------------------- out

    def subscribe(self, now: float) -> bytes:
        """The request for everything from `next_revision`, to a node that is connected."""
        self._watch_id = self._session.request_id()
        self._own_ids.clear()
        self._gathering = {}
        self._credit = 0
        self.connected = True
        self._probe_at = now + PROBE_MS
        # The node may have nothing to say: its answer to a progress request is the first sign of life.
        self._silent_at = now + SILENCE_MS
        arguments = self._options.arguments(self.next_revision)
        return wire.pack_request("watch", self._watch_id, *arguments) + self._probe()

    def due(self, now: float) -> bytes | None:
        """Credit and keep-alive to send now, or None."""
        if now >= self._probe_at:
            self._probe_at = now + PROBE_MS
            self._silent_at = min(self._silent_at, now + SILENCE_MS)
            return self._credits() + self._probe()
        if self._credit >= self._options.credit_bytes // 2:
            return self._credits()
        return None

    def cancel(self) -> bytes:
        """The request that ends the subscription."""
        return wire.pack_request("watch_cancel", self._session.request_id(), self._watch_id)

    def lost(self, now: float) -> None:
        """The connection or the subscription is gone: subscribe anew at `retry_at`, best at another endpoint."""
        self.connected = False
        self.retry_at = now + self._pause_ms
        self._pause_ms = min(2 * self._pause_ms, RESUME_MAX_MS)

    def next_timer(self) -> float:
        """When `due` or `silent` may have changed."""
        return min(self._probe_at, self._silent_at)

    def silent(self, now: float) -> bool:
        """Whether the node has been given up."""
        return now >= self._silent_at

    # ---------------------------------------------------------------- in

    def receive(self, reply: tuple[Any, ...], size_bytes: int, now: float) -> int:
        """Take one reply of a body of which `size_bytes` are not accounted for yet; returns how many are still not.

        Events alone use up credit, and account for all of their body: an answer that comes before them in it must not.
        """
        request_id = reply[wire.R_REQUEST_ID]
        if request_id != self._watch_id and request_id not in self._own_ids:
            return size_bytes
        if reply[wire.R_STATUS] != wire.STATUS_OK:
            self._failed(request_id, error_of(reply), now)
            return size_bytes
        self._silent_at = max(self._silent_at, max(self._probe_at, now) + SILENCE_MS)
        self._pause_ms = RESUME_MIN_MS
        if request_id != self._watch_id or self.error is not None:
            return size_bytes
        cluster_id = reply[wire.R_CLUSTER_ID]
        if self._cluster_id and cluster_id != self._cluster_id:
            self.error = errors.ClusterIdMismatch(
                f"the watch of cluster {self._cluster_id} reached cluster {cluster_id}: its revisions mean nothing there"
            )
            return size_bytes
        self._cluster_id = cluster_id
        frame = reply[wire.R_RESULT :]
        if frame[0] == wire.FRAME_EVENTS:
            self._events(frame[1], frame[2], frame[3], size_bytes)
            return 0
        self._delivered(frame[1])
        return size_bytes

    def take(self) -> Changes:
        """The next whole revision; `ready` must not be empty."""
        changes = self.ready.popleft()
        self._credit += changes.credit
        return changes

    # ---------------------------------------------------------------- inside

    def _probe(self) -> bytes:
        own = self._session.request_id()
        self._own_ids.append(own)
        return wire.pack_request("watch_progress", own, self._watch_id)

    def _credits(self) -> bytes:
        own, credit = self._session.request_id(), self._credit
        self._own_ids.append(own)
        self._credit = 0
        return wire.pack_request("watch_credit", own, self._watch_id, credit)

    def _failed(self, request_id: int, error: errors.DanubeRaftError, now: float) -> None:
        if request_id != self._watch_id or isinstance(error, (*RETRYABLE, errors.Fatal)):
            # A node that does not know the watch any more says so in answer to a probe.
            if self.connected:
                self.lost(now)
        elif self.error is None:
            self.error = error

    def _events(self, raw: tuple[Any, ...], last: int, more: bool, size_bytes: int) -> None:
        before = len(self.ready)
        for fields in raw:
            event = Event.of(fields, self._codec)
            revision = event.record.mod_revision
            if revision < self.next_revision:
                continue
            if revision != self._gathering_revision:
                self._complete()
                self._gathering_revision = revision
            # A key changes once per revision, so its name tells an event that comes again.
            self._gathering[event.key] = event
        if not more:
            self._complete()
        self._delivered(last - 1 if more else last)
        if len(self.ready) > before and not more:
            self.ready[-1] = self.ready[-1]._replace(credit=size_bytes)
        else:
            # Half a revision cannot be taken yet; its credit must go back or the other half never comes.
            self._credit += size_bytes

    def _complete(self) -> None:
        if self._gathering:
            self.ready.append(Changes(self._gathering_revision, list(self._gathering.values()), 0))
            self._gathering = {}

    def _delivered(self, revision: int) -> None:
        if revision >= self.next_revision:
            self.next_revision = revision + 1
            self._session.observe(self._cluster_id, revision)
