"""What the core asks of the world after an input: an `Output`, taken with `Core.take_output`.

Rules for whoever carries it out:

- `write` goes to the log-writer first; every Output with anything to persist has exactly one, with the next seq.
- `messages` may leave at once: what depends on a write that is not durable is still held inside the core.
- `committed` goes to the state machine in this order; each index appears once per boot.
- `read_log` is answered, each request once, through `Core.log_chunk`.
- Nothing here is repeated: an Output that is dropped is lost.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from danube_raft.wire import local, peer
from danube_raft.wire.entry import Entry

ReadId = tuple[int, int, int]
"""(node, boot epoch, counter), new on every retry of a read."""

WriteOut = local.Write
"""`(seq, truncate_from, entries, hard_state)`: what the log-writer makes durable in one piece."""


class RandomSource(Protocol):
    """Where the core's randomness comes from; `random.Random` is one."""

    def randrange(self, start: int, stop: int) -> int:
        """An integer ≥ `start` and < `stop`."""


class Send(NamedTuple):
    """One message for one peer, in `term` (the header's)."""

    to: int
    term: int
    message: peer.Message


class Refusal(NamedTuple):
    """Why a proposal was not taken: not-leader, no-leader, overloaded or transferring; or a transfer: not-leader, no-leader,
    transferring or unfit. `hint` is the leader's id, or the one that leadership is handed to, or 0."""

    reason: str
    hint: int


class Output(NamedTuple):
    """Everything that one or more inputs led to."""

    write: WriteOut | None
    messages: tuple[Send, ...]
    committed: tuple[Entry, ...]
    read_log: tuple[local.ReadLog, ...]
    read_answers: tuple[tuple[ReadId, int], ...]
    role: local.Role | None
    forgot: tuple[tuple[int, int], ...]
    """On a leader, (node, index): members that had acknowledged what is up to the index and do not hold it any more."""
