"""The state machine: committed entries in, results out; the same on every replica, byte for byte.

- Entries come in index order without a gap. No-ops and configurations only move index and cluster time.
- A batch whose (boot epoch, seq) is not above the highest applied of its node is a copy: it changes nothing.
- Each command of a batch is applied by itself, in order, and a command that changes something takes the next
  revision. One that is refused or changes nothing takes none.
- Nothing but the entry and the state decides: no clock, no random numbers, no settings, no hash order, no texts of
  foreign exceptions. What a command may be refused for is raised as `Rejected` before anything is changed.
- Any other exception is a bug. It is not caught: the node stops and names the index, since a replica that skips
  what the others applied is worse than one that is down.

Cluster time is the highest stamp seen; the wall clock of an entry only becomes `created_at_ms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from danube_raft.errors import Compacted, FutureRevision, InvalidArgument, NoSpace, Rejected
from danube_raft.kv import limits
from danube_raft.kv.digests import Digests, Report
from danube_raft.kv.history import History
from danube_raft.kv.leases import Lease, Leases
from danube_raft.kv.record import LEASE, MOD_REVISION, VALUE, VERSION, Record, prefix_end
from danube_raft.kv.sessions import Result, Sessions
from danube_raft.wire import arguments, client, codec
from danube_raft.wire.client import ARGS, CLIENT_ID, LOW_WATER, OP, SERIAL, STATUS_OK, Request
from danube_raft.wire.entry import KIND_BATCH, KIND_CONFIGURATION, NO_ORIGIN, Entry

_GROWING = ("put", "compare_and_swap", "allocate_id")


class Machine:
    """The whole replicated state of a node. Reads and watches work on `history`."""

    def __init__(self) -> None:
        self.history = History()
        self.leases = Leases()
        self.sessions = Sessions()
        self.origins: dict[int, tuple[int, int]] = {}
        """Highest applied (boot epoch, batch seq) by node id."""
        self.applied_index = 0
        self.applied_term = 0
        self.cluster_ms = 0
        self.configuration = b""
        """Payload of the last configuration entry."""
        self.digests = Digests()
        """No part of the state: what this replica has heard of digests since it began."""
        self._wall_ms = 0
        self._origin_node = 0
        self._handlers: dict[str, Callable[[Request], tuple[Any, ...]]] = {
            "put": self._put,
            "put_with_ttl": self._put_with_ttl,
            "delete": self._delete,
            "delete_prefix": self._delete_prefix,
            "compare_and_swap": self._compare_and_swap,
            "allocate_id": self._allocate_id,
            "compact": self._compact,
            "expire": self._expire,
            "digest": self._digest,
            "digest_report": self._digest_report,
        }

    @classmethod
    def restore(
        cls,
        applied: tuple[int, int],
        cluster_ms: int,
        configuration: bytes,
        history: History,
        leases: Leases,
        sessions: Sessions,
        origins: dict[int, tuple[int, int]],
    ) -> Machine:
        """The state of a snapshot, of which `applied` is the last entry: (index, term)."""
        restored = cls()
        restored.applied_index, restored.applied_term = applied
        restored.cluster_ms = cluster_ms
        restored.configuration = configuration
        restored.history, restored.leases, restored.sessions = history, leases, sessions
        restored.origins = origins
        return restored

    @property
    def revision(self) -> int:
        """The store revision."""
        return self.history.revision

    @property
    def state_bytes(self) -> int:
        """What counts against `limits.MAX_STATE_BYTES`."""
        return self.history.state_bytes + self.sessions.kept_bytes

    def apply(self, entry: Entry, requests: Sequence[Request] | None = None) -> list[Result] | None:
        """Apply one committed entry; one result per command, in order.

        `requests` are the payload's commands, decoded and checked, if this node made the batch. None is returned
        for a batch that was applied before (or can never be, because a later one of its node was).
        """
        assert entry.index == self.applied_index + 1, (entry.index, self.applied_index)
        self.applied_index = entry.index
        self.applied_term = entry.term
        self.cluster_ms = max(self.cluster_ms, entry.stamp_ms)
        self._wall_ms = entry.wall_ms
        self._origin_node = entry.origin[0]
        self.sessions.drop_idle(self.cluster_ms)
        if entry.kind == KIND_BATCH:
            if entry.origin != NO_ORIGIN:
                node, boot, seq = entry.origin
                if (boot, seq) <= self.origins.get(node, (0, 0)):
                    return None
                self.origins[node] = (boot, seq)
            commands = _decode(entry.payload) if requests is None else requests
            return [self._command(command) for command in commands]
        if entry.kind == KIND_CONFIGURATION:
            self.configuration = entry.payload
        return []

    def _command(self, request: Request | Rejected) -> Result:
        try:
            if isinstance(request, Rejected):
                raise request
            client_id = request[CLIENT_ID]
            if client_id is None:
                return self._execute(request)
            serial = request[SERIAL]
            kept = self.sessions.recall(client_id, serial, request[LOW_WATER], self.cluster_ms)
        except Rejected as error:
            return self._refusal(error)
        if kept is not None:
            return kept
        result = self._execute(request)
        self.sessions.keep(client_id, serial, result)
        return result

    def _execute(self, request: Request) -> Result:
        handler = self._handlers.get(request[OP])
        try:
            if handler is None:
                raise InvalidArgument(f"{request[OP]} is not a write")
            fields = handler(request)
        except Rejected as error:
            return self._refusal(error)
        return STATUS_OK, self.history.revision, fields

    def _refusal(self, error: Rejected) -> Result:
        return error.code, self.history.revision, (error.message, error.details)

    # ---------------------------------------------------------------- commands

    def _put(self, request: Request) -> tuple[Any, ...]:
        key, value, prev = request[ARGS:]
        self._check_space()
        old = self.history.records.get(key)
        if old is not None and old[LEASE]:
            self.leases.detach(old[LEASE], key)
        revision, version = self._write(key, old, value, 0)
        return revision, version, old if prev else None

    def _put_with_ttl(self, request: Request) -> tuple[Any, ...]:
        key, value, ttl_ms, prev = request[ARGS:]
        old = self.history.records.get(key)
        lease = self._renewed_by(key, value)
        if old is not None and lease is not None:
            self.leases.renew(lease, ttl_ms, self.cluster_ms)
            return old[MOD_REVISION], old[VERSION], old if prev else None, True
        self._check_space()
        lease_id = self.leases.hold(key, 0 if old is None else old[LEASE], ttl_ms, self.cluster_ms)
        revision, version = self._write(key, old, value, lease_id)
        return revision, version, old if prev else None, False

    def _delete(self, request: Request) -> tuple[Any, ...]:
        key, prev = request[ARGS:]
        if key not in self.history.records:
            return 0, None
        old = self._remove(key, self.history.revision + 1)
        return 1, old if prev else None

    def _delete_prefix(self, request: Request) -> tuple[Any, ...]:
        prefix = request[ARGS]
        found = self.history.keys(prefix, prefix_end(prefix))
        keys = [key for key in found if not key.startswith(arguments.COUNTERS)]
        revision = self.history.revision + 1
        for key in keys:
            self._remove(key, revision)
        return (len(keys),)

    def _compare_and_swap(self, request: Request) -> tuple[Any, ...]:
        key, expected, new, ttl_ms = request[ARGS:]
        old = self.history.records.get(key)
        if old is None:
            if expected is not None:
                return False, 0, 0, None
        elif expected is None or expected != old[VALUE if type(expected) is bytes else MOD_REVISION]:
            return False, old[MOD_REVISION], old[VERSION], old
        self._check_space()
        lease_id = 0 if old is None else old[LEASE]
        if ttl_ms is not None:
            lease_id = self.leases.hold(key, lease_id, ttl_ms, self.cluster_ms)
        elif lease_id:
            self.leases.detach(lease_id, key)
            lease_id = 0
        revision, version = self._write(key, old, new, lease_id)
        return True, revision, version, None

    def _allocate_id(self, request: Request) -> tuple[Any, ...]:
        counter, count = request[ARGS:]
        key = arguments.COUNTERS + counter
        self._check_space()
        old = self.history.records.get(key)
        # The value is what this method wrote: nothing else may write below the counters.
        last = 0 if old is None or old[VALUE] is None else int(old[VALUE])
        if last + count > arguments.MAX_INTEGER:
            raise InvalidArgument("the counter has no ids left")
        self._write(key, old, b"%d" % (last + count), 0)
        return (last + 1,)

    def _compact(self, request: Request) -> tuple[Any, ...]:
        revision = request[ARGS]
        history = self.history
        if revision < history.compaction_revision:
            raise Compacted(
                f"the history is already compacted to {history.compaction_revision}",
                history.compaction_revision,
            )
        if revision > history.revision:
            raise FutureRevision(f"the store is at revision {history.revision}", history.revision)
        history.compact(revision)
        return (revision,)

    def _expire(self, request: Request) -> tuple[Any, ...]:
        expired = 0
        for lease_id, generation in request[ARGS]:
            lease = self.leases.get(lease_id)
            # Renewed, replaced or gone since the leader looked: then this expiry is about another life of it.
            if lease is None or lease.generation != generation or lease.deadline_ms > self.cluster_ms:
                continue
            revision = self.history.revision + 1
            for key in sorted(lease.keys):
                self.history.delete(key, revision)
            self.leases.drop(lease)
            expired += 1
        return (expired,)

    def _digest(self, _request: Request) -> tuple[Any, ...]:
        self.digests.ask(self.applied_index)
        return (self.applied_index,)

    def _digest_report(self, request: Request) -> tuple[Any, ...]:
        """Of the node whose kv-server made the batch: nobody reports for another one."""
        index, version, sha256 = request[ARGS:]
        self.digests.report(index, self._origin_node, Report(version, sha256))
        return ()

    # ---------------------------------------------------------------- shared by commands

    def grows(self, request: Request) -> bool:
        """Whether the command needs room, as far as this replica knows: such are refused where there is little. What
        frees room, and what keeps leases alive, never is."""
        op = request[OP]
        if op == "put_with_ttl":
            key, value = request[ARGS : ARGS + 2]
            return self._renewed_by(key, value) is None
        return op in _GROWING

    def _renewed_by(self, key: str, value: bytes) -> Lease | None:
        """The lease that a put_with_ttl of the value that is there already merely renews."""
        old = self.history.records.get(key)
        lease = None if old is None or old[VALUE] != value else self.leases.get(old[LEASE])
        return lease if lease is not None and lease.private else None

    def _check_space(self) -> None:
        if self.history.state_bytes + self.sessions.kept_bytes >= limits.MAX_STATE_BYTES:
            raise NoSpace("the store is full: delete keys or compact the history")

    def _write(self, key: str, old: Record | None, value: bytes, lease: int) -> tuple[int, int]:
        """Put `value` at the next revision; returns (revision, version)."""
        history = self.history
        revision = history.revision + 1
        if old is None:
            version = 1
            history.put(None, (key, value, revision, revision, 1, lease, self._wall_ms))
        else:
            # The old key object is used again: one string per key, however often it is written.
            key, _, create_revision, _, version, _, created_at_ms = old
            version += 1
            history.put(old, (key, value, create_revision, revision, version, lease, created_at_ms))
        return revision, version

    def _remove(self, key: str, revision: int) -> Record:
        old = self.history.delete(key, revision)
        if old[LEASE]:
            self.leases.detach(old[LEASE], key)
        return old


def _decode(payload: bytes) -> Iterator[Request | Rejected]:
    """The commands in a batch. A bad one becomes its error; bytes that are none at all become one last error."""
    try:
        for raw in codec.unpack_stream(payload):
            try:
                yield client.check(raw)
            except Rejected as error:
                yield error
    except codec.Malformed:
        yield InvalidArgument("the batch is broken here")
