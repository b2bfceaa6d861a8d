"""No lease ends early (SEMANTICS "Leases and TTL"; INTERNALS §7; PITFALLS 43): a key with a TTL is there until that long
after the client sent the last acknowledged grant or renewal, whatever leaders and clocks do meanwhile.

A client reads only its own such keys, one operation after the other, so the order is its own. A write of unknown outcome
with a shorter TTL may have moved the deadline back; then nothing is claimed until the next that is acknowledged.

A grant that repeats the value of its key while it must be there is a renewal, and is answered as one: anything else says
that the lease had ended, though nobody looked at the key.

An ordinary put clears the TTL, and so does a swap without one (a swap with a TTL is a grant). After that the key stays
until it is deleted (SEMANTICS, put; PITFALLS 43), unless a grant of unknown outcome may still come after it. A key that was deleted on purpose is not used again.
"""

from __future__ import annotations

from danube_raft.sim.checks.facts import Ended, Fact, Violation
from danube_raft.sim.checks.view import View
from danube_raft.sim.history import OK, REJECTED, Operation
from danube_raft.sim.schedule import MS

FOREVER = 1 << 62


class TtlNeverEarly:
    """Remembers until when each key with a TTL must be there, in virtual microseconds.

    A TTL is counted by the leader's clock, which may run fast by `drift_ppm`.
    """

    wants = (Ended,)

    def __init__(self, _view: View, drift_ppm: int = 0) -> None:
        self._share = 1 - drift_ppm / 1_000_000
        self._until: dict[str, int] = {}
        self._ttl_ms: dict[str, int] = {}
        self._loose: set[str] = set()
        """Keys with a grant of unknown outcome."""
        self._value: dict[str, bytes] = {}
        """What the last acknowledged grant of a key has written."""
        self._unsure: set[str] = set()
        """Keys that may have, or may yet get, another value than that."""
        self.seen_alive = 0
        self.seen_gone = 0
        self.seen_cleared = 0

    def take(self, fact: Fact) -> None:
        """A key that is not found must have been due."""
        assert isinstance(fact, Ended)
        operation = fact.operation
        if not operation.key.startswith("/ttl/") or operation.outcome == REJECTED:
            return
        if operation.kind == "delete":
            self._until.pop(operation.key, None)
        elif operation.kind == "get":
            if operation.outcome == OK:
                self._see(operation)
        elif operation.outcome != OK:
            self._not_known(operation)
        elif operation.kind == "compare_and_swap" and not operation.result[0]:
            self._check_refusal(operation)
        elif operation.ttl_ms is not None:
            if operation.kind == "put_with_ttl":
                self._check_renewal(operation)
            self._until[operation.key] = operation.invoked + round(operation.ttl_ms * MS * self._share)
            self._ttl_ms[operation.key] = operation.ttl_ms
            self._value[operation.key] = _written(operation)
        elif operation.kind in ("put", "compare_and_swap"):
            self._value.pop(operation.key, None)
            if operation.key not in self._loose:
                self._until[operation.key] = FOREVER

    def _not_known(self, write: Operation) -> None:
        """It may have happened, or happen yet."""
        if write.ttl_ms is None or _written(write) != self._value.get(write.key):
            self._unsure.add(write.key)
        if write.ttl_ms is not None:
            self._loose.add(write.key)
            cleared = self._until.get(write.key) == FOREVER
            if cleared or write.ttl_ms < self._ttl_ms.get(write.key, 0):
                self._until.pop(write.key, None)

    def _check_refusal(self, swap: Operation) -> None:
        """It expected what is there as long as the lease lasts."""
        until = self._until.get(swap.key, 0)
        if swap.key in self._unsure or self._value.get(swap.key) != swap.args[1]:
            return
        if swap.returned < until:
            raise Violation(f"refused {(until - swap.returned) / MS} ms before its time: {swap}")

    def _check_renewal(self, grant: Operation) -> None:
        until = self._until.get(grant.key, 0)
        if grant.key in self._unsure or self._value.get(grant.key) != grant.args[1] or grant.result[3]:
            return
        if grant.returned < until:
            raise Violation(f"written anew {(until - grant.returned) / MS} ms before its time: {grant}")

    def _see(self, read: Operation) -> None:
        gone = read.result[0] is None
        until = self._until.get(read.key, 0)
        self.seen_gone += gone
        self.seen_alive += not gone
        self.seen_cleared += until == FOREVER
        if gone and until == FOREVER:
            raise Violation(f"gone, though its TTL was cleared: {read}")
        if gone and read.returned < until:
            raise Violation(f"gone {(until - read.returned) / MS} ms before its time: {read}")


def _written(write: Operation) -> bytes:
    return bytes(write.args[2 if write.kind == "compare_and_swap" else 1])
