"""The real handlers, with an opening for the simulator: what it looks at, and what it asks for as an administrator does.

Nothing here changes what they do.
"""

from __future__ import annotations

from collections.abc import Callable

from danube_raft.kv.machine import Machine
from danube_raft.kv.sessions import Result, Sessions
from danube_raft.node.consensus import Consensus
from danube_raft.node.kv_server import KvServer


class SeenKvServer(KvServer):
    """The real handler; its state may be looked at."""

    loaded: Callable[[Machine], None]
    """Hears of a state that comes out of a snapshot, before anything is applied to it."""

    def _go_on_with(self, machine: Machine, now: int) -> None:
        self.loaded(machine)
        super()._go_on_with(machine, now)

    @property
    def machine(self) -> Machine:
        """The replicated state."""
        return self._machine

    @property
    def watches(self) -> int:
        """How many it feeds."""
        return self._streams.watches


class SeenConsensus(Consensus):
    """The real handler; it can be asked to hand leadership over, as an administrator does."""

    def hand_over(self, to: int, now: int) -> bool:
        """Whether it begins to."""
        return self._core is not None and self._core.transfer(to, now) is None


class SeenSessions(Sessions):
    """The real table; it counts the writes that had happened before."""

    def __init__(self) -> None:
        super().__init__()
        self.recalled = 0

    def recall(self, client_id: int, serial: int, low_water: int | None, now_ms: int) -> Result | None:
        """See Sessions."""
        kept = super().recall(client_id, serial, low_water, now_ms)
        self.recalled += kept is not None
        return kept
