"""A fault counts by what it did, not by having been announced: whatever becomes a no-op is missed by the coverage check.

Each kind of fault is made alone, as it is and with its effect taken away.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from danube_raft.sim.disk import Disk
from danube_raft.sim.faults import BRIDGE_NODES, RING_NODES
from danube_raft.sim.full_disks import FullDisks
from danube_raft.sim.nemesis import Nemesis
from danube_raft.sim.network import Network
from danube_raft.sim.node import Node
from danube_raft.sim.process import Clock
from danube_raft.sim.run import EFFECTS, NEEDED, Failure, Idle, Report, attempt, check_coverage, needed_from
from danube_raft.sim.settings import BARE, NODES_MAX, WATCHING, Options, choose
from danube_raft.sim.wall_clock import WallClock
from danube_raft.sim.world import World

SEEDS = (1, 2, 3)

_clock, _disturb = Clock.__init__, Network.disturb


def nothing(*_: Any) -> None:
    """In place of a fault."""


def exact(clock: Clock, schedule: Any, source: Any, _drift_ppm: int = 0) -> None:
    _clock(clock, schedule, source, 0)


def in_time(network: Network, loss: float, repeats: float, swaps: float, _extra_us: int) -> None:
    _disturb(network, loss, repeats, swaps, 0)


NO_OPS = {
    "fail_disk": ("writes_failed", Disk, "fail_next_write", nothing),
    "hang_disk": ("syncs_hung", Disk, "hang", nothing),
    "slow_disk": ("syncs_slowed", Disk, "slow_down", nothing),
    "pause": ("held consensus", Node, "pause", nothing),
    "freeze": ("frozen", Node, "pause", nothing),
    "kill": ("killed consensus", Node, "kill", nothing),
    "tear": ("torn_apart", Node, "crash", nothing),
    "wall_clock": ("misdated", WallClock, "read", WallClock.true_ms),
    "cut_client": ("client_messages_cut", Nemesis, "_cut_client", lambda _: "client 1 from node 1"),
    "one_way": ("lost", Network, "cut", nothing),
    "disturb": ("delayed", Network, "disturb", in_time),
    "crash": ("clocks_apart", Clock, "__init__", exact),
    "no_room": ("refused_for_room", FullDisks, "fill", nothing),
}


FULL = "danube_raft.sim.full_disks.WORLDS_SHARE"


def effects() -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in SEEDS:
        result = attempt(Options(seed, 3, 4.0))
        if isinstance(result, Failure):
            assert isinstance(result.error, Idle), result
        else:
            found += result.effects
    return found


@pytest.mark.parametrize("kind", NO_OPS)
def test_a_fault_without_effect_is_missed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = "wall_clock" if kind == "no_room" else kind
    monkeypatch.setattr("danube_raft.sim.faults.kinds_for", lambda nodes: 8 * (chosen,))
    monkeypatch.setattr(
        "danube_raft.sim.world.choose", lambda options: choose(options)._replace(drift_ppm=20_000)
    )
    monkeypatch.setattr(FULL, float(kind == "no_room"))
    effect, owner, name, no_op = NO_OPS[kind]
    assert effects()[effect] > 0
    monkeypatch.setattr(owner, name, no_op)
    others = dict.fromkeys((each for each in NEEDED if each != effect), 1)
    found = Counter(others) + Counter({effect: effects()[effect]})
    with pytest.raises(Idle, match=f"in no world: {effect}$"):
        check_coverage([Report(1, NODES_MAX, 10.0, 100, 90, 2, 4, found, "")])


def test_a_world_in_which_faults_do_nothing_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was planned and told is no evidence."""
    monkeypatch.setattr("danube_raft.sim.faults.kinds_for", lambda nodes: 8 * ("wall_clock",))
    monkeypatch.setattr(FULL, 0.0)
    monkeypatch.setattr(Nemesis, "_wall_clock", lambda _: "node 1 is 5 ms ahead from now on")
    monkeypatch.setattr("danube_raft.sim.run.FAULTS_MIN", 2)
    result = attempt(Options(1, 3, 4.0))
    assert isinstance(result, Failure)
    assert "no fault had an effect" in result.signature
    assert isinstance(attempt(Options(1, 3, 4.0, faults=())), Report), "unless it was asked for"


def test_a_world_in_which_no_fault_begins_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Nemesis, "_begin", nothing)
    result = attempt(Options(1, 3, 4.0))
    assert isinstance(result, Failure)
    assert "nothing was disturbed" in result.signature


def test_clients_of_every_sort_are_cut_off() -> None:
    """The bare client and the stores of the watchers have answers to lose as well."""
    made = World(Options(next(seed for seed in range(1, 100) if World(Options(seed, 3)).watchers), 3))
    for _ in range(300):
        made.nemesis._cut_client()
    cut = {client for client, _ in made.nemesis.client_cuts}
    assert cut == {0, *range(made.settings.clients), BARE, *range(WATCHING, WATCHING + len(made.watchers))}


# ---------------------------------------------------------------- what is needed from which size on


def report(nodes: int, without: str = "") -> Report:
    names = [name for name in NEEDED if needed_from(name) <= nodes and name != without]
    return Report(1, nodes, 10.0, 100, 90, 2, 4, Counter(dict.fromkeys(names, 1)), "")


@pytest.mark.parametrize("nodes", range(1, NODES_MAX + 1))
def test_what_a_cluster_of_this_size_cannot_show_is_not_asked_of_it(nodes: int) -> None:
    """Links take two nodes: else `--nodes 1` would always end as a failure."""
    check_coverage([report(nodes)])
    with pytest.raises(Idle, match="in no world: boots"):
        check_coverage([report(nodes, "boots")])


def test_what_takes_more_nodes_says_so() -> None:
    assert needed_from("held consensus") == needed_from("session_reads") == 1
    assert needed_from("lost") == needed_from("isolate") == 2
    assert needed_from("truncations") == 3
    assert needed_from("bridge") == BRIDGE_NODES
    assert needed_from("ring") == RING_NODES
    assert {needed_from(name) for name in EFFECTS} == {1, 2, 3}
    with pytest.raises(Idle, match="in no world: clogged"):
        check_coverage([report(2, "clogged")])


def test_one_larger_world_among_many_is_enough_to_ask_for_it() -> None:
    with pytest.raises(Idle, match="in no world: lost"):
        check_coverage([report(1), report(2, "lost")])
