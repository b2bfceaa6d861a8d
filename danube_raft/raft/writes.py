"""What goes to the disk, what is there, and what waits for it (INTERNALS §2).

- Writes have seq 1, 2, 3… per boot and are acknowledged in that order: an ack of n covers all up to n.
- After ack n the durable index is the last index of write n, capped below the lowest truncation point of any later
  write, issued or not: else an ack would vouch for entries that a later overwrite has replaced (the ABA race).
- The installation of a snapshot is a change like a write: it has a seq, and nothing overtakes it.
- A held message (vote, request for votes, append ack) waits for the seq that makes true what it says. When the term
  changes all held messages are dropped: nobody counts them any more.
- Whatever was appended since the last `take`, together with truncation and hard state, is one write.

Which messages must be held is decided where they are made.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from danube_raft.raft.output import Send, WriteOut
from danube_raft.wire.entry import ENTRY_OVERHEAD_BYTES, Entry, HardState
from danube_raft.wire.peer import AppendReply


class Issued(NamedTuple):
    """A write on its way to the disk."""

    seq: int
    last_index: int
    truncate_from: int
    size_bytes: int
    issued_at: int


class Writes:
    """The next write, the writes under way, the messages that wait for them."""

    __slots__ = (
        "_entries",
        "_entries_bytes",
        "_hard_state",
        "_truncate_from",
        "durable_index",
        "durable_seq",
        "held",
        "issued",
        "seq",
        "unacked_bytes",
    )

    def __init__(self, durable_index: int) -> None:
        self.durable_index = durable_index
        self.durable_seq = 0
        self.seq = 0
        self.issued: deque[Issued] = deque()
        self.held: deque[tuple[int, Send]] = deque()
        self.unacked_bytes = 0
        self._entries: list[Entry] = []
        self._entries_bytes = 0
        self._truncate_from = 0
        self._hard_state: HardState | None = None

    def append(self, entry: Entry) -> None:
        """`entry` belongs to the next write."""
        self._entries.append(entry)
        size = len(entry.payload) + ENTRY_OVERHEAD_BYTES
        self._entries_bytes += size
        self.unacked_bytes += size

    def truncate(self, first: int) -> None:
        """The log was cut from `first` on: what is on disk behind that is no longer ours."""
        kept = [entry for entry in self._entries if entry.index < first]
        dropped = sum(len(entry.payload) + ENTRY_OVERHEAD_BYTES for entry in self._entries[len(kept) :])
        self._entries = kept
        self._entries_bytes -= dropped
        self.unacked_bytes -= dropped
        if not kept:
            self._truncate_from = min(self._truncate_from, first) if self._truncate_from else first
        self.durable_index = min(self.durable_index, first - 1)

    def save(self, hard_state: HardState) -> None:
        """`hard_state` belongs to the next write."""
        self._hard_state = hard_state

    @property
    def barrier(self) -> int:
        """The seq that makes everything durable that is known by now."""
        return self.seq + 1 if self._is_dirty else self.seq

    @property
    def _is_dirty(self) -> bool:
        return bool(self._entries or self._truncate_from or self._hard_state is not None)

    def hold(self, send: Send) -> bool:
        """Keep `send` until all that is known by now is durable; False if it is already."""
        seq = self.barrier
        if seq <= self.durable_seq:
            return False
        if self.held:
            last_seq, last = self.held[-1]
            if last_seq == seq and last.to == send.to and _says_no_less(send, last):
                self.held.pop()
        self.held.append((seq, send))
        return True

    def drop_held(self) -> None:
        """The term has changed."""
        self.held.clear()

    def take(self, now: int, last_index: int) -> WriteOut | None:
        """The next write, if there is anything to persist."""
        if not self._is_dirty:
            return None
        self.seq += 1
        write = WriteOut(self.seq, self._truncate_from, tuple(self._entries), self._hard_state)
        self.issued.append(Issued(self.seq, last_index, self._truncate_from, self._entries_bytes, now))
        self._entries.clear()
        self._entries_bytes = 0
        self._truncate_from = 0
        self._hard_state = None
        return write

    def install(self, now: int, last_index: int) -> int:
        """The seq of an installation, behind all that was taken; the log keeps its last index until that is durable."""
        assert not self._is_dirty, "what is known by now is taken first"
        self.seq += 1
        self.issued.append(Issued(self.seq, last_index, 0, 0, now))
        return self.seq

    def reset(self, index: int) -> None:
        """The log on disk begins anew behind `index`."""
        assert not any(write.size_bytes or write.truncate_from for write in self.issued), (
            "no entry overtakes it"
        )
        self.issued = deque(write._replace(last_index=index) for write in self.issued)
        self.durable_index = index

    def ack(self, seq: int) -> list[Send]:
        """All writes up to `seq` are durable; returns the messages that may leave now."""
        assert self.durable_seq < seq <= self.seq, "acks come once and in order, for writes that were issued"
        issued = self.issued
        last_index = self.durable_index
        while issued and issued[0].seq <= seq:
            write = issued.popleft()
            self.unacked_bytes -= write.size_bytes
            last_index = write.last_index
        self.durable_seq = seq
        if self._truncate_from:
            last_index = min(last_index, self._truncate_from - 1)
        for write in issued:
            if write.truncate_from:
                last_index = min(last_index, write.truncate_from - 1)
        assert last_index >= self.durable_index, "an ack never takes back what was durable"
        self.durable_index = last_index
        released: list[Send] = []
        while self.held and self.held[0][0] <= seq:
            released.append(self.held.popleft()[1])
        return released

    def is_stuck(self, now: int, limit_ms: int) -> bool:
        """Whether the oldest write has been under way for longer than `limit_ms`."""
        return bool(self.issued) and now - self.issued[0].issued_at > limit_ms


def _says_no_less(send: Send, earlier: Send) -> bool:
    """Whether `send` makes `earlier`, which waits for the same write, superfluous."""
    if isinstance(send.message, AppendReply) and isinstance(earlier.message, AppendReply):
        return send.message.match_index >= earlier.message.match_index
    return send == earlier
