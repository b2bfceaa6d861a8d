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
    did not swap, else `SWAPPED`; whether delete found anything, None if it did not say. `known` False: the result means
    nothing."""

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
    return _Search(sorted(history, key=lambda event: (event.invoked, event.returned))).succeeds(initial)


class _Search:
    """One search. A set of taken operations is an integer with a bit for each place in `events`."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events
        self._known = [place for place, event in enumerate(events) if event.known]
        self._unknown = [place for place, event in enumerate(events) if not event.known]
        self._wanted = sum(1 << place for place in self._known)

    def succeeds(self, value: Any) -> bool:
        """All known operations can be taken, from this value of the register on."""
        if not self._wanted:
            return True
        failed: set[tuple[int, Any, bool]] = set()
        # (taken, value, whether the last one taken was unknown, what is still to be tried)
        stack = [(0, value, False, iter(self._candidates(0)))]
        while stack:
            taken, value, loose, candidates = stack[-1]
            for place in candidates:
                event = self._events[place]
                if _is_wasted(event, value, loose):
                    continue
                after = _apply(event, value)
                if after is _IMPOSSIBLE:
                    continue
                now_taken = taken | 1 << place
                if now_taken & self._wanted == self._wanted:
                    return True
                state = (now_taken, after, not event.known)
                if state not in failed:
                    failed.add(state)
                    stack.append((*state, iter(self._candidates(now_taken))))
                    break
            else:
                stack.pop()
        return False

    def _candidates(self, taken: int) -> list[int]:
        """Places of the operations that may come next: invoked before any open known one has returned."""
        events = self._events
        earliest_return = FOREVER
        found: list[int] = []
        for place in range(_first_open(taken, self._wanted), len(events)):
            event = events[place]
            if event.invoked > earliest_return:
                break
            if event.known and not taken >> place & 1:
                found.append(place)
                earliest_return = min(earliest_return, event.returned)
        found = [place for place in found if events[place].invoked <= earliest_return]
        for place in self._unknown:
            if events[place].invoked > earliest_return:
                break
            if not taken >> place & 1:
                found.append(place)
        return found


def _is_wasted(event: Event, value: Any, loose: bool) -> bool:
    """Whether leaving something out does as well. An unknown operation is only worth taking if it changes the register
    and the next one taken looks at what it left: all others may as well never have happened. Without this rule every
    subset of them would be tried."""
    if loose and event.kind in (PUT, DELETE):
        return event.kind == PUT or not event.known
    if event.known:
        return False
    if event.kind == CAS:
        return bool(value != event.argument[0])
    return event.kind == GET or (event.kind == DELETE and value is None)


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
        silent = not known or result is None
        return None if silent or result == (value is not None) else _IMPOSSIBLE
    assert kind == CAS
    expected, new = event.argument
    if value == expected:
        return new if not known or result is SWAPPED else _IMPOSSIBLE
    return value if not known or (result is not SWAPPED and result == value) else _IMPOSSIBLE
