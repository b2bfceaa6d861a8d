"""Batches of kv-servers on their way into the log, through consensus.

- A node that does not lead passes those of its own kv-server on to the leader, and refuses those of others: nothing is
  forwarded twice. No client is answered from here.
- A batch that is in this leadership's log already is not appended again when its kv-server repeats it: the entry
  will commit, or the leadership ends and every kv-server is told. A lower one of the same kv-server is dropped too:
  it could never apply any more, and its kv-server will see that.

They wait for the end of the turn, so that what arrived together is one write.
"""

from __future__ import annotations

from collections.abc import Callable

from danube_raft.raft.core import Core
from danube_raft.wire import local, peer

Origin = tuple[int, int, int]
"""(node id, boot epoch, batch seq)."""


class Batches:
    """What was proposed and is not in the log yet. `for_kv` takes what the own kv-server, node `node_id`'s, has to hear,
    `tell` what a peer has to."""

    def __init__(
        self,
        node_id: int,
        for_kv: list[local.Message],
        tell: Callable[[int, peer.Message], None],
        wall_clock_ms: Callable[[], int],
    ) -> None:
        self._node_id = node_id
        self._for_kv = for_kv
        self._tell = tell
        self._wall_clock_ms = wall_clock_ms
        self._waiting: list[tuple[Origin, bytes]] = []
        self._appended_term = 0
        self._appended: dict[int, tuple[int, int]] = {}
        """The highest (boot epoch, seq) of each kv-server in the log of this leadership."""

    def add(self, origin: Origin, payload: bytes) -> None:
        """Proposed by the own kv-server, or forwarded by another node for its own."""
        self._waiting.append((origin, payload))

    def flush(self, core: Core, now: int) -> None:
        """Append, pass on or refuse what waits."""
        for origin, payload in self._waiting:
            self._propose(core, origin, payload, now)
        self._waiting.clear()

    def _propose(self, core: Core, origin: Origin, payload: bytes, now: int) -> None:
        node_id, *place = origin
        if core.role != "leader":
            if node_id == self._node_id and core.leader_id:
                self._tell(core.leader_id, peer.ForwardBatch(origin, payload))
            else:
                self._refuse(origin, "not-leader" if core.leader_id else "no-leader", core.leader_id)
            return
        if self._appended_term != core.term:
            self._appended_term = core.term
            self._appended.clear()
        if tuple(place) <= self._appended.get(node_id, (0, 0)):
            return
        refusal = core.propose(origin, payload, self._wall_clock_ms(), now)
        if refusal is None:
            self._appended[node_id] = (place[0], place[1])
        else:
            self._refuse(origin, *refusal)

    def _refuse(self, origin: Origin, reason: str, hint: int) -> None:
        node_id, _, seq = origin
        if node_id == self._node_id:
            self._for_kv.append(local.ProposeRejected(seq, reason, hint))
        else:
            self._tell(node_id, peer.ForwardRejected(origin, reason, hint))
