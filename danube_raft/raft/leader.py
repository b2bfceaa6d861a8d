"""The leader: takes proposals, sends the log to its peers, commits, confirms reads (§5.3, §5.4, §6.4 of the paper).

- It appends and never truncates. Its own match index is its durable index, so a slow disk of its own never commits.
- Only entries of its own term are committed by counting; older ones become committed with them (Figure 8).
- Sending waits for `flush`, once per output: whatever was proposed meanwhile travels in one message per peer, and
  the commit index rides on it, or on an empty AppendEntries when there is nothing else to say.
- It steps down when a quorum of voters was silent for an election timeout (check-quorum), and when its own disk has
  not answered for one: neither a lonely nor a mute-disked leader may keep others from electing.
- Every answer it counts is of its own term (`Core.step` sees to that) and from a member.
"""

from __future__ import annotations

from danube_raft.raft import quorum, transfer
from danube_raft.raft.leadership import Leadership
from danube_raft.raft.output import ReadId, Refusal
from danube_raft.raft.progress import PROBE, REPLICATE, SNAPSHOT, Progress
from danube_raft.raft.read_index import NOT_LEADER
from danube_raft.raft.state import LEADER, State
from danube_raft.wire import peer
from danube_raft.wire.entry import ENTRY_OVERHEAD_BYTES, KIND_BATCH, KIND_NOOP, NO_ORIGIN, Entry

OVERLOADED = Refusal("overloaded", 0)


def take_over(state: State) -> None:
    """The votes of a quorum are in: lead this term, and open it with a no-op."""
    state.role = LEADER
    state.leader_id = state.node_id
    state.election_at = None
    state.silent_elections = 0
    first = state.log.last_index + 1
    others = state.membership.others(state.node_id)
    # The no-op's AppendEntries is the first sign of life, so the first heartbeat has time.
    heartbeat_at = state.now + state.config.heartbeat_ms
    state.lead = Leadership(others, first, state.config.waiting_max_commands, state.now, heartbeat_at)
    state.clock.lead(state.term, state.last_stamp_ms, state.now)
    _append(state, KIND_NOOP, NO_ORIGIN, b"", 0)


# ---------------------------------------------------------------- inputs


def propose(state: State, origin: tuple[int, int, int], payload: bytes, wall_ms: int) -> Refusal | None:
    """Append one batch, unless a window is full or leadership is being handed over."""
    config = state.config
    handing_over = _lead(state).transfer
    if handing_over is not None:
        return Refusal(transfer.TRANSFERRING, handing_over.to)
    size = len(payload) + ENTRY_OVERHEAD_BYTES
    uncommitted = state.uncommitted.size_bytes
    if uncommitted and uncommitted + size > config.uncommitted_max_bytes:
        return OVERLOADED
    unacked = state.writes.unacked_bytes
    if unacked and unacked + size > config.unacked_write_max_bytes:
        return OVERLOADED
    _append(state, KIND_BATCH, origin, payload, wall_ms)
    return None


def read_index(state: State, read: ReadId) -> None:
    """Confirm leadership for `read` with the next round of heartbeats."""
    if not _lead(state).reads.add(read):
        state.read_answers.append((read, NOT_LEADER))


def timer(state: State) -> None:
    """Heartbeats, and the two reasons to step down."""
    lead = _lead(state)
    if state.now < lead.heartbeat_at:
        return
    limit = state.config.election_max_ms
    if state.writes.is_stuck(state.now, limit) or state.now - quorum_heard_at(state) > limit:
        state.follow(state.term, 0)
        return
    # Rounds of reads do not move this: under steady reads nothing of the above would ever be looked at.
    lead.heartbeat_at = state.now + state.config.heartbeat_ms
    _heartbeat(state, lead)
    transfer.tick(state, lead)


def advance_commit(state: State) -> None:
    """Commit what a quorum holds durably, if it is of this term."""
    lead = _lead(state)
    held = {to: progress.counted_index for to, progress in lead.peers.items()}
    held[state.node_id] = state.writes.durable_index
    index = quorum.agreed(state.membership.voters, state.membership.outgoing, held)
    # Every entry from the term's no-op on is of this term, and none before it is.
    if index > state.commit_index and index >= lead.first_of_term:
        state.commit_to(index)


def unreachable(state: State, to: int) -> None:
    """A message to `to` was not delivered: what is in flight may be lost too."""
    progress = _lead(state).peers.get(to)
    if progress is not None and progress.state == REPLICATE:
        progress.probe(max(progress.match_index, state.log.purged_index) + 1)
        progress.paused = True  # until it shows a sign of life
        progress.asked_at = state.now


def chunk_read(state: State, entries: tuple[Entry, ...]) -> None:
    """Entries that a peer was waiting for have been read back."""
    for to, progress in _lead(state).peers.items():
        if entries and entries[0].index == progress.next_index and _is_open(state, progress):
            _send_entries(state, to, progress, _prefix(entries, state.config.append_max_bytes))


# ---------------------------------------------------------------- answers of peers


def on_append_reply(state: State, header: peer.Header, message: peer.AppendReply) -> None:
    """An ack moves the peer and perhaps the commit index; a refusal moves the probe."""
    progress = _lead(state).peers.get(header.sender)
    if progress is None:
        return
    _heard(state, progress, message.counted)
    if message.success:
        _acked(state, progress, message.match_index, message.counted)
        transfer.acked(state, _lead(state), header.sender)
    else:
        _refused(state, header.sender, progress, message)


def on_heartbeat_reply(state: State, header: peer.Header, message: peer.HeartbeatReply) -> None:
    """Confirms a round; and shows a peer that lags although everything was sent to it."""
    progress = _lead(state).peers.get(header.sender)
    if progress is None:
        return
    _heard(state, progress, message.counted)
    if message.counted:
        progress.round = max(progress.round, message.round)
    progress.low_space = message.low_space
    if message.match_index < state.log.purged_index or state.log.matches(
        message.match_index, message.match_term
    ):
        _acked(state, progress, message.match_index, message.counted)
    else:
        # It has committed what this leader does not have. It sees that in the entries that it gets, and stops.
        progress.not_counted()
    if state.now - progress.asked_at < state.config.heartbeat_ms // 2:
        return
    progress.paused = False
    if message.match_index < progress.next_index - 1 and progress.state == REPLICATE:
        # Entries, or their acks, may be lost, or the peer has restarted. An empty AppendEntries behind all that was
        # sent finds out: it is acked or refused. If nothing was lost it costs one small message per heartbeat.
        progress.asked_at = state.now
        _send_entries(state, header.sender, progress, ())


def on_second_leader(state: State, header: peer.Header, message: peer.Message) -> None:
    """Nobody else can lead the term that this node leads."""
    raise AssertionError(f"node {header.sender} leads term {state.term} too: {type(message).__name__}")


def _heard(state: State, progress: Progress, counted: bool) -> None:
    progress.counts = counted
    if counted:
        progress.heard_at = state.now
    else:
        progress.not_counted()


def _acked(state: State, progress: Progress, match_index: int, counted: bool) -> None:
    assert match_index <= state.log.last_index, "a peer cannot match what this leader does not have"
    progress.acked(match_index, counted)
    if progress.state == SNAPSHOT and match_index >= state.log.purged_index:
        progress.probe(match_index + 1)
    if counted and match_index > state.commit_index:
        advance_commit(state)


def _refused(state: State, sender: int, progress: Progress, message: peer.AppendReply) -> None:
    refused = message.match_index
    if progress.state == REPLICATE:
        stale = refused <= progress.match_index
    else:
        stale = progress.state != PROBE or refused != progress.next_index - 1
    if progress.state != SNAPSHOT and refused == progress.match_index == progress.next_index - 1:
        # It had acknowledged that: its disk has lost it, noticed or (a mark is some ms old) not. Or the answer is an
        # old one: then the next ack restores what is forgotten here. What was committed with it stays committed.
        state.forgot.append((sender, refused))
        progress.not_counted()
    elif stale:
        return
    log = state.log
    index = log.last_at_most(max(message.hint_index, log.purged_index), message.hint_term)
    if message.hint_index < log.purged_index or log.term(index) > message.hint_term:
        progress.need_snapshot()
    else:
        progress.probe(index + 1)


# ---------------------------------------------------------------- sending


def flush(state: State) -> None:
    """Send what the inputs since the last output have led to."""
    lead = _lead(state)
    if lead.reads.start(state.commit_index):
        _heartbeat(state, lead)
    if lead.reads.waiting:
        rounds = {to: progress.round for to, progress in lead.peers.items()}
        rounds[state.node_id] = lead.reads.number
        number = quorum.agreed(state.membership.voters, state.membership.outgoing, rounds)
        state.read_answers += lead.reads.confirmed(number, state.commit_index)
    for to, progress in lead.peers.items():
        _replicate(state, to, progress)


def _replicate(state: State, to: int, progress: Progress) -> None:
    log = state.log
    while progress.next_index <= log.last_index and _is_open(state, progress):
        if progress.next_index <= log.purged_index:
            progress.need_snapshot()
            return
        entries = log.slice(progress.next_index, state.config.append_max_bytes)
        if not entries:
            log.request(progress.next_index, state.config.append_max_bytes)
            return
        _send_entries(state, to, progress, entries)
    if progress.next_index > log.last_index:
        tells_commit = progress.state == REPLICATE and progress.commit_sent < state.commit_index
        if tells_commit or (progress.state == PROBE and not progress.paused):
            _send_entries(state, to, progress, ())


def _is_open(state: State, progress: Progress) -> bool:
    return progress.is_open(state.config.inflight_max_messages, state.config.inflight_max_bytes)


def _send_entries(state: State, to: int, progress: Progress, entries: tuple[Entry, ...]) -> None:
    prev = progress.next_index - 1
    if prev < state.log.purged_index:
        progress.need_snapshot()
        return
    prev_term = state.log.term(prev)
    time_ms = state.clock.read(state.now)
    state.send(to, peer.AppendEntries(prev, prev_term, state.commit_index, time_ms, entries))
    progress.commit_sent = state.commit_index
    if progress.state == PROBE:
        progress.asked_at = state.now
    if entries or progress.state == PROBE:
        size = sum([len(entry.payload) + ENTRY_OVERHEAD_BYTES for entry in entries])
        progress.sent(prev + len(entries), size)


def _heartbeat(state: State, lead: Leadership) -> None:
    time_ms = state.clock.read(state.now)
    # Whoever has not answered yet may be the one with room; one round later it is known.
    low_space = state.low_space and not transfer.successor(state, unheard=True)
    for to in lead.peers:
        state.send(to, peer.Heartbeat(lead.reads.number, state.commit_index, time_ms, low_space))


def _prefix(entries: tuple[Entry, ...], max_bytes: int) -> tuple[Entry, ...]:
    size = 0
    for place, entry in enumerate(entries):
        size += len(entry.payload) + ENTRY_OVERHEAD_BYTES
        if place and size > max_bytes:
            return entries[:place]
    return entries


# ---------------------------------------------------------------- itself


def _append(state: State, kind: int, origin: tuple[int, int, int], payload: bytes, wall_ms: int) -> None:
    index = state.log.last_index + 1
    stamp_ms = state.clock.read(state.now)
    state.append(Entry(index, state.term, kind, stamp_ms, wall_ms, origin, payload))


def quorum_heard_at(state: State) -> int:
    """The latest time by which a quorum of voters had been heard in this term."""
    lead = _lead(state)
    heard = {to: progress.heard_at for to, progress in lead.peers.items()}
    heard[state.node_id] = state.now
    return quorum.agreed(state.membership.voters, state.membership.outgoing, heard)


def _lead(state: State) -> Leadership:
    assert state.lead is not None, "only a leader gets here"
    return state.lead
