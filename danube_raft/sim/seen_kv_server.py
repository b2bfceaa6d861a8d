"""The real kv-server, as the simulator wants it: its state may be looked at, and who loads one is heard of."""

from __future__ import annotations

from collections.abc import Callable

from danube_raft.kv.machine import Machine
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
