"""When this node makes a snapshot, and what becomes of it.

One is due when the log that was applied since the last one has as many bytes as `snapshot_log_bytes` or as the last
snapshot, whichever is more, and the node has rested (`snapshot_rest.py`); or when somebody asks. All nodes apply the
same log, so all would be due at once: each waits for its turn by its place among the members. The next one is counted
from when this one was due, not from when its turn came, so that the nodes stay apart.

One at a time. It is given up when it takes longer than `snapshot_max_ms`, and when a snapshot of the leader's replaces
the state that it is of. A failure, be it a full disk, costs nothing but the snapshot: it is told, and tried again after
`snapshot_rest_max_ms`, whoever asks meanwhile. Where the disk was found full none is made.
"""

from __future__ import annotations

import logging
from typing import Any

from danube_raft.config import Config
from danube_raft.errors import DiskFailed
from danube_raft.kv.machine import Machine
from danube_raft.node.histogram import Histogram
from danube_raft.node.proposals import NEVER
from danube_raft.node.snapshot_jobs import Begin, Failed, Job
from danube_raft.node.snapshot_rest import Rest, guessed_ms
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.storage.snapshot_file import SnapshotMeta
from danube_raft.wire.entry import unpack_configuration
from danube_raft.wire.local import Applied, AskPoint, PointRead, SnapshotDone, WantSnapshot

log = logging.getLogger("danube_raft.kv_server")


class _Run:
    """A job, and what is to be told of the state that it froze."""

    def __init__(self, job: Job, machine: Machine, now: int) -> None:
        self.job = job
        self.began_at = now
        self.stamp_ms = machine.cluster_ms
        self.configuration = machine.configuration
        self.abandoned = False

    def abandon(self) -> None:
        """Whatever becomes of it, it is not told any more."""
        self.abandoned = True
        self.job.kill()


class Taking:
    """Makes the snapshots of one node."""

    def __init__(self, config: Config, node_id: int, shelf: Shelf, begin: Begin) -> None:
        self._config = config
        self._node_id = node_id
        self._shelf = shelf
        self._begin = begin
        self._run: _Run | None = None
        self._poll_at = NEVER
        self._applied_bytes = 0
        self._rest = Rest(config)
        self._due_at = NEVER
        self._paused_until = 0
        self._durations = Histogram()
        self._taken = self._failed = 0
        self._stopped = False

    def loaded(self, machine: Machine, applied_index: int, now: int) -> list[SnapshotDone | Applied]:
        """The newest snapshot was loaded into `machine`, if there is one; the state in use is that of `applied_index`.
        What to tell of both."""
        if self._run is not None:
            self._run.abandon()
            self._poll_at = now
        self._applied_bytes, self._due_at = 0, NEVER
        self._rest.made(guessed_ms(machine.state_bytes))
        self._rest.begin(now)
        meta = self._shelf.newest
        done = [] if meta is None else [_done(meta, machine.cluster_ms, machine.configuration)]
        return [*done, Applied(applied_index)]

    def applied(self, size: int) -> None:
        """An entry of so many bytes was applied."""
        self._applied_bytes += size

    @property
    def busy(self) -> bool:
        """Whether one is being made."""
        return self._run is not None

    def request(self, now: int) -> None:
        """Make one as soon as no other one is being made, and the pause after a failure is over."""
        self._due_at = max(now, self._paused_until)

    def wanted(self, want: WantSnapshot, machine: Machine, now: int) -> None:
        """Another node needs one, if there is none yet that is of use. One that is being made may have begun too early, and
        knows of no doubt that comes now; whoever asks again finds out."""
        if self._stopped or self.busy:
            return
        if want.instead:
            makes = self._shelf.doubt(want.index)
        else:
            newest = self._shelf.newest
            there = newest is not None and newest.index >= want.index
            makes = not there and machine.applied_index >= want.index
        if makes:
            self.request(now)

    def stop(self, now: int) -> None:
        """The state is wrong: no snapshot of it from now on, nor the one that is being made."""
        if self._run is not None and not self._stopped:
            self._run.abandon()
            self._poll_at = now
        self._stopped = True

    def point_read(self, point: PointRead) -> None:
        """What consensus was asked for; of use only to the job that is waiting for it."""
        run = self._run
        if run is not None and not run.abandoned and run.job.index == point.index:
            assert run.job.term == point.term, "what is applied is committed, and keeps its term"
            run.job.give_point(point.chain)

    def turn(self, machine: Machine, now: int) -> list[AskPoint | SnapshotDone]:
        """Look after the job, or begin one: what to say to consensus."""
        said: list[AskPoint | SnapshotDone] = []
        if self._run is not None:
            said += self._look_after(self._run, now)
        if self._run is None and not self._stopped:
            said += self._begin_if_due(machine, now)
        return said

    # ---------------------------------------------------------------- when

    def _begin_if_due(self, machine: Machine, now: int) -> list[AskPoint]:
        if self._full and now >= self._rested_at:
            self._applied_bytes = 0
            self._rest.begin(now)
            self._due_at = min(self._due_at, now + self._wait_ms(machine))
        if now < self._due_at:
            return []
        self._due_at = NEVER
        if self._shelf.read_only or machine.applied_index < self._shelf.next_index:
            return []
        self._run = _Run(self._begin(self._shelf, machine), machine, now)
        self._poll_at = now + self._run.job.pause_ms
        return [AskPoint(machine.applied_index)]

    @property
    def _rested_at(self) -> int:
        return max(self._rest.until, self._paused_until)

    @property
    def _full(self) -> bool:
        newest = self._shelf.newest
        size = 0 if newest is None else newest.size
        return self._applied_bytes >= max(self._config.snapshot_log_bytes, size)

    def _wait_ms(self, machine: Machine) -> int:
        """Until this node's turn, as long as the others' before it."""
        if not machine.configuration:
            return 0
        members = sorted(member.node_id for member in unpack_configuration(machine.configuration).members)
        if self._node_id not in members:
            return 0
        turn_ms = min(guessed_ms(machine.state_bytes), self._rest.ms // len(members))
        return members.index(self._node_id) * turn_ms

    # ---------------------------------------------------------------- the job

    def _look_after(self, run: _Run, now: int) -> list[SnapshotDone]:
        outcome = run.job.poll()
        if outcome is None:
            self._poll_at = now + run.job.pause_ms
            took_ms = now - run.began_at
            if took_ms >= self._config.snapshot_max_ms and not run.abandoned:
                self._fail(run, f"given up after {took_ms} ms", now)
                run.abandon()
            return []
        self._run, self._poll_at = None, NEVER
        if run.abandoned or isinstance(outcome, Failed):
            self._remove_rest(run.job)
        if run.abandoned:
            return []
        if isinstance(outcome, Failed):
            self._fail(run, outcome.reason, now)
            return []
        self._taken += 1
        self._durations.observe((now - run.began_at) * 1_000_000)
        self._rest.made(now - run.began_at)
        instead = self._shelf.made(outcome)
        return [_done(outcome, run.stamp_ms, run.configuration, instead)]

    def _fail(self, run: _Run, reason: str, now: int) -> None:
        self._failed += 1
        self._due_at = self._paused_until = now + self._config.snapshot_rest_max_ms
        log.warning("no snapshot of index %d: %s", run.job.index, reason)

    def _remove_rest(self, job: Job) -> None:
        try:
            self._shelf.store.discard(job.index, job.term)
        except DiskFailed as error:
            # The next start removes it.
            log.warning("what is left of a snapshot was not deleted: %s", error.message)

    def next_timer(self) -> int | None:
        """When `turn` is wanted."""
        if self._run is not None:
            return self._poll_at
        if self._stopped:
            return None
        due_at = min(self._due_at, self._rested_at) if self._full else self._due_at
        return None if due_at == NEVER else due_at

    def close(self) -> None:
        """Leave nothing running."""
        if self._run is not None:
            self._run.abandon()

    def sizes(self) -> dict[str, Any]:
        """For `status`."""
        newest = self._shelf.newest
        return {
            "snapshot_index": 0 if newest is None else newest.index,
            "snapshot_bytes": 0 if newest is None else newest.size,
        }

    def report(self) -> dict[str, Any]:
        """For the supervisor, beside the sizes."""
        return {
            "snapshot_pid": 0 if self._run is None else self._run.job.pid,
            "snapshots_taken": self._taken,
            "snapshots_failed": self._failed,
            "snapshot_seconds": self._durations.report(),
        }


def _done(meta: SnapshotMeta, stamp_ms: int, configuration: bytes, instead: bool = False) -> SnapshotDone:
    index, term, chain, size, sha256 = meta.index, meta.term, meta.chain, meta.size, meta.sha256
    return SnapshotDone(index, term, chain, size, sha256, stamp_ms, configuration, instead)
