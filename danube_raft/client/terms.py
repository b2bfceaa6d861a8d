"""The terms on which a store asks: endpoints, deadline, level of its reads, codec, and the session they share.

Both stores are made from the same settings, which are checked here, and turn each question into a `Call` here.
What a method leaves open (the level, the endpoint) is filled in with the store's own. No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from danube_raft.client.call import REQUEST_MAX_MS, Call, Endpoints, Session
from danube_raft.client.operation import Ask
from danube_raft.client.stream import Options, Stream
from danube_raft.client.value import RAW, Codec
from danube_raft.errors import InvalidArgument
from danube_raft.wire import client as wire

Consistency = str | int | None
"""`session`, `linearizable`, `stale`, or an integer: stale by at most so many ms. None: the store's own."""


class Terms:
    """Those of one store. Raises InvalidArgument for wrong settings."""

    def __init__(
        self,
        endpoints: str | Sequence[str],
        timeout_ms: int,
        consistency: str | int,
        codec: Codec,
        raw: bool,
    ) -> None:
        if type(timeout_ms) is not int or not 1 <= timeout_ms <= REQUEST_MAX_MS:
            raise InvalidArgument(f"timeout_ms must be an integer from 1 to {REQUEST_MAX_MS}")
        # A wrong level would otherwise be found by the first read only.
        wire.check((wire.VERSION, "status", 0, timeout_ms, consistency))
        self.endpoints = Endpoints.parse(endpoints)
        self.timeout_ms = timeout_ms
        self.consistency = consistency
        self.codec: Codec = RAW if raw else codec
        self.session = Session()

    def call(self, ask: Ask[Any], consistency: Consistency, endpoint: str | None, now: float) -> Call:
        """The question as a request, to one endpoint or to any. `close` it when it has ended."""
        return Call(
            self.session,
            self.endpoints if endpoint is None else Endpoints((endpoint,)),
            ask.op,
            ask.args,
            now=now,
            timeout_ms=self.timeout_ms,
            consistency=self.consistency if consistency is None else consistency,
        )

    def stream(self, options: Options, from_revision: int, now: float) -> Stream:
        """A watch from a revision of the cluster that was last seen."""
        cluster_id = self.session.token[0] if self.session.token is not None else 0
        return Stream(self.session, self.codec, options, from_revision, cluster_id, now)

    def attached_endpoint(self, endpoint: str | None) -> str:
        """The one endpoint that is meant, which is the first when none is named."""
        return (self.endpoints if endpoint is None else Endpoints((endpoint,))).names[0]
