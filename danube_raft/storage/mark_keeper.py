"""When the durable mark is written, and what it says of a log that is opened again.

RocksDB opens cleanly with whatever is left of it: a log that has lost its tail, or all of it, cannot be told from one
that never had more. The mark can tell. A node whose log has lost what the mark vouches for is SUSPECT: it may have
voted and acknowledged what it knows nothing of any more.

- The mark never promises more than the log holds: it is written after the sync of what it speaks of, and lowered
  before the log is cut. So a crash at any moment makes no sound node SUSPECT.
- Term and vote are in it before anything that depends on them leaves: `wrote` returns after that.
- Entries follow at most every `interval_ms`, which the sync of a put need not wait for. A loss younger than the mark
  cannot be detected.
- It points at or behind what the log was purged to: `before_purge` and `installed` see to it. While a snapshot is
  installed it points nowhere, which fits the log before and after.
- `suspect` stays in it, through any number of starts, until `trust`: a node that crashes while it is SUSPECT is
  SUSPECT again, whatever its log looks like by then.

The mark is older than the node's identity (`data_dir.py`). So a missing one was lost, and the node is SUSPECT, be its
log whole, empty or gone with it: nothing vouches for what it has, or for that it never had anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from danube_raft.storage.durable_mark import Mark, MarkSlots, decode, encode
from danube_raft.storage.recovery import LogStore, Point, Recovery
from danube_raft.wire import local
from danube_raft.wire.entry import HardState

MISSING = "the durable mark is missing, and only it could tell whether the log is whole"
UNREADABLE = "both copies of the durable mark are damaged, and only they could tell whether the log is whole"


class Standing(NamedTuple):
    """What the node may go on with: the newer hard state of log and mark, and why it is SUSPECT, or empty."""

    hard_state: HardState
    suspect: str

    @property
    def forgot_term(self) -> bool:
        """Whether there may have been a later term than `hard_state` knows of: only the mark could tell. It stays so as long as
        the reason is kept."""
        return self.suspect in (MISSING, UNREADABLE)


def newest(slots: tuple[bytes, bytes]) -> tuple[int, int, Mark] | None:
    """(seq, place, mark) of the slot that counts; None if neither can be read. Raises NewerFormat."""
    found = [(*each, place) for place, slot in enumerate(slots) if (each := decode(slot)) is not None]
    if not found:
        return None
    seq, mark, place = max(found, key=lambda each: each[0])
    return seq, place, mark


def is_older(log: HardState, mark: HardState) -> bool:
    """Whether the log has forgotten a term, or a vote in it, that the mark knows of."""
    return mark.term > log.term or (mark.term == log.term and mark.vote not in (0, log.vote))


def is_fresh(found: Recovery) -> bool:
    """Whether this log has never held anything."""
    return found.last == Point() and found.hard_state == HardState()


def judge(mark: Mark, found: Recovery, store: LogStore) -> str:
    """What the log has lost of that which the mark vouches for, or empty."""
    point, last = mark.point, found.last
    if mark != Mark() and is_fresh(found):
        return f"the log is gone: it held entries up to {point.index} and term {mark.hard_state.term}"
    if point.index > last.index:
        return f"the log ends with entry {last.index}, and held entry {point.index} of term {point.term}"
    # What was purged behind the mark was applied and is in a snapshot.
    if point.index >= found.purged.index:
        here = store.point(point.index)
        if here != point:
            return (
                f"entry {point.index} of the log is not the one that was written: of term {here.term} in place of "
                f"{point.term}, or with another past"
            )
    if is_older(found.hard_state, mark.hard_state):
        (term, vote), (had_term, had_vote) = found.hard_state, mark.hard_state
        return (
            f"the log knows of term {term} with a vote for {vote}, and held term {had_term} with {had_vote}"
        )
    return ""


class MarkKeeper:
    """Keeps the mark of one log in step with it. `open` comes first, after the log's."""

    def __init__(self, slots: MarkSlots, store: LogStore, interval_ms: int) -> None:
        self._slots = slots
        self._store = store
        self._interval_ms = interval_ms
        self._mark = Mark()
        self.known: Mark | None = None
        """What the slots held when they were looked at; None: nothing that could be read."""
        self._seq = 0
        self._place = 0
        self._now = self._due = 0

    def open(self, found: Recovery, now: int, *, read_only: bool = False) -> Standing:
        """Compare, and write down what came of it before anybody hears of it. `read_only`: a full disk takes nothing, and
        the node promises nothing that the mark would have to keep. Raises DiskFailed or NewerFormat."""
        self._now = now
        standing = self.look(found)
        self._mark = Mark(found.last, *standing)
        if read_only:
            return standing
        if self.known is None:
            self._create()
        elif self._mark != self.known:
            self._save(self._mark)
        return standing

    def look(self, found: Recovery) -> Standing:
        """Compare only. Raises DiskFailed or NewerFormat."""
        slots = self._slots.read()
        if slots is None:
            return Standing(found.hard_state, MISSING)
        known = newest(slots)
        if known is None:
            return Standing(found.hard_state, UNREADABLE)
        self._seq, self._place, self.known = known
        mark, hard_state = self.known, found.hard_state
        if is_older(hard_state, mark.hard_state):
            hard_state = mark.hard_state
        return Standing(hard_state, mark.suspect or judge(mark, found, self._store))

    def replace(self, found: Recovery) -> None:
        """Whatever was known before: the log as it is, is the whole truth. After `look`, not beside `open`."""
        self._mark = Mark(found.last, found.hard_state)
        self._create()

    def before_write(self, writes: Sequence[local.Write]) -> None:
        """The log is about to be cut: promise no more than what will be left."""
        cuts = [write.truncate_from for write in writes if write.truncate_from]
        if cuts and min(cuts) <= self._mark.point.index:
            self._save(self._mark._replace(point=self._store.point(min(cuts) - 1)))

    def wrote(self, writes: Sequence[local.Write]) -> None:
        """These are durable. A new term or vote is in the mark on return."""
        hard_states = [write.hard_state for write in writes if write.hard_state is not None]
        if hard_states and hard_states[-1] != self._mark.hard_state:
            self._save(self._mark._replace(point=self._store.last, hard_state=hard_states[-1]))

    def before_purge(self, index: int) -> None:
        """The log is about to forget everything up to `index`, which it holds."""
        if self._mark.point.index < index:
            self._save(self._mark._replace(point=self._store.last))

    def before_install(self) -> None:
        """The log is about to begin anew, at another place."""
        self._save(self._mark._replace(point=Point()))

    def installed(self) -> None:
        """It has."""
        self._save(self._mark._replace(point=self._store.last))

    def trust(self) -> None:
        """A leader has brought this node up to date: it is SUSPECT no more."""
        if self._mark.suspect:
            self._save(Mark(self._store.last, self._mark.hard_state))

    def keep(self, now: int) -> None:
        """Follow the entries, if it is time."""
        self._now = now
        if now >= self._due and self._is_behind:
            self._save(self._mark._replace(point=self._store.last))

    def next_timer(self) -> int | None:
        """When `keep` is wanted next; None: all is said."""
        return self._due if self._is_behind else None

    def close(self) -> None:
        """Let go of the slots."""
        self._slots.close()

    @property
    def _is_behind(self) -> bool:
        return self._mark.point != self._store.last

    def _create(self) -> None:
        self._seq, self._place = 1, 0
        self._slots.create((encode(1, self._mark), encode(0, self._mark)))
        self._due = self._now + self._interval_ms

    def _save(self, mark: Mark) -> None:
        self._seq += 1
        self._place = 1 - self._place
        self._slots.write(self._place, encode(self._seq, mark))
        self._mark = mark
        self._due = self._now + self._interval_ms
