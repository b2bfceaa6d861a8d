"""Faults are what the plan says, each disturbs what it is named after, and any of them can be left out."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter

import pytest

from danube_raft.sim.faults import AMONG_SEVERAL, ANYWHERE, LOSSES, MEND, kinds_for, plan
from danube_raft.sim.network import QUEUE_FRAMES, Link, Network
from danube_raft.sim.process import Clock
from danube_raft.sim.run import Report, attempt
from danube_raft.sim.schedule import MS, SECOND, Schedule
from danube_raft.sim.settings import Options
from danube_raft.sim.snapshot_faults import NOTHING
from danube_raft.sim.world import World

LENGTH = 12 * SECOND


def world(seed: int, nodes: int = 3, faults: tuple[int, ...] | None = None) -> World:
    made = World(Options(seed, nodes, 6.0, faults))
    made.run()
    return made


# ---------------------------------------------------------------- the plan


def test_a_plan_begins_with_a_fault_and_has_a_calm_in_its_middle() -> None:
    for seed in range(200):
        faults = plan(random.Random(seed), 3, LENGTH)
        assert faults[0].kind != MEND
        assert [fault.number for fault in faults] == list(range(len(faults)))
        assert all(before.at < after.at < LENGTH for before, after in itertools.pairwise(faults))
        late = [fault for fault in faults if fault.at >= LENGTH // 2]
        if late:
            assert late[0].kind == MEND
            assert not [fault for fault in late[1:] if fault.at < late[0].at + LENGTH // 10]


def test_faults_go_on_after_the_calm() -> None:
    """What only a fault on top of a long history shows would else never be met."""
    late = [
        fault for seed in range(20) for fault in plan(random.Random(seed), 3, LENGTH) if fault.at > 8 * SECOND
    ]
    assert len(late) > 40


def test_every_kind_is_planned_where_it_makes_sense() -> None:
    planned = {
        nodes: {fault.kind for seed in range(300) for fault in plan(random.Random(seed), nodes, LENGTH)}
        for nodes in (1, 2, 3, 5)
    }
    assert planned[1] == {*ANYWHERE, MEND}
    assert planned[2] == {*ANYWHERE, *AMONG_SEVERAL, MEND}
    assert planned[3] == planned[2] | {"bridge", *LOSSES}
    assert planned[5] == planned[3] | {"ring"}
    assert set(kinds_for(7)) == planned[5] - {MEND}


SAID = rf"({NOTHING}|.*(node \d|\[\d|all nodes|to \w|links and disks).*)"
"""Of each fault: whom it disturbs."""


@pytest.mark.parametrize("seed", [7, 13])
def test_a_world_makes_the_faults_that_it_planned_and_says_what_they_were(seed: int) -> None:
    made = world(seed)
    told = made.nemesis.told
    assert [each.fault for each in told] == sorted(made.nemesis.planned, key=lambda fault: fault.at)
    for each in told:
        number, at, kind = each.fault
        assert re.fullmatch(rf" *{number} +{at / SECOND:.6f} s  {kind}: {SAID}", str(each)), each
    done = Counter(each.fault.kind for each in told if each.what != NOTHING)
    assert {kind: made.nemesis.done[kind] for kind in done} == done
    assert made.nemesis.faults == done.total() - done[MEND] > 0


def test_a_world_without_some_of_its_faults_has_the_others_as_they_were() -> None:
    everything = world(11).nemesis.told
    kept = tuple(told.fault.number for told in everything[1:])
    assert [told.fault for told in world(11, faults=kept).nemesis.told] == [
        told.fault for told in everything[1:]
    ]
    assert world(11, faults=()).nemesis.told == []


@pytest.mark.parametrize("kind", sorted({*ANYWHERE, *AMONG_SEVERAL, *LOSSES, "bridge", "ring"}))
def test_each_kind_finds_something_to_disturb(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danube_raft.sim.faults.kinds_for", lambda nodes: 8 * (kind,))
    done: Counter[str] = Counter()
    for seed in (1, 2, 3):
        result = attempt(Options(seed, 5, 4.0))
        assert isinstance(result, Report), result
        done += result.effects
    assert done[kind] > 0


# ---------------------------------------------------------------- shapes of partitions


def network(ids: tuple[int, ...]) -> tuple[Schedule, Network, list[tuple[int, bytes]]]:
    schedule = Schedule()
    arrived: list[tuple[int, bytes]] = []
    return (
        schedule,
        Network(schedule, random.Random(1), ids, lambda to, frame: arrived.append((to, frame))),
        arrived,
    )


def hears(links: dict[tuple[int, int], Link], node: int) -> set[int]:
    return {
        sender
        for (sender, receiver), link in links.items()
        if receiver == node and not (link.cut or link.down)
    }


@pytest.mark.parametrize("nodes", [4, 5, 6, 7])
def test_in_a_ring_each_node_hears_a_majority_of_its_own(nodes: int) -> None:
    """With less it would be cut off like anybody else, and with everybody there would be no ring."""
    made = World(Options(1, nodes))
    assert made.nemesis._ring()
    heard = {node: hears(made.network.links, node) | {node} for node in made.nodes}
    assert all(nodes < 2 * len(each) < 2 * nodes for each in heard.values())
    assert len({frozenset(each) for each in heard.values()}) == nodes
    assert all(node in heard[other] for node in heard for other in heard[node])


@pytest.mark.parametrize("nodes", [3, 4, 5, 7])
def test_a_bridge_is_the_only_one_that_hears_both_sides(nodes: int) -> None:
    made = World(Options(1, nodes))
    assert made.nemesis._bridge()
    heard = {node: hears(made.network.links, node) for node in made.nodes}
    (middle,) = [node for node in heard if len(heard[node]) == nodes - 1]
    for node in heard.keys() - {middle}:
        assert middle in heard[node]
        assert all(
            heard[other] - {other, node} == heard[node] - {node, other} for other in heard[node] - {middle}
        )


def test_one_direction_can_be_cut_alone() -> None:
    _, net, _ = network((1, 2, 3))
    net.cut(1, 2, down=False)
    assert [ends for ends, link in net.links.items() if link.cut] == [(1, 2)]


def test_a_clogged_link_holds_everything_and_then_delivers_it_in_order() -> None:
    schedule, net, arrived = network((1, 2))
    net.clog([(1, 2)], 500 * MS)
    taken = [net.send(1, 2, b"%d" % number) for number in range(QUEUE_FRAMES + 5)]
    assert taken == QUEUE_FRAMES * [True] + 5 * [False], "what waits fills the queue"
    schedule.run_until(499 * MS)
    assert arrived == []
    schedule.run_until(SECOND)
    assert [int(frame) for _, frame in arrived] == list(range(QUEUE_FRAMES))
    assert net.counts["clogged"] == QUEUE_FRAMES


def test_what_a_clogged_link_holds_comes_when_it_is_healed() -> None:
    schedule, net, arrived = network((1, 2))
    net.clog([(1, 2)], 60 * SECOND)
    net.send(1, 2, b"a")
    net.heal()
    net.send(1, 2, b"b")
    schedule.run_until(SECOND)
    assert arrived == [(2, b"a"), (2, b"b")]


# ---------------------------------------------------------------- clocks


def test_a_clock_shows_what_it_was_asked_to_wake_up_for_and_no_more() -> None:
    for seed in range(300):
        source, schedule = random.Random(seed), Schedule()
        schedule.now = source.randrange(1_000 * SECOND)
        clock = Clock(schedule, source, source.choice((0, 200, 20_000)))
        wanted = clock.read() + source.randrange(1, 5_000)
        due = clock.time_of(wanted)
        schedule.now = due - 2
        assert clock.read() < wanted
        schedule.now = due
        assert clock.read() == wanted


def test_clocks_run_at_different_rates() -> None:
    schedule = Schedule()
    clocks = [Clock(schedule, random.Random(seed), 20_000) for seed in range(10)]
    before = [clock.read() for clock in clocks]
    schedule.now = 100 * SECOND
    ran = [clock.read() - start for clock, start in zip(clocks, before, strict=True)]
    assert max(ran) - min(ran) > 1_000
    assert all(98_000 <= each <= 102_001 for each in ran)
