"""The consensus process: drives the pure Raft core and passes on what it says.

It is the hub of the node. Batches come from the kv-server and become entries; entries go to the log-writer and to the
peers; what is durable on a quorum goes back to the kv-server. It never looks inside a payload.

Rules:
- Nothing happens before the log-writer has said what the disk holds, and nobody campaigns before the kv-server has
  loaded; votes and acks do not wait for that.
- A node that does not lead passes batches (`batches.py`) and read indexes of its own kv-server on to the leader, and
  refuses those of others: nothing is forwarded twice. No client is answered from here.
- What concerns snapshots is in `snapshot_traffic.py`. The kv-server hears of an installed one behind all that was
  committed before it, and before all that comes after.
- Peer messages are refused and counted unless they are for this node and cluster and from a member.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from danube_raft.config import Config
from danube_raft.node.batches import Batches
from danube_raft.node.endpoints import Envelope, FromPeer, ToPeer, Unsent
from danube_raft.node.handler import CONSENSUS, KV, LINKS, LOG, PEERS
from danube_raft.node.identity import Identity, answer_prepare_init
from danube_raft.node.leaderless import Leaderless
from danube_raft.node.roster import Roster
from danube_raft.node.snapshot_traffic import SnapshotTraffic
from danube_raft.node.space import DiskSpace
from danube_raft.node.suspicion import Suspicion
from danube_raft.raft.core import Core
from danube_raft.raft.output import Output, RandomSource, ReadId
from danube_raft.raft.table import RAFT_MESSAGES
from danube_raft.wire import local, peer
from danube_raft.wire.entry import VOTER, Configuration, Founding, Member, unpack_configuration

log = logging.getLogger("danube_raft.consensus")


class Consensus:
    """Handler of the consensus process."""

    name = CONSENSUS

    def __init__(
        self,
        config: Config,
        identity: Identity,
        founding: Founding | None,
        random: RandomSource,
        wall_clock_ms: Callable[[], int],
        counters: Counter[str],
        pid: int,
        read_only: bool = False,
    ) -> None:
        self.outbox: list[tuple[str, Any]] = []
        self._config = config
        self._identity = identity
        self._founding = founding
        self._random = random
        self._wall_clock_ms = wall_clock_ms
        self._counters = counters
        self._core: Core | None = None
        self._pids = {CONSENSUS: pid}
        self._kv_loaded = False
        self._kv_index = 0
        """Up to where the state machine had loaded."""
        self._for_kv: list[local.Message] = []
        self._batches = Batches(identity.node_id, self._for_kv, self._tell, wall_clock_ms)
        self._snapshots = SnapshotTraffic(config, self.outbox, self._tell)
        self._roster = Roster(config, identity, founding)
        self._space = DiskSpace(config)
        self._read_only = read_only
        self._suspicion = Suspicion()
        self._leaderless = Leaderless(self._roster)
        self._last_leader = 0
        self._leader_changes = 0
        self._committed_entries = 0

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
        elif edge == LINKS:
            self._unsent(message, now)

    def close(self) -> None:
        """Nothing outlives the process."""

    def turn(self, now: int) -> None:
        """Append what was proposed, run due timers, send what the core decided."""
        core = self._core
        if core is None:
            return
        self._batches.flush(core, now)
        wake = core.next_timer()
        if wake is not None and now >= wake:
            core.timer(now)
        self._for_kv += self._space.turn(core, now)
        self._snapshots.hand_over(core, now)
        output = core.take_output()
        self.outbox += [(LOG, message) for message in self._suspicion.end(core)]
        self._pass_on(output, now)
        self._snapshots.turn(core, self._kv_loaded, now)
        # Before the peers: clients wait for what the kv-server gets.
        if self._kv_loaded and self._for_kv:
            self.outbox.extend([(KV, message) for message in self._for_kv])
            self._for_kv.clear()
        self._to_peers(core, output)
        self._leaderless.turn(core, now)

    def next_timer(self) -> int | None:
        """The core's next timer, the next look at what is being sent, or the next time to say what is missing."""
        core_timer = None if self._core is None else self._core.next_timer()
        wakes = (core_timer, self._snapshots.next_timer(self._core), self._leaderless.say_at)
        return min((wake for wake in wakes if wake is not None), default=None)

    # ---------------------------------------------------------------- log-writer

    def _from_log(self, message: local.Message, now: int) -> None:
        if isinstance(message, local.Durable):
            self._durable(self._known_core(), message.seq, now)
        elif isinstance(message, local.LogChunk):
            self._known_core().log_chunk(message.first, message.entries, now)
        elif isinstance(message, local.FreeSpace):
            self._space.measured(message.free_bytes)
        elif isinstance(message, local.Recovered):
            self._recover(message, now)
        else:
            self._snapshots.from_log(self._known_core(), message, now)

    def _durable(self, core: Core, seq: int, now: int) -> None:
        core.durable(seq, now)
        installed = self._snapshots.durable(core)
        if installed is not None:
            self._for_kv.append(installed)

    def _known_core(self) -> Core:
        assert self._core is not None, "the log-writer speaks first of what it has recovered"
        return self._core

    def _recover(self, recovered: local.Recovered, now: int) -> None:
        assert self._core is None, "a log is recovered once per boot"
        self._pids[LOG] = recovered.pid
        self._suspicion.begin(recovered.suspect)
        self._core = Core(self._identity.node_id, self._config, recovered, self._random, now, self._read_only)
        if recovered.last_index == 0 and not recovered.suspect and not self._read_only:
            self._bootstrap(self._core, now)
        if self._kv_loaded:
            self._core.loaded(self._kv_index, now)

    def _bootstrap(self, core: Core, now: int) -> None:
        """Without seeds a node is a cluster of its own, at once; with them only the initialiser begins the log."""
        founding, node_id = self._founding, self._identity.node_id
        if founding is None:
            me = Member(node_id, VOTER, self._config.raft_address, self._config.client_address)
            core.bootstrap(Configuration((me,)), self._wall_clock_ms(), now)
        elif founding.initialiser == node_id:
            core.bootstrap(unpack_configuration(founding.configuration), founding.wall_ms, now)

    # ---------------------------------------------------------------- kv-server

    def _from_kv(self, message: local.Message, now: int) -> None:
        if isinstance(message, local.Propose):
            me = self._identity
            self._batches.add((me.node_id, me.boot_epoch, message.seq), message.payload)
        elif isinstance(message, local.Applied):
            self._applied(message.index, now)
        elif isinstance(message, local.ReadIndex):
            self._read_index(message.id, now)
        elif isinstance(message, local.AskFresh):
            heard_at, index = (-1, 0) if self._core is None else self._core.heard_leader(now)
            self._for_kv.append(local.FreshAnswer(message.id, heard_at, index))
        elif isinstance(message, local.StatusRequest):
            self._for_kv.append(local.StatusReply(message.id, self.status(now)))
        else:
            if isinstance(message, local.SnapshotDone):
                self._space.snapshot_bytes = message.size_bytes
            self._snapshots.from_kv(self._core, message)

    def _applied(self, index: int, now: int) -> None:
        if self._kv_loaded:
            self._known_core().applied(index)
            return
        # The first one says that the state machine is loaded and where it stands.
        self._kv_loaded = True
        self._kv_index = index
        if self._core is not None:
            self._core.loaded(index, now)

    def _read_index(self, number: int, now: int) -> None:
        core = self._core
        if core is None:
            self._for_kv.append(local.ReadReady(number, -1))
            return
        read = (self._identity.node_id, self._identity.boot_epoch, number)
        if core.role == "leader" or not core.leader_id:
            core.read_index(read, now)
        else:
            self._tell(core.leader_id, peer.ForwardReadIndex(read))

    # ---------------------------------------------------------------- core

    def _pass_on(self, output: Output, now: int) -> None:
        if output.write is not None:
            self.outbox.append((LOG, output.write))
        self.outbox.extend([(LOG, read) for read in output.read_log])
        if output.role is not None:
            self._log_role(output.role)
            self._for_kv.append(output.role)
        if output.committed:
            self._committed_entries += len(output.committed)
            self._snapshots.committed(output.committed)
            self._for_kv.append(local.Committed(output.committed, now))
        for read, index in output.read_answers:
            self._answer_read(read, index)
        for node_id, index in output.forgot:
            log.error(
                "node %d does not hold what it had acknowledged up to entry %d: look after its disk; it is sent again",
                node_id,
                index,
                extra={"fields": {"peer": node_id, "match_index": index}},
            )

    def _to_peers(self, core: Core, output: Output) -> None:
        peers = self._roster.update(core.configuration)
        if peers is not None:
            self.outbox.append((LINKS, peers))
        for to, term, message in output.messages:
            self._send(to, term, message)

    def _answer_read(self, read: ReadId, index: int) -> None:
        node_id, _, number = read
        if node_id == self._identity.node_id:
            self._for_kv.append(local.ReadReady(number, index))
        else:
            self._tell(node_id, peer.ForwardReadReply(read, index))

    def _tell(self, to: int, message: peer.Message) -> None:
        self._send(to, self._known_core().term, message)

    def _send(self, to: int, term: int, message: peer.Message) -> None:
        me = self._identity
        header = peer.Header(me.cluster_id, me.node_id, to, term, me.boot_epoch)
        self.outbox.append((LINKS, ToPeer(header, message)))

    def _log_role(self, role: local.Role) -> None:
        if role.leader_id not in (0, self._last_leader):
            self._last_leader = role.leader_id
            self._leader_changes += 1
        fields = {"role": role.role, "term": role.term, "leader": role.leader_id}
        log.info("role=%s term=%d leader=%d", *fields.values(), extra={"fields": fields})

    def report(self, now: int) -> dict[str, Any]:
        """For the supervisor. `missing` is for people: who has to answer before this node can do its part."""
        core = self._core
        if core is None:
            return {"role": "starting"}
        # Followers say nothing to each other: only a leader, or a node that looks for one, knows who is silent.
        follows = core.leader_id not in (0, self._identity.node_id)
        lags = {
            str(row["node_id"]): row["lag_entries"]
            for row in self._roster.members(core, now)
            if row["lag_entries"] is not None and row["node_id"] != self._identity.node_id
        }
        return {
            "role": core.role,
            "leader_id": core.leader_id,
            "leader_changes": self._leader_changes,
            "term": core.term,
            "last_index": core.last_index,
            "durable_index": core.durable_index,
            "commit_index": core.commit_index,
            "purged_index": core.snapshot_index,
            "committed_entries": self._committed_entries,
            "suspect": self._suspicion.text(core),
            "low_space": self._space.low,
            "read_only": self._read_only,
            "disk_free_bytes": self._space.free_bytes,
            "missing": "" if follows else self._roster.missing(now),
            "peer_lag_entries": lags,
            "counters": dict(self._counters),
        }

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
            "snapshot_index": self._snapshots.newest_index,
            "arriving_snapshot_index": self._snapshots.arriving_index,
            "purged_index": core.snapshot_index,
            "suspect": self._suspicion.text(core),
            "low_space": self._space.low,
            "read_only": self._read_only,
            "cluster_time_ms": core.cluster_time(now),
            "members": self._roster.members(core, now),
            "pids": dict(self._pids),
            "counters": dict(self._counters),
        }

    # ---------------------------------------------------------------- peers

    def _from_peer(self, item: FromPeer, now: int) -> None:
        header, message = item.header, item.message
        if isinstance(message, peer.GetNodeInfo):
            self._answer(item.envelope, header, self._node_info(message.nonce))
        elif isinstance(message, peer.PrepareInit):
            reply = answer_prepare_init(self._identity, self._founding, header, message)
            self._answer(item.envelope, header, reply)
        elif self._core is None or not self._roster.accepts(header, now):
            self._counters["peer_messages_refused"] += 1
        elif type(message) in RAFT_MESSAGES:
            self._core.step(header, message, now)
        elif isinstance(message, peer.InstallSnapshot | peer.InstallSnapshotReply | peer.AskSnapshot):
            if not self._snapshots.from_peer(self._core, header, message, now):
                self._counters["peer_messages_refused"] += 1
        else:
            self._forwarded(self._core, header, message, now)

    def _forwarded(self, core: Core, header: peer.Header, message: peer.Message, now: int) -> None:
        """What kv-servers say to each other through consensus."""
        me = self._identity
        mine = (me.node_id, me.boot_epoch)
        if isinstance(message, peer.ForwardBatch) and message.origin[0] == header.sender:
            self._batches.add(message.origin, message.payload)
        elif isinstance(message, peer.ForwardReadIndex) and message.id[0] == header.sender:
            core.read_index(message.id, now)
        elif isinstance(message, peer.ForwardRejected) and message.origin[:2] == mine:
            self._for_kv.append(
                local.ProposeRejected(message.origin[2], message.reason, message.hint, left=True)
            )
        elif isinstance(message, peer.ForwardReadReply) and message.id[:2] == mine:
            self._for_kv.append(local.ReadReady(message.id[2], message.index))
        else:
            self._counters["peer_messages_refused"] += 1

    def _unsent(self, unsent: Unsent, now: int) -> None:
        """A link took nothing. What is lost on the way later is repeated after silence, by Raft or by the kv-server."""
        message = unsent.message
        if isinstance(message, peer.ForwardBatch):
            self._for_kv.append(local.ProposeRejected(message.origin[2], "no-leader", 0))
        elif isinstance(message, peer.ForwardReadIndex):
            self._for_kv.append(local.ReadReady(message.id[2], -1))
        else:
            if isinstance(message, peer.InstallSnapshot):
                self._snapshots.unsent(unsent.header.receiver)
            self._known_core().unreachable(unsent.header.receiver, now)

    def _node_info(self, nonce: int) -> peer.NodeInfo:
        core = self._core
        return peer.NodeInfo(
            self._identity.node_id,
            self._identity.cluster_id,
            self._config.raft_address,
            self._config.client_address,
            self._config.seed_nodes,
            core is not None and core.last_index > 0,
            0 if core is None else core.leader_id,
            nonce,
        )

    def _answer(self, envelope: Envelope, question: peer.Header, message: peer.Message) -> None:
        me = self._identity
        term = 0 if self._core is None else self._core.term
        header = peer.Header(me.cluster_id, me.node_id, question.sender, term, me.boot_epoch)
        self.outbox.append((PEERS, (envelope, peer.pack(header, message))))
