"""Forming a cluster from seeds, in virtual time: every order of starts, crashes at every point, wiped and lost nodes.

The world checks the invariant at every change of a ledger: two completed clusters never share a member.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
from dataclasses import replace

import pytest
from forming_world import CrashError, Host, World

from danube_raft.config import Config
from danube_raft.node.endpoints import FromPeer
from danube_raft.node.forming import Forming
from danube_raft.node.handler import PEERS
from danube_raft.node.identity import Identity, answer_prepare_init
from danube_raft.storage.memory_ledger import MemoryLedger
from danube_raft.wire import peer
from danube_raft.wire.entry import (
    LEARNER,
    VOTER,
    Configuration,
    Founding,
    Member,
    pack_configuration,
    unpack_configuration,
)

SOON_MS = 3_000
MINUTE_MS = 60_000


def one_cluster(world: World) -> set[int]:
    """The members of the one cluster that all hosts have joined."""
    assert world.run(world.joined, SOON_MS), [host.waiting for host in world.hosts]
    assert len({host.cluster_id for host in world.hosts}) == 1
    (members,) = world.completed.values()
    assert not any(host.lied for host in world.hosts)
    return members


def all_start(world: World) -> None:
    for host in world.hosts:
        host.start()


# ---------------------------------------------------------------- the ordinary way


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
def test_nodes_that_start_together_form_one_cluster_of_all(size: int) -> None:
    world = World(size, size)
    all_start(world)
    assert one_cluster(world) == {host.node_id for host in world.hosts}
    founding = world.hosts[0].ledger.founding()
    assert founding is not None
    assert founding.initialiser == min(host.node_id for host in world.hosts)
    assert all(host.ledger.founding() == founding for host in world.hosts)
    members = unpack_configuration(founding.configuration).members
    assert [member.node_id for member in members] == sorted(host.node_id for host in world.hosts)
    assert {(member.kind, member.raft_addr, member.client_addr) for member in members} == {
        (VOTER, host.address, host.config.client_address) for host in world.hosts
    }
    assert 1_700_000_000_000 <= founding.wall_ms <= 1_700_000_000_000 + world.now


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_nodes_that_start_minutes_apart_wait_for_each_other_by_name(order: tuple[int, ...]) -> None:
    world = World(1, node_ids=[30, 10, 20])
    first, second, third = (world.hosts[place] for place in order)
    first.start()
    world.run_for(2 * MINUTE_MS)
    absent = [host.address for host in world.hosts if host is not first]
    assert first.waiting == f"waiting for {absent[0]} and {absent[1]} to answer"
    second.start()
    world.run_for(2 * MINUTE_MS)
    assert first.waiting == second.waiting == f"waiting for {third.address} to answer"
    assert not world.completed
    third.start()
    assert one_cluster(world) == {10, 20, 30}


def test_a_seed_that_is_down_is_waited_for_and_named_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(2)
    one, two, three = world.hosts
    caplog.set_level(logging.INFO, "danube_raft.forming")
    one.start()
    world.run_for(1_000)
    caplog.clear()
    world.run_for(10 * MINUTE_MS)
    said = [record.getMessage() for record in caplog.records]
    assert set(said) == {"waiting for h2:1 and h3:1 to answer"}
    # Every 5 s for a minute, then every 10 s.
    assert 60 <= len(said) <= 70
    caplog.clear()
    two.start()
    world.run_for(SOON_MS)
    assert "waiting for h3:1 to answer" in [record.getMessage() for record in caplog.records]
    three.start()
    one_cluster(world)
    assert one.waiting == ""


# ---------------------------------------------------------------- lists


def test_a_node_with_another_list_is_named_with_both_lists() -> None:
    world = World(3)
    one, two, three = world.hosts
    one.start()
    two.start()
    three.start(("h2:1", "h3:1"))
    world.run_for(MINUTE_MS)
    assert not world.completed
    assert (
        f"node {three.node_id} at h3:1 has the seed nodes h2:1,h3:1, this node has h1:1,h2:1,h3:1"
        in one.waiting
    )
    assert (
        f"node {two.node_id} at h2:1 has the seed nodes h1:1,h2:1,h3:1, this node has h2:1,h3:1"
        in three.waiting
    )
    three.crash()
    three.start(("h3:1", "h2:1", "h1:1"))
    one_cluster(world)


def test_a_node_outside_its_list_never_takes_part() -> None:
    world = World(5)
    one, two, three = world.hosts
    for host in (one, two, three):
        host.start(("h2:1", "h3:1"))
    assert world.run(lambda: bool(two.cluster_id and three.cluster_id), SOON_MS)
    assert world.completed[two.cluster_id] == {two.node_id, three.node_id}
    world.run_for(SOON_MS)
    assert not one.cluster_id
    assert f"belongs to cluster {two.cluster_id}, which runs already; waiting to be added" in one.waiting


def test_an_outsider_says_so_while_nothing_runs() -> None:
    world = World(5)
    one, two, three = world.hosts
    one.start(("h2:1", "h3:1"))
    two.start(("h2:1", "h3:1", "h9:1"))
    three.start(("h2:1", "h3:1", "h9:1"))
    world.run_for(SOON_MS)
    assert "this node, h1:1, is not among its own seed nodes h2:1,h3:1" in one.waiting


class Alias:
    """A second name of a host."""

    def __init__(self, world: World, name: str, host: Host) -> None:
        world._by_address[name] = host


def test_a_seed_that_answers_with_my_own_id_is_me() -> None:
    world = World(6, 2, [10, 20])
    Alias(world, "name1:1", world.hosts[0])
    for host in world.hosts:
        host.start(("name1:1", "h2:1"))
    assert one_cluster(world) == {host.node_id for host in world.hosts}


def test_two_seeds_that_are_one_node_are_named() -> None:
    world = World(7, 2)
    one, two = world.hosts
    Alias(world, "name1:1", one)
    seeds = ("name1:1", "h1:1", "h2:1")
    one.start(seeds)
    two.start(seeds)
    world.run_for(MINUTE_MS)
    assert not world.completed
    for host in world.hosts:
        assert f"the seed nodes name1:1 and h1:1 are one node ({one.node_id})" in host.waiting


def test_two_nodes_that_advertise_one_address_are_named() -> None:
    world = World(8)
    _, two, three = world.hosts
    Alias(world, "name2:1", two)
    two.config = replace(two.config, raft_advertise="h1:1")
    for host in world.hosts:
        host.start()
    world.run_for(SOON_MS)
    assert not world.completed
    assert "all advertise h1:1" in three.waiting
    two.crash()
    two.config = replace(two.config, raft_advertise="")
    two.start()
    one_cluster(world)


# ---------------------------------------------------------------- restarts, crashes


PASSED_ONCE = ["before promise", "after promise", "before join", "after join"]
SENDS = 8


@pytest.mark.parametrize(
    ("point", "occurrence"),
    [*((point, 0) for point in PASSED_ONCE), *(("before sending", number) for number in range(SENDS))],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_node_may_die_at_every_point_once(point: str, place: int, occurrence: int) -> None:
    """`occurrence` counts how often the point is passed first: sends are many."""
    world = World(occurrence, node_ids=[10, 20, 30])
    host = world.hosts[place]
    passed = itertools.count()
    died: list[int] = []

    def dies(change: str) -> bool:
        if change == point and not died and next(passed) == occurrence:
            died.append(world.now)
            return True
        return False

    host.dies_at = dies
    all_start(world)
    world.run(lambda: not host.up, SOON_MS)
    assert died, "the point was never passed so often"
    assert not host.up
    world.run_for(700)
    host.start()
    one_cluster(world)


def cut_as_it_plans(world: World, planner: Host, target: Host) -> None:
    """What the planner sends to the target is lost from its plan on."""

    def cut(change: str) -> bool:
        if change == "after promise":
            world.cut.add((planner.address, target.address))
        return False

    planner.dies_at = cut


def test_a_restarted_initialiser_goes_on_with_its_promise() -> None:
    world = World(9, node_ids=[10, 20, 30])
    one, two, three = world.hosts
    cut_as_it_plans(world, one, three)
    all_start(world)
    world.run_for(SOON_MS)
    founding = one.ledger.founding()
    assert founding is not None
    assert two.ledger.founding() == founding
    assert three.ledger.founding() is None
    assert not world.completed
    assert one.waiting == "waiting for node 30 at h3:1 to answer"
    one.crash()
    world.run_for(SOON_MS)
    assert two.waiting == "waiting for node 10 at h1:1, which initialises the cluster, to answer"
    one.start()
    world.run_for(SOON_MS)
    assert one.ledger.founding() == founding
    world.cut = set()
    one_cluster(world)
    assert one.ledger.founding() == founding


def test_a_member_that_was_away_while_the_cluster_began_joins_it_later() -> None:
    world = World(10, node_ids=[10, 20, 30])
    one, _, three = world.hosts
    all_start(world)
    assert world.run(lambda: bool(one.cluster_id), SOON_MS)
    assert not three.cluster_id
    three.crash()
    world.run_for(MINUTE_MS)
    three.start()
    assert one_cluster(world) == {10, 20, 30}


def test_another_member_s_word_is_enough_to_join() -> None:
    world = World(11, node_ids=[10, 20, 30])
    one = world.hosts[0]
    all_start(world)
    assert world.run(lambda: bool(one.cluster_id), SOON_MS)
    world.cut = {("h3:1", "h1:1"), ("h1:1", "h3:1")}
    assert one_cluster(world) == {10, 20, 30}


# ---------------------------------------------------------------- replaced, racing


def test_a_member_wiped_before_its_promise_is_planned_for_anew() -> None:
    world = World(12, node_ids=[10, 20, 30])
    one, two, three = world.hosts
    all_start(world)
    assert world.run(lambda: one.ledger.founding() is not None, SOON_MS)
    first = one.ledger.founding()
    assert three.ledger.founding() is None
    three.crash()
    three.wipe(25)
    world.run_for(SOON_MS)
    assert two.ledger.founding() == first
    assert not world.completed
    three.start()
    assert one_cluster(world) == {10, 20, 25}
    assert one.ledger.founding() != first


def test_a_member_wiped_after_its_promise_but_before_the_others_is_planned_for_anew() -> None:
    world = World(13, node_ids=[10, 20, 30])
    one, two, three = world.hosts
    cut_as_it_plans(world, one, two)
    all_start(world)
    world.run_for(SOON_MS)
    first = one.ledger.founding()
    assert first is not None
    assert three.ledger.founding() == first
    assert two.ledger.founding() is None
    three.crash()
    three.wipe(5)
    three.start()
    world.run_for(SOON_MS)
    # The newcomer has the lowest id; the plan that is under way goes on, once it can.
    assert three.waiting == "waiting for node 10 at h1:1, which initialises the cluster"
    assert one.waiting == "waiting for h2:1 to answer"
    one.dies_at = lambda _change: False
    world.cut = set()
    assert one_cluster(world) == {5, 10, 20}
    founding = one.ledger.founding()
    assert founding is not None
    assert founding != first
    assert founding.initialiser == 10


def test_a_restarted_initialiser_sees_that_a_member_was_replaced() -> None:
    world = World(16, node_ids=[10, 20, 30])
    one, two, three = world.hosts
    cut_as_it_plans(world, one, two)
    all_start(world)
    world.run_for(SOON_MS)
    for host in world.hosts:
        host.crash()
    three.wipe(35)
    one.start()
    three.start()
    world.run_for(SOON_MS)
    assert one.waiting == "waiting for h2:1 to answer"
    one.dies_at = lambda _change: False
    world.cut = set()
    two.start()
    assert one_cluster(world) == {10, 20, 35}


def test_an_initialiser_with_a_shorter_list_plans_without_the_others() -> None:
    world = World(17, node_ids=[10, 20, 30])
    one, two, three = world.hosts
    cut_as_it_plans(world, one, three)
    all_start(world)
    world.run_for(SOON_MS)
    assert two.ledger.founding() == one.ledger.founding() is not None
    three.crash()
    for host in (one, two):
        host.crash()
        host.dies_at = lambda _change: False
        host.start(("h1:1", "h2:1"))
    assert world.run(lambda: bool(one.cluster_id and two.cluster_id), SOON_MS)
    assert world.completed == {one.cluster_id: {10, 20}}
    three.start()
    world.run_for(SOON_MS)
    assert "waiting to be added" in three.waiting


def test_a_lost_initialiser_holds_those_who_promised_until_they_are_emptied() -> None:
    world = World(14, node_ids=[10, 20, 30])
    one, two, three = world.hosts
    all_start(world)
    assert world.run(
        lambda: two.ledger.founding() is not None and three.ledger.founding() is not None, SOON_MS
    )
    one.crash()
    assert not one.cluster_id
    one.wipe(40)
    one.start()
    world.run_for(MINUTE_MS)
    assert not world.completed
    for host in (two, three):
        assert (
            "waiting for node 10 at h1:1, which initialises the cluster; node 40 answers there now"
            in host.waiting
        )
        assert "empty the data directory of this node" in host.waiting
    assert one.waiting == "waiting for node 10, which initialises the cluster"
    for host, node_id in ((two, 50), (three, 60)):
        host.crash()
        host.wipe(node_id)
        host.start()
    assert one_cluster(world) == {40, 50, 60}


def bind_to_own_plan(world: World, host: Host, cluster_id: int) -> None:
    """As if it had made its plan while the others could not be heard."""
    members = sorted(
        Member(other.node_id, VOTER, other.address, other.config.client_address) for other in world.hosts
    )
    packed = pack_configuration(Configuration(tuple(members)))
    host.ledger.promise(Founding(cluster_id, host.node_id, packed, 1))


@pytest.mark.parametrize("seed", range(40))
def test_of_racing_initialisers_the_lowest_id_wins_and_the_others_plans_are_void(seed: int) -> None:
    chance = random.Random(seed)
    world = World(seed, node_ids=chance.sample([10, 20, 30], 3))
    world.delay_ms = (1, chance.choice([3, 100, 900]))
    planners = chance.sample(world.hosts, chance.choice([2, 3]))
    for number, host in enumerate(planners):
        bind_to_own_plan(world, host, 100 + number)
    for host in world.hosts:
        host.start()
    assert world.run(world.joined, 10 * MINUTE_MS)
    assert len({host.cluster_id for host in world.hosts}) == 1
    founding = world.hosts[0].ledger.founding()
    assert founding is not None
    assert founding.initialiser == min(host.node_id for host in planners)


def test_a_node_without_a_promise_that_finds_a_running_cluster_waits_to_be_added() -> None:
    world = World(15, node_ids=[10, 20, 30])
    all_start(world)
    one_cluster(world)
    three = world.hosts[2]
    three.crash()
    three.wipe(5)
    three.start()
    world.run_for(MINUTE_MS)
    cluster_id = world.hosts[0].cluster_id
    assert not three.cluster_id
    assert three.waiting.startswith(
        f"node 10 at h1:1 belongs to cluster {cluster_id}, which runs already; waiting"
    )


# ---------------------------------------------------------------- anything, in any order


def trouble(world: World, steps: int) -> bool:
    """Random faults; whether any node had another list for a while."""
    lists = False
    chance = world.random
    for _ in range(steps):
        host = chance.choice(world.hosts)
        kind = chance.choices(
            ["start", "crash", "wipe", "list", "plan", "cut", "heal"], [20, 8, 2, 1, 4, 4, 6]
        )[0]
        if kind == "start" and not host.up:
            host.start()
        elif kind == "crash" and host.up:
            host.crash()
        elif kind == "wipe" and not host.cluster_id:
            host.crash()
            host.wipe(world.new_id())
        elif kind == "list" and not host.up:
            lists = True
            host.start(tuple(chance.sample(world.addresses, chance.randint(1, len(world.addresses)))))
        elif kind == "plan" and not host.up and not host.cluster_id:
            bound = host.ledger.founding()
            if bound is None or bound.initialiser == host.node_id:
                with contextlib.suppress(CrashError):
                    bind_to_own_plan(world, host, world.new_id())
        elif kind == "cut":
            world.cut.add((host.address, chance.choice(world.hosts).address))
        elif kind == "heal":
            world.cut.clear()
        world.run_for(chance.choice([1, 3, 20, 100, 250, 700]))
    return lists


@pytest.mark.parametrize("block", range(10))
def test_whatever_happens_no_two_clusters_share_a_member_and_all_come_to_rest(block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        chance = random.Random(seed)
        world = World(seed, chance.choice([2, 3, 3, 3, 5]))
        world.loss = chance.choice([0, 0.05, 0.3])
        world.duplication = chance.choice([0, 0.2])
        world.delay_ms = (1, chance.choice([3, 100, 1_500]))
        for host in world.hosts:
            often = chance.choice([0, 0.02, 0.2])
            host.dies_at = lambda change, often=often, dice=world.random: dice.random() < often  # type: ignore[misc]
        lists = trouble(world, chance.choice([10, 40]))
        come_to_rest(world, seed, lists)
        # With other lists in between, nodes may have formed clusters apart from each other.
        assert lists or len({host.cluster_id for host in world.hosts if host.cluster_id}) == 1, seed


def come_to_rest(world: World, seed: int, lists: bool) -> None:
    """The faults end. Who promised to a lost node is emptied by hand, as it asks for."""
    world.loss, world.duplication, world.delay_ms = 0, 0, (1, 20)
    world.cut.clear()
    for host in world.hosts:
        host.dies_at = lambda _change: False
        host.crash()
    for host in world.hosts:
        host.start(world.addresses)
    for _ in range(3):
        if world.run(world.joined, 10_000):
            break
        for host in world.hosts:
            if "is lost" in host.waiting:
                host.crash()
                host.wipe(world.new_id())
                host.start()
    for host in world.hosts:
        # A node with another list may have gone its own way for good; then the rest can only say so.
        apart = (
            "waiting to be added to it" in host.waiting
            or " already)" in host.waiting
            or (lists and host.waiting)
        )
        assert host.cluster_id or apart, (seed, host.waiting)
        assert not host.lied


# ---------------------------------------------------------------- one node, question by question


CONFIG = Config(raft_listen="h1:1", client_listen="h1:2", seed_nodes=("h1:1", "h2:1"))
ME = Member(10, VOTER, "h1:1", "h1:2")
OTHER = Member(20, VOTER, "h2:1", "h2:2")
GOOD = PACKED = pack_configuration(Configuration((ME, OTHER)))


def forming(ledger: MemoryLedger) -> Forming:
    node = Forming(CONFIG, ledger, random.Random(1).randrange, lambda: 5)
    node.start(0)
    node.turn(0)
    node.outbox.clear()
    return node


def prepare(node: Forming, sender: int, message: peer.PrepareInit) -> peer.PrepareInitReply:
    node.receive(PEERS, FromPeer((b"x",), peer.Header(0, sender, 10, 0, 0), message), 1)
    ((edge, (envelope, frame)),) = node.outbox
    node.outbox.clear()
    assert (edge, envelope) == (PEERS, (b"x",))
    header, reply = peer.unpack(frame)
    assert (header.sender, header.receiver) == (10, sender)
    assert isinstance(reply, peer.PrepareInitReply)
    assert reply.cluster_id == message.cluster_id
    return reply


@pytest.mark.parametrize(
    ("sender", "configuration", "said"),
    [
        (20, b"\xc1", "cannot be read"),
        (20, b"x" * 9_000, "no founding"),
        (20, pack_configuration(Configuration((OTHER,))), "does not have node 10"),
        (
            20,
            pack_configuration(Configuration((ME._replace(raft_addr="h9:1"), OTHER))),
            "does not have node 10",
        ),
        (
            20,
            pack_configuration(Configuration((ME._replace(client_addr="h9:1"), OTHER))),
            "does not have node 10",
        ),
        (30, GOOD, "node 30 is not another member"),
        (10, GOOD, "node 10 is not another member"),
        (
            20,
            pack_configuration(Configuration((ME, OTHER._replace(kind=LEARNER)))),
            "voters and nothing else",
        ),
        (20, pack_configuration(Configuration((ME, OTHER, OTHER))), "voters and nothing else"),
        (20, pack_configuration(Configuration((ME, OTHER), (10,))), "voters and nothing else"),
        (20, pack_configuration(Configuration((ME, OTHER), (), (7,))), "voters and nothing else"),
        (
            20,
            pack_configuration(
                Configuration((ME, OTHER, *[Member(n, VOTER, f"h{n}:1", "") for n in range(21, 27)]))
            ),
            "voters and nothing else",
        ),
    ],
)
def test_what_is_no_founding_with_this_node_is_refused(sender: int, configuration: bytes, said: str) -> None:
    ledger = MemoryLedger(10)
    reply = prepare(forming(ledger), sender, peer.PrepareInit(77, configuration, 1))
    assert not reply.promised
    assert said in reply.reason
    assert ledger.founding() is None


def test_a_promise_is_given_once_repeated_and_never_to_another() -> None:
    ledger = MemoryLedger(10)
    node = forming(ledger)
    for _ in range(2):
        assert prepare(node, 20, peer.PrepareInit(77, GOOD, 1)) == peer.PrepareInitReply(True, "", 77)
    assert ledger.founding() == Founding(77, 20, GOOD, 1)
    for message in (peer.PrepareInit(78, GOOD, 1), peer.PrepareInit(77, GOOD, 2)):
        reply = prepare(node, 20, message)
        assert not reply.promised
        assert "node 10 has promised to join cluster 77, which node 20 initialises" in reply.reason
    again = forming(ledger)
    assert not prepare(again, 20, peer.PrepareInit(78, GOOD, 1)).promised
    assert prepare(again, 20, peer.PrepareInit(77, GOOD, 1)).promised
    assert not prepare(forming(MemoryLedger(10)), 20, peer.PrepareInit(0, GOOD, 1)).promised


def test_an_answer_to_a_question_from_before_the_promise_does_not_release_it() -> None:
    """The initialiser may have been bound to something else then, and to this since."""
    node = Forming(CONFIG, MemoryLedger(10), random.Random(1).randrange, lambda: 5)
    node.turn(0)
    ((edge, asked),) = node.outbox
    node.outbox.clear()
    assert prepare(node, 20, peer.PrepareInit(77, GOOD, 1)).promised

    def answered(nonce: int, cluster_id: int, now: int) -> None:
        info = peer.NodeInfo(20, cluster_id, "h2:1", "h2:2", CONFIG.seed_nodes, False, 20, nonce)
        node.receive(edge, FromPeer((), peer.Header(0, 20, 10, 0, 0), info), now)

    answered(asked.message.nonce, 66, 2)
    assert not prepare(node, 20, peer.PrepareInit(78, GOOD, 1)).promised
    node.turn(300)
    ((_, later),) = node.outbox
    node.outbox.clear()
    answered(later.message.nonce + 1, 78, 301)
    assert not prepare(node, 20, peer.PrepareInit(78, GOOD, 1)).promised
    answered(later.message.nonce, 78, 302)
    assert prepare(node, 20, peer.PrepareInit(78, GOOD, 1)).promised


def asks(node: Forming, now: int) -> int:
    """The nonce of the question that it asks now."""
    node.turn(now)
    ((_, asked),) = node.outbox
    node.outbox.clear()
    assert isinstance(asked.message, peer.GetNodeInfo)
    return asked.message.nonce


def test_an_answer_to_a_question_of_an_earlier_start_releases_nothing() -> None:
    ledger = MemoryLedger(10)
    ledger.promise(Founding(77, 20, GOOD, 1))
    chance = random.Random(1)
    earlier, later = (Forming(CONFIG, ledger, chance.randrange, lambda: 5) for _ in range(2))
    old, new = asks(earlier, 0), asks(later, 0)
    for nonce, released in ((old, False), (new, True)):
        info = peer.NodeInfo(20, 66, "h2:1", "h2:2", CONFIG.seed_nodes, False, 20, nonce)
        later.receive("seed:h2:1", FromPeer((), peer.Header(0, 20, 10, 0, 0), info), 1)
        assert prepare(later, 20, peer.PrepareInit(78, GOOD, 1)).promised == released


SEED = "seed:h2:1"


def hears(
    node: Forming, nonce: int, cluster_id: int, *, initialised: bool = False, node_id: int = 20
) -> None:
    info = peer.NodeInfo(node_id, cluster_id, "h2:1", "h2:2", CONFIG.seed_nodes, initialised, 0, nonce)
    node.receive(SEED, FromPeer((), peer.Header(0, node_id, 10, 0, 0), info), node._now)
    node.turn(node._now)


@pytest.mark.parametrize("cluster_id", [0, 66])
def test_an_initialiser_that_is_bound_to_nothing_or_something_else_releases_the_promise(
    cluster_id: int,
) -> None:
    ledger = MemoryLedger(10)
    ledger.promise(Founding(77, 20, GOOD, 1))
    node = Forming(CONFIG, ledger, random.Random(1).randrange, lambda: 5)
    hears(node, asks(node, 0), 77)
    assert not prepare(node, 20, peer.PrepareInit(78, GOOD, 1)).promised
    hears(node, asks(node, 300), cluster_id)
    node.outbox.clear()
    if cluster_id:
        assert prepare(node, 20, peer.PrepareInit(78, GOOD, 1)).promised
    else:
        # All are free, and this one has the lowest id.
        founding = ledger.founding()
        assert founding is not None
        assert founding.initialiser == 10


def test_only_the_promised_cluster_is_joined_and_only_once_it_runs() -> None:
    ledger = MemoryLedger(10)
    ledger.promise(Founding(77, 20, GOOD, 1))
    node = Forming(CONFIG, ledger, random.Random(1).randrange, lambda: 5)
    for step, (cluster_id, initialised, node_id) in enumerate(
        [(66, True, 30), (77, False, 20), (77, False, 30)]
    ):
        hears(node, asks(node, 300 * step), cluster_id, initialised=initialised, node_id=node_id)
        assert not node.done
        assert node.waiting.startswith("waiting for node 20 at h2:1, which initialises the cluster")
        assert not prepare(node, 20, peer.PrepareInit(78, GOOD, 1)).promised
    hears(node, asks(node, 900), 77, initialised=True, node_id=30)
    assert node.done
    assert ledger.identity().cluster_id == 77


def test_promises_count_for_one_plan_and_one_member() -> None:
    ledger = MemoryLedger(10)
    node = Forming(CONFIG, ledger, random.Random(1).randrange, lambda: 5)
    hears(node, asks(node, 0), 0)
    plan = ledger.founding()
    assert plan is not None
    ((edge, asked),) = node.outbox
    assert (edge, asked.header.receiver) == (SEED, 20)
    assert asked.message == peer.PrepareInit(plan.cluster_id, plan.configuration, plan.wall_ms)

    def replies(sender: int, promised: bool, cluster_id: int) -> None:
        reply = peer.PrepareInitReply(promised, "" if promised else "not today", cluster_id)
        node.receive(SEED, FromPeer((), peer.Header(0, sender, 10, 0, 0), reply), node._now)
        node.turn(node._now)

    replies(20, True, plan.cluster_id + 1)
    replies(30, True, plan.cluster_id)
    assert (node.done, node.waiting) == (False, "waiting for node 20 at h2:1 to promise")
    replies(20, False, plan.cluster_id)
    assert (node.done, node.waiting) == (False, "waiting for node 20 at h2:1 to promise (not today)")
    replies(20, True, plan.cluster_id)
    assert node.done
    assert ledger.identity().cluster_id == plan.cluster_id


def test_a_node_that_belongs_to_a_cluster_repeats_its_promise_and_gives_no_other() -> None:
    founding = Founding(77, 20, GOOD, 1)
    identity = Identity(10, 77, 3)
    message, header = peer.PrepareInit(77, GOOD, 1), peer.Header(0, 20, 10, 0, 0)
    assert answer_prepare_init(identity, founding, header, message) == peer.PrepareInitReply(True, "", 77)
    for wrong in (
        answer_prepare_init(identity, None, header, message),
        answer_prepare_init(identity, founding, header._replace(sender=30), message),
        answer_prepare_init(identity, founding, header, message._replace(cluster_id=78)),
        answer_prepare_init(identity, founding, header, message._replace(configuration=b"")),
        answer_prepare_init(identity._replace(cluster_id=5), founding, header, message),
    ):
        assert not wrong.promised
        assert "node 10 belongs to cluster" in wrong.reason
