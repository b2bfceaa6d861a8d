"""Majorities, also of two overlapping sets of voters (joint consensus, §6 of the Raft paper; thesis §4.3).

- A decision needs a majority of `voters` and, while `outgoing` is not empty, a majority of `outgoing` as well.
- Who is in neither set is not counted: learners, removed nodes, strangers.
- Values are per node, never per message: one duplicated packet is no second vote.
- An empty set of voters decides nothing: a node that knows no configuration must not find itself a majority.
"""

from __future__ import annotations

from collections.abc import Mapping

WON = "won"
LOST = "lost"
OPEN = "open"


def agreed(voters: tuple[int, ...], outgoing: tuple[int, ...], values: Mapping[int, int]) -> int:
    """The highest value that a quorum has reached. Who has no value counts as 0; so does an empty set."""
    reached = _majority_value(voters, values)
    return min(reached, _majority_value(outgoing, values)) if outgoing else reached


def tally(voters: tuple[int, ...], outgoing: tuple[int, ...], votes: Mapping[int, bool]) -> str:
    """WON, LOST (no majority can come about any more) or OPEN."""
    results = {_tally_half(voters, votes)}
    if outgoing:
        results.add(_tally_half(outgoing, votes))
    if LOST in results:
        return LOST
    return OPEN if OPEN in results else WON


def _majority_value(voters: tuple[int, ...], values: Mapping[int, int]) -> int:
    if not voters:
        return 0
    # In descending order, the value at place n // 2 is reached by n // 2 + 1 voters: the smallest majority.
    return sorted([values.get(voter, 0) for voter in voters], reverse=True)[len(voters) // 2]


def _tally_half(voters: tuple[int, ...], votes: Mapping[int, bool]) -> str:
    majority = len(voters) // 2 + 1
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= majority:
        return WON
    return LOST if len(voters) - refused < majority else OPEN
