"""Who leads, as one node sees it: what is known, for how long it holds, and what to ask next.

The node is asked with `leadership_poll`, which it answers when its term or its leader is another than the one named,
so changes are pushed. The first poll of a connection does not wait, and each later one waits for POLL_MS. What was
answered holds until the poll that followed should have been answered at the latest, GRACE_MS after its wait: so a
leader that is cut off, stopped or stuck is taken for one for three seconds at most. From then on, and as soon as
the connection is gone, nobody is known to lead; the term stays the last one known.

`Attachment` decides, without I/O and with `now` as monotonic milliseconds. `attend` is the life of a link that
serves it: a generator of `Steps`, driven by a thread or by a task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import zmq

from danube_raft import errors
from danube_raft.client.call import CONNECT_MS
from danube_raft.client.channel import now_ms
from danube_raft.client.link import Link, Steps, Wait
from danube_raft.client.owner import Owner
from danube_raft.wire import client as wire
from danube_raft.wire import codec

POLL_MS = 2_000
GRACE_MS = 1_000
RETRY_MIN_MS = 20
RETRY_MAX_MS = 1_000
"""Pause before the node is connected to again, doubled while nothing is heard."""


class Leadership(NamedTuple):
    """Who leads, seen from the node `node_id` (None: it was never heard), of which `is_leader` speaks."""

    is_leader: bool
    current_leader: int | None
    node_id: int | None
    term: int


class Attachment:
    """What is known of the leader from one node. `changed` is called when that is no longer the same."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.closed = False
        self.retry_at = 0.0
        self.give_up_at = 0.0
        self.waiting = False
        """Whether a poll is unanswered; when none is, the next one may be sent, unless the last one was refused."""
        self.refused = False
        self._changed = changed
        self._seen = Leadership(False, None, None, 0)
        self._holds = False
        self._known = (0, 0)
        self._request_id = 0
        self._pause_ms = RETRY_MIN_MS

    def at(self, now: float, owner: Owner) -> Leadership:
        """What is known now. Nothing is in a child of the owner, where nobody polls."""
        if self._holds and now < self.give_up_at and not self.closed and not owner.forked:
            return self._seen
        return self._seen._replace(is_leader=False, current_leader=None)

    def request(self, now: float) -> bytes:
        """The next poll, to a node that is connected."""
        self._request_id += 1
        self.waiting, self.refused = True, False
        wait_ms = POLL_MS if self._holds else 0
        self.give_up_at = now + wait_ms + GRACE_MS
        return wire.pack_request("leadership_poll", self._request_id, *self._known, wait_ms)

    def receive(self, reply: tuple[Any, ...]) -> None:
        """Take one reply. Raises Malformed for a result that is none."""
        if reply[wire.R_REQUEST_ID] != self._request_id or not self.waiting:
            return
        self.waiting = False
        if reply[wire.R_STATUS] != wire.STATUS_OK:
            # Overloaded, or a node that does not know the question yet: asked again after a pause.
            self.refused = True
            return
        result = reply[wire.R_RESULT :]
        codec.expect(
            len(result) >= 2 and type(result[0]) is int and type(result[1]) is int,
            "the answer is [leader's node id, term, role]",
        )
        leader, term = result[:2]
        node_id = reply[wire.R_NODE_ID]
        before, held = self._seen, self._holds
        self._known, self._holds, self._pause_ms = (term, leader), True, RETRY_MIN_MS
        self._seen = Leadership(leader == node_id, leader or None, node_id, term)
        if self._seen != before or not held:
            self._changed()

    def lost(self, now: float) -> None:
        """There is no connection, or no answer that would help."""
        self.waiting = self.refused = False
        self.retry_at = now + self._pause_ms
        self._pause_ms = min(2 * self._pause_ms, RETRY_MAX_MS)
        if self._holds:
            self._holds = False
            self._changed()


def attend(attachment: Attachment, context: zmq.Context[Any], endpoint: str) -> Steps[None]:
    """Connect, poll, connect again, until it is closed."""
    while not attachment.closed:
        if now_ms() < attachment.retry_at:
            yield Wait(attachment.retry_at)
            continue
        try:
            link = Link(context, endpoint)
        except errors.Rejected:
            # No room for a socket, or a name that means nothing yet.
            attachment.lost(now_ms())
            continue
        try:
            yield Wait(now_ms() + CONNECT_MS, link, zmq.POLLOUT)
            if link.connected:
                yield from _polls(attachment, link)
        finally:
            link.close()
        attachment.lost(now_ms())


def _polls(attachment: Attachment, link: Link) -> Steps[None]:
    """One poll after the other, as long as they are answered."""
    while not attachment.closed:
        if not attachment.waiting and (attachment.refused or not link.send(attachment.request(now_ms()))):
            return
        yield Wait(attachment.give_up_at, link)
        gone = link.lost
        body = link.receive()
        try:
            for reply in () if body is None else wire.unpack_replies(body):
                attachment.receive(reply)
        except codec.Malformed:
            return
        if attachment.waiting and (gone or now_ms() >= attachment.give_up_at):
            return
