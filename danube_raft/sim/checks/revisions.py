"""Revisions have no gaps (SEMANTICS: every change gets the next revision; "all changes of one prefix delete share one
revision"): whoever watches counts on it to know that nothing is missing.

The store begins at revision 1. Each one after it belongs to one change, or to the removals of one command: all of those are
of different keys, and none of them is a write.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

from danube_raft.kv.record import KEY, MOD_REVISION, VALUE
from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.facts import Violation

FIRST = 1


def check_revisions(archive: Archive) -> None:
    """`archive` is what the whole log makes."""
    last = FIRST
    for revision, found in groupby(archive.events, itemgetter(MOD_REVISION)):
        events = list(found)
        if revision != last + 1:
            raise Violation(f"revisions with a gap: {revision} comes after {last}")
        keys = [event[KEY] for event in events]
        writes = [event for event in events if event[VALUE] is not None]
        if len(events) > 1 and (writes or len(set(keys)) < len(keys)):
            raise Violation(f"a revision of more than one command: {events}")
        last = revision
    if last != archive.revision:
        raise Violation(
            f"revisions without a change: the store is at {archive.revision}, the last change at {last}"
        )
