"""`danube-raft snapshot …`: images of the store in files, for backups.

What is wrong with a file is one line; the exit code is 11 for a damaged one, 14 for one of a newer version.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import OutputOption, help_without_command, settle
from .output import Format, line, printable, show_json, show_table

app = typer.Typer(help="Look at a saved snapshot.", rich_markup_mode=None)

SavedFile = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A saved snapshot.")
]


@app.callback(invoke_without_command=True)
def snapshots(ctx: typer.Context) -> None:
    """Look at a saved snapshot."""
    help_without_command(ctx)


@app.command()
def status(ctx: typer.Context, file: SavedFile, output: OutputOption = None) -> None:
    """Read all of a saved snapshot, prove it, and show what is in it. Exit code 11 if it is damaged."""
    from danube_raft.node.saved_snapshot import load, summary

    show_fields(summary(*load(file)), settle(ctx, output=output).format(Format.SIMPLE))


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
