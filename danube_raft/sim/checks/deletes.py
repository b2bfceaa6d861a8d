"""Every life of a key ends once (SEMANTICS "Leases and TTL"; PITFALLS 43): two nodes, an old leader or a repeated command
that expires or deletes what is gone already must leave no second event.

Looked at in the events that the committed log makes; `version` counts the writes of a life.
"""

from __future__ import annotations

from collections.abc import Sequence

from danube_raft.kv.record import KEY, MOD_REVISION, VALUE, VERSION, Record
from danube_raft.sim.checks.facts import Violation

_CREATE_REVISION = 2


def check_lives(events: Sequence[Record]) -> None:
    """`events` are all changes of the store, in order of revision."""
    alive: dict[str, Record] = {}
    for event in events:
        before = alive.get(event[KEY])
        if event[VALUE] is None:
            if before is None:
                raise Violation(f"deleted and was not there: {event[KEY]} in revision {event[MOD_REVISION]}")
            del alive[event[KEY]]
            continue
        begun = (
            (event[MOD_REVISION], 1) if before is None else (before[_CREATE_REVISION], before[VERSION] + 1)
        )
        if (event[_CREATE_REVISION], event[VERSION]) != begun:
            raise Violation(f"a change does not follow the one before: {event} after {before}")
        alive[event[KEY]] = event
