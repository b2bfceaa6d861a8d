"""`status` and `members`: half of the answer is consensus', so each question waits for it.

What waits is bounded. A question always gets its answer, since consensus answers in every role and state, so there is
no deadline.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from danube_raft.config import Config
from danube_raft.errors import Overloaded
from danube_raft.kv.machine import Machine
from danube_raft.node.endpoints import Envelope
from danube_raft.node.handler import KV
from danube_raft.node.identity import Identity
from danube_raft.node.proposals import Proposals
from danube_raft.node.reads import Reads
from danube_raft.node.replies import Replies
from danube_raft.node.streams import Streams
from danube_raft.wire.client import OP, REQUEST_ID, STATUS_OK, Request
from danube_raft.wire.local import StatusReply, StatusRequest


class StatusQuestions:
    """Who asked; `answer` puts both halves together."""

    def __init__(self, config: Config, identity: Identity, replies: Replies, pid: int) -> None:
        self._config = config
        self._identity = identity
        self._replies = replies
        self._pid = pid
        self._waiting: dict[int, tuple[str, Envelope, int]] = {}
        self._next = 1

    def ask(self, request: Request, envelope: Envelope) -> StatusRequest:
        """The question to consensus. Raises Overloaded."""
        if len(self._waiting) >= self._config.waiting_max_commands:
            raise Overloaded("too many status requests wait already; try again shortly")
        number = self._next
        self._next += 1
        self._waiting[number] = (request[OP], envelope, request[REQUEST_ID])
        return StatusRequest(number)

    def answer(
        self, message: StatusReply, own: dict[str, Any], counters: dict[str, int], odd: Collection[int] = ()
    ) -> None:
        """Consensus' half has come; `own` is the kv-server's, as is `odd`: the nodes whose state is wrong."""
        op, envelope, request_id = self._waiting.pop(message.id)
        theirs = message.status
        if op == "members":
            result: Any = [{**row, "odd": row["node_id"] in odd} for row in theirs.get("members", [])]
        else:
            pids = {**theirs.pop("pids"), KV: self._pid}
            counters = {**theirs.pop("counters", {}), **counters}
            result = {
                "node_id": self._identity.node_id,
                "cluster_id": self._identity.cluster_id,
                **theirs,
                "applied_index": own["applied_index"],
                "revision": own["revision"],
                "boot_epoch": self._identity.boot_epoch,
                **own,
                "pids": pids,
                "counters": counters,
            }
        self._replies.add(envelope, request_id, STATUS_OK, own["revision"], (result,))


def sizes(machine: Machine, proposals: Proposals, reads: Reads, streams: Streams) -> dict[str, Any]:
    """The kv-server's half: where its state machine stands, and how much of everything there is."""
    history = machine.history
    return {
        "applied_index": machine.applied_index,
        "revision": machine.revision,
        "waiting_commands": proposals.waiting_commands,
        "waiting_reads": reads.waiting,
        "keys": len(history.records),
        "history_events": len(history.events),
        "state_bytes": machine.state_bytes,
        "compaction_revision": history.compaction_revision,
        "leases": len(machine.leases),
        "sessions": len(machine.sessions),
        "watches": streams.watches,
    }
