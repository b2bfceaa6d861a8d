"""Handing leadership over (§3.10 of the Raft thesis; PITFALLS 10).

- The leader takes no proposals meanwhile, so that its log stands still, and goes on replicating. When the target has all
  of it durably, it is told to campaign at once (TimeoutNow), without asking for pre-votes; voters that hear a leader
  let its request pass because it says `transfer`.
- TimeoutNow is repeated with every heartbeat, since it may be lost. A late one is inert in a newer term; in the same term
  it only makes an election that could have been.
- After the shortest election timeout it is given up, and proposals are taken again. Nothing else has changed: reads are
  confirmed as always, since a quorum that answers this term's heartbeats has elected nobody else.
- For lack of space only to a peer that has said in this term that it has room: among nodes that are all low leadership
  would go round for ever, each new leader having heard nothing yet.
- Never to a learner, a stranger, a SUSPECT peer (it must not campaign), one that is silent or one that needs a snapshot.
- One at a time: asked again for the same target it goes on, for another one it is refused.
"""

from __future__ import annotations

from collections.abc import Collection

from danube_raft.raft.leadership import Leadership, Transfer
from danube_raft.raft.output import Refusal
from danube_raft.raft.progress import SNAPSHOT
from danube_raft.raft.state import State
from danube_raft.wire import peer

TRANSFERRING = "transferring"


def begin(state: State, to: int) -> Refusal | None:
    """Begin to hand over to `to`. Refused as transferring (to another one), or as unfit."""
    lead = _lead(state)
    if lead.transfer is not None:
        return None if lead.transfer.to == to else Refusal(TRANSFERRING, lead.transfer.to)
    if not _is_fit(state, lead, to):
        return Refusal("unfit", 0)
    lead.transfer = Transfer(to, state.now + state.config.election_min_ms)
    advance(state, lead)
    return None


def successor(state: State, *, unheard: bool, shunned: Collection[int] = ()) -> int:
    """The fit voter, with room on its disk and none of the `shunned`, whose log is known to reach farthest; 0: there is
    none. `unheard`: also one that has not said yet whether it has room."""
    lead = _lead(state)
    roomy = (False, None) if unheard else (False,)
    fit = [
        to
        for to, progress in lead.peers.items()
        if progress.low_space in roomy and to not in shunned and _is_fit(state, lead, to)
    ]
    return max(fit, key=lambda to: (lead.peers[to].counted_index, -to), default=0)


def advance(state: State, lead: Leadership) -> None:
    """Tell the target to campaign if it has everything."""
    transfer = lead.transfer
    if transfer is not None and lead.peers[transfer.to].counted_index == state.log.last_index:
        state.send(transfer.to, peer.TimeoutNow())


def acked(state: State, lead: Leadership, sender: int) -> None:
    """`sender` has acknowledged entries."""
    if lead.transfer is not None and lead.transfer.to == sender:
        advance(state, lead)


def tick(state: State, lead: Leadership) -> None:
    """With every heartbeat: repeat, or give up."""
    if lead.transfer is not None and state.now >= lead.transfer.until:
        lead.transfer = None
    advance(state, lead)


def _is_fit(state: State, lead: Leadership, to: int) -> bool:
    progress = lead.peers.get(to)
    return (
        progress is not None
        and to in state.membership.voters
        and progress.counted_index > 0
        and progress.state != SNAPSHOT
        and state.now - progress.heard_at < state.config.election_min_ms
    )


def _lead(state: State) -> Leadership:
    assert state.lead is not None, "only a leader hands over"
    return state.lead
