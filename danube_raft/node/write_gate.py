"""What the kv-server refuses of writes before it proposes them: too large ones, and those for which there is no room.

Not when they are applied, since that comes out the same on every replica. What frees room, and what keeps leases alive,
is refused by a node that writes nothing at all, and by no other.
"""

from __future__ import annotations

from danube_raft.config import Config
from danube_raft.errors import NoSpace, RequestTooLarge
from danube_raft.kv.machine import Machine
from danube_raft.wire.client import Request
from danube_raft.wire.local import Space


class WriteGate:
    """Knows what consensus has told of the disk."""

    def __init__(self, config: Config) -> None:
        self._max_bytes = config.request_max_bytes
        self._space = Space(False)

    def told(self, space: Space) -> None:
        """There is news of the disk."""
        self._space = space

    def admit(self, request: Request, size_bytes: int, machine: Machine) -> None:
        """Raises RequestTooLarge or NoSpace."""
        if size_bytes > self._max_bytes:
            raise RequestTooLarge(f"the request has {size_bytes} bytes, over the limit of {self._max_bytes}")
        if self._space.read_only_index >= 0:
            raise NoSpace("the disk is full, and this node takes no writes")
        if self._space.low and machine.grows(request):
            raise NoSpace("the disk is nearly full: delete keys, or make room on it")
