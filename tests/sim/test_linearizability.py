"""The linearizability checker against histories made by hand: those that have an order, and those that have none.

Times are small integers; each line of a history is (invoked, returned, operation…).
"""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import pytest

from danube_raft.sim.linearizability import (
    CAS,
    DELETE,
    FOREVER,
    GET,
    PUT,
    SWAPPED,
    Event,
    is_linearizable,
)


def put(invoked: int, returned: int, value: str) -> Event:
    return Event(invoked, returned, PUT, value, None)


def get(invoked: int, returned: int, found: str | None) -> Event:
    return Event(invoked, returned, GET, None, found)


def swap(invoked: int, returned: int, expected: str | None, new: str, found: Any = SWAPPED) -> Event:
    return Event(invoked, returned, CAS, (expected, new), found)


def delete(invoked: int, returned: int, found: bool | None) -> Event:
    return Event(invoked, returned, DELETE, None, found)


def unknown(event: Event) -> Event:
    return event._replace(returned=FOREVER, known=False, result=None)


LEGAL = {
    "nothing": [],
    "one after the other": [put(1, 2, "a"), get(3, 4, "a"), delete(5, 6, True), get(7, 8, None)],
    "a read during a write may see either": [put(1, 9, "a"), get(2, 3, None), get(4, 5, "a")],
    "two writes at once, the first in the list last": [put(1, 9, "a"), put(2, 8, "b"), get(10, 11, "a")],
    "a swap that meets its value": [put(1, 2, "a"), swap(3, 4, "a", "b"), get(5, 6, "b")],
    "a swap that is refused tells what is there": [put(1, 2, "a"), swap(3, 4, "x", "b", "a")],
    "a swap of nothing": [swap(1, 2, None, "a"), swap(3, 4, None, "b", "a")],
    "an unknown write that never happened": [unknown(put(1, 2, "a")), get(3, 4, None), get(5, 6, None)],
    "an unknown write that happened late": [unknown(put(1, 2, "a")), get(3, 4, None), get(5, 6, "a")],
    "an unknown delete between two reads": [put(1, 2, "a"), unknown(delete(3, 4, True)), get(5, 6, "a"), get(7, 8, None)],
    "an unknown swap that found something else": [put(1, 2, "a"), unknown(swap(3, 4, "b", "c")), get(5, 6, "a")],
    "a delete that found the unknown write": [unknown(put(1, 2, "a")), delete(3, 4, True)],
    "deletes that do not say what they found": [delete(1, 2, None), put(3, 4, "a"), delete(5, 6, None), get(7, 8, None)],
    "operations that touch are concurrent": [put(1, 5, "a"), get(5, 6, None)],
}  # fmt: skip

ILLEGAL = {
    "a stale read": [put(1, 2, "a"), put(3, 4, "b"), get(5, 6, "a")],
    "a lost write": [put(1, 2, "a"), get(3, 4, None)],
    "a read of what nobody wrote": [put(1, 2, "a"), get(3, 4, "b")],
    "a read from the future": [get(1, 2, "a"), put(3, 4, "a")],
    "two reads in opposite order": [put(1, 9, "a"), put(1, 9, "b"), get(10, 11, "a"), get(12, 13, "b")],
    "new, then old": [put(1, 2, "a"), put(3, 9, "b"), get(4, 5, "b"), get(6, 7, "a")],
    "a swap that met a value that was gone": [put(1, 2, "a"), put(3, 4, "b"), swap(5, 6, "a", "c")],
    "two swaps of the same value": [put(1, 2, "a"), swap(3, 9, "a", "b"), swap(3, 9, "a", "c")],
    "a swap refused though its value was there": [put(1, 2, "a"), swap(3, 4, "a", "b", "a")],
    "a delete that missed": [put(1, 2, "a"), delete(3, 4, False)],
    "a delete that found nothing there": [delete(1, 2, True)],
    "a delete that does not say, and did nothing": [put(1, 2, "a"), delete(3, 4, None), get(5, 6, "a")],
    "an unknown write that happened twice": [unknown(put(1, 2, "a")), get(3, 4, "a"), delete(5, 6, True), get(7, 8, "a")],
    "an unknown write before it was invoked": [get(1, 2, "a"), unknown(put(3, 4, "a"))],
    "a refused swap that took effect": [put(1, 2, "a"), swap(3, 4, "x", "b", "a"), get(5, 6, "b")],
}  # fmt: skip


@pytest.mark.parametrize("name", LEGAL)
def test_a_history_that_has_an_order_is_linearizable(name: str) -> None:
    assert is_linearizable(LEGAL[name])


@pytest.mark.parametrize("name", ILLEGAL)
def test_a_history_that_has_no_order_is_not(name: str) -> None:
    assert not is_linearizable(ILLEGAL[name])


def test_the_first_value_may_be_given() -> None:
    assert is_linearizable([get(1, 2, "a")], initial="a")
    assert not is_linearizable([get(1, 2, None)], initial="a")


def _made_up(source: random.Random, size: int) -> list[Event]:
    events = []
    for number in range(size):
        invoked = source.randrange(10)
        returned = invoked + source.randrange(1, 6)
        value = source.choice(["a", "b", None])
        event = source.choice(
            [
                put(invoked, returned, str(value)),
                get(invoked, returned, value),
                swap(
                    invoked, returned, value, "b" if number % 2 else "a", source.choice([SWAPPED, value, "c"])
                ),
                delete(invoked, returned, source.choice([True, False, None])),
            ]
        )
        events.append(unknown(event) if source.random() < 0.2 and event.kind != GET else event)
    return events


def _brute(events: list[Event]) -> bool:
    """Try every order of the known operations with every subset of the others."""
    known = [event for event in events if event.known]
    others = [event for event in events if not event.known]
    return any(
        _explains(order)
        for count in range(len(others) + 1)
        for chosen in itertools.combinations(others, count)
        for order in itertools.permutations([*known, *chosen])
    )


def _explains(order: tuple[Event, ...]) -> bool:
    for place, event in enumerate(order):
        if any(later.returned < event.invoked for later in order[place + 1 :]):
            return False
    value: Any = None
    for _, _, kind, argument, result, known in order:
        if kind == PUT:
            value = argument
        elif kind == GET:
            if result != value:
                return False
        elif kind == DELETE:
            if known and result is not None and result != (value is not None):
                return False
            value = None
        elif value == argument[0]:
            if known and result is not SWAPPED:
                return False
            value = argument[1]
        elif known and (result is SWAPPED or result != value):
            return False
    return True


def test_it_agrees_with_trying_every_order() -> None:
    source = random.Random(5)
    found = {True: 0, False: 0}
    for _ in range(1_500):
        events = _made_up(source, source.randrange(1, 6))
        expected = _brute(events)
        assert is_linearizable(events) == expected, events
        found[expected] += 1
    assert min(found.values()) > 200


@pytest.mark.parametrize("legal", [True, False])
def test_long_histories_with_many_unknown_writes_are_decided_quickly(legal: bool) -> None:
    """The memory of failed places is what keeps this from being exponential, above all where there is no order."""
    source = random.Random(6)
    events: list[Event] = []
    value = None
    for step in range(0, 6_000, 3):
        if source.random() < 0.5:
            value = f"v{step}"
            events.append(put(step - source.randrange(20), step + 1, value))
        else:
            events.append(get(step, step + 1 + source.randrange(2), value))
        if step % 300 == 0:
            events.append(unknown(put(step, step, f"never {step}")))
    if not legal:
        events.append(get(6_100, 6_101, "nobody wrote this"))
    began = time.monotonic()
    assert is_linearizable(events) == legal
    assert time.monotonic() - began < 20
