"""Majorities against brute force: every configuration of up to five nodes, alone and in joint consensus.

Who is who plays no part, so a configuration is how many nodes are in the one set, in the other, and in both.
"""

from itertools import combinations, product

import pytest

from danube_raft.raft import quorum

NODES_MAX = 5
IDS = (40, 7, 300, 1, 52)
"""In no order that could help."""


def configurations() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(voters, outgoing) of every shape."""
    counts = range(NODES_MAX + 1)
    shapes = [shape for shape in product(counts, repeat=3) if sum(shape) <= NODES_MAX]
    return [(IDS[: new + both], IDS[new : new + both + old]) for new, both, old in shapes]


CONFIGURATIONS = configurations()


def is_quorum(voters: tuple[int, ...], outgoing: tuple[int, ...], nodes: set[int]) -> bool:
    """By the definition: more than half of each set that is in force, and none without voters."""
    halves = [voters, outgoing] if outgoing else [voters]
    return all(2 * len(nodes & set(half)) > len(half) for half in halves)


def subsets(nodes: tuple[int, ...]) -> list[set[int]]:
    return [set(chosen) for size in range(len(nodes) + 1) for chosen in combinations(nodes, size)]


@pytest.mark.parametrize(("voters", "outgoing"), CONFIGURATIONS, ids=str)
def test_agreed(voters: tuple[int, ...], outgoing: tuple[int, ...]) -> None:
    """The highest value that some quorum has reached; a node outside, however far ahead, plays no part."""
    nodes = tuple(sorted({*voters, *outgoing}))
    for values in product(range(len(nodes) + 1), repeat=len(nodes)):
        reached = dict(zip(nodes, values, strict=True))
        expected = max(
            (
                value
                for value in range(len(nodes) + 1)
                if is_quorum(voters, outgoing, {node for node in nodes if reached[node] >= value})
            ),
            default=0,
        )
        assert quorum.agreed(voters, outgoing, {**reached, 9: 99}) == expected


@pytest.mark.parametrize(("voters", "outgoing"), CONFIGURATIONS, ids=str)
def test_tally(voters: tuple[int, ...], outgoing: tuple[int, ...]) -> None:
    """Won when the granted are a quorum; lost when even all who have not refused would be none."""
    nodes = tuple(sorted({*voters, *outgoing}))
    for answers in product((None, True, False), repeat=len(nodes)):
        votes = {node: answer for node, answer in zip(nodes, answers, strict=True) if answer is not None}
        granted = {node for node, answer in votes.items() if answer}
        possible = {node for node in nodes if votes.get(node) is not False}
        if is_quorum(voters, outgoing, granted):
            expected = quorum.WON
        elif is_quorum(voters, outgoing, possible):
            expected = quorum.OPEN
        else:
            expected = quorum.LOST
        assert quorum.tally(voters, outgoing, {**votes, 9: True}) == expected


def test_two_quorums_share_a_node() -> None:
    """What all of Raft rests on, also for the old against the joint and the joint against the new voters."""
    for new, old in CONFIGURATIONS:
        if not new or not old:
            continue
        nodes = tuple(sorted({*old, *new}))
        joint = [chosen for chosen in subsets(nodes) if is_quorum(new, old, chosen)]
        for one in joint:
            for half in (old, new):
                assert all(one & other for other in subsets(nodes) if is_quorum(half, (), other))


def test_no_voters_decide_nothing() -> None:
    """A node without a configuration is no majority of none."""
    assert quorum.agreed((), (), {1: 5}) == 0
    assert quorum.tally((), (), {1: True}) != quorum.WON
