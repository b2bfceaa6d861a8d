"""What the trials of `scripts/corruption` begin with: three nodes after a life with everything in it, node 1 killed.

Node 1 has real disks. It has led and followed, cut off the end of its log, purged it, made snapshots, been stopped and
started, so that its log lies in tables and in a write-ahead log; its last act was a vote whose answer got lost. The
other two are in memory and have gone on without it. There is also what it was when it was *young*: it had promised and
joined, and nobody had told it anything yet; and an *old* copy from in between.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self

from stepped import CLUSTER_ID
from stepped_cluster import ClusterNode, DiskNode, MemoryDisk, SteppedCluster

from danube_raft.config import Config
from danube_raft.kv.machine import Machine
from danube_raft.node.endpoints import FromPeer
from danube_raft.sim.digest import digest
from danube_raft.wire import peer
from danube_raft.wire.entry import Entry, HardState

CONFIG = replace(Config(), snapshot_log_bytes=8_000, snapshot_rest_max_ms=2_000, snapshot_tail_entries=5)
VICTIM, CANDIDATE = 1, 3
BEGAN_AT = 1_000
GROWN, YOUNG = AGES = ("grown", "young")
KEYS = 10
PADDING = b"." * 150


class Truth(NamedTuple):
    """`entries` and `hard_state`: what node 1 had durably when it was killed, all of it acknowledged to its leader.
    `states`: digest of the state machine by applied index. `held`: what every key held at the end, acknowledged to
    clients. `now`: when that was."""

    entries: dict[int, Entry]
    hard_state: HardState
    states: dict[int, str]
    held: dict[str, bytes]
    now: int


class Origin(NamedTuple):
    """The data directory of node 1, which nobody touches, and what the others have."""

    path: Path
    old: Path
    truth: Truth
    disks: tuple[MemoryDisk, ...]

    def of(self, age: str) -> tuple[Path, Truth]:
        """The directory at that age, and what node 1 had promised by then."""
        if age == GROWN:
            return self.path, self.truth
        return self.path.with_name(YOUNG), self.truth._replace(entries={}, hard_state=HardState())


def make(scratch: Path) -> None:
    """Let it all happen below `scratch`; `load` gives it to another process: this one has had a RocksDB open, whose
    threads no fork would have."""
    with _Life(scratch / "alive") as life:
        life.begin()
        shutil.copytree(scratch / "alive", scratch / YOUNG)
        life.live(scratch / "old")
        shutil.copytree(scratch / "alive", scratch / GROWN)
        # The others know batches of node 1: it is as if it had been started so often and had heard nothing.
        shutil.copy(scratch / GROWN / "boot_epoch.json", scratch / YOUNG)
        life.go_on_without_victim()
        truth = life.truth()
    disks = tuple(node.left() for node in life.others)
    (scratch / "truth").write_bytes(pickle.dumps((truth, disks)))


def load(scratch: Path) -> Origin:
    """What `make` has made there."""
    truth, disks = pickle.loads((scratch / "truth").read_bytes())
    return Origin(scratch / GROWN, scratch / "old", truth, disks)


class _Life:
    def __init__(self, path: Path) -> None:
        self._victim = DiskNode(VICTIM, CONFIG, BEGAN_AT, path)
        self.others = [ClusterNode(number, CONFIG, BEGAN_AT) for number in (2, 3)]
        self._cluster = SteppedCluster([self._victim, *self.others], BEGAN_AT)
        self._held: dict[str, bytes] = {}
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._cluster.nodes.values():
            node.close()

    def begin(self) -> None:
        """Node 1 is started, alone."""
        self._cluster.down = {2, 3}
        self._cluster.settle()
        assert not self._victim.writes

    def live(self, old: Path) -> None:
        """Up to the moment when node 1 is killed. A copy of its disk, from in between, goes to `old`."""
        cluster = self._cluster
        cluster.down = set()
        for _ in range(2):
            self._write(40)
            cluster.advance(3_000)
        self._lead()
        with self._cut_off():
            self._write(10)
        cluster.advance(1_000)
        self._restart(old)
        self._write(40)
        cluster.advance(3_000)
        self._restart()
        self._write(40)
        cluster.advance(3_000)
        self._write(20)
        self._vote_in_vain()
        # The mark follows.
        cluster.advance(CONFIG.mark_interval_ms * 2)

    def go_on_without_victim(self) -> None:
        """The others are a majority."""
        self._entries = self._log()
        self._hard_state = self._victim.writes[-1].hard_state or HardState()
        self._cluster.down = {VICTIM}
        self._write(12)
        self._cluster.advance(100)

    def truth(self) -> Truth:
        """At the end."""
        machine = Machine()
        states = {0: digest(machine)}
        committed = self.others[0].committed
        assert sorted(committed) == list(range(1, len(committed) + 1))
        for index in sorted(committed):
            machine.apply(committed[index])
            states[index] = digest(machine)
        assert states[machine.applied_index] == digest(self.others[0].machine)
        return Truth(self._entries, self._hard_state, states, self._held, self._cluster.now)

    def _write(self, count: int) -> None:
        """Most through the leader, some through node 1, whose batches carry its boot epoch."""
        leader = self._cluster.await_leader()
        away = VICTIM in self._cluster.cut | self._cluster.down
        for _ in range(count):
            self._written += 1
            asked = self._victim if self._written % 4 == 0 and not away else leader
            key, value = f"/k/{self._written % KEYS}", b"%d" % self._written + PADDING
            status, *_ = self._cluster.ask(asked, "put", key, value)
            assert status == 0
            self._held[key] = value
        status, *_ = self._cluster.ask(leader, "allocate_id", "ids", 3)
        assert status == 0

    def _lead(self) -> None:
        """Let node 1 win an election."""
        while (leader := self._cluster.await_leader()) is not self._victim:
            self._cluster.down = {leader.node_id}
            self._cluster.await_leader(other_than=leader.node_id)
            self._cluster.down = set()
            self._cluster.advance(1_000)

    @contextlib.contextmanager
    def _cut_off(self) -> Iterator[None]:
        """Node 1 leads on and writes what nobody will ever acknowledge; the others elect another leader."""
        self._cluster.cut = {VICTIM}
        for number in range(3):
            self._victim.send("put", f"/k/{number}", b"never" + PADDING, timeout_ms=1_000)
        self._cluster.await_leader()
        yield
        self._cluster.cut = set()
        assert any(write.entries for write in self._victim.writes)

    def _restart(self, copy: Path | None = None) -> None:
        self._victim.close()
        if copy is not None:
            shutil.copytree(self._victim.path, copy)
        self._victim.boot()
        self._cluster.advance(1_000)

    def _vote_in_vain(self) -> None:
        """Node 1 promises its vote in a term that it knows nothing else of."""
        self._cluster.down = {2, 3}
        self._cluster.settle()
        last = max(self._log())
        term = self._victim.status()["term"] + 1
        header = peer.Header(CLUSTER_ID, CANDIDATE, VICTIM, term, 1)
        question = peer.RequestVote(last, self._log()[last].term, transfer=True)
        self._victim.peer_message(FromPeer((b"peer", b""), header, question))
        self._cluster.settle()
        self._cluster.down = {2, 3}
        wrote = self._victim.writes[-1].hard_state
        assert wrote == HardState(term, CANDIDATE), f"{wrote} in place of a vote"

    def _log(self) -> dict[int, Entry]:
        """All that node 1 has written, but for what it has cut off again."""
        entries: dict[int, Entry] = {}
        cuts = 0
        for write in self._victim.writes:
            if write.truncate_from:
                gone = [index for index in entries if index >= write.truncate_from]
                cuts += len(gone)
                for index in gone:
                    del entries[index]
            entries |= {entry.index: entry for entry in write.entries}
        assert cuts, "some of it was cut off"
        return entries
