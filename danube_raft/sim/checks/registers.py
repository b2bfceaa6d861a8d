"""Every key is a linearizable register (Herlihy and Wing, 1990; SEMANTICS "Consistency of reads"): writes, and reads
that asked for it. Keys with a TTL are left out, since they change by themselves; see ttl.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.history import OK, REJECTED, UNCERTAIN, Operation
from danube_raft.sim.linearizability import CAS, DELETE, FOREVER, GET, PUT, SWAPPED, Event, is_linearizable
from danube_raft.wire.client import LINEARIZABLE


def check_registers(operations: Sequence[Operation]) -> None:
    """Each key's history has an order that explains it. What covers a prefix is an operation on each of its keys."""
    keys = tuple(sorted({each.key for each in operations if each.kind in _EVENTS and _is_register(each.key)}))
    by_key: dict[str, list[tuple[Event, Operation]]] = {key: [] for key in keys}
    for operation in operations:
        if operation.outcome != REJECTED:
            for key, event in _events(operation, keys):
                by_key[key].append((event, operation))
    for key, history in by_key.items():
        if not is_linearizable([event for event, _ in history]):
            told = "\n".join(repr(operation) for _, operation in history)
            raise Violation(f"the history of {key} is not linearizable:\n{told}")


_EVENTS = {"put": PUT, "get": GET, "compare_and_swap": CAS, "delete": DELETE}


def _is_register(key: str) -> bool:
    return not key.startswith("/ttl/")


def _events(operation: Operation, keys: tuple[str, ...]) -> Iterator[tuple[str, Event]]:
    """(key, event) for each register that the operation changes, or reads linearizably."""
    kind = _EVENTS.get(operation.kind)
    if kind is not None:
        if _is_register(operation.key) and (kind != GET or _reads(operation)):
            yield operation.key, _event(operation, kind, _argument(operation), _result)
        return
    covered = [key for key in keys if key.startswith(operation.key)]
    if operation.kind == "delete_prefix":
        for key in covered:
            yield key, _event(operation, DELETE, None, lambda told: _removed(told, len(covered)))
    elif operation.kind == "range" and operation.args[2] is None and _reads(operation):
        # The first page: those after it show the same revision, which may be long ago by then.
        found = {record[0]: record[1] for record in operation.result[0]}
        for key in _paged(operation, covered):
            yield key, Event(operation.invoked, operation.returned, GET, None, found.get(key))


def _reads(operation: Operation) -> bool:
    return operation.level == LINEARIZABLE and operation.outcome == OK


def _event(operation: Operation, kind: str, argument: object, result: Callable[[Operation], object]) -> Event:
    if operation.outcome != OK:
        assert operation.outcome == UNCERTAIN, "every operation has ended"
        return Event(operation.invoked, FOREVER, kind, argument, None, known=False)
    return Event(operation.invoked, operation.returned, kind, argument, result(operation))


def _removed(operation: Operation, covered: int) -> bool | None:
    """Whether a key was among the removed: the answer only says how many they were."""
    removed = operation.result[0]
    return None if 0 < removed < covered else removed > 0


def _paged(page: Operation, covered: list[str]) -> list[str]:
    """The keys that the page says something about."""
    records, following = page.result[:2]
    if following is None:
        return covered
    last, reverse = records[-1][0], page.args[-1]
    return [key for key in covered if (key >= last if reverse else key <= last)]


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
