"""Worlds in which the state of one node is made wrong on purpose: it is found, serves nobody, and is replaced, also when it
leads, also when it ends at any step of that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from falsified import RIGHT, falsify

from danube_raft.config import Config
from danube_raft.sim.client import Client
from danube_raft.sim.history import OK
from danube_raft.sim.node import Node
from danube_raft.sim.run import Report, attempt
from danube_raft.sim.schedule import MS, SECOND
from danube_raft.sim.settings import Options, Settings, choose
from danube_raft.sim.snapshot_steps import REPLACING
from danube_raft.sim.world import CLUSTER_ID, World
from danube_raft.storage.memory_snapshots import MemorySnapshots

SECONDS = 12.0
LOOK_US = 5 * MS
DOWN_US = 300 * MS
WRITER, PROBER, ASKER = 5_000, 5_001, 5_002


def settings(seed: int, nodes: int) -> Settings:
    """Snapshots all the time, so that there is something to falsify, and a digest when it is asked for."""
    config = replace(
        Config(slow_request_ms=0),
        digest_ms=0,
        snapshot_log_bytes=1_000,
        snapshot_rest_max_ms=100,
        snapshot_tail_entries=2,
        # Piece by piece, so that there is time to ask a node that is being replaced.
        snapshot_piece_bytes=100,
        snapshot_window_pieces=1,
    )
    chosen = choose(Options(seed, nodes))
    return chosen._replace(config=config, snapshots=True, rate=20.0, padding_bytes=0, watchers=0)


class Director:
    """Makes one node wrong and has it found, step by step. What it changes is the past of a key, which no client looks at."""

    def __init__(self, world: World, *, leads: bool, dies_at: str) -> None:
        self.world = world
        self.leads = leads
        self.dies_at = dies_at
        self.victim: Node | None = None
        self.led = self.handed_over = False
        self.writer, self.prober, self.asker = (
            world._new_client(number) for number in (WRITER, PROBER, ASKER)
        )
        self._falsified = self._asked = False
        world.schedule.at(SECOND, self.look)

    def look(self) -> None:
        """What there is to do now."""
        self._act()
        self.world.schedule.after(LOOK_US, self.look)

    def _act(self) -> None:
        written = self.writer.operations
        if len(written) < 2 or written[-1].outcome != OK:
            if not self.writer.busy:
                value = RIGHT if not any(each.outcome == OK for each in written) else b"later"
                self.writer.begin("put", ("/truth", value), None, 5_000)
        elif not self._falsified:
            self._falsified = self._falsify()
        elif not self._asked:
            self._ask()
        else:
            self._watch()

    def _falsify(self) -> bool:
        followers = [node for node in self.world.nodes.values() if node.up and node.role.role == "follower"]
        for node in followers:
            files = [bytes(node.disk.folder.files[name]) for name in node.disk.folder.whole]
            if files and all(RIGHT in file and b"later" in file for file in files):
                self.victim = node
                node.crash()
                assert falsify(MemorySnapshots(node.disk.folder, CLUSTER_ID)) == len(files)
                self.world.checks.view.falsified.add(node.node_id)
                node.boot()
                return True
        return False

    def _ask(self) -> None:
        victim = self.victim
        assert victim is not None
        if not self._all_ready():
            return
        if self.leads and victim.role.role != "leader":
            leader = victim.role.leader_id
            if leader:
                self.world.nodes[leader].hand_over(victim.node_id)
            return
        self.led = victim.role.role == "leader"
        if self.dies_at:
            # Before what it says there can have arrived.
            victim.steps.set_trap(self.dies_at, lambda: self.world.schedule.after(1, self._die))
        self.asker.begin("digest", (), None, 5_000, recorded_args=("",))
        self._asked = True

    def _all_ready(self) -> bool:
        """Who has not caught up leaves a digest out."""
        return all(node.up and node._kv is not None and node._kv.ready for node in self.world.nodes.values())

    def _die(self) -> None:
        assert self.victim is not None
        self.victim.crash()
        self.world.schedule.after(DOWN_US, self.victim.boot_again, self.victim.boots)

    def _watch(self) -> None:
        victim, digests = self.victim, self.world.checks.digests
        assert victim is not None
        if victim.node_id in digests.odd:
            self.handed_over |= self.led and victim.role.role == "follower"
            if victim.open and not self.prober.busy:
                self.prober.begin("get", ("/truth",), "stale", 50, endpoint=victim.node_id - 1)
        elif digests.replaced and len(self.asker.operations) == 1 and self._all_ready():
            self.asker.begin("digest", (), None, 5_000, recorded_args=("",))


def refusals(client: Client) -> int:
    return sum("the state of this node is wrong" in operation.error for operation in client.operations)


def directed(
    monkeypatch: pytest.MonkeyPatch, seed: int, nodes: int = 3, *, leads: bool = False, dies_at: str = ""
) -> Director:
    """The world is run to its end: all replicas equal the log then, and every node serves."""
    monkeypatch.setattr("danube_raft.sim.world.choose", lambda options: settings(options.seed, nodes))
    world = World(Options(seed, nodes, SECONDS, ()))
    director = Director(world, leads=leads, dies_at=dies_at)
    world.run()
    digests = world.checks.digests
    assert director.victim is not None, "nothing was falsified"
    assert digests.replaced == 1
    assert not world.checks.view.falsified
    assert [operation.outcome for operation in director.asker.operations] == [OK, OK]
    first, last = (operation.result[0] for operation in director.asker.operations)
    wrong = {
        report for node_id, report in digests.reports(first).items() if node_id == director.victim.node_id
    }
    assert len(digests.reports(first)) == nodes
    assert wrong
    assert len(set(digests.reports(first).values())) == 2
    assert len(digests.reports(last)) == nodes
    assert len(set(digests.reports(last).values())) == 1
    return director


@pytest.mark.parametrize("seed", range(3))
def test_a_follower_with_a_wrong_state_is_found_refuses_and_is_replaced(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    director = directed(monkeypatch, seed, 3 if seed else 5)
    assert refusals(director.prober) > 0


@pytest.mark.parametrize("seed", range(2))
def test_a_leader_with_a_wrong_state_hands_over_and_is_replaced(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    director = directed(monkeypatch, seed, leads=True)
    assert director.led
    assert director.handed_over
    assert refusals(director.prober) > 0


@pytest.mark.parametrize("step", [*REPLACING, "stage", "staged"])
@pytest.mark.parametrize("leads", [False, True])
def test_it_may_end_at_every_step(step: str, leads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    director = directed(monkeypatch, 1, leads=leads, dies_at=step)
    assert director.victim is not None
    assert director.victim.counts[f"stopped at {step}"] == 1


def test_a_quarter_of_all_worlds_compares_states() -> None:
    found = [choose(Options(seed)).config.digest_ms for seed in range(600)]
    assert 100 < sum(ms < Config().digest_ms for ms in found) < 200


def test_states_are_compared_where_they_are_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danube_raft.sim.settings.DIGESTS_SHARE", 1)
    result = attempt(Options(3, 3, 6.0))
    assert isinstance(result, Report), result
    assert result.effects["digests_reported"] > result.effects["digests_compared"] > 0
