"""The consensus process: drives the pure Raft core and passes on what it says.

It is the hub of the node. Batches come from the kv-server and become entries; entries go to the log-writer; what is
durable on a quorum goes back to the kv-server. It never looks inside a payload.

Rules:
- Nothing happens before the log-writer has said what the disk holds, and nobody campaigns before the kv-server has
  loaded; votes and acks do not wait for that.
- A batch that is in this leadership's log already is not appended again when the kv-server repeats it: the entry
  will commit, or the leadership ends and the kv-server is told.
- Peer messages are refused and counted unless they are for this node and cluster and from a member.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from danube_raft.config import Config
from danube_raft.node.endpoints import Envelope, FromPeer
from danube_raft.node.handler import CONSENSUS, KV, LOG, PEERS
from danube_raft.node.identity import Identity
from danube_raft.raft.core import Core
from danube_raft.raft.output import Output, RandomSource
from danube_raft.wire import local, peer
from danube_raft.wire.entry import VOTER, Configuration, Member

log = logging.getLogger("danube_raft.consensus")


class Consensus:
    """Handler of the consensus process."""

    name = CONSENSUS

    def __init__(
        self,
        config: Config,
        identity: Identity,
        random: RandomSource,
        wall_clock_ms: Callable[[], int],
        counters: Counter[str],
        pid: int,
    ) -> None:
        self.outbox: list[tuple[str, Any]] = []
        self._config = config
        self._identity = identity
        self._random = random
        self._wall_clock_ms = wall_clock_ms
        self._counters = counters
        self._core: Core | None = None
        self._pids = {CONSENSUS: pid}
        self._kv_loaded = False
        self._for_kv: list[local.Message] = []
        self._proposals: list[local.Propose] = []
        self._appended: tuple[int, int] = (0, 0)

    @property
    def ready(self) -> bool:
        """Whether the disk's state is known."""
        return self._core is not None

    @property
    def done(self) -> bool:
        """Never: it serves until it is stopped."""
        return False

    def start(self, now: int) -> None:
        """Wait for the log-writer's Recovered."""

    def receive(self, edge: str, message: Any, now: int) -> None:
        """Give a message to the core; proposals wait for the end of the turn."""
        if edge == LOG:
            self._from_log(message, now)
        elif edge == KV:
            self._from_kv(message, now)
        elif edge == PEERS:
            self._from_peer(message, now)

    def close(self) -> None:
        """Nothing outlives the process."""

    def turn(self, now: int) -> None:
        """Append what was proposed, run due timers, send what the core decided."""
        core = self._core
        if core is None:
            return
        if self._kv_loaded:
            for propose in self._proposals:
                self._propose(core, propose, now)
            self._proposals.clear()
        wake = core.next_timer()
        if wake is not None and now >= wake:
            core.timer(now)
        self._pass_on(core.take_output())
        if self._kv_loaded and self._for_kv:
            self.outbox.extend([(KV, message) for message in self._for_kv])
            self._for_kv.clear()

    def next_timer(self) -> int | None:
        """The core's next timer."""
        return None if self._core is None else self._core.next_timer()

    # ---------------------------------------------------------------- log-writer

    def _from_log(self, message: local.Message, now: int) -> None:
        if isinstance(message, local.Durable):
            self._known_core().durable(message.seq, now)
        elif isinstance(message, local.LogChunk):
            self._known_core().log_chunk(message.first, message.entries, now)
        elif isinstance(message, local.Recovered):
            self._recover(message, now)

    def _known_core(self) -> Core:
        assert self._core is not None, "the log-writer speaks first of what it has recovered"
        return self._core

    def _recover(self, recovered: local.Recovered, now: int) -> None:
        assert self._core is None, "a log is recovered once per boot"
        self._pids[LOG] = recovered.pid
        self._core = Core(self._identity.node_id, self._config, recovered, self._random, now)
        if recovered.last_index == 0:
            self._core.bootstrap(self._first_configuration(), self._wall_clock_ms(), now)
        if self._kv_loaded:
            self._core.allow_campaign(now)

    def _first_configuration(self) -> Configuration:
        """Without seeds a node is a cluster of its own, at once."""
        me = Member(self._identity.node_id, VOTER, self._config.raft_address, self._config.client_address)
        return Configuration((me,))

    # ---------------------------------------------------------------- kv-server

    def _from_kv(self, message: local.Message, now: int) -> None:
        if isinstance(message, local.Propose):
            self._proposals.append(message)
        elif isinstance(message, local.Applied):
            self._applied(message.index, now)
        elif isinstance(message, local.ReadIndex):
            self._read_index(message.id, now)
        elif isinstance(message, local.StatusRequest):
            self._for_kv.append(local.StatusReply(message.id, self.status(now)))

    def _applied(self, index: int, now: int) -> None:
        if self._kv_loaded:
            self._known_core().applied(index)
            return
        # The first one says that the state machine is loaded and where it stands.
        self._kv_loaded = True
        if self._core is not None:
            self._core.allow_campaign(now)

    def _read_index(self, read_id: int, now: int) -> None:
        if self._core is None:
            self._for_kv.append(local.ReadReady(read_id, -1))
        else:
            self._core.read_index((self._identity.node_id, self._identity.boot_epoch, read_id), now)

    def _propose(self, core: Core, propose: local.Propose, now: int) -> None:
        term, seq = self._appended
        if core.role == "leader" and term == core.term and propose.seq <= seq:
            return
        origin = (self._identity.node_id, self._identity.boot_epoch, propose.seq)
        refusal = core.propose(origin, propose.payload, self._wall_clock_ms(), now)
        if refusal is None:
            self._appended = (core.term, propose.seq)
        else:
            self._for_kv.append(local.ProposeRejected(propose.seq, refusal.reason, refusal.hint))

    # ---------------------------------------------------------------- core

    def _pass_on(self, output: Output) -> None:
        if output.write is not None:
            self.outbox.append((LOG, local.Write(*output.write)))
        self.outbox.extend([(LOG, read) for read in output.read_log])
        assert not output.messages, "a sole voter has nobody to write to"
        if output.role is not None:
            self._log_role(output.role)
            self._for_kv.append(output.role)
        if output.committed:
            self._for_kv.append(local.Committed(output.committed))
        for (_, _, read_id), index in output.read_answers:
            self._for_kv.append(local.ReadReady(read_id, index))

    def _log_role(self, role: local.Role) -> None:
        log.info("role=%s term=%d leader=%d", role.role, role.term, role.leader_id)

    def status(self, now: int) -> dict[str, Any]:
        """This process's side of `status`."""
        core = self._core
        if core is None:
            return {"role": "starting", "pids": dict(self._pids)}
        return {
            "role": core.role,
            "leader_id": core.leader_id,
            "term": core.term,
            "last_index": core.last_index,
            "durable_index": core.durable_index,
            "commit_index": core.commit_index,
            "snapshot_index": core.snapshot_index,
            "cluster_time_ms": core.cluster_time(now),
            "members": [
                {
                    "node_id": member.node_id,
                    "raft_addr": member.raft_addr,
                    "client_addr": member.client_addr,
                    "kind": member.kind,
                    "is_leader": member.node_id == core.leader_id,
                }
                for member in core.configuration.members
            ],
            "pids": dict(self._pids),
            "counters": dict(self._counters),
        }

    # ---------------------------------------------------------------- peers

    def _from_peer(self, item: FromPeer, now: int) -> None:
        header, message = item.header, item.message
        me = self._identity
        if isinstance(message, peer.GetNodeInfo):
            self._answer(item.envelope, header, self._node_info())
        elif isinstance(message, peer.PrepareInit):
            reason = f"node {me.node_id} belongs to cluster {me.cluster_id} already"
            self._answer(item.envelope, header, peer.PrepareInitReply(False, reason))
        elif (
            self._core is None
            or header.cluster_id != me.cluster_id
            or header.receiver != me.node_id
            or header.sender == me.node_id
            or all(member.node_id != header.sender for member in self._core.configuration.members)
        ):
            self._counters["peer_messages_refused"] += 1
        else:
            self._core.step(header, message, now)

    def _node_info(self) -> peer.NodeInfo:
        core = self._core
        return peer.NodeInfo(
            self._identity.node_id,
            self._identity.cluster_id,
            self._config.raft_address,
            self._config.client_address,
            (),
            core is not None and core.last_index > 0,
            0 if core is None else core.leader_id,
        )

    def _answer(self, envelope: Envelope, question: peer.Header, message: peer.Message) -> None:
        me = self._identity
        term = 0 if self._core is None else self._core.term
        header = peer.Header(me.cluster_id, me.node_id, question.sender, term, me.boot_epoch)
        self.outbox.append((PEERS, (envelope, peer.pack(header, message))))
