"""`danube-raft node …`: start one, ask what they are doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import EndpointsOption, OutputOption, TimeoutOption, settle
from .output import Format, line, show_json, show_table

if TYPE_CHECKING:
    from danube_raft.client.store import MetadataStore

NO_CONNECTION = 4

app = typer.Typer(help="Start a node; see how nodes are.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def start(
    config: Annotated[str | None, typer.Option(metavar="FILE", help="Settings in YAML.")] = None,
    data_dir: Annotated[str | None, typer.Option(metavar="DIR", help="Everything the node keeps.")] = None,
    raft_listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Address for peers.")] = None,
    client_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address for clients.")
    ] = None,
    raft_advertise: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address that peers use for this node.")
    ] = None,
    client_advertise: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address that clients use for this node.")
    ] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Allow other than loopback addresses without keys.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Start a node and stay until it stops.

    Every setting may also be a DANUBE_RAFT_… variable (DANUBE_RAFT_DATA_DIR) or a line of the file; a flag beats a
    variable, a variable the file.
    """
    from danube_raft.config import load

    flags = {
        "data_dir": data_dir,
        "raft_listen": raft_listen,
        "client_listen": client_listen,
        "raft_advertise": raft_advertise,
        "client_advertise": client_advertise,
        "insecure": insecure or None,
        "log_level": log_level,
    }
    settings = load(config, flags)
    from danube_raft.node.supervisor import run

    raise typer.Exit(run(settings))


@app.command()
def status(
    ctx: typer.Context,
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Ask every endpoint how it is. Exit code 4 if none answers."""
    from danube_raft.client.call import Endpoints

    settings = settle(ctx, endpoints, output, timeout)
    with settings.store() as store:
        entries = ask_all(store, Endpoints.parse(settings.endpoints).names)
    how = settings.format(Format.TABLE)
    if how is Format.JSON:
        show_json(entries)
    elif how is Format.TABLE:
        _table(entries)
    else:
        for entry in entries:
            line(" ".join(f"{name}={_cell(value)}" for name, value in entry.items()))
    if all("error" in entry for entry in entries):
        raise typer.Exit(NO_CONNECTION)


def ask_all(store: MetadataStore, endpoints: Sequence[str]) -> list[dict[str, Any]]:
    """One entry per endpoint, in order; asked at the same time, so that a dead one delays no other."""
    from concurrent.futures import ThreadPoolExecutor

    from danube_raft.errors import DanubeRaftError

    def ask(endpoint: str) -> dict[str, Any]:
        try:
            return {"endpoint": endpoint, **store.status(endpoint)}
        except DanubeRaftError as error:
            return {"endpoint": endpoint, "error": f"{type(error).__name__}: {error.message}"}

    with ThreadPoolExecutor(max_workers=min(32, len(endpoints))) as workers:
        return list(workers.map(ask, endpoints))


_COLUMNS = ("node_id", "role", "term", "leader_id", "commit_index", "applied_index", "revision", "keys")


def _table(entries: Sequence[dict[str, Any]]) -> None:
    columns = [name for name in _COLUMNS if any(name in entry for entry in entries)]
    failed = any("error" in entry for entry in entries)
    header = [
        "ENDPOINT",
        *(name.upper().replace("_", " ") for name in columns),
        *(["ERROR"] if failed else []),
    ]
    rows = [
        [
            entry["endpoint"],
            *(_cell(entry.get(name)) for name in columns),
            *([entry.get("error", "")] if failed else []),
        ]
        for entry in entries
    ]
    show_table(header, rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple | dict):
        import json

        return json.dumps(value, separators=(",", ":"))
    return str(value)
