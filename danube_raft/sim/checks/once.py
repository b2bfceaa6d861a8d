"""Every write happens once or, if nobody was promised it, not at all (SEMANTICS "Writes happen once"; thesis §6.3).

Compared: what clients were told, and the events that the committed log makes. Every value is written by one operation
only, so each event names its cause.

- An acknowledged write is there, once, with the revision that was answered: none lost, none doubled.
- A rejected write is not there. One of unknown outcome is there once or not at all.
- Nothing is there that nobody wrote. A renewal repeats the value of its key, which is written anew if it has expired
  meanwhile: so it may be there once for each grant or renewal that was neither rejected nor a mere renewal.
- Deletes: see removals.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from danube_raft.kv.record import KEY, MOD_REVISION, VALUE, Record
from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.history import OK, REJECTED, Operation

_VALUE_AT = {"put": 1, "put_with_ttl": 1, "compare_and_swap": 2}


def check_once(operations: Sequence[Operation], events: Sequence[Record]) -> None:
    """`events` are all changes of the store, in order of revision."""
    written: dict[tuple[str, bytes], list[int]] = {}
    for event in events:
        if event[VALUE] is not None and not event[KEY].startswith("/counters/"):
            written.setdefault((event[KEY], event[VALUE]), []).append(event[MOD_REVISION])
    most: Counter[tuple[str, bytes]] = Counter()
    for operation in operations:
        place = _VALUE_AT.get(operation.kind)
        if place is None:
            continue
        cause = (operation.key, operation.args[place])
        renewed = operation.kind == "put_with_ttl" and operation.outcome == OK and operation.result[3]
        most[cause] += operation.outcome != REJECTED and not renewed
        _check(operation, written.get(cause, []))
    for cause, revisions in written.items():
        if not most[cause]:
            raise Violation(f"in the store, and nobody wrote it: {cause}")
        if len(revisions) > most[cause]:
            raise Violation(
                f"written {len(revisions)} times for {most[cause]} writes: {cause} in {revisions}"
            )
    _check_counters(operations, events)


def _check(operation: Operation, revisions: list[int]) -> None:
    if operation.outcome != OK:
        return
    if operation.kind == "compare_and_swap":
        swapped, revision = operation.result[:2]
        if not swapped:
            if revisions:
                raise Violation(f"a swap that was refused is in the store: {operation} in {revisions}")
            return
    else:
        revision = operation.result[0]
    if revision not in revisions:
        raise Violation(f"acknowledged and lost: {operation}, it is in revisions {revisions}")


def _check_counters(operations: Sequence[Operation], events: Sequence[Record]) -> None:
    """Each allocation that took effect moved its counter once."""
    moves = Counter(
        event[KEY].removeprefix("/counters/") for event in events if event[KEY].startswith("/counters/")
    )
    least: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for operation in operations:
        if operation.kind == "allocate_id":
            least[operation.key] += operation.outcome == OK
            most[operation.key] += operation.outcome != REJECTED
    for counter in sorted(moves.keys() | most.keys()):
        if not least[counter] <= moves[counter] <= most[counter]:
            raise Violation(
                f"counter {counter} moved {moves[counter]} times for {least[counter]} to {most[counter]} allocations"
            )
