"""Elections: pre-candidate and candidate (§5.2 of the paper, pre-vote: §9.6 of the thesis).

- A pre-candidate asks whether it could win, in its old term, and changes nothing anywhere. Only a quorum of pre-votes
  makes it a candidate, which enters a new term: so a cut-off node does not drive terms up. Only a leader that hands over
  may spare a node the asking; should that election fail, the next one begins with pre-votes again.
- Answers are kept per voter, and each round of asking begins with none (raft-rs #83, #84).
- A candidate's requests are held until its own vote is durable, and that vote counts from then on. While its disk
  is silent no time limit runs, so that a slow disk does not drive terms up either.
- A lost or split round is repeated after `retry_min_ms` to `retry_max_ms`. Where nobody refused, voters may merely be
  slow: then the pause doubles each time, up to an election timeout.
- A sole voter campaigns at once. A node whose disk does not answer does not campaign at all.
"""

from __future__ import annotations

from danube_raft.raft import follower, leader, quorum
from danube_raft.raft.state import CANDIDATE, FOLLOWER, PRE_CANDIDATE, State
from danube_raft.wire import peer

# ---------------------------------------------------------------- time and disk


def follower_timer(state: State) -> None:
    """No leader was heard for an election timeout."""
    if not _is_due(state):
        return
    state.leader_id = 0
    if not state.can_campaign():
        state.election_at = None  # a leader, or the right to campaign, starts it again
    elif state.writes.is_stuck(state.now, state.config.election_max_ms):
        state.election_at = state.now + state.retry_ms()
    else:
        pre_campaign(state)


def candidate_timer(state: State) -> None:
    """The round is lost or split: ask again."""
    if not _is_due(state):
        return
    if state.writes.is_stuck(state.now, state.config.election_max_ms):
        state.election_at = state.now + state.retry_ms()
        return
    if state.role == CANDIDATE and False not in state.votes.values():
        state.silent_elections += 1
    pre_campaign(state)


def on_durable(state: State) -> None:
    """The candidate's own vote counts once it is durable; the requests have left, so time runs."""
    if state.node_id not in state.votes and state.writes.durable_seq >= state.vote_seq:
        state.votes[state.node_id] = True
        pause = state.retry_ms() << min(state.silent_elections, 8)
        state.election_at = state.now + min(pause, state.config.election_max_ms)
        _count_votes(state)


def campaign_if_alone(state: State) -> None:
    """A sole voter has nobody to wait for."""
    if (
        state.role == FOLLOWER
        and state.membership.is_sole_voter(state.node_id)
        and state.can_campaign()
        and not state.writes.is_stuck(state.now, state.config.election_max_ms)
    ):
        pre_campaign(state)


def on_timeout_now(state: State, _header: peer.Header, _message: peer.TimeoutNow) -> None:
    """The leader hands over to this node, which campaigns at once: nobody need be asked whether that disturbs."""
    if state.can_campaign() and not state.writes.is_stuck(state.now, state.config.election_max_ms):
        _campaign(state, transfer=True)


def _is_due(state: State) -> bool:
    return state.election_at is not None and state.now >= state.election_at


# ---------------------------------------------------------------- asking


def pre_campaign(state: State) -> None:
    """Ask whether an election could be won."""
    assert state.can_campaign()
    state.role = PRE_CANDIDATE
    state.leader_id = 0
    state.votes = {state.node_id: True}
    state.election_at = state.now + state.retry_ms()
    request = peer.RequestPreVote(state.term + 1, state.log.last_index, state.log.last_term)
    for voter in state.membership.other_voters(state.node_id):
        state.send(voter, request)
    _count_pre_votes(state)


def _campaign(state: State, transfer: bool = False) -> None:
    state.role = CANDIDATE
    state.leader_id = 0
    state.votes = {}
    state.election_at = None
    state.verified_index = state.commit_index
    state.set_hard_state(state.term + 1, state.node_id)
    state.vote_seq = state.writes.barrier
    request = peer.RequestVote(state.log.last_index, state.log.last_term, transfer)
    for voter in state.membership.other_voters(state.node_id):
        state.hold(voter, request)


# ---------------------------------------------------------------- answers


def on_pre_vote_reply(state: State, header: peer.Header, message: peer.PreVoteReply) -> None:
    """An answer to the round that is being asked."""
    if message.next_term == state.term + 1:
        state.votes[header.sender] = message.granted
        _count_pre_votes(state)


def on_vote_reply(state: State, header: peer.Header, message: peer.VoteReply) -> None:
    """A vote, or its refusal, in this term."""
    state.votes[header.sender] = message.granted
    if not message.granted and state.election_at is not None:
        state.election_at = min(state.election_at, state.now + state.retry_ms())
    _count_votes(state)


def _count_pre_votes(state: State) -> None:
    if quorum.tally(state.membership.voters, state.membership.outgoing, state.votes) == quorum.WON:
        _campaign(state)


def _count_votes(state: State) -> None:
    if quorum.tally(state.membership.voters, state.membership.outgoing, state.votes) == quorum.WON:
        leader.take_over(state)


# ---------------------------------------------------------------- somebody else has won


def on_append_entries(state: State, header: peer.Header, message: peer.AppendEntries) -> None:
    """The term has a leader."""
    _yield_to(state, header)
    follower.on_append_entries(state, header, message)


def on_heartbeat(state: State, header: peer.Header, message: peer.Heartbeat) -> None:
    """The term has a leader."""
    _yield_to(state, header)
    follower.on_heartbeat(state, header, message)


def _yield_to(state: State, header: peer.Header) -> None:
    state.follow(state.term, header.sender)
