"""`danube-raft node …`: start one, ask what they are doing; look at what one has left on its disk, and let one that lost
part of its log vote again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .exit_codes import NO_CONNECTION
from .options import (
    ClientAdvertiseOption,
    ConfigOption,
    DataDirOption,
    EndpointsOption,
    OutputOption,
    RaftAdvertiseOption,
    TimeoutOption,
    help_without_command,
    node_setting,
    settle,
)
from .output import Format, line, printable, show_json, show_table

if TYPE_CHECKING:
    from danube_raft.client.store import MetadataStore

app = typer.Typer(
    help="Start a node; see how nodes are; prove what one has on its disk.", rich_markup_mode=None
)


@app.callback(invoke_without_command=True)
def nodes(ctx: typer.Context) -> None:
    """Start a node; see how nodes are; prove what one has on its disk."""
    help_without_command(ctx)


@app.command()
def start(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    raft_listen: Annotated[
        str | None, node_setting("raft_listen", "Address for peers.", metavar="HOST:PORT")
    ] = None,
    client_listen: Annotated[
        str | None, node_setting("client_listen", "Address for clients.", metavar="HOST:PORT")
    ] = None,
    raft_advertise: RaftAdvertiseOption = None,
    client_advertise: ClientAdvertiseOption = None,
    seed_node: Annotated[
        list[str] | None,
        node_setting(
            "seed_nodes",
            "Raft address of a node that forms the cluster, this one included; once for each.",
            "--seed-node",
            metavar="HOST:PORT",
        ),
    ] = None,
    insecure: Annotated[
        bool | None,
        node_setting("insecure", "Allow other than loopback addresses without keys.", "--insecure"),
    ] = None,
    health_listen: Annotated[
        str | None,
        node_setting(
            "health_listen", "Address of /health, /ready and /metrics; empty: none.", metavar="HOST:PORT"
        ),
    ] = None,
    log_level: Annotated[
        str | None, node_setting("log_level", "How much it tells.", metavar="debug|info|warning|error")
    ] = None,
    log_format: Annotated[
        str | None, node_setting("log_format", "How it tells.", metavar="text|json")
    ] = None,
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
        "seed_nodes": seed_node or None,
        "insecure": insecure or None,
        "health_listen": health_listen,
        "log_level": log_level,
        "log_format": log_format,
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


@app.command("accept-loss")
def accept_loss(
    data_dir: Annotated[str, typer.Option(metavar="DIR", help="The data directory of a stopped node.")],
    yes_i_accept_the_loss: Annotated[
        str | None,
        typer.Option(metavar="NODE_ID", help="Do not ask: the node id says that you mean it."),
    ] = None,
) -> None:
    """Let a SUSPECT node vote again although its log has lost what it had acknowledged.

    Only when no leader can be elected without it: a node that others can bring up to date needs nothing but to be
    started. What is missing in its log may be lost for good, be it acknowledged or not.
    """
    from danube_raft.node.accept_loss import finding

    with finding(data_dir) as found:
        if not found.suspect:
            line(f"node {found.node_id} is not SUSPECT: there is nothing to accept")
            return
        for said in (f"node {found.node_id} in {data_dir}", *found.describe()):
            line(said)
        typed = yes_i_accept_the_loss
        if typed is None:
            line("Acknowledged writes may be lost for good. To accept that, type the node id:")
            typed = sys.stdin.readline()
        if typed.strip() != str(found.node_id):
            raise typer.BadParameter(f"{printable(typed.strip())!r} is not the node id: nothing was changed")
        found.accept()
        line("accepted: the node is not SUSPECT any more, and can be started")


def ask_all(store: MetadataStore, endpoints: Sequence[str]) -> list[dict[str, Any]]:
    """One entry per endpoint, in order; asked at the same time, so that a dead one delays no other."""
    import threading

    from danube_raft.errors import DanubeRaftError

    answers: dict[str, dict[str, Any]] = {}

    def ask(endpoint: str) -> None:
        try:
            answers[endpoint] = store.status(endpoint)
        except DanubeRaftError as error:
            answers[endpoint] = {"error": f"{type(error).__name__}: {error.message}"}

    # Daemons, which Ctrl-C need not wait for.
    threads = [
        threading.Thread(target=ask, args=(endpoint,), daemon=True) for endpoint in dict.fromkeys(endpoints)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [{"endpoint": endpoint, **answers[endpoint]} for endpoint in endpoints]


@app.command()
def verify(
    ctx: typer.Context,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = None,
) -> None:
    """Prove all that is in the data directory of a stopped node: what is there, what is damaged, what to do.

    Writes nothing. Exit codes: 0 sound, 10 a node runs on it, 11 damaged, 12 the disk cannot be read, 14 of a newer
    version.
    """
    from pathlib import Path

    from danube_raft.config import load
    from danube_raft.errors import DiskFailed, NewerFormat
    from danube_raft.node.data_check import check, exit_code

    how = settle(ctx, output=output).format(Format.SIMPLE)
    findings = check(Path(load(config, {"data_dir": data_dir}).data_dir))
    code = exit_code(findings)
    rows = [(each.part, type(each.error).__name__ if each.error else "ok", each.said) for each in findings]
    if how is Format.JSON:
        fields = ("part", "state", "said")
        show_json({"sound": code == 0, "parts": [dict(zip(fields, row, strict=True)) for row in rows]})
    elif how is Format.TABLE:
        show_table(("PART", "STATE", "SAID"), rows)
    else:
        for part, state, said in rows:
            line(printable(f"{part}: {said}" if state == "ok" else f"{part}: {state.upper()}: {said}"))
        verdicts = {
            0: "sound",
            NewerFormat.exit_code: "of a newer version: see above",
            DiskFailed.exit_code: "not all of it could be read: see above",
        }
        line(verdicts.get(code, "damaged: see above"))
    raise typer.Exit(code)


_COLUMNS = (
    "node_id",
    "role",
    "term",
    "leader_id",
    "commit_index",
    "applied_index",
    "revision",
    "keys",
    "suspect",
)


def _table(entries: Sequence[dict[str, Any]]) -> None:
    columns = [name for name in _COLUMNS if any(name in entry for entry in entries)]
    if not any(entry.get("suspect") for entry in entries):
        columns = [name for name in columns if name != "suspect"]
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
    return printable(str(value))
