"""The table role × message of the Raft core, and role × timer.

- Every role has a row for every Raft message; `_inert` says that it has no effect there.
- Only messages of the current term get here, and the two about pre-votes, which speak of a term that nobody is in yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from danube_raft.raft import candidate, follower, leader
from danube_raft.raft.state import CANDIDATE, FOLLOWER, LEADER, PRE_CANDIDATE, State
from danube_raft.wire import peer

Handler = Callable[[State, peer.Header, Any], None]


def _inert(state: State, header: peer.Header, message: peer.Message) -> None:
    """This message has no effect in this role: it is late, or meant for a role that was given up."""


TABLE: dict[str, dict[type[peer.Message], Handler]] = {
    FOLLOWER: {
        peer.RequestPreVote: follower.on_request_pre_vote,
        peer.PreVoteReply: _inert,
        peer.RequestVote: follower.on_request_vote,
        peer.VoteReply: _inert,
        peer.AppendEntries: follower.on_append_entries,
        peer.AppendReply: _inert,
        peer.Heartbeat: follower.on_heartbeat,
        peer.HeartbeatReply: _inert,
        peer.TimeoutNow: candidate.on_timeout_now,
    },
    PRE_CANDIDATE: {
        peer.RequestPreVote: follower.on_request_pre_vote,
        peer.PreVoteReply: candidate.on_pre_vote_reply,
        peer.RequestVote: follower.on_request_vote,
        peer.VoteReply: _inert,
        peer.AppendEntries: candidate.on_append_entries,
        peer.AppendReply: _inert,
        peer.Heartbeat: candidate.on_heartbeat,
        peer.HeartbeatReply: _inert,
        peer.TimeoutNow: candidate.on_timeout_now,
    },
    CANDIDATE: {
        peer.RequestPreVote: follower.on_request_pre_vote,
        peer.PreVoteReply: _inert,
        peer.RequestVote: follower.refuse_vote,
        peer.VoteReply: candidate.on_vote_reply,
        peer.AppendEntries: candidate.on_append_entries,
        peer.AppendReply: _inert,
        peer.Heartbeat: candidate.on_heartbeat,
        peer.HeartbeatReply: _inert,
        peer.TimeoutNow: _inert,
    },
    LEADER: {
        peer.RequestPreVote: follower.on_request_pre_vote,
        peer.PreVoteReply: _inert,
        peer.RequestVote: follower.refuse_vote,
        peer.VoteReply: _inert,
        peer.AppendEntries: leader.on_second_leader,
        peer.AppendReply: leader.on_append_reply,
        peer.Heartbeat: leader.on_second_leader,
        peer.HeartbeatReply: leader.on_heartbeat_reply,
        peer.TimeoutNow: leader.on_second_leader,
    },
}

TIMERS: dict[str, Callable[[State], None]] = {
    FOLLOWER: candidate.follower_timer,
    PRE_CANDIDATE: candidate.candidate_timer,
    CANDIDATE: candidate.candidate_timer,
    LEADER: leader.timer,
}

RAFT_MESSAGES = frozenset(TABLE[FOLLOWER])
"""What `Core.step` takes; other peer messages belong to whoever drives the core."""
