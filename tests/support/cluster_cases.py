"""What is done to a real cluster under load, each a `Case`: kills, a stop of a whole node, cuts between nodes.

Cases that take long, or need more than an ordinary user may do, are in `lasting_cases.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import psutil
from proxy import TO_TARGET
from real_cluster import PROCESSES, ClusterNode, RealCluster

NEXT_WRITE_MAX_S = 3.0
SLOW_NEXT_WRITE_MAX_S = 6.0
"""A leader that is cut off takes requests until it notices; whoever asked it asks again only then."""
STOPPED_S = 5.0
CUT_S = 3.0

Undo = Callable[[], None]
Chosen = Callable[[RealCluster], ClusterNode]


class Case(NamedTuple):
    """`strike` brings the fault about and returns what undoes it, or sees it over; it lasts for `lasts_s` at least.
    `new_term`: whether an election must (or must not) be the consequence; None: it does not matter. `settings` of the
    nodes, as pairs; `round_s`: what a round may take."""

    strike: Callable[[RealCluster], Undo]
    lasts_s: float = 0.0
    proxied: bool = False
    next_write_max_s: float | None = NEXT_WRITE_MAX_S
    new_term: bool | None = True
    settings: tuple[tuple[str, Any], ...] = ()
    round_s: int = 30


def nothing() -> None:
    """The node comes back by itself."""


def kill_supervisor(cluster: RealCluster) -> Undo:
    leader = cluster.await_leader()
    leader.kill_supervisor()
    return lambda: cluster.restart(leader)


def kill_role(chosen: Chosen, role: str) -> Callable[[RealCluster], Undo]:
    def strike(cluster: RealCluster) -> Undo:
        node = chosen(cluster)
        before = node.child("consensus")
        node.kill_child(role)
        # One fate: whichever was killed, all three are new.
        return lambda: await_restart(cluster, node, before)

    return strike


def await_restart(cluster: RealCluster, node: ClusterNode, before: psutil.Process | None) -> None:
    """The node has another consensus than `before`."""
    cluster.until(lambda: node.child("consensus") not in {before, None}, f"{node.name} to start again")


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
    "leader-isolated": Case(isolate_leader, CUT_S, proxied=True, next_write_max_s=SLOW_NEXT_WRITE_MAX_S),
    "leader-deaf": Case(deafen_leader, CUT_S, proxied=True, next_write_max_s=SLOW_NEXT_WRITE_MAX_S),
    "leader-cut": Case(cut_leader, CUT_S, proxied=True, next_write_max_s=SLOW_NEXT_WRITE_MAX_S),
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
