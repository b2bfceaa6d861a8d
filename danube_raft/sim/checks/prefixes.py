"""What covers many keys does so at one revision (SEMANTICS: range, delete_prefix; "all changes of one prefix delete share
one revision").

- All pages of a listing show one revision, that of the first, and together exactly the keys that there were then, each as it
  was: compared with everything that the committed log ever made. A page is refused as compacted only if that revision is.
- An acknowledged delete_prefix removed as many keys as it says, all in the revision that it was answered with, and left
  none.
"""

from __future__ import annotations

from collections.abc import Sequence

from danube_raft.kv.record import KEY, VALUE
from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.history import OK, Operation


def check_prefixes(operations: Sequence[Operation], archive: Archive) -> None:
    """`operations` are in order for each client; `archive` is what the whole log makes."""
    places: dict[tuple[int, bytes], int] = {}
    """How many records the pages before hold, by client and continue token."""
    for operation in operations:
        if operation.kind == "delete_prefix" and operation.outcome == OK:
            _check_delete(operation, archive)
        elif operation.kind == "range" and operation.outcome == OK:
            _check_page(operation, archive, places)
        elif operation.kind in ("range", "get") and operation.error.startswith("Compacted"):
            pinned = operation.past
            if pinned is None or pinned >= max(archive.compactions, default=0):
                raise Violation(f"the store was never compacted beyond {pinned}: {operation}")


def _check_delete(operation: Operation, archive: Archive) -> None:
    removed, revision, prefix = operation.result[0], operation.revision, operation.key
    if not removed:
        left = archive.keys(prefix, revision)
        if left:
            raise Violation(f"there was something to remove at revision {revision}, {left}: {operation}")
        return
    expected = archive.keys(prefix, revision - 1)
    changes = archive.of(revision)
    gone = sorted(event[KEY] for event in changes if event[VALUE] is None)
    if not len(changes) == len(gone) == removed or gone != expected:
        raise Violation(f"revision {revision} removed {gone} of {expected}: {operation}")


def _check_page(page: Operation, archive: Archive, places: dict[tuple[int, bytes], int]) -> None:
    prefix, limit, token, pinned, *_, reverse = page.args
    records, following, revision = page.result[:3]
    if revision > archive.revision:
        raise Violation(f"a listing of a revision that is not committed: {page}")
    if pinned not in (None, revision):
        raise Violation(f"a page of revision {revision} of a listing of {pinned}: {page}")
    if limit is not None and len(records) > limit:
        raise Violation(f"more than {limit} records: {page}")
    keys = archive.keys(prefix, revision)
    if reverse:
        keys.reverse()
    start = 0 if token is None else places[page.client, token]
    end = start + len(records)
    expected = tuple(archive.at(key, revision) for key in keys[start:end])
    if tuple(records) != expected or (following is None) != (end >= len(keys)):
        raise Violation(f"revision {revision} has {keys}, and {start} of them came before: {page}")
    if following is not None:
        places[page.client, following] = end
