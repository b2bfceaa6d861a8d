"""Three real nodes; one fault at a time while clients write, read and watch through all of them.

Each case runs `DANUBE_RAFT_TEST_ROUNDS` rounds (1 here, 10 by `scripts/chaos`) on one cluster: wait until it is whole,
bring the fault about, wait for writes to be acknowledged again, undo the fault, wait until every node takes writes.
That the fault was really there is asserted too. The whole history is checked at the end (`history_checks.py`), and
patient clients must have seen no error at all: each of their requests has 30 s, every fault is over sooner, and a
write may be repeated because it happens once. Hasty clients give up after half a second: while nobody leads they must
have gone without some answers, and what became of those requests is checked like everything else.

Measured per round: from the fault to the acknowledgement of a write that began after it (3 s at most when a leader
is lost), the same for every client that may ask another node, and from the end of the fault until every node takes
writes. `DANUBE_RAFT_TEST_TABLE` names a file to which each case adds its line.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from history import UNCERTAIN, History
from history_checks import Fault, check_history
from proxy import TO_TARGET
from real_cluster import PROCESSES, ClusterNode, RealCluster, waited

pytestmark = [pytest.mark.process]

ROUNDS = int(os.environ.get("DANUBE_RAFT_TEST_ROUNDS", "1"))
TABLE = os.environ.get("DANUBE_RAFT_TEST_TABLE")
ROUND_S = 30
NEXT_WRITE_MAX_S = 3.0
CUT_NEXT_WRITE_MAX_S = 6.0
"""A leader that is cut off takes requests until it notices; whoever asked it asks again only then."""
STOPPED_S = 5.0
CUT_S = 3.0
WARM_WRITES = 50

Undo = Callable[[], None]


class Case(NamedTuple):
    """`strike` brings the fault about and returns what undoes it; it lasts for `lasts_s` at least. `new_term`: whether
    an election must (or must not) be the consequence; None: it does not matter."""

    strike: Callable[[RealCluster], Undo]
    lasts_s: float = 0.0
    proxied: bool = False
    next_write_max_s: float | None = NEXT_WRITE_MAX_S
    new_term: bool | None = True


class Took(NamedTuple):
    """Seconds."""

    next_write: float
    all_roamers: float
    all_nodes: float


def nothing() -> None:
    """The node comes back by itself."""


def kill_supervisor(cluster: RealCluster) -> Undo:
    leader = cluster.await_leader()
    leader.kill_supervisor()
    return lambda: cluster.restart(leader)


def kill_role(chosen: Callable[[RealCluster], ClusterNode], role: str) -> Callable[[RealCluster], Undo]:
    def strike(cluster: RealCluster) -> Undo:
        node = chosen(cluster)
        before = node.child("consensus")
        node.kill_child(role)

        def back() -> None:
            # One fate: whichever was killed, all three are new.
            cluster.until(
                lambda: node.child("consensus") not in {before, None}, f"{node.name} to start again"
            )

        return back

    return strike


def stop_leader(cluster: RealCluster) -> Undo:
    leader = cluster.await_leader()
    leader.stop_all()
    return leader.resume


def kill_all(cluster: RealCluster) -> Undo:
    cluster.kill_everything()
    cluster.restart(*cluster.nodes)
    return nothing


def isolate_leader(cluster: RealCluster) -> Undo:
    cluster.isolate(cluster.await_leader())
    return cluster.heal


def black_hole_follower(cluster: RealCluster) -> Undo:
    leader, follower = cluster.await_leader(), cluster.follower()
    cluster.isolate(follower)

    def heal() -> None:
        ahead, behind = cluster.status(leader), cluster.status(follower)
        assert ahead is not None
        assert behind is not None
        assert behind["applied_index"] < ahead["commit_index"], "the follower was never cut off"
        cluster.heal()

    return heal


def deafen_leader(cluster: RealCluster) -> Undo:
    """It is heard, and hears nobody: check-quorum must end its leadership."""
    leader = cluster.await_leader()
    cluster.proxies[leader.name].black_hole()
    return cluster.heal


def cut_leader(cluster: RealCluster) -> Undo:
    """Connections are reset, not silent."""
    leader = cluster.await_leader()
    for name, proxy in cluster.proxies.items():
        proxy.cut(None if name == leader.name else leader.name)
    return cluster.heal


def silence(
    chosen: Callable[[RealCluster], tuple[ClusterNode, ClusterNode]],
) -> Callable[[RealCluster], Undo]:
    """From one node to another nothing arrives; the other way is open."""

    def strike(cluster: RealCluster) -> Undo:
        source, target = chosen(cluster)
        proxy = cluster.proxies[target.name]
        cluster.silence(source, target)
        passed = proxy.passed_bytes(TO_TARGET, source.name)
        assert passed > 0, f"{target.name} never heard of {source.name}: whose connections were they?"

        def heal() -> None:
            assert proxy.passed_bytes(TO_TARGET, source.name) == passed
            cluster.heal()

        return heal

    return strike


CASES: dict[str, Case] = {
    "leader-supervisor": Case(kill_supervisor),
    **{f"leader-{role}": Case(kill_role(RealCluster.await_leader, role)) for role in PROCESSES},
    **{f"follower-{role}": Case(kill_role(RealCluster.follower, role), new_term=None) for role in PROCESSES},
    "leader-stopped": Case(stop_leader, lasts_s=STOPPED_S),
    "all-at-once": Case(kill_all, next_write_max_s=None),
    "leader-isolated": Case(isolate_leader, CUT_S, proxied=True, next_write_max_s=CUT_NEXT_WRITE_MAX_S),
    "leader-deaf": Case(deafen_leader, CUT_S, proxied=True, next_write_max_s=CUT_NEXT_WRITE_MAX_S),
    "leader-cut": Case(cut_leader, CUT_S, proxied=True, next_write_max_s=CUT_NEXT_WRITE_MAX_S),
    "follower-black-holed": Case(black_hole_follower, lasts_s=CUT_S, proxied=True, new_term=None),
    # Pre-vote: who hears no leader must not depose one that the others hear.
    "follower-deaf": Case(
        silence(lambda cluster: (cluster.await_leader(), cluster.follower())),
        CUT_S,
        proxied=True,
        new_term=False,
    ),
    "follower-unheard": Case(
        silence(lambda cluster: (cluster.follower(), cluster.await_leader())),
        CUT_S,
        proxied=True,
        new_term=False,
    ),
}


class Clusters:
    """One cluster for all cases without proxies and one for those with; a case that failed leaves none behind."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[bool, RealCluster] = {}
        self._started = 0

    def get(self, proxied: bool) -> RealCluster:
        """A running one."""
        if proxied not in self._running:
            self._started += 1
            directory = self._directory / f"cluster{self._started}"
            directory.mkdir()
            self._running[proxied] = RealCluster(directory, proxied=proxied).__enter__()
        return self._running[proxied]

    def discard(self, proxied: bool) -> None:
        """Whatever it is in now, the next case starts with a new one."""
        if proxied in self._running:
            self._running.pop(proxied).close()

    def close(self) -> None:
        """All of them, and nothing is left."""
        clusters = list(self._running.values())
        for proxied in list(self._running):
            self.discard(proxied)
        assert not any(cluster.survivors() for cluster in clusters)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    running = Clusters(tmp_path_factory.mktemp("faults"))
    try:
        yield running
    finally:
        running.close()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.timeout(60 + ROUND_S * ROUNDS, method="signal")
def test_a_fault_loses_nothing_doubles_nothing_and_is_soon_over(name: str, clusters: Clusters) -> None:
    case = CASES[name]
    try:
        run(name, case, clusters.get(case.proxied))
    except BaseException:
        clusters.discard(case.proxied)
        raise


def run(name: str, case: Case, cluster: RealCluster) -> None:
    history = History(name, cluster.endpoints)
    try:
        history.start()
        faults, took = zip(*(strike(case, cluster, history) for _ in range(ROUNDS)), strict=True)
        history.finish()
    finally:
        history.close()
    report(name, took, history)
    check_history(history, faults)
    assert history.errors() == []
    assert history.given_up() or not case.new_term, "nobody noticed that there was no leader"
    if case.next_write_max_s is not None:
        assert max(one.next_write for one in took) <= case.next_write_max_s, took


def strike(case: Case, cluster: RealCluster, history: History) -> tuple[Fault, Took]:
    """One round."""
    cluster.await_whole()
    write_on(cluster, history)
    term = cluster.term()
    begun = time.monotonic()
    undo = case.strike(cluster)
    struck = time.monotonic()
    cluster.until(lambda: history.next_write(struck), "a write after the fault", ROUND_S)
    waited(max(0.0, struck + case.lasts_s - time.monotonic()))
    lifted = time.monotonic()
    undo()
    undone = time.monotonic()
    cluster.until(lambda: history.all_wrote(history.roamers, struck), "a write of every roamer", ROUND_S)
    cluster.until(lambda: history.all_wrote(history.residents, undone), "a write through every node", ROUND_S)
    write_on(cluster, history)
    now = cluster.term()
    assert case.new_term is None or (now > term) is case.new_term, f"term {now} after {term}"
    first = history.next_write(struck)
    roamers = history.all_wrote(history.roamers, struck)
    nodes = history.all_wrote(history.residents, undone)
    assert first is not None
    assert roamers is not None
    assert nodes is not None
    return Fault(begun, lifted, undone), Took(first - begun, roamers - begun, nodes - undone)


def write_on(cluster: RealCluster, history: History) -> None:
    """Clients are at work, with a watcher or client that broke down told at once."""
    wanted = len(history.operations()) + WARM_WRITES

    def enough() -> bool:
        history.fail_if_broken()
        return len(history.operations()) >= wanted

    cluster.until(enough, "clients to go on", ROUND_S)


def report(name: str, took: Sequence[Took], history: History) -> None:
    if TABLE is None:
        return
    fields = [name, len(took)]
    for measured in zip(*took, strict=True):
        fields += [f"{statistics.median(measured):.2f}", f"{max(measured):.2f}"]
    unsure = sum(one.outcome == UNCERTAIN for one in history.given_up())
    counts = (len(history.operations()), len(history.errors()), len(history.given_up()) - unsure, unsure)
    with Path(TABLE).open("a") as table:
        print(*fields, *counts, sep="\t", file=table)
