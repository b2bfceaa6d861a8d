"""Is there an order of these operations on one register that explains what everybody was told?

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memory of failed places
("Testing for linearizability", 2017): take one operation after the other that may come first, undo when stuck, and
never look twice at the same set of taken operations with the same value of the register.

An operation whose outcome is not known may take effect once, at any time after its invocation, or never; it is tried
last. Knows nothing of stores: a history is a list of `Event`, the register is a value or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

FOREVER = 1 << 62
"""When an operation of unknown outcome returns."""

PUT = "put"
GET = "get"
CAS = "cas"
DELETE = "delete"

_IMPOSSIBLE = object()


class Event(NamedTuple):
    """One operation. `argument`: what is put, or (expected, new). `result`: what get found; what a cas found if it
    did not swap, else `SWAPPED`; whether delete found anything. `known` False: the result means nothing."""

    invoked: int
    returned: int
    kind: str
    argument: Any
    result: Any
    known: bool = True


SWAPPED = object()


def is_linearizable(history: Sequence[Event], initial: Any = None) -> bool:
    """Whether some order of `history` that keeps to real time gives every known result. Times are any integers;
    operations that touch at one instant are concurrent."""
    events = sorted(history, key=lambda event: (event.invoked, event.returned))
    # Unknown operations never have to be taken: done is done when all known ones are.
    wanted = 0
    for place, event in enumerate(events):
        if event.known:
            wanted |= 1 << place
    return _search(events, wanted, initial)


def _search(events: list[Event], wanted: int, initial: Any) -> bool:
    failed: set[tuple[int, Any]] = set()
    stack = [(0, initial, iter(_candidates(events, 0, wanted)))]
    if not wanted:
        return True
    while stack:
        taken, value, candidates = stack[-1]
        for place in candidates:
            after = _apply(events[place], value)
            if after is _IMPOSSIBLE:
                continue
            now_taken = taken | 1 << place
            if now_taken & wanted == wanted:
                return True
            if (now_taken, after) in failed:
                continue
            failed.add((now_taken, after))
            stack.append((now_taken, after, iter(_candidates(events, now_taken, wanted))))
            break
        else:
            stack.pop()
    return False


def _candidates(events: list[Event], taken: int, wanted: int) -> list[int]:
    """Places of the operations that may come next: invoked before any open one has returned. Known ones first."""
    known: list[int] = []
    place = _first_open(taken, wanted)
    # Unknown operations before the first open known one may still be open too.
    unknown = [early for early in range(place) if not taken >> early & 1]
    earliest_return = FOREVER
    while place < len(events):
        event = events[place]
        if event.invoked > earliest_return:
            break
        if not taken >> place & 1:
            if event.known:
                known.append(place)
                earliest_return = min(earliest_return, event.returned)
            else:
                unknown.append(place)
        place += 1
    return [each for each in known if events[each].invoked <= earliest_return] + [
        each for each in unknown if events[each].invoked <= earliest_return
    ]


def _first_open(taken: int, wanted: int) -> int:
    """The lowest place of a known operation that is not taken."""
    open_places = wanted & ~taken
    return (open_places & -open_places).bit_length() - 1


def _apply(event: Event, value: Any) -> Any:
    """The register after the operation, or `_IMPOSSIBLE` if it cannot have given its result here."""
    kind, result, known = event.kind, event.result, event.known
    if kind == PUT:
        return event.argument
    if kind == GET:
        return value if not known or result == value else _IMPOSSIBLE
    if kind == DELETE:
        return None if not known or result == (value is not None) else _IMPOSSIBLE
    assert kind == CAS
    expected, new = event.argument
    if value == expected:
        return new if not known or result is SWAPPED else _IMPOSSIBLE
    return value if not known or (result is not SWAPPED and result == value) else _IMPOSSIBLE
