"""Shapes of partitions in which nobody is cut off: who hears whom."""

from __future__ import annotations

Pairs = set[frozenset[int]]


def ring(ids: list[int]) -> tuple[Pairs, list[int]]:
    """Every node hears only those next to it in the ring of `ids`, on both sides, and with an odd rest whoever is
    opposite: each sees a majority, and no two the same one. The pairs, and how far away those are whom a node hears."""
    count, half = len(ids), len(ids) // 2
    steps = set(range(1, half // 2 + 1))
    if half % 2:
        # With seven nobody is opposite: one more on each side, since links are cut in both directions.
        steps.add(half if count % 2 == 0 else half // 2 + 1)
    pairs = {frozenset((ids[at], ids[(at + step) % count])) for at in range(count) for step in steps}
    return pairs, sorted(steps)


def bridge(ids: list[int]) -> tuple[Pairs, tuple[list[int], list[int]]]:
    """Two sides that only the first of `ids` hears both of. The pairs, and the sides."""
    middle, *rest = ids
    half = len(rest) // 2
    sides = (rest[:half], rest[half:])
    pairs = {frozenset((a, b)) for side in sides for a in [middle, *side] for b in side if a != b}
    return pairs, (sorted(sides[0]), sorted(sides[1]))
