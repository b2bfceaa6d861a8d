"""A fault counts by what it did, not by having been announced: whatever becomes a no-op is missed by the coverage check.

Each kind of fault is made alone, as it is and with its effect taken away.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.checks.replay import replay
from danube_raft.sim.digest import digest
from danube_raft.sim.disk import Disk
from danube_raft.sim.faults import BRIDGE_NODES, RING_NODES, Fault
from danube_raft.sim.full_disks import FullDisks
from danube_raft.sim.history import OK, Operation
from danube_raft.sim.nemesis import Nemesis
from danube_raft.sim.network import Network
from danube_raft.sim.node import Node
from danube_raft.sim.process import Clock
from danube_raft.sim.run import EFFECTS, NEEDED, Failure, Idle, Report, attempt, check_coverage, needed_from
from danube_raft.sim.schedule import SECOND
from danube_raft.sim.seen import SeenSessions
from danube_raft.sim.settings import BARE, NODES_MAX, WATCHING, Options, choose
from danube_raft.sim.wall_clock import WallClock
from danube_raft.sim.world import World
from danube_raft.storage.memory_snapshots import WRITE, MemoryFolder
from danube_raft.wire.client import pack_request
from danube_raft.wire.entry import KIND_BATCH, Entry

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


@pytest.mark.parametrize("kind", ["tear", "slow_disk", "hang_disk", "pause", "freeze", "clog"])
def test_reads_are_not_timed_where_a_fault_makes_messages_old(kind: str) -> None:
    made = World(Options(1, 3))
    written = Operation(1, "put", ("/k/0", b"a"), None, 0).end(OK, 1, (2, 1, None), 2)
    late = Operation(2, "get", ("/k/0",), 100, 60 * SECOND).end(OK, 61 * SECOND, (None, 0), 1)
    with pytest.raises(Violation, match="revision 2 had been acknowledged"):
        made._check_in_time([written, late])
    made.nemesis.done[kind] = 1
    made._check_in_time([written, late])


def test_a_snapshot_that_was_to_fail_counts_when_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it was told to says nothing: the node may make none in time."""
    monkeypatch.setattr("danube_raft.sim.settings.SNAPSHOTS_SHARE", 1.0)
    monkeypatch.setattr("danube_raft.sim.nemesis.plan", lambda *_: (Fault(0, SECOND, "fail_snapshot"),))
    monkeypatch.setattr(FULL, 0.0)
    found = effects()
    assert found["fail_snapshot"] == len(SEEDS)
    assert found["snapshots_broken"] > 0
    monkeypatch.setattr(Disk, "fail_next_snapshot", nothing)
    found = effects()
    assert found["fail_snapshot"] == len(SEEDS)
    assert found["snapshots_broken"] == 0


def test_a_disk_without_room_is_not_one_that_breaks() -> None:
    folder = MemoryFolder()
    folder.no_room = True
    with pytest.raises(OSError, match="No space left"):
        folder.fails(WRITE)
    folder.no_room = False
    folder.fail_next(WRITE)
    with pytest.raises(OSError, match="Input/output error"):
        folder.fails(WRITE)
    assert (folder.failures, folder.broken) == (2, {WRITE: 1})


def test_a_write_that_is_asked_for_twice_is_remembered() -> None:
    put = pack_request("put", 1, "/k/0", b"a", client_id=7, serial=1, low_water=1)
    entries = [
        Entry(i, 1, KIND_BATCH, 0, 0, (1, 1, i), payload) for i, payload in enumerate((put, put), start=1)
    ]
    sessions = SeenSessions()
    machine = replay(entries, sessions=sessions)
    assert (machine.revision, sessions.recalled) == (2, 1)
    assert digest(machine) == digest(replay(entries))


@pytest.mark.parametrize("name", ["bounded_reads_in_time", "recalled", "reads_compacted", "snapshots_broken"])
def test_what_only_some_worlds_show_is_asked_of_many(name: str) -> None:
    with pytest.raises(Idle, match=f"in no world: {name}$"):
        check_coverage([report(NODES_MAX, name)])


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
