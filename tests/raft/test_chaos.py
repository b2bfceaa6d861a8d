"""Random faults against the claims of the paper; see chaos.py for what is checked."""

import pytest

from .chaos import CONFIG, Chaos

FIVE_ELECTION_TIMEOUTS_MS = 5 * CONFIG.election_max_ms


def run(seeds: range, size: int, *, lose_disks: bool = False, snapshots: bool = False) -> dict[str, int]:
    total = {"answered": 0, "elections": 0, "restarts": 0, "truncations": 0, "chunks": 0, "committed": 0}
    if snapshots:
        total |= {"purges": 0, "installs": 0}
    for seed in seeds:
        chaos = Chaos(seed, size, lose_disks=lose_disks, snapshots=snapshots)
        try:
            chaos.run(4_000)
            chaos.heal(FIVE_ELECTION_TIMEOUTS_MS)
        except AssertionError as error:
            error.add_note(f"Chaos({seed}, {size}, lose_disks={lose_disks}, snapshots={snapshots})")
            raise
        for name in total:
            total[name] += len(chaos.committed) if name == "committed" else chaos.counts[name]
    return total


@pytest.mark.parametrize("seeds", [range(start, start + 40) for start in range(0, 160, 40)], ids=str)
def test_three_voters(seeds: range) -> None:
    """Nothing that was committed is lost or changed, and three nodes recover when the faults end."""
    total = run(seeds, 3)
    # A run without elections, restarts, reads and commits would prove nothing.
    assert min(total.values()) > len(seeds), total


def test_five_voters() -> None:
    """The same with five."""
    total = run(range(1000, 1060), 5)
    assert min(total.values()) > 20, total


def test_disks_that_forget() -> None:
    """One disk at a time may lose what it had acknowledged, and say so: SUSPECT keeps the rest safe."""
    total = run(range(2000, 2060), 3, lose_disks=True)
    assert min(total.values()) > 20, total


@pytest.mark.parametrize("size", [3, 5])
def test_logs_that_are_purged(size: int) -> None:
    """Nodes forget what a snapshot holds, and whoever lags behind gets one: nothing is lost, doubled or left out."""
    total = run(range(3000, 3060), size, snapshots=True)
    assert min(total.values()) > 20, total


def test_purged_logs_on_disks_that_forget() -> None:
    """Both at once: a node whose disk forgot what its snapshot does not hold asks for it again."""
    total = run(range(4000, 4060), 3, lose_disks=True, snapshots=True)
    assert min(total.values()) > 20, total
