"""Whether a node is healthy, and whether it is ready: two questions with two different consequences.

Healthy: its three processes live and make progress, within the watchdog's limits. A node that is not is being mended
by its own supervisor; one that stays so wants a look at its log lines. A node that waits for the others to form a
cluster is healthy: nothing but the others can help it.

Ready: it can answer a linearizable read now. It knows a leader, its log and its store are sound, it has applied all
but a few of the entries that are committed, and a majority confirmed a read that was asked for less than
`CONFIRMED_MS` ago. The last is found out when it is asked for, and only then.

Reasons are for people: who is missing, what to do. None means yes.
"""

from __future__ import annotations

from typing import Any

from danube_raft.config import MIB
from danube_raft.node.handler import CONSENSUS, KV, LOG
from danube_raft.node.view import DOWN, FORMING, RUNNING, STOPPING, NodeView

BEHIND_MAX_ENTRIES = 1_000
CONFIRMED_MS = 2_000
NO_LEADER_MS = 300
"""How long to wait for one when no leader was known lately."""
FRESH_MS = 1_000
"""A confirmation younger than this is taken as it is; for an older one a new one is asked for."""


def ill(view: NodeView, now: int) -> list[str]:
    """Reasons why the node is not healthy."""
    if view.phase == FORMING:
        return []
    if view.phase == STOPPING:
        return ["the node was told to stop"]
    if view.phase == DOWN or not view.processes:
        return [f"{view.trouble}; all three processes are about to start again"]
    reasons = [f"{view.trouble}; all three processes are being started again"] if _restarting(view) else []
    reasons += [
        f"{process.name} (pid {process.pid}) has made no progress for {now - process.progress_at} ms, "
        f"{process.stuck_ms} are allowed; it is ended and all three start again"
        for process in view.processes
        if process.is_stuck(now)
    ]
    return reasons


def _restarting(view: NodeView) -> bool:
    return bool(view.trouble) and not any(process.ready for process in view.processes)


def unready(view: NodeView, now: int) -> list[str]:
    """Reasons why the node is not ready; may take up to `CONFIRMED_MS`."""
    if view.phase == FORMING:
        return [
            "the node waits for its seed nodes to form a cluster: start them; the log lines say who is missing"
        ]
    reasons = ill(view, now)
    starting = [process.name for process in view.processes if not process.ready]
    if view.phase != RUNNING or LOG in starting or CONSENSUS in starting:
        return reasons or [f"not started yet: {', '.join(starting)}"]
    if reasons or starting:
        # A kv-server that has not caught up serves no reads, whoever would confirm them.
        return [
            *reasons,
            *_of_consensus(view),
            *[f"{name} has not caught up since its start" for name in starting],
            *_unsound(view),
        ]
    # Whoever confirms a read leads, or knows who does, now; what consensus told may be a second old.
    wait_ms = CONFIRMED_MS if view.report(CONSENSUS).get("leader_id") else NO_LEADER_MS
    news = view.confirmed_since(now - FRESH_MS, wait_ms / 1_000)
    if news is None:
        reasons = _of_consensus(view) or [_unconfirmed(view)]
    elif news.index - news.applied_index >= BEHIND_MAX_ENTRIES:
        behind = news.index - news.applied_index
        reasons = [
            f"{behind} committed entries are not applied here yet; below {BEHIND_MAX_ENTRIES} it is ready"
        ]
    return reasons + _unsound(view)


def _of_consensus(view: NodeView) -> list[str]:
    report = view.report(CONSENSUS)
    if report.get("leader_id"):
        return []
    missing = report.get("missing")
    if missing:
        return [
            f"no leader: waiting for {missing} to answer; a majority of the members has to run and reach each other"
        ]
    if report.get("suspect"):
        return ["no leader, and this node does not ask for votes"]
    return ["no leader: an election is under way"]


def _unconfirmed(view: NodeView) -> str:
    missing = view.report(CONSENSUS).get("missing")
    who = f"; waiting for {missing} to answer" if missing else ""
    return f"no majority confirmed a read within {CONFIRMED_MS} ms{who}"


def _unsound(view: NodeView) -> list[str]:
    reasons = []
    suspect = view.report(CONSENSUS).get("suspect")
    if suspect:
        reasons.append(
            f"SUSPECT: {suspect}; it does not vote, and its acks do not count, until a leader has brought it up to date"
        )
    odd = view.report(KV).get("odd")
    if odd:
        reasons.append(f"the state of this node is wrong: {odd}")
    if view.report(CONSENSUS).get("read_only"):
        reasons.append(
            "no space: the disk is full, and the node answers stale and session reads only; make room there, then it "
            "goes on by itself"
        )
    elif view.report(CONSENSUS).get("low_space"):
        free_mib = (view.report(CONSENSUS).get("disk_free_bytes") or 0) // MIB
        reasons.append(
            f"no space: {free_mib} MiB are free on the disk of the data directory, too little for writes that grow it; "
            "make room there"
        )
    if view.report(KV).get("full"):
        reasons.append(
            "the store is full: writes that grow it are refused; delete keys or compact the history"
        )
    return reasons


def health(view: NodeView, now: int) -> dict[str, Any]:
    """The body of /health; its status is "ok", "forming" or "failing"."""
    reasons = ill(view, now)
    status = "failing" if reasons else "forming" if view.phase == FORMING else "ok"
    return {"status": status, "reasons": reasons}


def readiness(view: NodeView, now: int) -> dict[str, Any]:
    """The body of /ready; its status is "ready" or "not ready". May take `CONFIRMED_MS`."""
    reasons = unready(view, now)
    return {"status": "not ready" if reasons else "ready", "reasons": reasons}
