"""A fixed piece of work for the log-writer and for whoever writes snapshots, and what must be there after each step.

As a program, `crash_workload.py ROOT SOURCE`: does it below ROOT and prints the number of every step whose effect was
promised to somebody, at the moment when the promise leaves. SOURCE is where a leader's snapshots come from. `states()`
tells what there is after each step.

Every kind of change is in it: the making of the data directory, appends of one and several writes in one sync, terms
and votes, a conflict that cuts the log, snapshots by the forked child of a kv-server, which deletes old ones too,
purges, an installed snapshot with and without a conflicting log behind it, and starts in between.
"""

from __future__ import annotations

import select
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from danube_raft.config import Config
from danube_raft.kv.machine import Machine
from danube_raft.kv.snapshot import encode
from danube_raft.node.handler import CONSENSUS
from danube_raft.node.log_writer import LogWriter
from danube_raft.node.snapshot_fork import ForkedSnapshot
from danube_raft.node.snapshot_jobs import Failed
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.node.snapshot_stage import SnapshotStage
from danube_raft.storage.data_dir import DataDir, Identity
from danube_raft.storage.durable_mark import NAME, MarkFile
from danube_raft.storage.entry_format import CHAIN_BYTES, chain_after
from danube_raft.storage.log_store import RocksLogStore
from danube_raft.storage.snapshot_file import SnapshotMeta, SnapshotWriter
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import local
from danube_raft.wire.entry import (
    KIND_BATCH,
    KIND_CONFIGURATION,
    Configuration,
    Entry,
    HardState,
    pack_configuration,
)

NODE_ID, CLUSTER_ID = 5, 7
PIECE_BYTES = 200
POLL_S = 0.002
FOREIGN_CHAIN = bytes(range(16))
"""Of an entry that this log never had."""
CONFIGURATION = pack_configuration(Configuration())


class Append(NamedTuple):
    """One write: entries from `first` to `last` in `term` (which cut what is there from `first` on), and a vote."""

    first: int
    last: int
    term: int
    vote: int = 0


class Purge(NamedTuple):
    """Forget the log up to `index`. Nobody is promised that it lasts."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index


class Snapshot(NamedTuple):
    """Write the node's own snapshot at `index`; keep two."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int


class Install(NamedTuple):
    """Receive the leader's snapshot at (index, term), and let the log begin behind it."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int


class Restart(NamedTuple):
    """End in order and start again."""


Step = Append | Purge | Snapshot | Install | Restart

STEPS: tuple[tuple[Step, ...], ...] = (
    (Append(1, 1, 1, 5),),
    (Append(2, 4, 2, 5), Append(5, 5, 2, 5), Append(6, 9, 2, 5)),
    (Append(10, 9, 3, 6),),
    (Append(10, 14, 3, 6),),
    (Restart(),),
    (Append(12, 13, 4, 0), Append(14, 16, 4, 0)),
    (Snapshot(8, 2),),
    (Append(17, 18, 4, 5),),
    (Snapshot(15, 4),),
    (Purge(8),),
    (Append(19, 22, 5, 5),),
    (Restart(),),
    (Append(21, 24, 6, 1),),
    (Install(23, 6),),
    (Append(25, 27, 6, 1),),
    (Restart(),),
    (Install(40, 7),),
    (Append(41, 43, 7, 2),),
    (Snapshot(42, 7),),
    (Purge(40), Append(44, 44, 7, 2)),
    (Restart(),),
    (Append(44, 46, 8, 3),),
)
"""Steps that stand together are given to the log-writer together."""


class State(NamedTuple):
    """What the log holds: hard state, purge point, entries behind it by index; and the snapshots that there were."""

    hard_state: HardState
    purged: int
    entries: dict[int, Entry]
    snapshots: tuple[tuple[int, int], ...]


def states() -> list[State]:
    """What is there before the first step and after each, by the meaning of the steps alone."""
    found = [State(HardState(), 0, {}, ())]
    for step in (step for together in STEPS for step in together):
        hard_state, purged, entries, snapshots = found[-1]
        if isinstance(step, Append):
            kept = {index: each for index, each in entries.items() if index < step.first}
            new = {index: entry(index, step.term) for index in range(step.first, step.last + 1)}
            hard_state, entries = HardState(step.term, step.vote), kept | new
        elif isinstance(step, Purge):
            purged, entries = step.index, {at: each for at, each in entries.items() if at > step.index}
        elif isinstance(step, Snapshot):
            snapshots = (*snapshots, step)
        elif isinstance(step, Install):
            snapshots = (*snapshots, step)
            goes_on = step.index in entries and entries[step.index].term == step.term
            purged = step.index
            entries = {at: each for at, each in entries.items() if goes_on and at > step.index}
        found.append(State(hard_state, purged, entries, snapshots))
    return found


def starts() -> list[int]:
    """How often the node was started before each of `states()` was reached."""
    found = [1]
    for step in (step for together in STEPS for step in together):
        found.append(found[-1] + isinstance(step, Restart))
    return found


def numbered() -> Iterator[tuple[tuple[int, Step], ...]]:
    """STEPS with their numbers, from 1."""
    number = 0
    for together in STEPS:
        yield tuple((number := number + 1, step) for step in together)


def entry(index: int, term: int) -> Entry:
    """The same for the same place, so that a conflict is one of terms."""
    kind = KIND_CONFIGURATION if index == 1 else KIND_BATCH
    payload = CONFIGURATION if index == 1 else b"%d/%d " % (index, term) * 20
    return Entry(index, term, kind, index * 10, index, (1, term, index), payload)


class Work:
    """Does the steps below `root` with the real handler, and prints what was promised."""

    def __init__(self, root: Path, source: Path) -> None:
        self._root = root
        self._source = source
        self._chains = {0: bytes(CHAIN_BYTES)}
        self._last = self._now = 0
        self._start()

    def _start(self) -> None:
        self._data_dir = DataDir(self._root)
        begin(self._data_dir, NODE_ID)
        self._snapshots = Snapshots(self._root / "snapshots", CLUSTER_ID)
        self._shelf = Shelf(self._snapshots, Counter())
        self._shelf.open()
        # Consensus would choose the same one: the log goes on behind each of them.
        self._shelf.load(*next(iter(self._shelf.found().points), (0, 0)))
        self._writer = log_writer(self._root)
        self._seq = 0
        self._waiting: list[tuple[int, int]] = []
        self._writer.start(self._now)
        self._take()

    def do(self, together: tuple[tuple[int, Step], ...]) -> None:
        """Steps that arrive together."""
        for number, step in together:
            if isinstance(step, Append):
                self._append(number, step)
            elif isinstance(step, Purge):
                self._tell(local.Purge(step.index, step.index * 10, CONFIGURATION))
            elif isinstance(step, Snapshot):
                self._snapshot(number, step)
            elif isinstance(step, Install):
                self._install(number, step)
            else:
                self.close()
                self._start()
        # Long enough for the durable mark to follow in each turn.
        self._now += 1_000
        self._writer.turn(self._now)
        self._take()

    def close(self) -> None:
        """End in order."""
        self._writer.close()
        self._data_dir.release()

    def _append(self, number: int, step: Append) -> None:
        cut = step.first if step.first <= self._last else 0
        entries = tuple(entry(index, step.term) for index in range(step.first, step.last + 1))
        for each in entries:
            self._chains[each.index] = chain_after(each, self._chains[each.index - 1])
        self._last = step.last
        self._promise(number, local.Write(self._next(), cut, entries, HardState(step.term, step.vote)))

    def _snapshot(self, number: int, step: Snapshot) -> None:
        job = ForkedSnapshot(self._shelf, _state(*step))
        job.give_point(self._chains[step.index])
        while (outcome := job.poll()) is None:
            select.select([], [], [], POLL_S)
        assert not isinstance(outcome, Failed), outcome.reason
        promise(number)
        self._shelf.made(outcome)

    def _install(self, number: int, step: Install) -> None:
        chain = self._chains.setdefault(step.index, FOREIGN_CHAIN)
        self._source.mkdir(exist_ok=True)
        meta = _filled(SnapshotWriter(self._source, SnapshotMeta(step.index, step.term, CLUSTER_ID, chain)))
        data = (self._source / meta.name).read_bytes()
        what = (step.index, step.term, chain, meta.size, meta.sha256)
        for offset in range(0, meta.size, PIECE_BYTES):
            self._tell(local.StagePiece(*what, offset, data[offset : offset + PIECE_BYTES]))
            self._writer.turn(0)
        self._take()
        self._last = max(self._last, step.index)
        point = local.InstallPoint(self._next(), *step, chain, step.index * 10, CONFIGURATION)
        self._promise(number, point)
        self._writer.turn(self._now)
        self._take()
        self._shelf.install(*step)

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _promise(self, number: int, message: local.Write | local.InstallPoint) -> None:
        self._waiting.append((message.seq, number))
        self._tell(message)

    def _tell(self, message: local.Message) -> None:
        self._writer.receive(CONSENSUS, message, self._now)

    def _take(self) -> None:
        for _, message in self._writer.outbox:
            if isinstance(message, local.Durable):
                while self._waiting and self._waiting[0][0] <= message.seq:
                    promise(self._waiting.pop(0)[1])
        self._writer.outbox.clear()


def begin(data_dir: DataDir, node_id: int) -> tuple[Identity, int]:
    """What a supervisor does first: identity, cluster, boot epoch. A node that has no id yet gets this one."""
    data_dir.acquire()
    data_dir.load_or_create_identity(lambda _: node_id - 1)
    return data_dir.join_cluster(CLUSTER_ID), data_dir.next_boot_epoch()


def log_writer(root: Path) -> LogWriter:
    """The handler over what is below `root`."""
    snapshots = Snapshots(root / "snapshots", CLUSTER_ID)
    stage = SnapshotStage(snapshots, CLUSTER_ID)
    return LogWriter(RocksLogStore(root / "log"), MarkFile(root / NAME), stage, Config(), 1)


def promise(number: int) -> None:
    """Whoever reads standard output relies on this step from now on."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _state(index: int, term: int) -> Machine:
    machine = Machine()
    machine.applied_index, machine.applied_term = index, term
    return machine


def _filled(writer: SnapshotWriter) -> SnapshotMeta:
    for chunk in encode(_state(writer.meta.index, writer.meta.term)):
        writer.write(chunk)
    return writer.commit()


def main() -> None:
    """The program."""
    work = Work(Path(sys.argv[1]), Path(sys.argv[2]))
    for together in numbered():
        work.do(together)
    work.close()


if __name__ == "__main__":
    main()
