"""Every key is a linearizable register (Herlihy and Wing, 1990; SEMANTICS "Consistency of reads"): writes, and reads
that asked for it. Keys with a TTL are left out, since they change by themselves; see ttl.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.history import OK, REJECTED, UNCERTAIN, Operation
from danube_raft.sim.linearizability import CAS, DELETE, FOREVER, GET, PUT, SWAPPED, Event, is_linearizable
from danube_raft.wire.client import LINEARIZABLE


def check_registers(operations: Sequence[Operation]) -> None:
    """Each key's history has an order that explains it."""
    by_key: dict[str, list[Event]] = {}
    for operation in operations:
        event = _event(operation)
        if event is not None:
            by_key.setdefault(operation.key, []).append(event)
    for key, events in by_key.items():
        if not is_linearizable(events):
            told = "\n".join(repr(each) for each in operations if each.kind in _EVENTS and each.key == key)
            raise Violation(f"the history of {key} is not linearizable:\n{told}")


_EVENTS = {"put": PUT, "get": GET, "compare_and_swap": CAS, "delete": DELETE}


def _event(operation: Operation) -> Event | None:
    kind = _EVENTS.get(operation.kind)
    if kind is None or operation.outcome == REJECTED or operation.key.startswith("/ttl/"):
        return None
    if kind == GET and (operation.level != LINEARIZABLE or operation.outcome != OK):
        return None
    if operation.outcome != OK:
        assert operation.outcome == UNCERTAIN, "every operation has ended"
        return Event(operation.invoked, FOREVER, kind, _argument(operation), None, known=False)
    return Event(operation.invoked, operation.returned, kind, _argument(operation), _result(operation))


def _argument(operation: Operation) -> object:
    if operation.kind == "put":
        return operation.args[1]
    if operation.kind == "compare_and_swap":
        return operation.args[1], operation.args[2]
    return None


def _result(operation: Operation) -> object:
    result = operation.result
    if operation.kind == "get":
        return None if result[0] is None else result[0][1]
    if operation.kind == "delete":
        return result[0] == 1
    if operation.kind == "compare_and_swap":
        if result[0]:
            return SWAPPED
        return None if result[3] is None else result[3][1]
    return None
