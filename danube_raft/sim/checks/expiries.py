"""No lease is ended early (SEMANTICS "Leases and TTL"; INTERNALS §7; PITFALLS 43): the log of the cluster says what each
expiry removed, so no client has to look at the right moment.

A key with a TTL that an expiry removes had been granted or renewed before that in the order of the log. Each such grant that
its client knows of was sent at least its TTL before the expiry was handed to any state machine.

A TTL is counted by the leader's clock, which may run fast by `drift_ppm`, in whole milliseconds. Where a key was granted
different TTLs, the shortest is asked for, since an unknown grant may have come last.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from danube_raft.kv.record import KEY, MOD_REVISION, VALUE
from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.facts import Delivered, Fact, Violation
from danube_raft.sim.history import OK, REJECTED, Operation
from danube_raft.sim.schedule import MS

ROUNDING_US = 2 * MS
"""Two readings of a clock in whole milliseconds."""


class HandedOver:
    """Remembers when each entry was first handed to a state machine: `at[index]`, in virtual microseconds."""

    wants = (Delivered,)

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self.at = [0]

    def take(self, fact: Fact) -> None:
        """Committed entries come in order."""
        assert isinstance(fact, Delivered)
        self.at += [self._now()] * (fact.entries[-1].index + 1 - len(self.at))


def check_expiries(
    operations: Sequence[Operation],
    archive: Archive,
    revisions: Sequence[int],
    committed_at: Sequence[int],
    drift_ppm: int,
) -> int:
    """`revisions[i]` is the store's revision when the log is applied up to index i, `committed_at[i]` the virtual time at
    which the entry with index i was first handed to a state machine. Returns how many expiries were looked at."""
    share = 1 - drift_ppm / 1_000_000
    # Where a client deleted the key, or may have, no expiry need have done it.
    deleted = {each.key for each in operations if each.kind == "delete"}
    prefixes = tuple(each.key for each in operations if each.kind == "delete_prefix")
    grants: dict[str, list[Operation]] = {}
    shortest_ms: dict[str, int] = {}
    for operation in operations:
        key, ttl_ms = operation.key, operation.ttl_ms
        if ttl_ms is not None and operation.outcome != REJECTED:
            shortest_ms[key] = min(ttl_ms, shortest_ms.get(key, ttl_ms))
            granted = operation.outcome == OK and (
                operation.kind != "compare_and_swap" or operation.result[0]
            )
            if granted and key not in deleted and not key.startswith(prefixes):
                grants.setdefault(key, []).append(operation)
    looked_at = 0
    for event in archive.events:
        key, revision = event[KEY], event[MOD_REVISION]
        if event[VALUE] is not None or key not in grants:
            continue
        looked_at += 1
        ended = committed_at[bisect_left(revisions, revision)] + ROUNDING_US
        for grant in grants[key]:
            until = grant.invoked + round(shortest_ms[key] * MS * share)
            if grant.revision < revision and ended < until:
                early_ms = (until - ended) / MS
                raise Violation(f"a lease was ended early: by {early_ms} ms in revision {revision}, {grant}")
    return looked_at
