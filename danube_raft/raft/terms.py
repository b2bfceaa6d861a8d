"""What a message of another term means (§5.1 of the paper).

- A newer term makes this node its follower at once, in every role. Two exceptions: a request for a pre-vote changes
  nothing, and a request for a vote is ignored while a leader is heard, so that a node that was cut off does no harm.
- An older one is answered with the newer one and otherwise inert: the receiver becomes a follower of it.
- A node that has forgotten its terms makes that of the first leader that it hears an older one.
"""

from __future__ import annotations

from danube_raft.raft.state import State
from danube_raft.wire import peer

_FROM_LEADER = (peer.AppendEntries, peer.Heartbeat)


def see(state: State, header: peer.Header, message: peer.Message) -> None:
    """`header` has a newer term, or this node has yet to depose a leader."""
    from_leader = isinstance(message, _FROM_LEADER)
    if state.deposes and from_leader and not state.passive and header.term >= state.term:
        state.deposes = False
        state.follow(header.term + 1, 0)
    if header.term <= state.term or isinstance(message, peer.RequestPreVote):
        return
    if isinstance(message, peer.RequestVote) and not message.transfer and state.is_led():
        return
    state.follow(header.term, header.sender if from_leader else 0)


def answer_older(state: State, header: peer.Header, message: peer.Message) -> None:
    """`header` has an older term. Of the answer only the term in its header matters."""
    if isinstance(message, peer.RequestVote):
        state.send(header.sender, peer.VoteReply(False))
    elif isinstance(message, peer.AppendEntries):
        state.send(header.sender, peer.AppendReply(False, message.prev_index, 0, 0, False))
    elif isinstance(message, peer.Heartbeat):
        state.send(header.sender, peer.HeartbeatReply(message.round, 0, 0, False))
