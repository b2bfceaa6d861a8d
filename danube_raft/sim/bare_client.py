"""A client without a session: what a program makes of the protocol that knows nothing but a REQ socket.

Every request goes out once, to one node, with neither client id nor serial, so nothing but the nodes' own care keeps a
write from happening twice when a batch is proposed again. No answer in time means: not known.
"""

from __future__ import annotations

from collections.abc import Callable

from danube_raft import errors
from danube_raft.client.call import error_of
from danube_raft.node.endpoints import Envelope
from danube_raft.sim.client import Transmit
from danube_raft.sim.history import OK, REJECTED, UNCERTAIN, Operation
from danube_raft.sim.schedule import MS, Schedule
from danube_raft.wire.client import (
    R_REQUEST_ID,
    R_RESULT,
    R_REVISION,
    R_STATUS,
    STATUS_OK,
    pack_request,
    unpack_replies,
)

PATIENCE_MS = 200
"""How much longer than its deadline a request is waited for."""


class BareClient:
    """One such client; it changes to the next endpoint after each operation."""

    def __init__(
        self,
        number: int,
        endpoints: tuple[str, ...],
        schedule: Schedule,
        transmit: Transmit,
        ended: Callable[[Operation], None],
    ) -> None:
        self.number = number
        self.operations: list[Operation] = []
        self.overloaded = 0
        """How often a node said so."""
        self._endpoints = endpoints
        self._schedule = schedule
        self._transmit = transmit
        self._ended = ended
        self._waits_for = 0

    @property
    def envelope(self) -> Envelope:
        """Where answers to this client go."""
        return (b"client-%d" % self.number, b"")

    @property
    def busy(self) -> bool:
        """Whether an operation is under way."""
        return self._waits_for != 0

    def put(self, key: str, value: bytes, timeout_ms: int) -> None:
        """Write once."""
        assert not self.busy
        self.operations.append(Operation(self.number, "put", (key, value), None, self._schedule.now))
        request_id = self._waits_for = len(self.operations)
        body = pack_request("put", request_id, key, value, timeout_ms=timeout_ms)
        endpoint = self._endpoints[request_id % len(self._endpoints)]
        if self._transmit(self.number, endpoint, body):
            self._schedule.after((timeout_ms + PATIENCE_MS) * MS, self._give_up, request_id)
        else:
            # Nothing was sent. Whoever is told goes on at once, so time must pass first.
            self._schedule.after(10 * MS, self._end, request_id, REJECTED)

    def reply(self, body: bytes, _node: int, _answered: int) -> None:
        """An answer has arrived."""
        for reply in unpack_replies(body):
            request_id = reply[R_REQUEST_ID]
            if reply[R_STATUS] == STATUS_OK:
                self._end(request_id, OK, reply[R_RESULT:], reply[R_REVISION])
                continue
            error = error_of(reply)
            self.overloaded += isinstance(error, errors.Overloaded)
            if request_id == self._waits_for:
                self.operations[-1].error = f"{type(error).__name__}: {error.message}"
            self._end(request_id, REJECTED if isinstance(error, errors.Rejected) else UNCERTAIN)

    def _give_up(self, request_id: int) -> None:
        self._end(request_id, UNCERTAIN)

    def _end(self, request_id: int, outcome: str, result: tuple[object, ...] = (), revision: int = 0) -> None:
        if request_id == self._waits_for:
            self._waits_for = 0
            self._ended(self.operations[-1].end(outcome, self._schedule.now, result, revision))
