"""What a leader keeps for as long as it leads, beside the state that every role has.

- One `Progress` per other member, made when leadership begins.
- `first_of_term` is the index of the no-op that opened the term: nothing is committed by counting below it
  (Figure 8 of the paper), and no read is answered before it is committed.
- `transfer` is the handing over of leadership that is under way, see transfer.py.
- `heartbeat_at` moves by its own rhythm alone: the reasons to step down are looked at then, and nothing that clients
  do may put that off.
"""

from __future__ import annotations

from typing import NamedTuple

from danube_raft.raft.progress import Progress
from danube_raft.raft.read_index import ReadRounds


class Transfer(NamedTuple):
    """To whom, and until when (monotonic ms)."""

    to: int
    until: int


class Leadership:
    """One term of leading."""

    __slots__ = ("first_of_term", "heartbeat_at", "peers", "reads", "transfer")

    def __init__(
        self, peers: tuple[int, ...], first_of_term: int, max_reads: int, now: int, heartbeat_at: int
    ) -> None:
        self.peers = {peer: Progress(first_of_term, now) for peer in peers}
        self.first_of_term = first_of_term
        self.reads = ReadRounds(first_of_term, max_reads)
        self.heartbeat_at = heartbeat_at
        self.transfer: Transfer | None = None
