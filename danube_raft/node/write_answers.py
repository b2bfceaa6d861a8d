"""The answers to writes of this node's clients, from the results of the entry in which their batch was applied.

What waits for a command that this node made of its own accord is told that it was applied; a client of a node whose
state is wrong hears only that its write is in the log.
"""

from __future__ import annotations

from collections.abc import Sequence

from danube_raft.kv.sessions import Result
from danube_raft.node.digesting import Digesting
from danube_raft.node.oddness import Oddness
from danube_raft.node.proposals import Batch
from danube_raft.node.replies import Replies
from danube_raft.node.upkeep import Upkeep
from danube_raft.wire.client import OP


class WriteAnswers:
    """Gives them."""

    def __init__(self, replies: Replies, oddness: Oddness, upkeep: Upkeep, digesting: Digesting) -> None:
        self._replies = replies
        self._oddness = oddness
        self._upkeep = upkeep
        self._digesting = digesting

    def answer(self, batch: Batch, results: Sequence[Result]) -> None:
        """`results` are those of the batch's commands, in order."""
        add = self._replies.add
        told = self._oddness.answerable(results)
        for place, (waiter, (status, revision, result)) in enumerate(zip(batch.waiters, told, strict=True)):
            if waiter is not None:
                add(waiter[0], waiter[1], status, revision, result)
            else:
                op = batch.requests[place][OP]
                self._upkeep.done(op)
                self._digesting.done(op)
