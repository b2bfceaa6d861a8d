"""`danube-raft digest`: whether all nodes have the same state.

Every node hashes its state at one index of the log and says its hash. They are waited for, and shown with what a majority
of the voters has; any difference, and any hash that does not come, is exit code 1. A node whose state is wrong then
serves nobody and is given the leader's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .exit_codes import FAILED
from .options import EndpointsOption, OutputOption, TimeoutOption, duration_ms, settle
from .output import Format, line, show_json, show_table

if TYPE_CHECKING:
    from danube_raft.client.store import MetadataStore
    from danube_raft.kv.digests import Report

ASK_AGAIN_S = 0.1

_COLUMNS = ("node_id", "client_addr", "sha256", "verdict")


def digest(
    ctx: typer.Context,
    wait: Annotated[
        str, typer.Option(metavar="TIME", help="How long the nodes may take to hash their states.")
    ] = "1m",
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Compare the states of all nodes at one index of the log. Exit code 1 when they differ or a node does not answer."""
    settings = settle(ctx, endpoints, output, timeout)
    deadline = time.monotonic() + duration_ms("--wait", wait) / 1000
    with settings.store() as store:
        index = store.digest()
        members = {row["node_id"]: row for row in store.members()}
        reports = _reports(store, index, set(members), deadline)
    rows, agree = _judged(members, reports)
    how = settings.format(Format.SIMPLE)
    if how is Format.JSON:
        show_json({"index": index, "agree": agree, "nodes": rows})
    elif how is Format.TABLE:
        show_table(
            [name.upper().replace("_", " ") for name in _COLUMNS], [list(row.values()) for row in rows]
        )
    else:
        for row in rows:
            line(" ".join(str(value) for value in row.values() if value))
        line(f"index {index}: " + ("all states agree" if agree else "the states are not proven to agree"))
    if not agree:
        raise typer.Exit(FAILED)


def _reports(store: MetadataStore, index: int, node_ids: set[int], deadline: float) -> dict[int, Report]:
    """All there are when every member has reported, or time is up. Asked of any node: each hears of all of them, and one
    that has started meanwhile, such as that whose state was wrong, knows them no more."""
    from danube_raft.kv.digests import Report

    found: dict[int, Report] = {}
    while True:
        rows = store.digest_reports(index)[1]
        found.update({row.node_id: Report(row.format, row.sha256) for row in rows})
        if found.keys() >= node_ids or time.monotonic() >= deadline:
            return found
        time.sleep(ASK_AGAIN_S)


def _judged(
    members: dict[int, dict[str, Any]], reports: dict[int, Report]
) -> tuple[list[dict[str, Any]], bool]:
    """A row for each member, and whether all have the same."""
    from danube_raft.kv.digests import judge

    verdict = judge(reports, [node_id for node_id, row in members.items() if row["kind"] == "voter"])
    rows = []
    for node_id, member in sorted(members.items()):
        report = reports.get(node_id)
        if report is None:
            said = "no hash"
        elif node_id in verdict.odd:
            said = "DIFFERS from the majority"
        else:
            said = "agrees" if verdict.settled else "no majority"
        sha256 = None if report is None else report.sha256.hex()
        rows.append(
            {"node_id": node_id, "client_addr": member["client_addr"], "sha256": sha256, "verdict": said}
        )
    return rows, verdict.settled and not verdict.differ and reports.keys() >= members.keys()
