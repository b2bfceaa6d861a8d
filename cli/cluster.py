"""`danube-raft cluster start`: a whole cluster on this machine, in the foreground."""

from __future__ import annotations

import selectors
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .exit_codes import FAILED, FINE
from .options import help_without_command
from .output import line

if TYPE_CHECKING:
    from danube_raft.node.local_cluster import LocalNode

app = typer.Typer(help="Run a whole cluster on this machine.", rich_markup_mode=None)

NODES = 3
NODES_MAX = 7
BASE_PORT = 7750
DATA_DIR = "./danube-cluster"


@app.callback(invoke_without_command=True)
def cluster(ctx: typer.Context) -> None:
    """Run a whole cluster on this machine."""
    help_without_command(ctx)


@app.command()
def start(
    nodes: Annotated[
        int | None,
        typer.Option(min=1, max=NODES_MAX, help=f"How many. [default: {NODES}]", allow_from_autoenv=False),
    ] = None,
    data_dir: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Everything the nodes keep, and their logs.", allow_from_autoenv=False
        ),
    ] = DATA_DIR,
    base_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65_535,
            help=f"Clients are served here and on the ports that follow. [default: {BASE_PORT}]",
            allow_from_autoenv=False,
        ),
    ] = None,
) -> None:
    """Start a cluster for trying out and for benchmarks, and stay until Ctrl-C stops all of it.

    Prints one line `ready endpoints=…` when it takes writes. Run again on the same directory it is the same cluster.
    """
    from danube_raft.node.local_cluster import Plan, running, settle_plan
    from danube_raft.node.supervisor import stop_on_signals

    stop = stop_on_signals()
    directory = Path(data_dir)
    plan = settle_plan(directory, nodes, base_port, Plan(NODES, BASE_PORT))
    with running(directory, plan) as members, selectors.DefaultSelector() as selector:
        selector.register(stop, selectors.EVENT_READ)
        for node in members:
            selector.register(node.stdout, selectors.EVENT_READ, node)
        raise typer.Exit(_attend(selector, members, data_dir))


def _attend(selector: selectors.BaseSelector, members: list[LocalNode], data_dir: str) -> int:
    """Until a signal, or until all have ended."""
    missing, alive = {member.number for member in members}, len(members)
    while alive:
        for key, _ in selector.select():
            node: LocalNode | None = key.data
            if node is None:
                return FINE
            if node.number in missing:
                error = node.answer()
                if error is not None:
                    raise error
                missing.discard(node.number)
                if not missing:
                    endpoints = ",".join(member.config.client_address for member in members)
                    line(f"ready endpoints={endpoints} data_dir={data_dir}")
            else:
                selector.unregister(key.fileobj)
                alive -= 1
                _mourn(node)
    return FAILED


def _mourn(node: LocalNode) -> None:
    """Say that a node has ended, and how to get it back."""
    again = f"danube-raft node start --config {shlex.quote(str(node.config_path))}"
    print(
        f"node {node.number} has ended (see {node.log_path}); the others go on. To start it again: {again}",
        file=sys.stderr,
        flush=True,
    )
