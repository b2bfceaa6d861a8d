"""`danube-raft members`: who belongs to the cluster.

Any node answers, but only the leader knows how far everybody's log is. So the leader is asked too, and its answer is
the one that is shown; where it cannot be reached, what the first node knows is shown, with null for what it does not.
"""

from __future__ import annotations

from typing import Any

import typer

from .options import EndpointsOption, OutputOption, Settings, TimeoutOption, settle
from .output import Format, line, show_json, show_table

LEADER_MS = 1_000
"""How long the leader may take to answer, once another node has."""

_COLUMNS = (
    "node_id", "raft_addr", "client_addr", "kind", "is_leader", "reachable", "match_index", "lag_entries",
    "suspect", "odd",
)  # fmt: skip


def members(
    ctx: typer.Context,
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """List the members of the cluster, as the leader sees them if it can be reached."""
    settings = settle(ctx, endpoints, output, timeout)
    with settings.store() as store:
        rows = _leaders_view(store.members(), settings)
    how = settings.format(Format.JSON)
    if how is Format.JSON:
        show_json(rows)
    elif how is Format.TABLE:
        header = [name.upper().replace("_", " ") for name in _COLUMNS]
        show_table(header, [[_cell(row.get(name)) for name in _COLUMNS] for row in rows])
    else:
        for row in rows:
            line(" ".join(f"{name}={_cell(row.get(name))}" for name in _COLUMNS))


def _leaders_view(rows: list[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    leader = next((row for row in rows if row.get("is_leader")), None)
    if leader is None or all(row.get("match_index") is not None for row in rows):
        return rows
    from danube_raft.client.store import MetadataStore
    from danube_raft.errors import DanubeRaftError

    try:
        with MetadataStore(leader["client_addr"], timeout_ms=min(settings.timeout_ms, LEADER_MS)) as store:
            return store.members()
    except DanubeRaftError:
        return rows


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
