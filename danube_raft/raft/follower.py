"""The follower: appends what the leader of its term sends, and votes (§5.2 to §5.4 of the paper).

- Entries are cut off only from the first one that conflicts, never merely because a message is short (PITFALLS 13).
- What is committed matches by definition: entries at or below the commit index are checked and skipped, also when
  they are purged (PITFALLS 15). Should they not match, others have lost what was committed and went on without it, as
  after `accept_loss`: then this node stops, since one of the two is not the truth, and no ack may mix them.
- An ack says "durable": it is held until it is. A refusal promises nothing and leaves at once; its `match_index` is
  the refused index, so that the leader can tell a late refusal, and its hint the entry that may match instead.
- An empty message that matches where all was known to match already only tells the commit index: it gets no answer,
  which halves what a commit costs. Should an ack be lost, the answer to a heartbeat says the same.
- A vote is given once per term, to a log that is no older, and is held until it is durable. Own membership plays no
  part: a learner that has not yet seen its promotion must vote (PITFALLS 9).
- Over its credit for unacknowledged writes, and while a snapshot is being installed, it ignores entries; the leader
  repeats.
- A passive node (its disk is full) takes no entries and promises nothing. It learns what of its log is committed, and
  refuses where the logs differ, which is how the leader finds out where they meet.
"""

from __future__ import annotations

from danube_raft.errors import Corrupt
from danube_raft.raft.state import State
from danube_raft.wire import peer
from danube_raft.wire.entry import Entry

TWO_HISTORIES = (
    "entry {index} is committed here, of term {ours}, and the leader, node {leader}, has one of term {theirs} there: others "
    "have lost what was committed (a disk that forgot, or `danube-raft node accept-loss`) and went on without it; nothing was "
    "changed here. To have this node follow them keep a copy of its data directory, move log/ and snapshots/ out of it and "
    "start the node again; what only it has is in its newest snapshot, see `danube-raft snapshot restore`"
)

# ---------------------------------------------------------------- the leader's messages


def on_append_entries(state: State, header: peer.Header, message: peer.AppendEntries) -> None:
    """Bring the log in line with the leader's."""
    state.heard_leader(header.sender, message.commit_index, message.time_ms)
    if state.installing is not None or state.writes.unacked_bytes >= state.config.unacked_write_max_bytes:
        return
    prev, entries = message.prev_index, message.entries
    if prev <= state.commit_index:
        known = state.commit_index - prev
        _be_same(state, header.sender, prev, message.prev_term)
        for entry in entries[:known]:
            _be_same(state, header.sender, entry.index, entry.term)
        prev, entries = state.commit_index, entries[known:]
    elif not state.log.matches(prev, message.prev_term):
        _refuse(state, header.sender, message)
        return
    if state.passive:
        _compare(state, prev, entries)
        state.commit_to(min(message.commit_index, state.verified_index))
        return
    # Not what is committed behind it: that is not compared with the leader's log yet.
    last = message.prev_index + len(message.entries)
    is_news = bool(message.entries) or last > state.verified_index
    _take(state, entries)
    state.verified_index = max(state.verified_index, last)
    state.commit_to(min(message.commit_index, state.verified_index))
    if is_news:
        state.hold(header.sender, peer.AppendReply(True, last, 0, 0, state.promises))


def on_heartbeat(state: State, header: peer.Header, message: peer.Heartbeat) -> None:
    """Confirm that nobody newer is known here, and tell what is known to match."""
    state.heard_leader(header.sender, message.commit_index, message.time_ms)
    state.commit_to(min(message.commit_index, state.verified_index))
    match_index = min(state.verified_index, state.writes.durable_index)
    state.leader_low_space = message.low_space
    reply = peer.HeartbeatReply(
        message.round, match_index, state.log.term(match_index), state.promises, state.low_space
    )
    state.send(header.sender, reply)


def _take(state: State, entries: tuple[Entry, ...]) -> None:
    log = state.log
    for place, entry in enumerate(entries):
        if entry.index > log.last_index:
            for new in entries[place:]:
                state.append(new)
            return
        if log.term(entry.index) != entry.term:
            state.truncate(entry.index)
            state.append(entry)


def _compare(state: State, prev: int, entries: tuple[Entry, ...]) -> None:
    """Learn how far the log, which must stay as it is, matches the leader's."""
    known = prev
    for entry in entries:
        if entry.index > state.log.last_index or state.log.term(entry.index) != entry.term:
            break
        known = entry.index
    state.verified_index = max(state.verified_index, known)


def _refuse(state: State, leader_id: int, message: peer.AppendEntries) -> None:
    log = state.log
    hint = log.last_at_most(message.prev_index, message.prev_term)
    hint = max(hint, state.commit_index)
    counted = state.promises
    state.send(leader_id, peer.AppendReply(False, message.prev_index, hint, log.term(hint), counted))


def _be_same(state: State, leader: int, index: int, term: int) -> None:
    """The leader has an entry of `term` where one is committed here. Raises Corrupt if it is not that one; of what is purged
    only the last term is known, and all before it are no later."""
    purged = state.log.purged_index
    ours = state.log.term(max(index, purged))
    if term > ours or (term < ours and index >= purged):
        raise Corrupt(TWO_HISTORIES.format(index=index, ours=ours, leader=leader, theirs=term))


# ---------------------------------------------------------------- votes


def on_request_vote(state: State, header: peer.Header, message: peer.RequestVote) -> None:
    """Vote, once per term."""
    free = state.vote == header.sender or (state.vote == 0 and state.leader_id == 0)
    up_to_date = state.log.is_up_to_date(message.last_index, message.last_term)
    if not (free and up_to_date and state.promises):
        state.send(header.sender, peer.VoteReply(False))
        return
    if state.vote == 0:
        state.set_hard_state(state.term, header.sender)
    if state.election_at is not None:
        state.election_at = state.now + state.election_timeout_ms
    state.hold(header.sender, peer.VoteReply(True))


def on_request_pre_vote(state: State, header: peer.Header, message: peer.RequestPreVote) -> None:
    """Would this node vote? In every role; changes nothing here."""
    granted = (
        message.next_term > state.term
        and state.promises
        and not state.is_led()
        and state.log.is_up_to_date(message.last_index, message.last_term)
    )
    state.send(header.sender, peer.PreVoteReply(message.next_term, granted))


def refuse_vote(state: State, header: peer.Header, _message: peer.RequestVote) -> None:
    """The vote of this term is given: to this node itself."""
    state.send(header.sender, peer.VoteReply(False))
