"""Three real nodes; one fault at a time while clients write, read and watch through all of them.

Each case runs `DANUBE_RAFT_TEST_ROUNDS` rounds on one cluster: wait until it is whole, bring the fault about, wait for
writes to be acknowledged again, undo the fault, wait until every node takes writes. Where nobody asks for rounds it is
one of each of the cases that are soon over; `scripts/chaos` asks (10), and gets those of `lasting_cases.py` too.
Of several rounds each case has a cluster of its own: a node that is killed as soon as it is back, again and again,
takes it for a crash loop in the end (`node/restarts.py`).
That the fault was really there is asserted too. The whole history is checked at the end (`history_checks.py`), and
patient clients must have seen no error at all: each of their requests has 60 s, every fault is over sooner, and a
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cluster_cases import CASES, Case
from history import UNCERTAIN, History
from history_checks import Fault, check_history
from lasting_cases import LASTING_CASES
from real_cluster import RealCluster, waited

pytestmark = [pytest.mark.process]

ASKED = os.environ.get("DANUBE_RAFT_TEST_ROUNDS")
ROUNDS = int(ASKED or "1")
TABLE = os.environ.get("DANUBE_RAFT_TEST_TABLE")
WAIT_S = 30
LIMIT_S = 150
"""Beside the rounds: a client that never comes back is waited for twice, when all are told to end and at the end."""
WARM_WRITES = 50
CHOSEN = CASES if ASKED is None else CASES | LASTING_CASES


class Took(NamedTuple):
    """Seconds."""

    next_write: float
    all_roamers: float
    all_nodes: float


Wanted = tuple[bool, tuple[tuple[str, Any], ...]]


class Clusters:
    """One cluster for all cases that want the same of it; a case that failed leaves none behind."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[Wanted, RealCluster] = {}
        self._started = 0

    def get(self, case: Case) -> RealCluster:
        """A running one."""
        wanted = (case.proxied, case.settings)
        if wanted not in self._running:
            self._started += 1
            directory = self._directory / f"cluster{self._started}"
            directory.mkdir()
            self._running[wanted] = RealCluster(
                directory, proxied=case.proxied, **dict(case.settings)
            ).__enter__()
        return self._running[wanted]

    def discard(self, case: Case) -> None:
        """Whatever it is in now, the next case starts with a new one."""
        cluster = self._running.pop((case.proxied, case.settings), None)
        if cluster is not None:
            cluster.close()

    def close(self) -> None:
        """All of them, and nothing is left."""
        for cluster in self._running.values():
            cluster.close()
        assert not any(cluster.survivors() for cluster in self._running.values())


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    running = Clusters(tmp_path_factory.mktemp("faults"))
    try:
        yield running
    finally:
        running.close()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.timeout(LIMIT_S + case.round_s * ROUNDS, method="signal"))
        for name, case in CHOSEN.items()
    ],
)
def test_a_fault_loses_nothing_doubles_nothing_and_is_soon_over(name: str, clusters: Clusters) -> None:
    case = CHOSEN[name]
    try:
        run(name, case, clusters.get(case))
    except BaseException:
        clusters.discard(case)
        raise
    if ROUNDS > 1:
        clusters.discard(case)


def run(name: str, case: Case, cluster: RealCluster) -> None:
    history, by_hand = History(name, cluster.endpoints), cluster.started_by_hand
    try:
        history.start()
        faults, took = zip(*(strike(case, cluster, history) for _ in range(ROUNDS)), strict=True)
        history.finish()
    finally:
        history.close()
    report(name, took, history, cluster.started_by_hand - by_hand)
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
    cluster.until(lambda: history.next_write(struck), "a write after the fault", WAIT_S)
    waited(max(0.0, struck + case.lasts_s - time.monotonic()))
    lifted = time.monotonic()
    undo()
    undone = time.monotonic()
    cluster.until(lambda: history.all_wrote(history.roamers, struck), "a write of every roamer", WAIT_S)
    cluster.until(lambda: history.all_wrote(history.residents, undone), "a write through every node", WAIT_S)
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

    cluster.until(enough, "clients to go on", WAIT_S)


def report(name: str, took: Sequence[Took], history: History, by_hand: int) -> None:
    if TABLE is None:
        return
    fields = [name, len(took)]
    for measured in zip(*took, strict=True):
        fields += [f"{statistics.median(measured):.2f}", f"{max(measured):.2f}"]
    unsure = sum(one.outcome == UNCERTAIN for one in history.given_up())
    counts = (
        len(history.operations()),
        len(history.errors()),
        len(history.given_up()) - unsure,
        unsure,
        by_hand,
    )
    with Path(TABLE).open("a") as table:
        print(*fields, *counts, sep="\t", file=table)
