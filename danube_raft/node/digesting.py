"""The kv-server's part in digests: it hashes its state where the log asks for it, says the hash, and compares.

- The state is frozen when the whole entry that asks was applied, and before the next one is. One hash at a time: what is
  asked for meanwhile is left out here, as it is while this node has not caught up since its start. A hash that cannot be
  made is told in the log, and not reported.
- The leader asks `digest_ms` after the last digest that was applied here; one in flight, forgotten with the role.
- Compared are digests that were asked for while this process served. What it says of its own state is what it has hashed
  itself: a report of an earlier start of this node is about a state that may have been replaced.
- A difference is told when a majority has decided or none can any more, and of the rest at the next digest: who is
  down may be so for long.
- Who is odd is decided in `kv/digests.py`; what follows from it for this node in `oddness.py`.
"""

from __future__ import annotations

import logging
from typing import Any

from danube_raft.config import Config
from danube_raft.errors import Overloaded
from danube_raft.kv.digests import KEPT, Report, Verdict, judge
from danube_raft.kv.machine import Machine
from danube_raft.kv.snapshot import FORMAT
from danube_raft.node.digest_jobs import BeginDigest, DigestJob
from danube_raft.node.endpoints import Envelope
from danube_raft.node.oddness import Oddness
from danube_raft.node.proposals import NEVER
from danube_raft.node.replies import Replies
from danube_raft.node.snapshot_jobs import Failed
from danube_raft.wire import codec
from danube_raft.wire.client import ARGS, OP, REQUEST_ID, STATUS_OK, Request, check, pack_request
from danube_raft.wire.entry import unpack_configuration
from danube_raft.wire.local import Role

DIGEST = "digest"
REPORT = "digest_report"
REPORTS = "digest_reports"

NOTHING = Verdict(settled=False, hopeful=True, differ=False, odd=())

log = logging.getLogger("danube_raft.kv_server")


class Digesting:
    """Of one node; `begin` hashes as it suits the process."""

    def __init__(
        self, config: Config, node_id: int, replies: Replies, oddness: Oddness, begin: BeginDigest
    ) -> None:
        self._config = config
        self._node_id = node_id
        self._replies = replies
        self._oddness = oddness
        self._begin = begin
        self._job: DigestJob | None = None
        self._poll_at = NEVER
        self._give_up_at = NEVER
        self._abandoned = False
        self._own: dict[int, Report | None] = {}
        """What this state was at each digest that is compared; None: not hashed (yet)."""
        self._to_say: list[tuple[Request, bytes]] = []
        self._leading = self._in_flight = False
        self._last_at = 0
        self._judged: tuple[int, Verdict] = (0, NOTHING)
        self._difference = ""
        self._made = self._failed = 0

    def start(self, now: int) -> None:
        """The leader's time begins."""
        self._last_at = now

    def attach(self, now: int) -> None:
        """The state was replaced by a newer one: what is known of the old one says nothing of it."""
        self._own.clear()
        self._abandon(now)

    def _abandon(self, now: int) -> None:
        if self._job is not None:
            self._abandoned = True
            self._poll_at = now
            self._job.kill()

    def new_role(self, role: Role) -> None:
        """Only a leader asks."""
        self._leading = role.role == "leader"
        self._in_flight = False

    def done(self, op: str) -> None:
        """A command of this node's own was applied."""
        self._in_flight = self._in_flight and op != DIGEST

    def applied(self, machine: Machine, now: int, *, serving: bool) -> None:
        """A whole entry was applied. `serving`: this node has caught up."""
        index = machine.applied_index
        if machine.digests.asked_index != index:
            return
        self._last_at = now
        if not serving or self._oddness:
            return
        if self._judged[1].hopeful:
            self._judge(self._judged[0], machine, waits=False)
        self._own[index] = None
        if len(self._own) > KEPT:
            del self._own[min(self._own)]
        if self._job is not None:
            log.info("no digest of index %d: that of index %d is still being made", index, self._job.index)
            return
        self._job, self._abandoned = self._begin(machine), False
        self._poll_at = now + self._job.pause_ms
        self._give_up_at = now + self._config.snapshot_max_ms

    # ---------------------------------------------------------------- the turn

    def turn(self, machine: Machine, now: int) -> None:
        """Look after the hash that is being made, and compare what is new."""
        if self._job is not None and now >= self._poll_at:
            self._look_after(self._job, machine, now)
        for index in machine.digests.take_news():
            self._judge(index, machine)

    def _look_after(self, job: DigestJob, machine: Machine, now: int) -> None:
        outcome = job.poll()
        if outcome is None:
            self._poll_at = now + job.pause_ms
            if now >= self._give_up_at:
                self._give_up_at = NEVER
                job.kill()
            return
        self._job, self._poll_at = None, NEVER
        if self._abandoned:
            return
        if isinstance(outcome, Failed):
            self._failed += 1
            log.warning("no digest of index %d: %s", job.index, outcome.reason)
            return
        self._made += 1
        if not machine.digests.knows(job.index):
            log.warning(
                "the digest of index %d is compared with nobody's: more than %d were asked for while it was made",
                job.index,
                KEPT - 1,
            )
            return
        self._own[job.index] = Report(FORMAT, outcome)
        self._to_say.append(_command(REPORT, job.index, FORMAT, outcome))
        self._judge(job.index, machine)

    def _judge(self, index: int, machine: Machine, *, waits: bool = True) -> None:
        if index not in self._own or self._oddness or not machine.configuration:
            return
        own, reports = self._own[index], dict(machine.digests.of(index))
        if own is not None:
            reports[self._node_id] = own
        verdict = judge(reports, unpack_configuration(machine.configuration).voters)
        hashes = ", ".join(
            f"node {node_id} {reports[node_id].sha256.hex()[:16]}" for node_id in sorted(reports)
        )
        if self._node_id in verdict.odd:
            # Also where others have gone on to the next digest, which this node may have left out.
            self._oddness.found(
                index, f"at index {index} it is not what a majority of the voters has ({hashes})"
            )
            return
        before = self._judged
        if index < before[0]:
            return
        self._judged = (index, verdict)
        if waits and (verdict.hopeful or self._judged == before):
            return
        if verdict.differ:
            self._differ(index, verdict, hashes)
        elif verdict.settled:
            self._difference = ""

    def _differ(self, index: int, verdict: Verdict, hashes: str) -> None:
        who = ", ".join(f"node {node_id}" for node_id in verdict.odd)
        what = (
            f"{who} is not as the majority"
            if who
            else "no majority of the voters agrees, so nobody knows who is right"
        )
        self._difference = f"at index {index} the states of the nodes differ: {what} ({hashes})"
        log.warning("%s", self._difference, extra={"fields": {"digest_index": index}})

    # ---------------------------------------------------------------- what it says

    def due(self, now: int) -> list[tuple[Request, bytes]]:
        """Commands to propose now: (request, its bytes)."""
        said, self._to_say = self._to_say, []
        if now >= self._ask_at:
            self._in_flight = True
            said.append(_command(DIGEST))
        return said

    @property
    def _ask_at(self) -> int:
        asks = self._leading and not self._in_flight and not self._oddness and self._config.digest_ms
        return self._last_at + self._config.digest_ms if asks else NEVER

    def next_timer(self) -> int | None:
        """When `turn` or `due` is wanted."""
        timer = min(self._poll_at, self._ask_at)
        return None if timer == NEVER else timer

    def admit(self, request: Request) -> None:
        """Raises NoLeader for what would be answered from a wrong state, and Overloaded for a digest while one is being made
        here: whoever asked for one after the other would have every index forgotten before it is compared."""
        self._oddness.admit(request)
        if request[OP] == DIGEST and self._job is not None:
            raise Overloaded(f"the digest of index {self._job.index} is still being made; try again shortly")

    def request(self, request: Request, envelope: Envelope, machine: Machine) -> None:
        """An operator asks for the reports."""
        index = request[ARGS] or machine.digests.asked_index
        rows = [(node_id, *report) for node_id, report in sorted(machine.digests.of(index).items())]
        self._replies.add(envelope, request[REQUEST_ID], STATUS_OK, machine.revision, (index, rows))

    def close(self) -> None:
        """Leave nothing running."""
        self._abandon(0)

    @property
    def odd_nodes(self) -> tuple[int, ...]:
        """Whose state is wrong, as far as this node knows."""
        return (self._node_id,) if self._oddness else self._judged[1].odd

    def sizes(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "digest_index": self._judged[0],
            "digest_difference": self._difference,
            "odd": self._oddness.reason,
        }

    def report(self) -> dict[str, Any]:
        """For the supervisor, beside that."""
        return {
            "digest_pid": 0 if self._job is None else self._job.pid,
            "digests_made": self._made,
            "digests_failed": self._failed,
        }


def _command(op: str, *arguments: Any) -> tuple[Request, bytes]:
    chunk = pack_request(op, 0, *arguments)
    return check(codec.unpack(chunk)), chunk
