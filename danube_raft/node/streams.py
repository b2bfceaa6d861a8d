"""Watches of clients: streams with credit for DEALER clients, long polls for REQ clients.

A stream belongs to the connection and request id that opened it. It begins with a progress frame, which says that it
is open and from where; then come frames of events as credit allows, and a progress mark now and then. The client
gives credit as it consumes, which also keeps the stream alive; one that stays silent too long is dropped, and says
so to whoever still listens. A connection that is gone takes its streams with it.

A frame that a full connection did not take is a gap. So all streams of that connection end there and then, and each
is told until the message gets through; the client watches again from its cursor, and history serves it.

What has to be sent is decided by `kv/watches.py`; here it gets its addressee.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple, cast

from danube_raft.config import Config
from danube_raft.errors import Compacted, InvalidArgument, Overloaded, Rejected, Timeout
from danube_raft.kv.history import History
from danube_raft.kv.watches import Options, Watches
from danube_raft.node.endpoints import Envelope
from danube_raft.node.proposals import NEVER
from danube_raft.node.replies import Replies
from danube_raft.wire.client import ARGS, FRAME_PROGRESS, OP, REQUEST_ID, STATUS_OK, Request

TELL_EVERY_MS = 100
NOWHERE = -1
"""No store is there."""

StreamKey = tuple[Envelope, int]


def _own(key: Hashable) -> StreamKey:
    """The watches treat our keys as opaque; this is where they come back."""
    return cast("StreamKey", key)


class _Stream:
    __slots__ = ("heard_at", "marked")

    def __init__(self, heard_at: int, marked: int) -> None:
        self.heard_at = heard_at
        self.marked = marked


class _Poll(NamedTuple):
    envelope: Envelope
    request_id: int
    prefixes: str | tuple[str, ...]
    after_revision: int
    options: Options
    deadline: int


class Streams:
    """All watches on the client port of a node."""

    def __init__(self, config: Config, history: History, replies: Replies) -> None:
        self._config = config
        self._history = history
        self._replies = replies
        self._watches = Watches(history)
        self._streams: dict[StreamKey, _Stream] = {}
        self._by_connection: dict[bytes, set[StreamKey]] = {}
        self._cut: dict[StreamKey, None] = {}
        """Streams that were ended for a full connection and are not known to have been told."""
        self._telling: list[StreamKey] = []
        self._tell_at = NEVER
        self._polls: list[_Poll] = []
        self._fed_revision = 0
        self._stirred = False
        self._check_at = NEVER
        self._poll_at = NEVER

    def attach(self, history: History) -> None:
        """The state was replaced by a newer one: everything goes on from where it is, or hears that it cannot."""
        self._history = history
        self._watches.attach(history)
        self._fed_revision = NOWHERE
        self._stirred = bool(self._streams)

    @property
    def watches(self) -> int:
        """Open streams and waiting polls."""
        return len(self._streams) + len(self._polls)

    # ---------------------------------------------------------------- requests

    def request(self, request: Request, envelope: Envelope, now: int) -> None:
        """One of the watch operations. Raises what refuses it."""
        op, request_id, arguments = request[OP], request[REQUEST_ID], request[ARGS:]
        if op == "watch":
            self._watch(envelope, request_id, arguments, now)
        elif op == "watch_poll":
            self._watch_poll(envelope, request_id, arguments, now)
        elif op == "watch_credit":
            self._credit((envelope, arguments[0]), arguments[1], now)
        elif op == "watch_cancel":
            self._drop((envelope, arguments[0]))
            self._replies.add(envelope, request_id, STATUS_OK, self._history.revision, ())
        else:
            key = (envelope, arguments[0])
            stream = self._streams.get(key)
            if stream is None:
                raise InvalidArgument(f"there is no watch {arguments[0]} on this connection")
            stream.heard_at = now
            self._mark(key, stream)

    def _watch(self, envelope: Envelope, request_id: int, arguments: tuple[Any, ...], now: int) -> None:
        prefixes, from_revision, credit, *options = arguments
        key = (envelope, request_id)
        mine = self._by_connection.get(envelope[0], set())
        if len(mine) >= self._config.watches_per_connection_max:
            raise Overloaded(f"this connection has {len(mine)} watches already, which is the limit")
        credit = min(credit, self._config.watch_credit_max_bytes)
        first = self._watches.add(key, prefixes, from_revision, credit, Options(*options))
        stream = self._streams[key] = _Stream(now, min(first - 1, self._history.revision))
        self._by_connection.setdefault(envelope[0], mine).add(key)
        self._stirred = True
        self._check_at = min(self._check_at, now + self._config.watch_progress_ms)
        self._progress(key, stream.marked)

    def _credit(self, key: StreamKey, credit: int, now: int) -> None:
        stream = self._streams.get(key)
        if stream is not None:
            stream.heard_at = now
            self._watches.credit(key, credit, self._config.watch_credit_max_bytes)
            self._stirred = True

    def _drop(self, key: StreamKey) -> None:
        if self._streams.pop(key, None) is not None:
            self._watches.remove(key)
            mine = self._by_connection[key[0][0]]
            mine.discard(key)
            if not mine:
                del self._by_connection[key[0][0]]

    def connection_gone(self, identity: bytes) -> None:
        """An answer found nobody there."""
        for key in list(self._by_connection.get(identity, ())):
            self._drop(key)
        for key in [key for key in self._cut if key[0][0] == identity]:
            del self._cut[key]

    def end_all(self) -> None:
        """The state is wrong: everybody hears that another node is to be asked."""
        error = Overloaded(
            "the state of this node is wrong: the watch ended, watch again elsewhere from its cursor"
        )
        for key in list(self._streams):
            self._replies.error(*key, self._history.revision, error)
            self._drop(key)
        for poll in self._polls:
            self._replies.error(poll.envelope, poll.request_id, self._history.revision, error)
        self._polls, self._poll_at = [], NEVER

    def connection_slow(self, identity: bytes, now: int) -> None:
        """An answer did not fit into the queue of the connection: no later frame may follow it."""
        lost = list(self._by_connection.get(identity, ()))
        lost += [key for key in self._telling if key[0][0] == identity]
        for key in lost:
            self._drop(key)
            self._cut[key] = None
        if self._cut:
            self._tell_at = min(self._tell_at, now + TELL_EVERY_MS)

    def _tell(self, now: int) -> None:
        """What was told last time and not handed back has got through."""
        self._telling = []
        if now >= self._tell_at:
            error = Overloaded(
                "the connection did not take its frames: the watch ended, watch again from its cursor"
            )
            for key in self._cut:
                self._replies.error(*key, self._history.revision, error)
            self._telling, self._cut, self._tell_at = list(self._cut), {}, NEVER

    # ---------------------------------------------------------------- long polls

    def _watch_poll(self, envelope: Envelope, request_id: int, arguments: tuple[Any, ...], now: int) -> None:
        prefixes, after_revision, wait_ms, *options = arguments
        if len(self._polls) >= self._config.waiting_max_commands:
            raise Overloaded(f"{len(self._polls)} polls wait already; try again shortly")
        deadline = now + min(wait_ms, self._config.request_timeout_max_ms)
        poll = _Poll(envelope, request_id, prefixes, after_revision, Options(*options), deadline)
        left = self._try_poll(poll, now)
        if left is not None:
            self._polls.append(left)
            self._poll_at = min(self._poll_at, deadline)

    def _try_poll(self, poll: _Poll, now: int) -> _Poll | None:
        """Answer it if there is something to say or no time left; else the poll as it goes on waiting."""
        events, after_revision, more = self._watches.poll(
            poll.prefixes, poll.after_revision, poll.options, self._config.watch_frame_max_bytes
        )
        if not events and not more and now < poll.deadline:
            return poll._replace(after_revision=after_revision)
        result = (events, after_revision, more)
        self._replies.add(poll.envelope, poll.request_id, STATUS_OK, self._history.revision, result)
        return None

    def _feed_polls(self, now: int) -> None:
        waiting = []
        for poll in self._polls:
            try:
                left = self._try_poll(poll, now)
            except Rejected as error:
                self._replies.error(poll.envelope, poll.request_id, self._history.revision, error)
                continue
            if left is not None:
                waiting.append(left)
        self._polls = waiting
        self._poll_at = min((poll.deadline for poll in waiting), default=NEVER)

    # ---------------------------------------------------------------- sending

    def feed(self, now: int) -> None:
        """End of a turn: send what was applied since, and what credit or time allows."""
        moved = self._history.revision != self._fed_revision
        self._fed_revision = self._history.revision
        if self._polls and (moved or now >= self._poll_at):
            self._feed_polls(now)
        if self._cut or self._telling:
            self._tell(now)
        if not self._streams:
            # Nobody is left to look after: what was due for those who went must not wake the process again and again.
            self._check_at, self._stirred = NEVER, False
            return
        if moved or self._stirred:
            self._send_frames()
        if now >= self._check_at:
            self._look_after(now)

    def _send_frames(self) -> None:
        collected = self._watches.collect(self._config.watch_frame_max_bytes)
        revision = self._history.revision
        for keys, frame in collected.frames:
            for key in keys:
                self._replies.add_frame(*_own(key), revision, frame)
        compaction = self._history.compaction_revision
        for key in collected.compacted:
            error = Compacted(f"events up to revision {compaction} are compacted", compaction)
            self._replies.error(*_own(key), revision, error)
            self._drop(_own(key))
        self._stirred = collected.more

    def _look_after(self, now: int) -> None:
        """Progress marks for those that moved without events; the end for those that are silent."""
        silent = now - self._config.watch_keep_alive_ms
        for key, stream in list(self._streams.items()):
            if stream.heard_at < silent:
                error = Timeout(
                    f"no credit or keep-alive for {self._config.watch_keep_alive_ms} ms: the watch is closed"
                )
                self._replies.error(*key, self._history.revision, error)
                self._drop(key)
            elif (self._watches.progress(key) or 0) > stream.marked:
                self._mark(key, stream)
        self._check_at = now + self._config.watch_progress_ms if self._streams else NEVER

    def _mark(self, key: StreamKey, stream: _Stream) -> None:
        stream.marked = max(self._watches.progress(key) or 0, stream.marked)
        self._progress(key, stream.marked)

    def _progress(self, key: StreamKey, revision: int) -> None:
        self._replies.add(*key, STATUS_OK, self._history.revision, (FRAME_PROGRESS, revision))

    def next_timer(self) -> int | None:
        """When `feed` is wanted though nothing arrives."""
        if self._stirred:
            return 0
        timer = min(self._check_at, self._poll_at, self._tell_at)
        return None if timer == NEVER else timer
