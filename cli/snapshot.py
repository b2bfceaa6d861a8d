"""`danube-raft snapshot …`: images of the store in files, for backups: save one, look at one, begin a new cluster with one.

What is wrong with a file is one line; the exit code is 11 for a damaged one, 14 for one of a newer version.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    ClientAdvertiseOption,
    ConfigOption,
    DataDirOption,
    EndpointsOption,
    OutputOption,
    RaftAdvertiseOption,
    TimeoutOption,
    duration_ms,
    help_without_command,
    settle,
)
from .output import Format, line, printable, show_json, show_table

app = typer.Typer(help="Save a snapshot; look at one; begin a new cluster with one.", rich_markup_mode=None)

SavedFile = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A saved snapshot.")
]


@app.callback(invoke_without_command=True)
def snapshots(ctx: typer.Context) -> None:
    """Save a snapshot; look at one; begin a new cluster with one."""
    help_without_command(ctx)


@app.command()
def save(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", dir_okay=False, help="Where to; replaced if it exists.")
    ],
    wait: Annotated[
        str, typer.Option(metavar="TIME", help="How long the node may take to make the snapshot.")
    ] = "10m",
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Save a snapshot of the running cluster to a file, from the first node that has or makes a good one.

    It has everything that was acknowledged before this command began. It is proven before it gets its name, and its
    SHA-256 is printed: that of the file without its last 32 bytes, which hold the same.
    """
    from danube_raft.client.call import Endpoints
    from danube_raft.errors import Corrupt, DiskFailed, DiskFull, NoConnection, NoLeader, NoSpace, Timeout

    from .saving import check_place
    from .saving import save as fetched

    settings = settle(ctx, endpoints, output, timeout)
    wait_ms = duration_ms("--wait", wait)
    names = Endpoints.parse(settings.endpoints).names
    check_place(file)
    for place, name in enumerate(names):
        try:
            with replace(settings, endpoints=name).store() as store:
                meta = fetched(store, file, wait_ms)
        except (NoConnection, NoLeader, NoSpace, Timeout):
            if place == len(names) - 1:
                raise
        except (Corrupt, DiskFailed) as error:
            # This disk here is as full for the next one.
            if place == len(names) - 1 or isinstance(error, DiskFull):
                raise
            said = f"the snapshot of {name} is of no use: {error.message}; asking {names[place + 1]}"
            print("warning: " + printable(said), file=sys.stderr, flush=True)
        else:
            fields = meta._asdict() | {"file": str(file), "endpoint": name, "sha256": meta.sha256.hex()}
            order = ("file", "endpoint", "index", "term", "cluster_id", "size", "sha256")
            show_fields({key: fields[key] for key in order}, settings.format(Format.SIMPLE))
            return


@app.command()
def status(ctx: typer.Context, file: SavedFile, output: OutputOption = None) -> None:
    """Read all of a saved snapshot, prove it, and show what is in it. Exit code 11 if it is damaged."""
    from danube_raft.node.saved_snapshot import load, summary

    show_fields(summary(*load(file)), settle(ctx, output=output).format(Format.SIMPLE))


@app.command()
def restore(
    ctx: typer.Context,
    file: SavedFile,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    raft_advertise: RaftAdvertiseOption = None,
    client_advertise: ClientAdvertiseOption = None,
    output: OutputOption = None,
) -> None:
    """Make the data directory of a new cluster of one node from a saved snapshot.

    The directory must be new or empty. Revisions and counters move forward by 2^32; leases keep the time that they had
    left. Then start the node with the same addresses. An interrupted restore is simply done again.
    """
    import secrets

    from danube_raft.config import load
    from danube_raft.node import restoring

    how = settle(ctx, output=output).format(Format.SIMPLE)
    flags = {"data_dir": data_dir, "raft_advertise": raft_advertise, "client_advertise": client_advertise}
    settings = load(config, flags)
    directory = Path(settings.data_dir)
    made = restoring.restore(
        file, directory, settings.raft_address, settings.client_address, secrets.randbelow
    )
    fields = {
        "data_dir": str(directory),
        "node_id": made.identity.node_id,
        "cluster_id": made.identity.cluster_id,
        "raft_addr": settings.raft_address,
        "client_addr": settings.client_address,
        "revision": made.revision,
        "keys": made.keys,
    }
    show_fields(fields, how)


def show_fields(fields: dict[str, Any], how: Format) -> None:
    """Names and values: one object, one table of two columns, or one line for each."""
    if how is Format.JSON:
        show_json(fields)
        return
    rows = [
        (name, ",".join(value) if isinstance(value, list) else str(value)) for name, value in fields.items()
    ]
    if how is Format.TABLE:
        show_table(("FIELD", "VALUE"), rows)
    else:
        for name, value in rows:
            line(f"{name}: {printable(value)}")
