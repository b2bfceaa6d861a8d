"""`danube-raft watch`: print changes as they happen, one line each, until Ctrl-C or --count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import EndpointsOption, OutputOption, TimeoutOption, settle
from .output import Format, line, plain_event, printable, show_json, text_value

if TYPE_CHECKING:
    from danube_raft.client.record import Event


def watch(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="Key, or prefix with --prefix.")],
    prefix: Annotated[bool, typer.Option("--prefix", help="Every key that begins with KEY.")] = False,
    from_revision: Annotated[
        int | None, typer.Option(min=1, help="Begin with this revision, in the past too. [default: now]")
    ] = None,
    prev: Annotated[bool, typer.Option("--prev", help="Show the record before the change (json).")] = False,
    keys_only: Annotated[bool, typer.Option("--keys-only", help="No values.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many events.")] = None,
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Print the changes of a key or a prefix as they happen. Lost connections are resumed without gap."""
    settings = settle(ctx, endpoints, output, timeout)
    how = settings.format(Format.SIMPLE)
    seen = 0
    if how is Format.TABLE:
        _row("EVENT", "REVISION", "KEY", "VALUE")
    try:
        with (
            settings.store() as store,
            store.watch(key, from_revision=from_revision, prev=prev, keys_only=keys_only) as events,
        ):
            for event in events:
                if not prefix and event.key != key:
                    continue
                show(event, how)
                seen += 1
                if seen == count:
                    return
    except KeyboardInterrupt:
        # The usual way to end a watch.
        return


def show(event: Event, how: Format) -> None:
    """One event, at once."""
    key, raw = printable(event.key), event.record.raw
    if how is Format.JSON:
        show_json(plain_event(event))
    elif how is Format.TABLE:
        _row(event.kind, str(event.revision), key, text_value(raw))
    else:
        fields = [event.kind, str(event.revision), key]
        line("\t".join(fields if raw is None else [*fields, text_value(raw)]))


def _row(kind: str, revision: str, key: str, value: str) -> None:
    """Columns of fixed width: what comes next is not known when a line is printed."""
    line(f"{kind:<6}  {revision:>10}  {key:<32}  {value}".rstrip())
