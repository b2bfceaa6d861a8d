"""What makes a write happen once: for each client, the results of its recent serials.

A session begins with a client's first write and is dropped after an hour of cluster time without one, or when more
than 10,000 clients write and it is the one that wrote longest ago.

`low_water` is the client's promise that it has the answers to all serials below it; nil means that it has them for
all below this serial (a client that sends one request at a time). What is below is forgotten, and a late copy of
such a write gets StaleSerial. Nothing at or above the low water is ever forgotten while the session lives: a client
that keeps 256 results waiting gets Overloaded for a new serial, which is true (it was not applied), where dropping
the oldest would make StaleSerial a lie.

A result is kept as it was answered, errors too. One whose record is larger than 64 KiB is kept with nil in place of
the record: the retry still learns that the write was applied, with which revision and version.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeAlias

from danube_raft.errors import Overloaded, StaleSerial
from danube_raft.kv import limits
from danube_raft.kv.record import cost

Result: TypeAlias = tuple[int, int, tuple[Any, ...]]
"""(status, store revision after the command, result fields; for an error its message and details)"""


class Session:
    """One client. `floor`: serials below it are forgotten. `sizes`: cost of the results that hold a record."""

    __slots__ = ("floor", "results", "sizes", "used_ms")

    def __init__(self, used_ms: int, floor: int = 0) -> None:
        self.used_ms = used_ms
        self.floor = floor
        self.results: dict[int, Result] = {}
        self.sizes: dict[int, int] = {}


def record_cost(fields: tuple[Any, ...]) -> int | None:
    """Cost of the record among the fields of a result, None if there is none."""
    for field in fields:
        if type(field) is tuple:
            return cost(field)
    return None


class Sessions:
    """All sessions, the one that wrote longest ago first."""

    __slots__ = ("by_client", "kept_bytes")

    def __init__(self) -> None:
        self.by_client: OrderedDict[int, Session] = OrderedDict()
        self.kept_bytes = 0
        """Cost of all kept results that hold a record; the others are small and their number is bounded."""

    @classmethod
    def restore(cls, by_client: OrderedDict[int, Session]) -> Sessions:
        """The sessions of a snapshot, in their order; their sizes are counted here."""
        restored = cls()
        restored.by_client = by_client
        for session in by_client.values():
            costs = ((serial, record_cost(result[2])) for serial, result in session.results.items())
            session.sizes = {serial: size for serial, size in costs if size is not None}
            restored.kept_bytes += sum(session.sizes.values())
        return restored

    def __len__(self) -> int:
        return len(self.by_client)

    def drop_idle(self, now_ms: int) -> None:
        """Forget the sessions that have not written for an hour of cluster time."""
        horizon = now_ms - limits.SESSION_IDLE_MS
        while self.by_client:
            client_id = next(iter(self.by_client))
            if self.by_client[client_id].used_ms > horizon:
                return
            self._drop(client_id)

    def recall(self, client_id: int, serial: int, low_water: int | None, now_ms: int) -> Result | None:
        """The kept result of this write, None if it has to be applied now.

        Raises StaleSerial when the result was given up, Overloaded when there is no room to keep another.
        """
        session = self.by_client.get(client_id)
        if session is None:
            session = self.by_client[client_id] = Session(now_ms)
            if len(self.by_client) > limits.MAX_SESSIONS:
                self._drop(next(iter(self.by_client)))
        elif session.used_ms != now_ms:
            session.used_ms = now_ms
            self.by_client.move_to_end(client_id)
        if low_water is None:
            low_water = serial
        if low_water > session.floor:
            self._trim(session, low_water)
        if serial < session.floor:
            raise StaleSerial(f"serial {serial} is below the low water {session.floor} of its session")
        kept = session.results.get(serial)
        if kept is None and len(session.results) >= limits.MAX_SESSION_SERIALS:
            raise Overloaded(f"the session keeps {len(session.results)} results; raise low_water first")
        return kept

    def kept(self, client_id: int | None, serial: int) -> Result | None:
        """The result of this write if it is there; nothing is changed."""
        session = None if client_id is None else self.by_client.get(client_id)
        return None if session is None else session.results.get(serial)

    def keep(self, client_id: int, serial: int, result: Result) -> None:
        """Remember the result of a write that `recall` did not know."""
        session = self.by_client[client_id]
        size = record_cost(result[2])
        if size is not None:
            if size > limits.MAX_KEPT_RESULT_BYTES:
                fields = tuple(None if type(field) is tuple else field for field in result[2])
                result = (result[0], result[1], fields)
            else:
                session.sizes[serial] = size
                self.kept_bytes += size
        session.results[serial] = result

    def _trim(self, session: Session, low_water: int) -> None:
        results = session.results
        if low_water - session.floor <= len(results):
            for serial in range(session.floor, low_water):
                results.pop(serial, None)
        else:
            session.results = {serial: kept for serial, kept in results.items() if serial >= low_water}
        session.floor = low_water
        if session.sizes:
            for serial in [serial for serial in session.sizes if serial < low_water]:
                self.kept_bytes -= session.sizes.pop(serial)

    def _drop(self, client_id: int) -> None:
        self.kept_bytes -= sum(self.by_client.pop(client_id).sizes.values())
