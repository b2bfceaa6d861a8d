"""What the leader's kv-server proposes of its own accord: expiry of leases, compaction of the history.

Both are commands in the log like any other, so that every replica does the same. Proposing is only a hint: apply
checks deadline and generation again, in the cluster time of the entry. One of each kind is in flight; what was is
forgotten when the role changes, and whatever is still due is found again.

A leader that has nothing else to write while leases exist writes an empty expiry now and then: the stamp of the last
entry is where cluster time goes on after a restart, and a lease must not get its time back from an idle one.

Cluster time is estimated here from the last role and the last applied stamp. After a pause of the leader the estimate
may run ahead; then apply refuses the expiry, and the stamp of that very entry puts the estimate right.
"""

from __future__ import annotations

from danube_raft.config import Config
from danube_raft.kv.machine import Machine
from danube_raft.wire import codec
from danube_raft.wire.client import Request, check, pack_request
from danube_raft.wire.entry import Entry
from danube_raft.wire.local import Role

EXPIRE = "expire"
COMPACT = "compact"


class Upkeep:
    """Finds what is due; the kv-server proposes it."""

    def __init__(self, config: Config, machine: Machine) -> None:
        self._config = config
        self._machine = machine
        self._leading = False
        self._time_base_ms = 0
        self._time_at_ms = 0
        self._check_at = 0
        self._in_flight: set[str] = set()

    def attach(self, machine: Machine, now: int) -> None:
        """The state was replaced by a newer one."""
        self._machine = machine
        self._time_base_ms, self._time_at_ms = machine.cluster_ms, now

    def new_role(self, role: Role) -> None:
        """Only a leader keeps house."""
        self._leading = role.role == "leader"
        self._time_base_ms, self._time_at_ms = role.time_base_ms, role.time_at_ms
        self._in_flight.clear()
        self._check_at = 0

    def applied(self, entry: Entry, now: int) -> None:
        """Its stamp is the latest certain reading of the cluster's clock."""
        self._time_base_ms, self._time_at_ms = entry.stamp_ms, now

    def done(self, op: str) -> None:
        """A command of this kind was applied."""
        self._in_flight.discard(op)

    def due(self, now: int, *, compacts: bool = True) -> list[tuple[Request, bytes]]:
        """Commands to propose now: (request, its bytes). `compacts`: this state is not known to be wrong. Apply takes the
        revision of a compaction as it is, while it checks an expiry again."""
        if not self._leading:
            return []
        found = []
        if compacts and COMPACT not in self._in_flight:
            history, config = self._machine.history, self._config
            revision = history.wants_compaction(config.history_max_events, config.history_max_bytes)
            if revision is not None:
                found.append(self._command(COMPACT, revision))
        if now >= self._check_at and EXPIRE not in self._in_flight:
            cluster_ms = self._time_base_ms + now - self._time_at_ms
            leases = self._machine.leases.due(cluster_ms, self._config.expire_max_leases)
            idle = (
                now - self._time_at_ms >= self._config.lease_checkpoint_ms and len(self._machine.leases) > 0
            )
            if leases or idle:
                self._check_at = now + self._config.expiry_check_ms
                found.append(self._command(EXPIRE, leases))
        return found

    def _command(self, op: str, argument: object) -> tuple[Request, bytes]:
        self._in_flight.add(op)
        chunk = pack_request(op, 0, argument)
        return check(codec.unpack(chunk)), chunk

    def next_timer(self) -> int | None:
        """When the next lease is due."""
        if not self._leading or EXPIRE in self._in_flight:
            return None
        deadline = self._machine.leases.next_deadline()
        if deadline is None:
            return None
        due = min(deadline - self._time_base_ms, self._config.lease_checkpoint_ms)
        return max(self._check_at, self._time_at_ms + due)
