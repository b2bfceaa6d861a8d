"""A client: the decisions of `client/call.py`, one request at a time, over connections that the world makes. Several
of them may be one program and share its session.

It does what `client/channel.py` does with sockets: asks the call what to send, tells it what was sent or blocked, hands it
every reply, and waits as long as it is told to. Who decides what to ask for is the workload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from danube_raft import errors
from danube_raft.client.call import Call, Endpoints, Send
from danube_raft.node.endpoints import Envelope
from danube_raft.sim.history import OK, REJECTED, UNCERTAIN, Operation
from danube_raft.sim.program import Program
from danube_raft.sim.schedule import MS, Schedule
from danube_raft.wire.client import R_REVISION, R_STATUS, SESSION, unpack_replies

TRY_AGAIN_US = 20 * MS
"""Between two looks at a connection that is not there yet."""

Transmit = Callable[[int, str, bytes], bool]
"""Takes (client, endpoint, body); False if there is no connection."""


class Client:
    """One client of the store; `ended` is called with every operation whose outcome is known."""

    def __init__(
        self,
        number: int,
        endpoints: tuple[str, ...],
        schedule: Schedule,
        program: Program,
        transmit: Transmit,
        ended: Callable[[Operation], None],
    ) -> None:
        self.number = number
        self.program = program
        self.operations: list[Operation] = []
        self.overloaded = 0
        """How often a node said so; most are asked again and end well."""
        self._endpoints = Endpoints(endpoints)
        self._schedule = schedule
        self._transmit = transmit
        self._ended = ended
        self._call: Call | None = None
        self._step = 0

    @property
    def envelope(self) -> Envelope:
        """Where answers to this client go."""
        return (b"client-%d" % self.number, b"")

    @property
    def endpoint_count(self) -> int:
        """How many nodes it knows."""
        return len(self._endpoints.names)

    @property
    def busy(self) -> bool:
        """Whether an operation is under way."""
        return self._call is not None

    def begin(
        self,
        op: str,
        args: tuple[Any, ...],
        level: str | int | None,
        timeout_ms: int,
        recorded_args: tuple[Any, ...] | None = None,
        endpoint: int | None = None,
    ) -> None:
        """Start an operation. `recorded_args` are what the checks shall see, if not `args`; `endpoint`: ask that
        node only."""
        assert self._call is None, "one operation at a time"
        recorded = args if recorded_args is None else recorded_args
        operation = Operation(self.number, op, recorded, level, self._schedule.now)
        operation.seen_before = self.program.seen
        self.operations.append(operation)
        endpoints = self._endpoints if endpoint is None else Endpoints((self._endpoints.names[endpoint],))
        self._call = Call(
            self.program.session,
            endpoints,
            op,
            args,
            now=self._now(),
            timeout_ms=timeout_ms,
            consistency=level,
        )
        if self._call.is_write:
            self.program.write_begun()
        self._pump(self._step)

    def list_prefix(
        self, prefix: str, limit: int | None, level: str | None, timeout_ms: int, reverse: bool = False
    ) -> None:
        """Ask for the first page of all records under `prefix`, with `limit` records at most."""
        self.begin("range", (prefix, limit, None, None, False, False, reverse), level, timeout_ms)

    def list_on(self, timeout_ms: int) -> bool:
        """Ask for the page after the one that ended last, at its revision; False: there is none. As the store does: a node
        that is behind waits, whatever the level of the first page, and now and then it is another node."""
        page = self.operations[-1]
        prefix, limit, *_, reverse = page.args
        _, token, revision = page.result[:3]
        if token is not None:
            self.begin("range", (prefix, limit, token, revision, False, False, reverse), SESSION, timeout_ms)
        return token is not None

    def reply(self, body: bytes, node: int, answered: int) -> None:
        """An answer has arrived, which `node` gave at virtual time `answered`."""
        call = self._call
        for reply in unpack_replies(body):
            self.overloaded += reply[R_STATUS] == errors.Overloaded.code
            if call is None or call is not self._call:
                return
            try:
                call.receive(reply, self._now())
            except errors.DanubeRaftError as error:
                self._failed(error)
                return
            if call.result is not None:
                self.program.saw(reply[R_REVISION])
                self.operations[-1].node, self.operations[-1].answered = node, answered
                self._end(OK, call.result, call.revision)
                return
        if call is not None:
            self._wait(call)

    # ---------------------------------------------------------------- the call

    def _now(self) -> float:
        return self._schedule.now / MS

    def _wait(self, call: Call) -> None:
        self._step += 1
        wake_at = max(round(call.wait_until * MS) + 1, self._schedule.now)
        self._schedule.at(wake_at, self._pump, self._step)

    def _pump(self, step: int) -> None:
        call = self._call
        if call is None or step != self._step:
            return
        try:
            send = call.next(self._now())
        except errors.DanubeRaftError as error:
            self._failed(error)
            return
        if send is None:
            self._wait(call)
        else:
            self._try(self._step, send)

    def _try(self, step: int, send: Send) -> None:
        call = self._call
        if call is None or step != self._step:
            return
        if self._transmit(self.number, send.endpoint, send.body):
            call.sent(self._now())
            self._wait(call)
        elif self._now() >= send.connect_until:
            call.blocked(self._now())
            self._pump(step)
        else:
            self._schedule.after(TRY_AGAIN_US, self._try, step, send)

    def _failed(self, error: errors.DanubeRaftError) -> None:
        # What is neither (a node that cannot go on) says nothing about the write either.
        self.operations[-1].error = f"{type(error).__name__}: {error.message}"
        self._end(REJECTED if isinstance(error, errors.Rejected) else UNCERTAIN, (), 0)

    def _end(self, outcome: str, result: tuple[Any, ...], revision: int) -> None:
        assert self._call is not None
        self._call.close()
        if self._call.is_write:
            self.program.write_ended()
        self._call = None
        self._step += 1
        self._ended(self.operations[-1].end(outcome, self._schedule.now, result, revision))
