"""The state that the committed log makes, at any index: what a snapshot has to hold, and a digest to say.

One machine follows the log; an index that it has passed is replayed from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from danube_raft.kv.machine import Machine
from danube_raft.sim.digest import digest
from danube_raft.wire.entry import Entry


class Reference:
    """`committed` grows meanwhile; `digest` is what two states are compared by."""

    def __init__(self, committed: Sequence[Entry], digest: Callable[[Machine], str] = digest) -> None:
        self._committed = committed
        self._digest = digest
        self._machine = Machine()
        self._known: dict[int, str] = {}

    def digest_at(self, index: int) -> str:
        """Of the state behind the entry at `index`."""
        if index not in self._known:
            if index < self._machine.applied_index:
                self._machine = Machine()
            for entry in self._committed[self._machine.applied_index : index]:
                self._machine.apply(entry)
            self._known[index] = self._digest(self._machine)
        return self._known[index]
