"""The checks of a history, given histories that are wrong: each kind of lie is noticed, and the truth is not.

A small true history is written down by hand; every test changes one thing in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import history_checks
import pytest
from history import (
    BOUND_MS,
    BOUNDED_READ,
    OK,
    PUT,
    READ,
    REJECTED,
    SESSION_READ,
    SWAP,
    TAKE_ID,
    UNCERTAIN,
    Operation,
    Value,
)
from history_checks import GRACE_S, OVERLAP_S, Applied, Fault, check_all, check_registers

from danube_raft import Event, Record
from danube_raft.client.value import JSON

FIRST, LAST = 10, 16


OLD_S = BOUND_MS / 1000 + GRACE_S + OVERLAP_S
"""What was acknowledged so long before a bounded read began is seen."""


def value(client: str, number: int) -> Value:
    return client, number


def event(revision: int, key: str, version: int, written: Value | int) -> Event:
    raw = JSON.encode(list(written) if isinstance(written, tuple) else written)
    return Event("put", Record(key, raw, revision, revision, version, 0, 0, JSON), None)


def changes() -> list[list[Event]]:
    """Revisions 10 to 16: three changes of /a, one of /b, two ids, the end."""
    return [
        [event(10, "/a", 1, ("c1", 1))],
        [event(11, "/a", 2, ("c2", 1))],
        [event(12, "/counters/h", 1, 7)],
        [event(13, "/b", 1, ("c1", 3))],
        [event(14, "/a", 3, ("c2", 3))],
        [event(15, "/counters/h", 2, 8)],
        [event(16, "/end", 1, ("end", 1))],
    ]


def operations() -> dict[str, Operation]:
    """What two clients did meanwhile, one after the other but for `lost`, `unanswered` and `second id`."""
    put, swap = value("c1", 1), value("c2", 1)
    return {
        "put": Operation("c1", PUT, "/a", 1, 2, OK, put, put, 10, 1),
        "read": Operation("c2", READ, "/a", 3, 4, OK, None, put, 10, 1),
        "swap": Operation("c2", SWAP, "/a", 5, 6, OK, swap, swap, 11, 2, expected=10),
        "lost": Operation("c1", SWAP, "/a", 5.5, 7, OK, value("c1", 2), swap, 11, 2, expected=10),
        "id": Operation("c2", TAKE_ID, "h", 7, 8, OK, id=7),
        "other": Operation("c1", PUT, "/b", 9, 10, OK, value("c1", 3), value("c1", 3), 13, 1),
        "refused": Operation("c1", PUT, "/b", 10, 11, REJECTED, value("c1", 4), error="Overloaded"),
        "vanished": Operation("c2", PUT, "/a", 10, 11, UNCERTAIN, value("c2", 2), error="Uncertain"),
        "unanswered": Operation("c2", PUT, "/a", 11, 20, UNCERTAIN, value("c2", 3), error="Uncertain"),
        "session": Operation("c1", SESSION_READ, "/a", 12, 13, OK, None, swap, 11, 2),
        "late": Operation("c1", READ, "/a", 14, 15, OK, None, value("c2", 3), 14, 3),
        "second id": Operation("c1", TAKE_ID, "h", 16, 17, OK, id=8),
        "bounded": Operation("c3", BOUNDED_READ, "/a", 14.9 + OLD_S, 17, OK, None, swap, 11, 2),
        "none": Operation("c1", READ, "/c", 18, 19, OK),
    }


def check(changed: dict[str, Operation], *watched: Sequence[Sequence[Event]]) -> None:
    check_all(list(changed.values()), watched or (changes(), changes()), FIRST, LAST)


def test_the_truth_passes() -> None:
    check(operations())


@pytest.mark.parametrize(
    ("name", "change", "noticed"),
    [
        ("put", {"revision": 9}, "is there at"),
        ("put", {"version": 2}, "not that version"),
        ("put", {"wrote": value("c1", 9), "found": value("c1", 9)}, "nobody wrote"),
        ("put", {"key": "/b"}, "went to"),
        ("put", {"outcome": REJECTED, "error": "Timeout"}, "was refused and is there"),
        ("swap", {"found": value("c1", 1), "revision": 10}, "lost its swap and is there"),
        ("vanished", {"outcome": OK, "error": "", "found": value("c2", 2), "revision": 12}, "lost"),
        ("read", {"found": value("c2", 1)}, "never was"),
        ("session", {"revision": 12}, "never was"),
        ("read", {"begun": 6.5, "ended": 6.8}, "stale"),
        ("lost", {"found": value("c1", 1), "revision": 10, "begun": 6.5}, "stale"),
        ("swap", {"begun": 0.1, "ended": 0.2}, "is there at 10"),
        ("unanswered", {"begun": 16}, "is there at 14"),
        ("none", {"key": "/b"}, "stale"),
        ("second id", {"id": 7}, "twice"),
        ("second id", {"id": 6}, "after id 7"),
        ("second id", {"id": 9}, "id 9 of h was told, and allocated 0 times"),
        ("second id", {"outcome": REJECTED, "error": "Timeout", "id": 0}, "h moved 2 times for 1 to 1 ids"),
        ("session", {"found": value("c1", 1), "revision": 10}, "back in time"),
        ("session", {"begun": 15.5, "ended": 15.6}, "back in time"),
        ("bounded", {"found": value("c1", 1), "revision": 10}, "older than its bound"),
        ("bounded", {"begun": 15 + OLD_S, "ended": 17}, "older than its bound"),
        ("refused", {"error": ""}, "disagree"),
        ("refused", {"outcome": UNCERTAIN}, "disagree"),
        ("refused", {"error": "InvalidArgument: no"}, "should have been told"),
        ("refused", {"error": "Corrupt: bad"}, "should have been told"),
        ("put", {"error": "Timeout"}, "disagree"),
        ("vanished", {"kind": READ}, "no effect"),
    ],
)
def test_a_lie_is_noticed(name: str, change: dict[str, object], noticed: str) -> None:
    changed = operations()
    changed[name] = changed[name]._replace(**change)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=noticed):
        check(changed)


@pytest.mark.parametrize(
    ("fault", "excused"),
    [
        (Fault(13, 14, 17), True),
        (Fault(13, 14, 16.2), True),
        (Fault(13, 18, 19), False),
        (Fault(13, 14, 16.0), False),
        (Fault(16.7, 16.7, 17), False),
    ],
    ids=["undone just now", "lately", "lifted later", "long ago", "begun just now"],
)
def test_what_a_fault_kept_may_be_told_when_it_is_lifted(fault: Fault, excused: bool) -> None:
    changed = operations()
    begun = 15.01 + OLD_S
    changed["bounded"] = changed["bounded"]._replace(begun=begun, ended=begun)
    changed["late"] = changed["late"]._replace(ended=15)
    with pytest.raises(AssertionError, match="older") if not excused else nullcontext():
        check_all(list(changed.values()), [changes()], FIRST, LAST, [fault])


def without(place: int) -> list[list[Event]]:
    return [events for number, events in enumerate(changes()) if number != place]


@pytest.mark.parametrize(
    ("told", "noticed"),
    [
        (without(2), "missed"),
        (without(6), "missed"),
        ([*changes()[:2], *changes()[1:]], "twice or out of order"),
        ([changes()[1], changes()[0], *changes()[2:]], "twice or out of order"),
        ([*changes()[:3], [event(13, "/b", 1, ("c1", 9))], *changes()[4:]], "different changes"),
    ],
)
def test_a_watcher_that_lies_is_noticed(told: list[list[Event]], noticed: str) -> None:
    for watched in ((changes(), told), (told, changes())):
        with pytest.raises(AssertionError, match=noticed):
            check(operations(), *watched)


def test_a_write_that_happened_twice_is_noticed() -> None:
    told = [*changes()[:3], [event(13, "/a", 3, ("c2", 1))], *changes()[4:]]
    told[4] = [event(14, "/a", 4, ("c2", 3))]
    with pytest.raises(AssertionError, match="written twice"):
        check(operations(), told, told)


@pytest.mark.parametrize("again", [8, 9])
def test_an_allocation_that_happened_twice_is_noticed(again: int) -> None:
    told = [*changes()[:6], [event(16, "/counters/h", 3, again)], [event(17, "/end", 1, ("end", 1))]]
    with pytest.raises(AssertionError, match="h moved 3 times for 2 to 2 ids"):
        check_all(list(operations().values()), [told], FIRST, LAST + 1)
    unanswered = Operation("c1", TAKE_ID, "h", 18, 20, UNCERTAIN, error="Uncertain")
    asked = [*operations().values(), unanswered]
    if again == 8:
        with pytest.raises(AssertionError, match="id 8 of h was told, and allocated 2 times"):
            check_all(asked, [told], FIRST, LAST + 1)
    else:
        check_all(asked, [told], FIRST, LAST + 1)


def test_versions_that_do_not_count_are_noticed() -> None:
    told = changes()
    told[1] = [event(11, "/a", 3, ("c2", 1))]
    with pytest.raises(AssertionError, match="do not count"):
        check(operations(), told, told)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("read", {"begun": 6.5, "ended": 6.8}),
        ("read", {"begun": 0.1, "ended": 0.2}),
        ("late", {"found": value("c1", 1)}),
        ("swap", {"expected": 0}),
        ("unanswered", {"begun": 16}),
    ],
)
def test_values_alone_give_a_lie_away(name: str, change: dict[str, object]) -> None:
    applied = Applied(changes())
    check_registers(list(operations().values()), applied)
    changed = operations()
    changed[name] = changed[name]._replace(**change)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="no order explains"):
        check_registers(list(changed.values()), applied)


def test_the_search_looks_at_what_came_with_each_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_checks, "SEARCHED_MAX", 2)
    applied, changed = Applied(changes()), operations()
    fault = Fault(13.5, 14, 15)
    check_registers(list(changed.values()), applied, [fault])
    changed["late"] = changed["late"]._replace(found=value("c1", 1))
    check_registers(list(changed.values()), applied)
    with pytest.raises(AssertionError, match="no order explains /a"):
        check_registers(list(changed.values()), applied, [fault])
    # What was there before the window counts too.
    changed["late"] = changed["late"]._replace(found=value("c2", 1))
    check_registers(list(changed.values()), applied, [fault])
    changed["late"] = changed["late"]._replace(found=None)
    with pytest.raises(AssertionError, match="no order explains /a"):
        check_registers(list(changed.values()), applied, [fault])
