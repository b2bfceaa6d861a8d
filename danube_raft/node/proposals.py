"""Writes on their way: from a client's request to a batch in the log and back.

Requests of one turn become one batch; a batch is proposed under its `seq`, again and again with the same bytes, until
its entry is applied here. The state machine applies a batch only if its (boot epoch, seq) is the highest of this node
so far, which makes the repeats harmless.

Invariants:
- A batch whose seq is below one that was applied can never be applied any more: it gets a new seq (*fenced*). Only when
  that was seen from the applied entries: of a state that was installed nobody can say which batches it skipped.
- A request is answered once: by its apply, or at its deadline. A batch that may be in a log somewhere (it *left*) is
  answered `Uncertain`, one that surely is not is answered `NoLeader` or `Timeout`, and its requests are taken out of
  it, so that this stays true.
- What waits is bounded in commands and bytes; beyond that a request is refused with `Overloaded`.
"""

from __future__ import annotations

from collections.abc import Iterator

from danube_raft.config import Config
from danube_raft.errors import DanubeRaftError, NoLeader, Overloaded, Timeout, Uncertain
from danube_raft.kv.machine import Machine
from danube_raft.kv.sessions import Result
from danube_raft.node.endpoints import Envelope
from danube_raft.node.slow_requests import APPLY, COMMIT, LEADER, SlowRequests
from danube_raft.wire.client import CLIENT_ID, OP, SERIAL, Request
from danube_raft.wire.local import Propose

Waiter = tuple[Envelope, int, int]
"""Who waits for the answer: envelope, request id, deadline in monotonic ms."""

Expired = tuple[Waiter, DanubeRaftError]

NEVER = 1 << 62


class Batch:
    """Requests that share one log entry, with their bytes and their waiters (None: nobody waits)."""

    __slots__ = (
        "chunks", "deadline", "first_proposed_at", "proposed_at", "requests", "seq", "since", "size", "times_out",
        "waiters",
    )  # fmt: skip

    def __init__(self) -> None:
        self.seq = 0
        self.requests: list[Request] = []
        self.chunks: list[bytes] = []
        self.waiters: list[Waiter | None] = []
        self.size = 0
        self.deadline = NEVER
        self.since = 0
        """When its requests came: the end of their turn."""
        self.first_proposed_at = NEVER
        """When it was first proposed, of those times that were not refused."""
        self.proposed_at = -1
        self.times_out = 0
        """How many of its proposals were not refused, so that any of them may be in a log."""


def found_in(machine: Machine, request: Request) -> Result:
    """What a state that was installed knows of a write of this node that it may hold."""
    kept = machine.sessions.kept(request[CLIENT_ID], request[SERIAL])
    if kept is not None:
        return kept
    return Uncertain.code, machine.revision, ("a snapshot took the place of the log: it may be applied", None)


class Proposals:
    """Batches that are being filled, proposed, or waited for."""

    def __init__(self, config: Config, slow: SlowRequests | None = None) -> None:
        self._config = config
        self._slow = SlowRequests(config) if slow is None else slow
        self._open = Batch()
        self._closed: list[Batch] = []
        self._pending: dict[int, Batch] = {}
        self._next_seq = 1
        self._leader_known = False
        self._overloaded_until = 0
        self._check_at = NEVER
        self.waiting_commands = 0
        self.waiting_bytes = 0
        self.failed_commands = 0
        """Commands of clients whose deadline passed before they were applied."""

    @property
    def last_seq(self) -> int:
        """Number of the newest batch that was closed; 0: none yet."""
        return self._next_seq - 1

    def add(self, request: Request, chunk: bytes, waiter: Waiter | None) -> None:
        """Put a checked request, with its bytes, into the batch of this turn. Raises Overloaded."""
        size = len(chunk)
        if waiter is not None:
            config = self._config
            if (
                self.waiting_commands >= config.waiting_max_commands
                or self.waiting_bytes + size > config.waiting_max_bytes
            ):
                raise Overloaded(
                    f"{self.waiting_commands} commands wait for an answer already; try again shortly"
                )
        batch = self._open
        if batch.size and batch.size + size > self._config.batch_max_bytes:
            self._close()
            batch = self._open
        batch.requests.append(request)
        batch.chunks.append(chunk)
        batch.waiters.append(waiter)
        batch.size += size
        if waiter is not None and waiter[2] < batch.deadline:
            batch.deadline = waiter[2]
        self.waiting_commands += 1
        self.waiting_bytes += size

    def _close(self) -> None:
        self._closed.append(self._open)
        self._open = Batch()

    def flush(self, now: int) -> Iterator[Propose]:
        """End of a turn: what is to be proposed now, in order of seq."""
        if self._open.requests:
            self._close()
        for batch in self._closed:
            batch.seq = self._next_seq
            batch.since = now
            self._next_seq += 1
            self._pending[batch.seq] = batch
            self._check_at = min(self._check_at, batch.deadline)
            if self._may_propose(now):
                yield self._propose(batch, now)
            else:
                self._check_at = min(self._check_at, self._overloaded_until or NEVER)
        self._closed.clear()

    def _may_propose(self, now: int) -> bool:
        return self._leader_known and now >= self._overloaded_until

    def _propose(self, batch: Batch, now: int) -> Propose:
        batch.proposed_at = now
        batch.first_proposed_at = min(batch.first_proposed_at, now)
        batch.times_out += 1
        self._check_at = min(self._check_at, now + self._config.propose_retry_ms)
        return Propose(batch.seq, b"".join(batch.chunks))

    def leader_changed(self, known: bool, now: int) -> Iterator[Propose]:
        """A new leader may not have what was proposed to the old one: propose everything again."""
        self._leader_known = known
        yield from self._again(now)

    def _again(self, now: int) -> Iterator[Propose]:
        if self._leader_known:
            for batch in self._pending.values():
                yield self._propose(batch, now)

    def rejected(self, seq: int, reason: str, left: bool, now: int) -> None:
        """The proposal was not taken; it is made again when that can help. What was refused on this node (not `left`)
        is surely in no log; what was refused elsewhere may have a copy that was not.
        """
        batch = self._pending.get(seq)
        if batch is None:
            return
        if not left:
            batch.times_out -= 1
            assert batch.times_out >= 0, "a proposal is refused at most once"
        if not batch.times_out:
            batch.first_proposed_at = NEVER
        if reason == "overloaded":
            self._overloaded_until = now + self._config.retry_min_ms
        batch.proposed_at = now - self._config.propose_retry_ms + self._config.retry_min_ms
        self._check_at = min(self._check_at, now + self._config.retry_min_ms)

    def applied(self, seq: int) -> Batch | None:
        """The entry of batch `seq` is being applied: the batch with its waiters, if it still waits."""
        batch = self._pending.pop(seq, None)
        if batch is not None:
            self._forget(len(batch.requests), batch.size)
        return batch

    def installed(self, seq: int, now: int) -> tuple[list[Batch], list[Propose]]:
        """The state was replaced by one in which `seq` is the highest applied of this boot: the batches up to it, of
        which nobody will hear any more, and the proposals of the others, which may have been lost.
        """
        over = [self._pending.pop(each) for each in sorted(self._pending) if each <= seq]
        for batch in over:
            self._forget(len(batch.requests), batch.size)
        return over, list(self._again(now))

    def answered(self, batches: list[Batch], committed_at: int, now: int) -> None:
        """These batches were committed, and by now they are applied and answered."""
        for batch in batches:
            if not self._slow.is_slow(now - batch.since):
                continue
            stages = ((LEADER, batch.first_proposed_at), (COMMIT, committed_at), (APPLY, now))
            for request, waiter in zip(batch.requests, batch.waiters, strict=True):
                if waiter is not None:
                    self._slow.completed(str(request[OP]), batch.since, now, stages)

    def fence(self, seq: int, now: int) -> Iterator[Propose]:
        """`seq` was applied: waiting batches below it can never be, so they get new seqs and go out again."""
        lower = [s for s in self._pending if s < seq]
        for old in lower:
            batch = self._pending.pop(old)
            batch.seq = self._next_seq
            batch.times_out = 0
            self._next_seq += 1
            self._pending[batch.seq] = batch
            if self._may_propose(now):
                yield self._propose(batch, now)

    def _forget(self, commands: int, size: int) -> None:
        self.waiting_commands -= commands
        self.waiting_bytes -= size
        assert self.waiting_commands >= 0 <= self.waiting_bytes, "each command is counted once"

    # ---------------------------------------------------------------- time

    def next_timer(self) -> int | None:
        """When `tick` has something to do."""
        return None if self._check_at == NEVER else self._check_at

    def tick(self, now: int) -> tuple[list[Propose], list[Expired]]:
        """Proposals to repeat after silence, and requests whose deadline has passed."""
        if now < self._check_at:
            return [], []
        self._check_at = NEVER
        again: list[Propose] = []
        expired: list[Expired] = []
        for seq, batch in list(self._pending.items()):
            if now >= batch.deadline:
                expired += self._expire(batch, now)
                if not batch.requests:
                    del self._pending[seq]
                    continue
            due = batch.proposed_at + self._config.propose_retry_ms
            if self._leader_known and now >= due and self._may_propose(now):
                again.append(self._propose(batch, now))
            elif self._leader_known:
                self._check_at = min(self._check_at, max(due, self._overloaded_until))
            self._check_at = min(self._check_at, batch.deadline)
        return again, expired

    def _expire(self, batch: Batch, now: int) -> list[Expired]:
        late = [
            place for place, waiter in enumerate(batch.waiters) if waiter is not None and waiter[2] <= now
        ]
        found = [
            (waiter, self._verdict(batch)) for place in late if (waiter := batch.waiters[place]) is not None
        ]
        self.failed_commands += len(late)
        if self._slow.is_slow(now - batch.since):
            stages = ((LEADER, min(batch.first_proposed_at, now)), (COMMIT, now))
            for place in late:
                self._slow.completed(str(batch.requests[place][OP]), batch.since, now, stages)
        if batch.times_out:
            for place in late:
                batch.waiters[place] = None
        else:
            self._take_out(batch, set(late))
        batch.deadline = min((waiter[2] for waiter in batch.waiters if waiter is not None), default=NEVER)
        return found

    def _verdict(self, batch: Batch) -> DanubeRaftError:
        if batch.times_out:
            return Uncertain("the deadline passed before the write was applied; it may still be applied")
        if not self._leader_known:
            return NoLeader("there was no leader until the deadline; the write was not applied")
        return Timeout("the write could not be proposed before the deadline; it was not applied")

    def _take_out(self, batch: Batch, places: set[int]) -> None:
        gone = sum(len(batch.chunks[place]) for place in places)
        keep = [place for place in range(len(batch.requests)) if place not in places]
        batch.requests = [batch.requests[place] for place in keep]
        batch.chunks = [batch.chunks[place] for place in keep]
        batch.waiters = [batch.waiters[place] for place in keep]
        batch.size -= gone
        self._forget(len(places), gone)
