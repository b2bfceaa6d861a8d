"""What one node knows: the state that the role modules work on, and the steps that all roles share.

- Term and vote change only through `follow` and `campaign`, which put them into the next write: nothing that depends
  on them leaves before they are durable (`hold`).
- `verified_index` is the last index known to match the log of the leader of this term. A follower's commit index
  never passes it, whatever the leader's is (PITFALLS 17).
- `commit_index` never shrinks and committed entries are never truncated.
- A SUSPECT node (its disk forgot what it had promised) grants nothing, never campaigns, and says in its answers
  that they do not count, until an entry of the current leader's own term is committed and durable here. It begins
  with a new term, so that this leader is not one that counts acks which were lost. Where the disk has even forgotten in
  which terms they were given, it deposes the first leader that it hears, to the same end. (A leader cut off from all
  others but this node may be that first one, for the two seconds in which it does not know: then it ends too early.)
- A passive node (its disk takes no more writes) writes nothing, not even the terms that it hears of: nothing that it
  says depends on them. It votes for nobody, appends nothing, never campaigns.
- While a snapshot is being installed the log is as it was, takes no entries, and this node does not campaign.

Who decides what in which role does not belong here; see follower, candidate and leader.
"""

from __future__ import annotations

from typing import NamedTuple

from danube_raft.config import Config
from danube_raft.raft.cluster_clock import ClusterClock
from danube_raft.raft.delivery import Delivery
from danube_raft.raft.leadership import Leadership
from danube_raft.raft.log import Log
from danube_raft.raft.membership import Membership
from danube_raft.raft.output import RandomSource, ReadId, Send
from danube_raft.raft.uncommitted import Uncommitted
from danube_raft.raft.writes import Writes
from danube_raft.wire import local, peer
from danube_raft.wire.entry import (
    KIND_CONFIGURATION,
    Configuration,
    Entry,
    HardState,
    entry_bytes,
    unpack_configuration,
)

FOLLOWER = "follower"
PRE_CANDIDATE = "pre-candidate"
CANDIDATE = "candidate"
LEADER = "leader"


class Installing(NamedTuple):
    """A snapshot that ends with (index, term), on its way to the disk with write `seq`. `configuration`: the one at
    that index; `stamp_ms`: its cluster time."""

    seq: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    configuration: Configuration
    stamp_ms: int


class State:
    """All that the core of one node knows."""

    def __init__(
        self,
        node_id: int,
        config: Config,
        recovered: local.Recovered,
        random: RandomSource,
        now: int,
        passive: bool = False,
    ) -> None:
        self.node_id = node_id
        self.passive = passive
        self.config = config
        self.random = random
        self.now = now
        self.role = FOLLOWER
        self.term, self.vote = recovered.hard_state
        self.leader_id = 0
        self.suspect = recovered.suspect
        self.log = Log(recovered, config.log_cache_bytes)
        self.membership = Membership(recovered.configurations)
        self.writes = Writes(recovered.last_index)
        self.uncommitted = Uncommitted()
        self.delivery = Delivery(
            recovered.purged_index, config.unapplied_max_bytes, config.read_log_max_bytes
        )
        self.clock = ClusterClock(recovered.last_stamp_ms, config.election_min_ms)
        self.last_stamp_ms = recovered.last_stamp_ms
        """That of the last entry; less where the log was cut back to an entry that is not in memory."""
        self.commit_index = recovered.purged_index
        self.verified_index = recovered.purged_index
        self.messages: list[Send] = []
        self.read_answers: list[tuple[ReadId, int]] = []
        self.lead: Leadership | None = None
        self.forgot: list[tuple[int, int]] = []
        """Members that this node led and that had lost what they acknowledged, and the index up to which; not yet taken."""
        self.installing: Installing | None = None
        # Whether the disk is nearly full; and whether the leader's is, with nobody to hand over to.
        self.low_space = self.leader_low_space = False
        # Elections. `election_at` None: no time limit runs (a candidate waits for its disk, a learner for a leader).
        self.may_campaign = False
        self.leader_heard_at = now
        self.leader_commit = 0
        self.election_at: int | None = None
        self.votes: dict[int, bool] = {}
        self.vote_seq = 0
        self.silent_elections = 0
        self.election_timeout_ms = 0
        self.restart_election_timer()
        self.election_at = now + self._first_timeout_ms()
        if passive and self.membership.is_alone(node_id):
            # Whatever it holds durably a quorum holds, and nobody else could ever lead and overwrite it.
            self.verified_index = recovered.last_index
            self.commit_to(recovered.last_index)
        self.deposes = bool(self.suspect) and recovered.forgot_term
        """Whether the next leader that is heard has to go: it may count what this node does not know of any more."""
        if self.suspect:
            # Leaders up to this term may count acks that this node has lost, also such as are still under way. In a
            # newer term they lead no more, and its leader was elected without this node's vote: it has all that
            # was committed with those acks.
            self.set_hard_state(self.term + 1, 0)

    # ---------------------------------------------------------------- time

    def enter(self, now: int) -> None:
        """Every input begins here."""
        assert now >= self.now, "monotonic time never goes back"
        self.now = now
        self.clock.read(now)

    def restart_election_timer(self) -> None:
        """A whole election timeout from now, drawn anew so that nodes that start together spread out."""
        config = self.config
        self.election_timeout_ms = self.random.randrange(config.election_min_ms, config.election_max_ms + 1)
        self.election_at = self.now + self.election_timeout_ms

    def _first_timeout_ms(self) -> int:
        """A node that has just started waits less than the others: a leader has connected and made itself heard by
        then, and should it not, pre-votes disturb nobody who hears it. So a cluster that was down as a whole is back
        sooner. Drawn with the election timeout, as spread.
        """
        config = self.config
        least = max(3 * config.heartbeat_ms, config.election_min_ms * 3 // 5)
        share = self.election_timeout_ms - config.election_min_ms
        return least + share * (config.election_min_ms - least) // (
            config.election_max_ms - config.election_min_ms
        )

    def resume_election_timer(self) -> None:
        """This node might not campaign and may now; its timer may have run out meanwhile, without a leader."""
        if self.election_at is None and self.role == FOLLOWER:
            self.election_at = self.now + self.retry_ms()

    def retry_ms(self) -> int:
        """A pause after a lost or split election."""
        return self.random.randrange(self.config.retry_min_ms, self.config.retry_max_ms + 1)

    def heard_leader(self, leader_id: int, commit_index: int, time_ms: int) -> None:
        """The leader of this term gave a sign of life."""
        assert self.role == FOLLOWER
        assert self.leader_id in (0, leader_id), "one leader per term"
        self.leader_id = leader_id
        self.leader_heard_at = self.now
        self.leader_commit = max(self.leader_commit, commit_index)
        self.election_at = self.now + self.election_timeout_ms
        self.silent_elections = 0
        self.clock.observe(self.term, time_ms)

    @property
    def promises(self) -> bool:
        """Whether votes and acks of this node mean anything."""
        return not self.suspect and not self.passive

    def is_led(self) -> bool:
        """Whether a leader was heard so lately that an election would only disturb it."""
        if self.role == LEADER:
            return True  # check-quorum would have ended it
        return self.leader_id != 0 and self.now - self.leader_heard_at < self.config.election_min_ms

    # ---------------------------------------------------------------- messages

    def send(self, to: int, message: peer.Message) -> None:
        """Send at once: nothing in `message` depends on what is not durable."""
        self.messages.append(Send(to, self.term, message))

    def hold(self, to: int, message: peer.Message) -> None:
        """Send when all that is known by now is durable."""
        send = Send(to, self.term, message)
        if not self.writes.hold(send):
            self.messages.append(send)

    # ---------------------------------------------------------------- term and role

    def follow(self, term: int, leader_id: int) -> None:
        """Be a follower in `term`. A follower's timer runs on; the other roles' is set anew."""
        self._end_leadership()
        if term > self.term:
            self.set_hard_state(term, 0)
            self.verified_index = self.commit_index
        if self.role in (PRE_CANDIDATE, CANDIDATE):
            self.election_at = self.now + self.retry_ms()
        elif self.role == LEADER:
            self.restart_election_timer()
        self.role = FOLLOWER
        self.leader_id = leader_id
        self.leader_low_space = False

    def set_hard_state(self, term: int, vote: int) -> None:
        """Enter `term` or vote in it."""
        assert term > self.term or (term == self.term and self.vote in (0, vote)), "one vote per term"
        if term > self.term:
            self.writes.drop_held()
        self.term = term
        self.vote = vote
        self.writes.save(HardState(term, vote))

    def can_campaign(self) -> bool:
        """Whether this node may ask for votes at all."""
        return (
            self.may_campaign
            and self.promises
            and self.installing is None
            and self.membership.may_campaign(self.node_id, self.commit_index)
        )

    def _end_leadership(self) -> None:
        if self.lead is not None:
            self.read_answers += self.lead.reads.fail()
            self.lead = None
            self.clock.stop()

    # ---------------------------------------------------------------- log

    def append(self, entry: Entry) -> None:
        """Put `entry` into the log and the next write; a configuration is active from now on."""
        self.log.append(entry)
        self.last_stamp_ms = entry.stamp_ms
        self.writes.append(entry)
        self.uncommitted.appended(entry.index, entry_bytes(entry))
        if entry.kind == KIND_CONFIGURATION:
            self.membership.append(entry.index, unpack_configuration(entry.payload))

    def truncate(self, first: int) -> None:
        """Cut the log from `first` on."""
        assert max(self.commit_index, self.verified_index) < first, "what is safe is never truncated"
        self.log.truncate(first)
        last = self.log.get(first - 1)
        # If that is not known: the leader that cut it has said a later time.
        self.last_stamp_ms = 0 if last is None else last.stamp_ms
        self.writes.truncate(first)
        self.uncommitted.truncated(first)
        self.membership.truncate(first)

    def commit_to(self, index: int) -> None:
        """Everything up to `index` is committed."""
        if index > self.commit_index:
            assert index <= self.log.last_index
            self.commit_index = index
            self.uncommitted.committed(index)

    def hold_snapshot(self, index: int) -> None:
        """The state machine holds everything up to `index`, which is committed and durable here."""
        self.verified_index = max(self.verified_index, index)
        self.commit_to(index)
        self.delivery.jump(index)

    def finish_install(self, seq: int) -> None:
        """The disk is done up to `seq`: if a snapshot was being installed, the log begins behind it now."""
        point = self.installing
        if point is None or point.seq > seq:
            return
        self.installing = None
        self.resume_election_timer()
        if self.log.matches(point.index, point.term):
            self.log.purge(point.index)
        else:
            self.log.reset(point.index, point.term)
            self.writes.reset(point.index)
            self.uncommitted.reset()
            self.verified_index = min(self.verified_index, point.index)
        self.membership.install(point.index, point.configuration)
        self.clock.observe(self.term, point.stamp_ms)
        self.last_stamp_ms = max(self.last_stamp_ms, point.stamp_ms)
        self.hold_snapshot(point.index)

    def safe_index(self) -> int:
        """Up to where entries are committed and durable here."""
        return min(self.commit_index, self.writes.durable_index)

    def clear_suspicion(self) -> None:
        """Leave SUSPECT once this node holds a committed entry of this term's leader: all before it is here too."""
        if (
            self.suspect
            and not self.passive
            and self.leader_id
            and self.log.term(self.safe_index()) == self.term
        ):
            self.suspect = ""
