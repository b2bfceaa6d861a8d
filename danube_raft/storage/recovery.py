"""What a log store has to do, and how the log that it finds is proven when it is opened.

`LogStore` is what the log-writer needs; `log_store.py` keeps it in RocksDB, `memory_log.py` in memory. Both hand the
stored bytes to `recover`, which accepts a log only if it is whole: every index from the purge point on, every CRC, the
chain of each entry to the one before, terms that never fall and never pass the hard state's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from danube_raft.errors import Corrupt
from danube_raft.storage import entry_format
from danube_raft.storage.entry_format import WAY_OUT, ZERO_CHAIN
from danube_raft.wire import local
from danube_raft.wire.entry import KIND_CONFIGURATION, Entry, HardState


class Point(NamedTuple):
    """A place in the log, and the chain up to and including the entry there."""

    index: int = 0  # type: ignore[assignment]  # a field, not tuple.index
    term: int = 0
    chain: bytes = ZERO_CHAIN


class Beginning(NamedTuple):
    """What the entries up to the purge point have said that a node needs before it has loaded its snapshot: a cluster
    time that was reached by then, and the configuration payload in force (empty: none)."""

    stamp_ms: int = 0
    configuration: bytes = b""


class Recovery(NamedTuple):
    """What a store holds when it is opened. `runs` and `configurations` are as in `local.Recovered`;
    `snapshot` is the point of the last install, (0, 0) if there was none."""

    hard_state: HardState
    purged: Point
    snapshot: Point
    last: Point
    last_stamp_ms: int
    runs: tuple[tuple[int, int], ...]
    configurations: tuple[tuple[int, bytes], ...]


class LogStore(Protocol):
    """A log that survives. Every method but `close` raises Corrupt, DiskFailed or NewerFormat, and then always."""

    def open(self) -> Recovery:
        """Recover; once per store, before anything else."""

    def write(self, writes: Sequence[local.Write]) -> None:
        """Do `writes` in order, all or nothing; return when they are durable."""

    @property
    def last(self) -> Point:
        """Where the log ends; with the purge point if it holds no entry."""

    def point(self, index: int) -> Point:
        """The place `index`, from the purge point to the last entry."""

    def read(self, first: int, last: int, max_bytes: int) -> tuple[Entry, ...]:
        """Entries from `first` to at most `last`, at most `max_bytes` or one; empty if `first` is not in the log."""

    def purge(self, index: int, beginning: Beginning) -> None:
        """Forget the log up to and including `index`, and keep the `beginning` of what is left. Not synced: a crash may
        bring the entries back."""

    def install_point(self, index: int, term: int, chain: bytes, beginning: Beginning) -> None:
        """Begin the log after a snapshot, with `beginning`; return when durable. Entries behind it stay only if the log
        holds the very entry that the snapshot ends with."""

    def close(self) -> None:
        """Let go of everything. May be called at any time, and again."""


def recover(
    hard_state: HardState,
    purged: Point,
    snapshot: Point,
    beginning: Beginning,
    stored: Iterable[tuple[int, bytes]],
) -> Recovery:
    """Prove the whole log, given as (index, bytes) from the first key on; raises Corrupt or NewerFormat."""
    index, term, chain = purged
    last_stamp_ms = beginning.stamp_ms
    runs: list[tuple[int, int]] = []
    configurations: list[tuple[int, bytes]] = []
    if beginning.configuration:
        configurations.append((index, beginning.configuration))
    for found, data in stored:
        index += 1
        if found != index:
            raise Corrupt(f"log entry {index} is missing: the next one found is {found}; {WAY_OUT}")
        entry_term, kind, stamp_ms, previous_chain = entry_format.verify(index, data)
        last_stamp_ms = max(last_stamp_ms, stamp_ms)
        if previous_chain != chain:
            raise Corrupt(f"log entry {index} does not follow the entry before it (chain broken); {WAY_OUT}")
        if entry_term != term or not runs:
            if entry_term < term:
                raise Corrupt(f"log entry {index} has term {entry_term} after term {term}; {WAY_OUT}")
            term = entry_term
            runs.append((index, term))
        if kind == KIND_CONFIGURATION:
            configurations.append((index, entry_format.payload_of(data)))
        chain = entry_format.chain_of(data)
    if runs and term > hard_state.term:
        raise Corrupt(
            f"log entry {index} has term {term} but the stored term is {hard_state.term}: the hard state was lost; "
            f"{WAY_OUT}"
        )
    last = Point(index, term, chain)
    return Recovery(hard_state, purged, snapshot, last, last_stamp_ms, tuple(runs), tuple(configurations))
