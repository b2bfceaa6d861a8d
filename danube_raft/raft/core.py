"""The Raft core of one node: inputs, one output.

- Pure and synchronous. `now` is monotonic ms and never goes back; randomness is handed in; nothing here does I/O.
- After any inputs the caller takes one `Output` and carries it out (see output.py), then sleeps until `next_timer()`.
- A message of another term goes through terms.py first.
- What a message means to a role is in table.py.
- What holds after each input is asserted, see invariants.py.

What a role does belongs into its module, what a node knows into state.py.
"""

from __future__ import annotations

from collections.abc import Collection

from danube_raft.config import Config
from danube_raft.raft import candidate, leader, terms, transfer
from danube_raft.raft.invariants import Invariants
from danube_raft.raft.output import Output, RandomSource, ReadId, Refusal
from danube_raft.raft.read_index import NOT_LEADER
from danube_raft.raft.state import CANDIDATE, FOLLOWER, LEADER, Installing, State
from danube_raft.raft.table import RAFT_MESSAGES, TABLE, TIMERS
from danube_raft.wire import local, peer
from danube_raft.wire.entry import KIND_CONFIGURATION, NO_ORIGIN, Configuration, Entry, pack_configuration


class Core:
    """One node's share of the consensus. Every input is a method; `take_output` says what to do."""

    def __init__(
        self,
        node_id: int,
        config: Config,
        recovered: local.Recovered,
        random: RandomSource,
        now: int,
        passive: bool = False,
    ) -> None:
        assert node_id > 0
        self._state = State(node_id, config, recovered, random, now, passive)
        self._told: tuple[str, int, int] | None = None
        self._invariants = Invariants()
        self._check()

    # ---------------------------------------------------------------- inputs

    def has(self, index: int, term: int) -> bool:
        """Whether the log holds the entry (index, term) durably, or purged exactly up to it. Only a snapshot that ends
        with such an entry may be loaded: one that a crash kept from being installed may know what the log does not."""
        state = self._state
        return index <= state.writes.durable_index and state.log.matches(index, term)

    def loaded(self, index: int, now: int) -> None:
        """The state machine is loaded and holds everything up to `index`, from a snapshot whose end this log `has`; or,
        with nothing purged, nothing.

        From now on this node may campaign. Votes and acks never waited for it. Committed entries may have been handed
        over before; those up to `index` are not needed.
        """
        state = self._state
        state.enter(now)
        assert state.log.purged_index <= index <= state.writes.durable_index, "a gap behind the snapshot"
        state.hold_snapshot(index)
        state.may_campaign = True
        state.resume_election_timer()
        candidate.campaign_if_alone(state)
        self._check()

    def bootstrap(self, configuration: Configuration, wall_ms: int, now: int) -> None:
        """Begin an empty log with `configuration`, as entry 1 of term 1. Not committed before a leader says so."""
        state = self._state
        state.enter(now)
        assert state.log.last_index == 0, "only an empty log is bootstrapped"
        state.set_hard_state(max(state.term, 1), state.vote)
        payload = pack_configuration(configuration)
        state.append(Entry(1, 1, KIND_CONFIGURATION, 0, wall_ms, NO_ORIGIN, payload))
        # Nobody has ever led this cluster, so there is nobody to wait for.
        state.election_at = state.now + state.retry_ms()
        candidate.campaign_if_alone(state)
        self._check()

    def step(self, header: peer.Header, message: peer.Message, now: int) -> None:
        """Take a Raft message of a peer (`RAFT_MESSAGES`). What is for another node is inert."""
        state = self._state
        state.enter(now)
        kind = type(message)
        if kind not in RAFT_MESSAGES or header.receiver != state.node_id or header.sender == state.node_id:
            return
        if header.term > state.term or state.deposes:
            terms.see(state, header, message)
        # The two pre-vote messages speak of a term that nobody is in yet.
        if header.term == state.term or kind in (peer.RequestPreVote, peer.PreVoteReply):
            TABLE[state.role][kind](state, header, message)
            self._after()
        elif header.term < state.term:
            terms.answer_older(state, header, message)
        self._check()

    def propose(self, origin: tuple[int, int, int], payload: bytes, wall_ms: int, now: int) -> Refusal | None:
        """Append one batch of `origin`, stamped with cluster time; None when it was taken."""
        state = self._state
        state.enter(now)
        if state.role != LEADER:
            return Refusal("not-leader" if state.leader_id else "no-leader", state.leader_id)
        refusal = leader.propose(state, origin, payload, wall_ms)
        self._check()
        return refusal

    def transfer(self, to: int, now: int, shunned: Collection[int] = ()) -> Refusal | None:
        """Hand leadership to voter `to` (0: to the most up-to-date one, none of the `shunned`, that has room on its disk);
        None when it was begun, or is under way to it.

        Until it succeeds or is given up, after the shortest election timeout, this leader takes no proposals.
        """
        state = self._state
        state.enter(now)
        if state.role != LEADER:
            return Refusal("not-leader" if state.leader_id else "no-leader", state.leader_id)
        # Who is low itself must know that the other one is not.
        to = to or transfer.successor(state, unheard=not state.low_space, shunned=shunned)
        refusal = transfer.begin(state, to)
        self._check()
        return refusal

    def read_index(self, id: ReadId, now: int) -> None:  # noqa: A002 -- the wire's name for it
        """Ask which index a linearizable read must wait for; answered in `Output.read_answers`."""
        state = self._state
        state.enter(now)
        if state.role == LEADER:
            leader.read_index(state, id)
        else:
            state.read_answers.append((id, NOT_LEADER))

    def heard_leader(self, now: int) -> tuple[int, int]:
        """(monotonic ms at which the leader was last heard, what it had committed then); (-1, 0) if that is not known.
        The leader itself was heard when a quorum was.

        A commit index counts once it is of the present term: before that a new leader does not know what those before
        it had committed, and acknowledged.
        """
        state = self._state
        state.enter(now)
        if state.lead is not None:
            index, heard_at = state.commit_index, leader.quorum_heard_at(state)
        elif state.leader_id:
            index, heard_at = state.leader_commit, state.leader_heard_at
        else:
            return -1, 0
        log = state.log
        if not log.purged_index <= index <= log.last_index or log.term(index) != state.term:
            return -1, 0
        return heard_at, index

    def durable(self, seq: int, now: int) -> None:
        """All writes up to `seq` are on disk."""
        state = self._state
        state.enter(now)
        state.messages += state.writes.ack(seq)
        state.finish_install(seq)
        state.log.evict(state.writes.durable_index)
        if state.role == LEADER:
            leader.advance_commit(state)
        elif state.role == CANDIDATE:
            candidate.on_durable(state)
        else:
            candidate.campaign_if_alone(state)
        self._after()
        self._check()

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to `index`."""
        self._state.delivery.applied(index)
        self._check()

    def purge(self, index: int, now: int) -> None:
        """Forget the log up to `index`: a durable snapshot holds what it did. The disk is the caller's business."""
        state = self._state
        state.enter(now)
        assert index <= state.delivery.applied_index, "only what is applied is purged"
        if index > state.log.purged_index:
            state.membership.install(index, state.membership.at(index))
            state.log.purge(index)
        self._check()

    def install(
        self, index: int, term: int, configuration: Configuration, stamp_ms: int, now: int
    ) -> int | None:
        """A snapshot of the leader's that ends with (index, term) is on the disk; `configuration` and cluster time
        `stamp_ms` are those at its end. Returns the seq under which the log-writer has to make the log begin behind
        it; the core does the same when that is durable. None: it is of no use here.

        The output has to be taken first, so that nothing is overtaken.
        """
        state = self._state
        state.enter(now)
        if (
            state.role != FOLLOWER
            or state.passive
            or state.installing is not None
            or index <= state.commit_index
        ):
            return None
        seq = state.writes.install(state.now, state.log.last_index)
        state.installing = Installing(seq, index, term, configuration, stamp_ms)
        self._check()
        return seq

    def log_chunk(self, first: int, entries: tuple[Entry, ...], now: int) -> None:
        """The answer to a ReadLog that began at `first`."""
        state = self._state
        state.enter(now)
        entries = state.log.answered(first, entries)
        state.delivery.offer(entries, state.safe_index())
        if state.role == LEADER:
            leader.chunk_read(state, entries)
        self._check()

    def unreachable(self, peer: int, now: int) -> None:
        """A message to `peer` could not be sent."""
        state = self._state
        state.enter(now)
        if state.role == LEADER:
            leader.unreachable(state, peer)
        self._check()

    def timer(self, now: int) -> None:
        """Do what is due by time."""
        state = self._state
        state.enter(now)
        TIMERS[state.role](state)
        self._check()

    def next_timer(self) -> int | None:
        """When `timer` is wanted next; None: not before another input."""
        state = self._state
        return state.lead.heartbeat_at if state.lead is not None else state.election_at

    # ---------------------------------------------------------------- output

    def take_output(self) -> Output:
        """What all inputs since the last call have led to."""
        state = self._state
        if state.lead is not None:
            leader.flush(state)
        log, writes = state.log, state.writes
        write = None if state.passive else writes.take(state.now, log.last_index)
        # Nothing more of a log that a snapshot is about to stand for.
        limit = state.delivery.handed_index if state.installing is not None else state.safe_index()
        committed = state.delivery.take(limit, log)
        messages, state.messages = state.messages, []
        answers, state.read_answers = state.read_answers, []
        requests, log.requests = log.requests, []
        forgot, state.forgot = tuple(state.forgot), []
        role = self._role_change()
        return Output(write, tuple(messages), committed, tuple(requests), tuple(answers), role, forgot)

    def _role_change(self) -> local.Role | None:
        state = self._state
        told = (state.role, state.term, state.leader_id)
        if told == self._told:
            return None
        self._told = told
        return local.Role(*told, state.clock.read(state.now), state.now, state.commit_index)

    # ---------------------------------------------------------------- what can be seen

    @property
    def role(self) -> str:
        """follower, pre-candidate, candidate or leader."""
        return self._state.role

    @property
    def term(self) -> int:
        """The current term."""
        return self._state.term

    @property
    def vote(self) -> int:
        """Who got this node's vote in the current term; 0: nobody."""
        return self._state.vote

    @property
    def leader_id(self) -> int:
        """The leader of the current term, 0 if none is known."""
        return self._state.leader_id

    @property
    def last_index(self) -> int:
        """Index of the last entry."""
        return self._state.log.last_index

    @property
    def durable_index(self) -> int:
        """Up to where the log is on disk."""
        return self._state.writes.durable_index

    @property
    def commit_index(self) -> int:
        """Up to where entries are known to be committed."""
        return self._state.commit_index

    @property
    def applied_index(self) -> int:
        """Up to where the state machine has applied."""
        return self._state.delivery.applied_index

    @property
    def snapshot_index(self) -> int:
        """The last entry that is only in a snapshot."""
        return self._state.log.purged_index

    @property
    def configuration(self) -> Configuration:
        """The active configuration: the newest in the log."""
        return self._state.membership.configuration

    def configuration_at(self, index: int) -> Configuration:
        """The configuration in force behind the entry at `index`, which is not below the purged one."""
        return self._state.membership.at(index)

    @property
    def followers(self) -> dict[int, int]:
        """On a leader: how far the log of each other member is known to match. Empty in the other roles."""
        peers = {} if self._state.lead is None else self._state.lead.peers
        return {to: progress.match_index for to, progress in peers.items()}

    @property
    def progress(self) -> dict[int, str]:
        """On a leader: probe, replicate or snapshot for each other member. A member in snapshot gets no entries: what
        it needs was purged. Empty in the other roles."""
        lead = self._state.lead
        return {} if lead is None else {to: progress.state for to, progress in lead.peers.items()}

    @property
    def suspects(self) -> set[int]:
        """On a leader: the members that say that they are SUSPECT. Empty in other roles."""
        peers = {} if self._state.lead is None else self._state.lead.peers
        return {to for to, progress in peers.items() if not progress.counts}

    @property
    def installing(self) -> bool:
        """Whether a snapshot is on its way into the log."""
        return self._state.installing is not None

    @property
    def low_space(self) -> bool:
        """Whether the disk is nearly full. The others are told."""
        return self._state.low_space

    @low_space.setter
    def low_space(self, low: bool) -> None:
        self._state.low_space = low

    @property
    def leader_low_space(self) -> bool:
        """Whether another node leads whose disk is nearly full, and it has nobody to hand over to."""
        state = self._state
        return state.leader_id not in (0, state.node_id) and state.leader_low_space

    @property
    def passive(self) -> bool:
        """Whether this node writes nothing and promises nothing."""
        return self._state.passive

    @property
    def passive_index(self) -> int:
        """On a passive node: up to where its log is known to be committed, once all of it that is has been found out;
        -1 before."""
        state = self._state
        commit = state.commit_index
        if not state.passive:
            return -1
        if state.membership.is_alone(state.node_id):
            return commit
        known = state.leader_id and 0 < min(state.leader_commit, state.log.last_index) <= commit
        return commit if known else -1

    @property
    def suspect(self) -> str:
        """Why this node's promises do not count (SUSPECT), or empty."""
        return self._state.suspect

    @property
    def held_messages(self) -> int:
        """How many messages wait for a write."""
        return len(self._state.writes.held)

    def cluster_time(self, now: int) -> int:
        """Cluster time in ms at monotonic `now`."""
        return self._state.clock.read(now)

    # ---------------------------------------------------------------- invariants

    def _after(self) -> None:
        if self._state.suspect:
            self._state.clear_suspicion()

    def _check(self) -> None:
        self._invariants.check(self._state)
