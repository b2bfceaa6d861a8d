"""The two log stores against a plain model and against each other: random operations, reopening, crashes.

After every restart both must report the same recovery, chain hashes included; at any time both must read the same
entries as the model holds.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from danube_raft.errors import DiskFailed
from danube_raft.storage.entry_format import ZERO_CHAIN, chain_after
from danube_raft.storage.log_store import RocksLogStore
from danube_raft.storage.memory_log import MemoryLog
from danube_raft.storage.recovery import Beginning
from danube_raft.wire.entry import KINDS, Entry, HardState
from danube_raft.wire.local import Write

ALL = 1 << 30


class Twins(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="danube-twins-"))
        self.generation = 0
        self.rocks = RocksLogStore(self.directory / "0")
        self.memory = MemoryLog()
        self.log: dict[int, Entry] = {}
        self.purged = self.last = 0
        self.purged_term = 0
        self.hard_state = HardState()
        self.serial = 0
        self.beginning = Beginning()

    def teardown(self) -> None:
        self.rocks.close()
        shutil.rmtree(self.directory)

    @initialize()
    def begin(self) -> None:
        assert self.rocks.open() == self.memory.open()

    def last_term(self, index: int) -> int:
        return self.log[index].term if index in self.log else self.purged_term

    def make(self, truncate: int, sizes: list[int], new_term: bool, vote: int) -> Write:
        """A write that consensus could order, applied to the model."""
        first = max(self.purged + 1, self.last + 1 - truncate) if truncate else 0
        if first:
            for index in range(first, self.last + 1):
                del self.log[index]
            self.last = first - 1
        hard_state = HardState(self.hard_state.term + new_term, vote) if new_term or vote else None
        self.hard_state = hard_state or self.hard_state
        entries = []
        for size in sizes:
            self.serial += 1
            self.last += 1
            entry = Entry(
                self.last,
                self.hard_state.term,
                KINDS[size % 3],
                self.serial,
                9,
                (1, 2, self.serial),
                bytes([self.serial % 256]) * size,
            )
            self.log[self.last] = entry
            entries.append(entry)
        self.serial += 1
        return Write(self.serial, first, tuple(entries), hard_state)

    @rule(
        plans=st.lists(
            st.tuples(
                st.integers(0, 5), st.lists(st.integers(0, 400), max_size=6), st.booleans(), st.integers(0, 3)
            ),
            min_size=1,
            max_size=4,
        )
    )
    def write(self, plans: list[tuple[int, list[int], bool, int]]) -> None:
        writes = [self.make(*plan) for plan in plans]
        self.rocks.write(writes)
        self.memory.write(writes)

    @precondition(lambda self: self.last > self.purged)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.purged, self.last))
        beginning = self.begin_with(index > self.purged)
        self.rocks.purge(index, beginning)
        self.memory.purge(index, beginning)
        self.forget(index, self.last_term(index))

    def begin_with(self, moves: bool = True) -> Beginning:
        """What is kept with the next purge point, if that moves."""
        self.serial += 1
        beginning = Beginning(self.serial, b"%d" % self.serial * (self.serial % 3))
        if moves:
            self.beginning = beginning
        return beginning

    def forget(self, index: int, term: int) -> None:
        for gone in range(self.purged + 1, min(index, self.last) + 1):
            del self.log[gone]
        self.purged, self.purged_term = index, term

    @precondition(lambda self: self.last > self.purged)
    @rule(data=st.data())
    def install_at_a_matching_entry(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.purged + 1, self.last))
        term, chain = self.log[index].term, ZERO_CHAIN
        state = self.memory._shown
        chain = chain_after(self.log[index], state.point(index - 1).chain)
        beginning = self.begin_with()
        self.rocks.install_point(index, term, chain, beginning)
        self.memory.install_point(index, term, chain, beginning)
        self.forget(index, term)

    @rule(
        ahead=st.integers(1, 10),
        jump=st.integers(-20, 20),
        chain=st.binary(min_size=16, max_size=16),
    )
    def install_where_the_log_differs(self, ahead: int, jump: int, chain: bytes) -> None:
        index = max(self.purged + ahead, self.last + jump)
        self.hard_state = HardState(self.hard_state.term + 1, 0)
        term = self.hard_state.term
        write = [Write(0, 0, (), self.hard_state)]
        beginning = self.begin_with()
        for store in (self.rocks, self.memory):
            store.write(write)
            store.install_point(index, term, chain, beginning)
        self.log.clear()
        self.last = self.purged = index
        self.purged_term = term

    @rule(data=st.data(), max_bytes=st.integers(1, 2_000))
    def read_a_part(self, data: st.DataObject, max_bytes: int) -> None:
        first = data.draw(st.integers(0, self.last + 2))
        last = data.draw(st.integers(0, self.last + 2))
        found = self.rocks.read(first, last, max_bytes)
        assert found == self.memory.read(first, last, max_bytes)
        assert found == tuple(self.log[first + place] for place in range(len(found)))
        assert bool(found) == (first in self.log and first <= last)

    @rule()
    def reopen(self) -> None:
        self.rocks.close()
        self.restart(self.directory / str(self.generation))

    @rule()
    def kill_the_process(self) -> None:
        # A copy of the files of an open database is what a SIGKILL leaves, once no compaction moves them meanwhile.
        assert self.rocks._db is not None
        self.rocks._db.cancel_all_background(True)
        image = self.directory / str(self.generation + 1)
        shutil.copytree(self.directory / str(self.generation), image)
        # Its close cannot flush any more; the copy is what matters.
        with contextlib.suppress(DiskFailed):
            self.rocks.close()
        self.generation += 1
        self.restart(image)

    def restart(self, path: Path) -> None:
        self.memory.close()
        self.rocks = RocksLogStore(path)
        found = self.rocks.open()
        assert found == self.memory.open()
        assert (found.hard_state, found.purged.index, found.last.index) == (
            self.hard_state,
            self.purged,
            self.last,
        )
        assert found.purged.term == self.purged_term
        configurations = [(e.index, e.payload) for e in self.log.values() if e.kind == 2]
        if self.beginning.configuration:
            configurations.insert(0, (self.purged, self.beginning.configuration))
        assert found.configurations == tuple(configurations)
        stamps = [self.beginning.stamp_ms, *[e.stamp_ms for e in self.log.values()]]
        assert found.last_stamp_ms == max(stamps)

    @invariant()
    def both_hold_what_the_model_holds(self) -> None:
        assert self.rocks.read(self.purged + 1, ALL, ALL) == tuple(self.log.values())
        assert self.memory.read(self.purged + 1, ALL, ALL) == tuple(self.log.values())


TestTwins = Twins.TestCase
TestTwins.settings = settings(
    max_examples=25, stateful_step_count=25, derandomize=True, deadline=None, database=None
)
