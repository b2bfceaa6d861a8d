"""Whatever clients delete is gone, once, and nothing else is (SEMANTICS "Writes happen once"; PITFALLS 43).

- An acknowledged delete that says that it removed its key did so in the revision that it was answered with, in which nothing
  else changed, and no other delete was answered with that revision. One that says that there was no key is right, at the
  revision that it names. (What a delete_prefix must have removed, prefixes.py says.)
- A key without a lease ends only because a client deletes it. So each such end that no acknowledged delete explains is owed
  to one of unknown outcome, which may have ended each key that it covers once, and only after it began.
- A key with a lease may end by itself as well: expiries.py asks whether it was due.
"""

from __future__ import annotations

from collections.abc import Sequence

from danube_raft.kv.record import KEY, LEASE, MOD_REVISION, VALUE, Record
from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.history import OK, REJECTED, Operation


def check_removals(operations: Sequence[Operation], archive: Archive) -> None:
    """`archive` is what the whole log makes."""
    acknowledged: dict[int, Operation] = {}
    unknown: list[Operation] = []
    for operation in operations:
        if operation.kind not in ("delete", "delete_prefix"):
            continue
        if operation.outcome != OK:
            if operation.outcome != REJECTED:
                unknown.append(operation)
            continue
        if operation.kind == "delete":
            _check_delete(operation, archive)
        if operation.result[0]:
            other = acknowledged.setdefault(operation.revision, operation)
            if other is not operation:
                raise Violation(f"one removal was answered to two deletes:\n{other}\n{operation}")
    unexplained: dict[str, int] = {}
    for event in archive.events:
        if event[VALUE] is None and not _explains(acknowledged.get(event[MOD_REVISION]), event[KEY]):
            _check_cause(event, unknown, archive, unexplained)


def _check_delete(delete: Operation, archive: Archive) -> None:
    key, revision = delete.key, delete.revision
    if revision > archive.revision:
        raise Violation(f"a delete of a revision that is not committed: {delete}")
    if not delete.result[0]:
        found = archive.at(key, revision)
        if found is not None:
            raise Violation(f"there was {found} at revision {revision}: {delete}")
        return
    changes = archive.of(revision)
    if [(event[KEY], event[VALUE]) for event in changes] != [(key, None)]:
        raise Violation(f"acknowledged and not done: revision {revision} is {changes}: {delete}")


def _explains(delete: Operation | None, key: str) -> bool:
    if delete is None:
        return False
    return delete.key == key or (delete.kind == "delete_prefix" and key.startswith(delete.key))


def _check_cause(
    event: Record, unknown: Sequence[Operation], archive: Archive, unexplained: dict[str, int]
) -> None:
    """Events come in order of revision; `unexplained` counts those before, by key."""
    before = archive.previous(event)
    if before is None or before[LEASE]:
        return
    key, revision = event[KEY], event[MOD_REVISION]
    times = unexplained[key] = unexplained.get(key, 0) + 1
    most = sum(_explains(each, key) and each.seen_before < revision for each in unknown)
    if times > most:
        raise Violation(
            f"nobody deleted {key}: {times} times up to revision {revision}, for {most} deletes of unknown outcome"
        )
