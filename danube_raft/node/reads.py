"""Reads, by level: at once, when the state is new enough, or when a quorum has confirmed how new that is.

- session: as soon as this node has applied the revision that the client has seen (it names it with the cluster id).
- linearizable: joins a ReadIndex round that has *not been sent yet*, then waits for that index to be applied. A round
  that stays unanswered is given up after `READ_RETRY_MS` and its reads join a new one under a new id, so that a late
  answer to the old round can never be taken for the new one.
- stale: whatever is here. With a bound in ms: consensus says when it last heard the leader, and what was committed by
  then; if that is recent enough the read waits for that to be applied, else it becomes a linearizable one, which is
  as fresh as can be. The answer ends with the lag in ms.

What waits is bounded like writes are, and each read is answered at its deadline at the latest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from danube_raft.config import Config
from danube_raft.errors import ClusterIdMismatch, DanubeRaftError, NoLeader, Overloaded, Timeout
from danube_raft.node.endpoints import Envelope
from danube_raft.node.proposals import NEVER
from danube_raft.node.slow_requests import APPLY, READ_INDEX, REVISION, SlowRequests
from danube_raft.wire.client import CONSISTENCY, LINEARIZABLE, MIN_REVISION, SESSION, Request
from danube_raft.wire.local import AskFresh, FreshAnswer, ReadIndex

READ_RETRY_MS = 200


class Read(NamedTuple):
    """A read that waits: its request, who asked, until when."""

    request: Request
    envelope: Envelope
    deadline: int


class Position(NamedTuple):
    """Where the state machine stands."""

    revision: int
    applied_index: int


class Fresh(NamedTuple):
    """A read that is fresh enough, if `index` is applied in time: the leader was heard at `heard_at`."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    heard_at: int
    read: Read


Answer = Callable[[Request, Envelope, int | None], None]
"""Request, envelope, and the lag in ms where the read was bounded by one."""
Refuse = Callable[[Request, Envelope, DanubeRaftError], None]


class Reads:
    """Decides when a read may be answered; `answer` and `refuse` do it."""

    def __init__(
        self,
        config: Config,
        cluster_id: int,
        answer: Answer,
        refuse: Refuse,
        slow: SlowRequests | None = None,
    ) -> None:
        self._config = config
        self._slow = SlowRequests(config) if slow is None else slow
        self._cluster_id = cluster_id
        self._answer = answer
        self._refuse = refuse
        self._for_revision: list[tuple[int, Read]] = []
        self._joining: list[Read] = []
        self._rounds: dict[int, tuple[int, list[Read]]] = {}
        self._for_index: list[tuple[int, Read]] = []
        self._confirmed_at: dict[int, int] = {}
        """When a round was first answered with an index that is still waited for."""
        self._bounded: list[Read] = []
        self._asked: dict[int, list[Read]] = {}
        self._for_fresh: list[Fresh] = []
        self._next_round = 1
        self._check_at = NEVER
        self.waiting = 0

    def serve(self, request: Request, envelope: Envelope, deadline: int, position: Position) -> None:
        """Answer now, or keep the read until it may be answered. Raises what refuses it."""
        level: Any = request[CONSISTENCY]
        if level is None or level == SESSION:
            minimum = request[MIN_REVISION]
            if minimum is not None:
                if minimum[0] != self._cluster_id:
                    raise ClusterIdMismatch(
                        f"this is cluster {self._cluster_id}, not {minimum[0]}: forget what is known of that one"
                    )
                if minimum[1] > position.revision:
                    self._wait(deadline)
                    self._for_revision.append((minimum[1], Read(request, envelope, deadline)))
                    return
            self._answer(request, envelope, None)
        elif level == LINEARIZABLE:
            self._wait(deadline)
            self._joining.append(Read(request, envelope, deadline))
        elif type(level) is int:
            self._wait(deadline)
            self._bounded.append(Read(request, envelope, deadline))
        else:
            self._answer(request, envelope, None)

    def _wait(self, deadline: int) -> None:
        if self.waiting >= self._config.waiting_max_commands:
            raise Overloaded(f"{self.waiting} reads wait already; try again shortly")
        self.waiting += 1
        self._check_at = min(self._check_at, deadline)

    def flush(self, now: int) -> list[ReadIndex | AskFresh]:
        """End of a turn: one round for all reads that joined since the last one."""
        questions: list[ReadIndex | AskFresh] = []
        if self._joining:
            number = self.take_number()
            self._rounds[number] = (now + READ_RETRY_MS, self._joining)
            self._check_at = min(self._check_at, now + READ_RETRY_MS)
            self._joining = []
            questions.append(ReadIndex(number))
        if self._bounded:
            number = self.take_number()
            self._asked[number] = self._bounded
            self._bounded = []
            questions.append(AskFresh(number))
        return questions

    def take_number(self) -> int:
        """One that no round or question has had in this boot."""
        number = self._next_round
        self._next_round += 1
        return number

    def confirmed(self, number: int, index: int, now: int) -> None:
        """The round's answer: its reads wait for `index`; -1: not confirmed, asked again at the retry."""
        if index < 0:
            return
        _, reads = self._rounds.pop(number, (0, []))
        self._for_index += [(index, read) for read in reads]
        if reads:
            self._confirmed_at.setdefault(index, now)

    def fresh(self, answer: FreshAnswer, now: int) -> None:
        """When the leader was last heard, and what was committed then."""
        for read in self._asked.pop(answer.id, ()):
            if answer.heard_at_ms >= 0 and now - answer.heard_at_ms <= _bound(read):
                self._for_fresh.append(Fresh(answer.index, answer.heard_at_ms, read))
            else:
                self._joining.append(read)

    def leader_changed(self) -> None:
        """Rounds that an earlier leader was asked for join a new one; it would refuse them, or never answer."""
        for _, reads in self._rounds.values():
            self._joining += reads
        self._rounds.clear()

    def advance(self, position: Position, now: int) -> None:
        """The state machine moved, or a round was confirmed: answer what may be answered. Before `flush`."""
        if self._for_fresh:
            self._advance_fresh(position, now)
        if self._for_index:
            ready = [read for index, read in self._for_index if index <= position.applied_index]
            if ready:
                self._for_index = [item for item in self._for_index if item[0] > position.applied_index]
                self._answer_all(ready)
            self._note_confirmed(ready, position.applied_index, now)
        if self._for_revision:
            ready = [read for revision, read in self._for_revision if revision <= position.revision]
            if ready:
                self._for_revision = [item for item in self._for_revision if item[0] > position.revision]
                self._answer_all(ready)
            for read in ready:
                self._slow.waited(read.request, read.deadline, now, REVISION)

    def _advance_fresh(self, position: Position, now: int) -> None:
        waiting = []
        for item in self._for_fresh:
            lag_ms = now - item.heard_at
            if lag_ms > _bound(item.read):
                self._joining.append(item.read)
            elif item.index <= position.applied_index:
                self.waiting -= 1
                self._slow.waited(item.read.request, item.read.deadline, now, APPLY)
                self._answer(item.read.request, item.read.envelope, lag_ms)
            else:
                waiting.append(item)
        self._for_fresh = waiting

    def _note_confirmed(self, reads: list[Read], applied_index: int, now: int) -> None:
        """Which of these answered reads were slow, because of the round or of what had to be applied after it."""
        passed = [index for index in self._confirmed_at if index <= applied_index]
        # Those of one turn were as a rule confirmed together; for the rest the earliest is near enough.
        confirmed_at = min([self._confirmed_at.pop(index) for index in passed], default=now)
        for read in reads:
            stages = ((READ_INDEX, confirmed_at), (APPLY, now))
            self._slow.passed(read.request, read.deadline, now, stages)

    def _answer_all(self, reads: list[Read]) -> None:
        self.waiting -= len(reads)
        for read in reads:
            # A bounded read that had to be confirmed is as fresh as when it was asked.
            lag_ms = 0 if type(read.request[CONSISTENCY]) is int else None
            self._answer(read.request, read.envelope, lag_ms)

    # ---------------------------------------------------------------- time

    def next_timer(self) -> int | None:
        """When `tick` has something to do."""
        return None if self._check_at == NEVER else self._check_at

    def tick(self, now: int) -> None:
        """Refuse what is past its deadline; let the reads of unanswered rounds join a new one."""
        if now < self._check_at:
            return
        no_leader = NoLeader("no leader confirmed the read before the deadline")
        for number, (retry_at, reads) in list(self._rounds.items()):
            waiting = [read for read in reads if not self._late(read, now, no_leader)]
            if now >= retry_at:
                del self._rounds[number]
                self._joining += waiting
            else:
                self._rounds[number] = (retry_at, waiting)
        self._for_revision = [
            (revision, read)
            for revision, read in self._for_revision
            if not self._late(
                read, now, Timeout(f"revision {revision} did not reach this node in time"), REVISION
            )
        ]
        self._for_index = [
            (index, read)
            for index, read in self._for_index
            if not self._late(
                read, now, Timeout("what the leader had committed was not applied here in time"), APPLY
            )
        ]
        self._joining = [read for read in self._joining if not self._late(read, now, no_leader)]
        self._for_fresh = [item for item in self._for_fresh if not self._late(item.read, now, no_leader)]
        self._bounded = [read for read in self._bounded if not self._late(read, now, no_leader)]
        for number, reads in list(self._asked.items()):
            self._asked[number] = [read for read in reads if not self._late(read, now, no_leader)]
        reads = [read for _, read in self._for_revision + self._for_index] + self._joining
        reads += [item.read for item in self._for_fresh] + self._bounded
        reads += [read for asked in self._asked.values() for read in asked]
        times = [retry_at for retry_at, _ in self._rounds.values()]
        times += [read.deadline for _, waiting in self._rounds.values() for read in waiting]
        self._check_at = min(times + [read.deadline for read in reads], default=NEVER)

    def _late(self, read: Read, now: int, error: DanubeRaftError, stage: str = READ_INDEX) -> bool:
        if now < read.deadline:
            return False
        self.waiting -= 1
        self._slow.waited(read.request, read.deadline, now, stage)
        self._refuse(read.request, read.envelope, error)
        return True


def _bound(read: Read) -> int:
    level: Any = read.request[CONSISTENCY]
    assert type(level) is int, "only bounded reads are kept with a bound"
    return level
