"""What a history must look like, whatever was killed, stopped or cut while it was made.

The store says in which order it did everything: each record carries the revision of its last change, and the watches
tell every change with its revision. So nothing has to be guessed: the order of the revisions is the one order that
the store vouches for, and linearizability is that this order agrees with real time (Herlihy and Wing 1990: what ended
before something else began comes before it).

    events          every watcher saw the same changes, every revision once and in order
    writes          what was acknowledged is there, once, at the revision that was told; nothing was made up
    allocations     each id that was told moved its counter once, and nothing moved it that was not asked for
    reads           what was read is what was there at the revision that it carries
    real time       writes, lost swaps, linearizable reads, and ids, agree with their order in real time
    registers       the same for the operations of each key about each fault, by a search that trusts no order of them
    sessions        a client never reads a state older than one that it has seen or made
    bounded reads   what was acknowledged to anybody long enough before is seen
    errors          of the few kinds that a client which gives up early must see

An operation whose outcome is not known may be there once or not at all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import ceil, floor, inf
from typing import Any, NamedTuple

from history import (
    BOUND_MS,
    BOUNDED_READ,
    OK,
    PUT,
    READ,
    REJECTED,
    SESSION_READ,
    TAKE_ID,
    UNCERTAIN,
    WRITES,
    History,
    Operation,
    Value,
)

from danube_raft import Event
from danube_raft.config import Config
from danube_raft.sim import linearizability

COUNTERS = "/counters/"
ERRORS = {"NoConnection", "NoLeader", "Overloaded", "Timeout", "Uncertain"}
"""What a request may end in when its deadline comes too soon. Nobody asks for anything wrong, and no node is broken."""
CONFIG = Config()
OVERLAP_S = (CONFIG.election_max_ms + CONFIG.heartbeat_ms - CONFIG.election_min_ms) / 1000
"""How long after the first write of a new leader a node may still hear the old one, which it takes for the leader."""
GRACE_S = 0.5
"""How long a message may lie before it is taken, on a machine that has other things to do."""
SEARCHED_MAX = 1_000
"""Operations of one key that the search is given at a time."""


class Fault(NamedTuple):
    """When it began, when it began to be undone, and when that had been done."""

    begun: float
    lifted: float
    over: float


class Applied:
    """What happened, from the events of one watcher, in order: per key (revision, version, value) in `of`, per counter
    the ids in `ids`, each of which was taken alone."""

    def __init__(self, changes: Sequence[Sequence[Event]]) -> None:
        self.of: dict[str, list[tuple[int, int, Value]]] = defaultdict(list)
        self.ids: dict[str, list[int]] = defaultdict(list)
        for event in (event for events in changes for event in events):
            if event.key.startswith(COUNTERS):
                self.ids[event.key.removeprefix(COUNTERS)].append(int(event.value))
            else:
                client, number = event.value
                self.of[event.key].append((event.revision, event.record.version, (client, number)))

    def at(self, key: str, revision: int) -> tuple[int, Value | None]:
        """Revision and value of the key's newest change up to a revision of the store."""
        changes = self.of[key]
        place = bisect_right(changes, revision, key=lambda change: change[0])
        return (changes[place - 1][0], changes[place - 1][2]) if place else (0, None)


def check_events(watched: Sequence[Sequence[Sequence[Event]]], first: int, last: int) -> None:
    """Every revision once, in order, none missing, the same for all watchers."""
    for changes in watched:
        told = [events[0].revision for events in changes]
        assert told == sorted(set(told)), "a watcher saw revisions twice or out of order"
        missing = set(range(first, last + 1)) - set(told)
        assert not missing, f"a watcher missed revisions {sorted(missing)[:10]}"
        assert told[-1] == last, f"a watcher saw revision {told[-1]} after the end"
        assert all(event.revision == events[0].revision for events in changes for event in events)
    assert all(changes == watched[0] for changes in watched), "watchers of two nodes saw different changes"


def check_writes(operations: Sequence[Operation], applied: Applied) -> None:
    """Once only, not lost, not made up; the versions of a key count its changes."""
    asked = {one.wrote: one for one in operations if one.kind in WRITES}
    found: dict[Value, int] = {}
    for key, changes in applied.of.items():
        versions = [version for _, version, _ in changes]
        assert versions == list(range(1, len(versions) + 1)), (
            f"the versions of {key} do not count its changes"
        )
        for revision, _, value in changes:
            assert value not in found, f"{value} was written twice, at {found[value]} and {revision}"
            found[value] = revision
            one = asked.get(value)
            if one is None:
                assert value[0] in {"begin", "end"}, f"nobody wrote {value}, which is in {key} at {revision}"
            else:
                assert one.key == key, f"{one} went to {key}"
                assert one.outcome != REJECTED, f"{one} was refused and is there at {revision}"
                assert one.outcome != OK or one.changed, f"{one} lost its swap and is there at {revision}"
    for one in operations:
        if one.changed:
            assert one.wrote in found, f"lost: {one}"
            assert found[one.wrote] == one.revision, f"{one} is there at {found[one.wrote]}"
            assert applied.of[one.key][one.version - 1][0] == one.revision, f"not that version: {one}"


def check_real_time(operations: Sequence[Operation], applied: Applied) -> None:
    """Linearizable, over all keys. A swap that lost tells what it found, so it is a read; a session read may be old,
    but what it saw was there before it ended."""
    revisions = {value: revision for changes in applied.of.values() for revision, _, value in changes}
    by_end = sorted((one for one in operations if one.outcome == OK), key=lambda one: one.ended)
    newest = _highest(by_end)
    ends = [one.ended for one in by_end]
    for one in operations:
        place = bisect_right(ends, one.begun)
        if not place or one.kind in {SESSION_READ, BOUNDED_READ, TAKE_ID}:
            continue
        before = newest[place - 1]
        if one.changed or one.outcome == UNCERTAIN:
            # Without an answer: after it was sent, or not at all.
            revision = revisions.get(one.wrote) if one.wrote is not None else None
            assert revision is None or revision > before.revision, (
                f"{one} is there at {revision}, {before} before"
            )
        elif one.outcome == OK:
            at_least, _ = applied.at(one.key, before.revision)
            assert one.revision >= at_least, f"stale: {one} after {before}"


def _highest(operations: Sequence[Operation]) -> list[Operation]:
    """At each place the operation with the highest revision up to there."""
    highest: list[Operation] = []
    for one in operations:
        highest.append(one if not highest or one.revision > highest[-1].revision else highest[-1])
    return highest


def check_registers(operations: Sequence[Operation], applied: Applied, faults: Sequence[Fault] = ()) -> None:
    """The values alone, without revisions: some order of each key's operations explains what everybody was told.

    The search takes time with the square of the number, so it is given the beginning, and what came with each fault.
    """
    values = {revision: value for changes in applied.of.values() for revision, _, value in changes}
    for key in sorted({one.key for one in operations if one.kind in WRITES}):
        asked = (one for one in operations if one.key == key and one.kind in {*WRITES, READ})
        own = sorted((one for one in asked if one.outcome != REJECTED), key=lambda one: one.begun)
        for moment in (-inf, *(fault.begun for fault in faults)):
            events, initial = _window(own, values, _quiet(own, moment))
            assert linearizability.is_linearizable(events, initial), (
                f"no order explains {key} from {moment} on"
            )


def _quiet(own: Sequence[Operation], moment: float) -> float:
    """The last time up to that moment when nobody had an operation under way, but for those that were never answered:
    there the search begins."""
    quiet = ended = -inf
    for one in own:
        if one.begun > moment:
            break
        if one.outcome == OK:
            quiet = one.begun if one.begun > ended else quiet
            ended = max(ended, one.ended)
    return moment if ended < moment else quiet


def _window(
    own: Sequence[Operation], values: dict[int, Value], quiet: float
) -> tuple[list[linearizability.Event], Value | None]:
    """What began from then on, and what was there then: the newest that anybody had been told.

    What had not ended at the end of the window may have happened, as far as the window knows; and so may what was
    never answered, also from before, unless it is known to be older than what was there, or never to have happened.
    """
    revisions = {value: revision for revision, value in values.items()}
    there = max((one.revision for one in own if one.outcome == OK and one.begun < quiet), default=0)
    chosen = [one for one in own if one.begun >= quiet and one.outcome == OK]
    ends = inf if len(chosen) <= SEARCHED_MAX else chosen[SEARCHED_MAX - 1].begun
    chosen = chosen[:SEARCHED_MAX]
    unanswered = (one for one in own if one.outcome == UNCERTAIN and one.begun <= ends and one.wrote)
    chosen += [one for one in unanswered if one.wrote and revisions.get(one.wrote, 0) > there]
    return [_event(one, values, one.outcome == OK and one.ended <= ends) for one in chosen], values.get(there)


def _event(one: Operation, values: dict[int, Value], known: bool) -> linearizability.Event:
    kind: str
    argument: Any = one.wrote
    result: Any = None
    if one.kind == PUT:
        kind = linearizability.PUT
    elif one.kind == READ:
        kind, result = linearizability.GET, one.found
    else:
        kind, argument = linearizability.CAS, (values.get(one.expected), one.wrote)
        result = linearizability.SWAPPED if one.changed else one.found
    invoked, returned = floor(one.begun * 1e6), ceil(one.ended * 1e6) if known else linearizability.FOREVER
    return linearizability.Event(invoked, returned, kind, argument, result, known)


def check_ids(operations: Sequence[Operation]) -> None:
    """Unique, and increasing in real time."""
    taken = sorted(
        (one for one in operations if one.kind == TAKE_ID and one.outcome == OK), key=lambda one: one.ended
    )
    numbers = [one.id for one in taken]
    assert len(set(numbers)) == len(numbers), "an id was handed out twice"
    highest: list[int] = []
    for one in taken:
        highest.append(max(one.id, highest[-1] if highest else 0))
    ends = [one.ended for one in taken]
    for one in taken:
        place = bisect_right(ends, one.begun)
        assert not place or one.id > highest[place - 1], f"{one} after id {highest[place - 1]}"


def check_allocations(operations: Sequence[Operation], applied: Applied) -> None:
    """A counter moves once for each id that was told, at most once for each allocation of unknown outcome, and never
    for one that was refused."""
    asked = [one for one in operations if one.kind == TAKE_ID]
    for counter in {one.key for one in asked} | applied.ids.keys():
        own = [one for one in asked if one.key == counter]
        moved = Counter(applied.ids[counter])
        told = [one.id for one in own if one.outcome == OK]
        most = sum(one.outcome != REJECTED for one in own)
        assert moved.total() <= most, f"{counter} moved {moved.total()} times for {len(told)} to {most} ids"
        for number in told:
            assert moved[number] == 1, (
                f"id {number} of {counter} was told, and allocated {moved[number]} times"
            )


def check_reads(operations: Sequence[Operation], applied: Applied) -> None:
    """What was read, at any level, is what was there at the revision that it carries."""
    for one in operations:
        if one.outcome == OK and one.kind != TAKE_ID:
            was = applied.at(one.key, one.revision)
            assert was == (one.revision, one.found), f"never was: {one}, but {was}"


def check_sessions(operations: Sequence[Operation], applied: Applied) -> None:
    """A client never reads something older than what it has seen or written, of any key."""
    clients: dict[str, list[Operation]] = defaultdict(list)
    for one in operations:
        if one.outcome == OK:
            clients[one.client].append(one)
    for own in clients.values():
        seen = 0
        for one in sorted(own, key=lambda one: one.begun):
            if one.kind == SESSION_READ:
                at_least, _ = applied.at(one.key, seen)
                assert one.revision >= at_least, f"back in time, from {at_least}: {one}"
            seen = max(seen, one.revision)


def check_bounded_reads(
    operations: Sequence[Operation], applied: Applied, faults: Sequence[Fault] = ()
) -> None:
    """A read with a bound of B sees all that was acknowledged, to anybody, up to B before it was asked; or rather, up
    to somewhat earlier.

    The bound counts from the arrival of a message of the leader, of whom the node only knows that it led when it
    sent it. So the answer may be older than B by

    - what the message took: `GRACE_S`; and the length of a fault if it was kept by that (bytes wait in a link that
      passes nothing, and in the sockets of a stopped process) and came when the fault was lifted;
    - what was acknowledged by a newer leader meanwhile: the old one steps down when it has heard no quorum for the
      longest election timeout, which it notices at a heartbeat, and whoever answered it votes for no other for the
      shortest one: `OVERLAP_S`.
    """
    by_end = sorted((one for one in operations if one.outcome == OK), key=lambda one: one.ended)
    newest = _highest(by_end)
    ends = [one.ended for one in by_end]
    for one in operations:
        if one.kind != BOUNDED_READ or one.outcome != OK:
            continue
        sent = one.begun - BOUND_MS / 1000 - GRACE_S
        kept = [fault.begun - GRACE_S for fault in faults if fault.lifted <= one.ended and sent <= fault.over]
        place = bisect_right(ends, min([sent, *kept]) - OVERLAP_S)
        if place:
            at_least, _ = applied.at(one.key, newest[place - 1].revision)
            assert one.revision >= at_least, f"older than its bound: {one} after {newest[place - 1]}"


def check_errors(operations: Sequence[Operation]) -> None:
    """Only what must be. An operation that failed tells its error, and any other has none."""
    for one in operations:
        assert (one.outcome == OK) is (one.error == ""), f"outcome and error disagree: {one}"
        if one.error:
            name = one.error.partition(":")[0]
            assert name in ERRORS, f"nobody should have been told that: {one}"
            assert (name == "Uncertain") is (one.outcome == UNCERTAIN), f"outcome and error disagree: {one}"
            assert one.outcome == REJECTED or one.kind in {*WRITES, TAKE_ID}, f"a read has no effect: {one}"


def check_all(
    operations: Sequence[Operation],
    watched: Sequence[Sequence[Sequence[Event]]],
    first: int,
    last: int,
    faults: Sequence[Fault] = (),
) -> None:
    """Everything above."""
    check_errors(operations)
    check_events(watched, first, last)
    applied = Applied(watched[0])
    check_writes(operations, applied)
    check_reads(operations, applied)
    check_real_time(operations, applied)
    check_registers(operations, applied, faults)
    check_ids(operations)
    check_allocations(operations, applied)
    check_sessions(operations, applied)
    check_bounded_reads(operations, applied, faults)


def check_history(history: History, faults: Sequence[Fault] = ()) -> None:
    """Of a finished history, and of what was done to the cluster meanwhile."""
    watched = [watcher.changes for watcher in history.watchers]
    check_all(history.operations(), watched, history.first_revision, history.end_revision, faults)
