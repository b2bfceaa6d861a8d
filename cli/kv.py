"""`danube-raft get | put | delete | cas | next-id`: keys and values.

A VALUE that is valid JSON is stored as that, with sorted keys and without blanks; anything else is stored as a JSON
string. So `put k 5` stores the number, `put k hello` the string "hello", `put k '{"b":1,"a":2}'` {"a":2,"b":1}; a
string that looks like JSON is given with its quotes: `put k '"5"'`. `-` reads the value from stdin.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from .options import (
    ConsistencyOption,
    EndpointsOption,
    OutputOption,
    TimeoutOption,
    duration_ms,
    level,
    settle,
)
from .output import Format, line, plain_record, show_json, show_raw, show_records, show_table, text_value

NOT_FOUND = 3
FAILED = 1

VALUE_HELP = "Valid JSON is stored as such, anything else as a JSON string; `-` reads stdin."


def stored(text: str) -> bytes:
    """The bytes to store for a VALUE of the command line."""
    if text == "-":
        text = sys.stdin.read().removesuffix("\n")

    def refuse(name: str) -> Any:
        raise ValueError(name)  # NaN and Infinity, which Python reads and JSON does not have

    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        value = text
    from danube_raft.client.value import JSON

    return JSON.encode(value)


def get(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="Key, or prefix with --prefix.")],
    prefix: Annotated[bool, typer.Option("--prefix", help="Every key that begins with KEY.")] = False,
    keys_only: Annotated[bool, typer.Option("--keys-only", help="No values.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many records, with --prefix.")] = None,
    revision: Annotated[int | None, typer.Option(min=1, help="As of this revision.")] = None,
    consistency: ConsistencyOption = None,
    raw: Annotated[bool, typer.Option("--raw", help="Write the stored bytes and nothing else.")] = False,
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Print the value of a key. Exit code 3 if it does not exist."""
    settings = settle(ctx, endpoints, output, timeout)
    chosen = level(consistency)
    if raw and (prefix or keys_only):
        raise typer.BadParameter("--raw writes one value: it does not go with --prefix or --keys-only")
    with settings.store() as store:
        if prefix:
            found = store.get_prefix(
                key, limit=limit, revision=revision, keys_only=keys_only, consistency=chosen
            )
            show_records(found, settings.format(Format.SIMPLE))
            return
        record = store.get(key, revision=revision, consistency=chosen)
    if record is None:
        print(f"error: key {key!r} does not exist", file=sys.stderr)
        raise typer.Exit(NOT_FOUND)
    how = settings.format(Format.SIMPLE)
    if raw:
        show_raw(record.raw or b"")
    elif how is Format.JSON:
        shown = plain_record(record)
        if keys_only:
            del shown["value"]
        show_json(shown)
    elif how is Format.TABLE:
        show_records([record], how)
    else:
        line(record.key if keys_only else text_value(record.raw))


def put(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="Key.")],
    value: Annotated[str, typer.Argument(help=VALUE_HELP)],
    ttl: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delete it after 500ms, 32s, 5m or so many seconds.")
    ] = None,
    prev: Annotated[bool, typer.Option("--prev", help="Print the record that was there before.")] = False,
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Store a value. VALUE is JSON, or else stored as a JSON string; `-` reads stdin."""
    settings = settle(ctx, endpoints, output, timeout)
    ttl_ms = None if ttl is None else duration_ms("--ttl", ttl)
    data = stored(value)
    with settings.store() as store:
        if ttl_ms is None:
            written = store.put(key, data, prev=prev)
        else:
            written = store.put_with_ttl(key, data, ttl_ms, prev=prev)
    how = settings.format(Format.SIMPLE)
    if how is Format.JSON:
        shown: dict[str, Any] = {"key": key, "revision": written.revision, "version": written.version}
        if ttl_ms is not None:
            shown["renewed"] = written.renewed
        if prev:
            shown["previous"] = None if written.previous is None else plain_record(written.previous)
        show_json(shown)
    elif how is Format.TABLE:
        show_table(("KEY", "REVISION", "VERSION"), [(key, written.revision, written.version)])
    else:
        line("OK")
        if written.previous is not None:
            line(text_value(written.previous.raw))


def delete(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="Key, or prefix with --prefix.")],
    prefix: Annotated[bool, typer.Option("--prefix", help="Every key that begins with KEY.")] = False,
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Delete a key, and print how many were removed. One that does not exist is no error."""
    settings = settle(ctx, endpoints, output, timeout)
    with settings.store() as store:
        removed = store.delete_prefix(key) if prefix else store.delete(key)
    _number(settings.format(Format.SIMPLE), "removed", removed)


def cas(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="Key.")],
    values: Annotated[
        list[str],
        typer.Argument(metavar="[EXPECTED] NEW", help=f"NEW alone with --absent or --revision. {VALUE_HELP}"),
    ],
    absent: Annotated[bool, typer.Option("--absent", help="Only if the key does not exist.")] = False,
    revision: Annotated[
        int | None, typer.Option(min=1, help="Only if it was last changed at this revision.")
    ] = None,
    ttl: Annotated[str | None, typer.Option(metavar="TIME", help="Delete it after that time.")] = None,
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Compare and swap: store NEW if the key is as expected. Exit code 1 if it is not."""
    from danube_raft.client.record import ABSENT, Revision

    settings = settle(ctx, endpoints, output, timeout)
    if absent and revision is not None:
        raise typer.BadParameter("--absent and --revision exclude each other")
    alone = absent or revision is not None
    if len(values) != (1 if alone else 2):
        raise typer.BadParameter(
            "with --absent or --revision give KEY NEW"
            if alone
            else "give KEY EXPECTED NEW, or --absent or --revision"
        )
    if values.count("-") > 1:
        raise typer.BadParameter("only one of EXPECTED and NEW can come from stdin")
    ttl_ms = None if ttl is None else duration_ms("--ttl", ttl)
    expected: Any = ABSENT if absent else Revision(revision) if revision is not None else stored(values[0])
    with settings.store() as store:
        answer = store.compare_and_swap(key, expected, stored(values[-1]), ttl_ms=ttl_ms)
    how = settings.format(Format.SIMPLE)
    if how is Format.JSON:
        shown: dict[str, Any] = {"key": key, "swapped": answer.swapped}
        if answer.swapped:
            shown |= {"revision": answer.revision, "version": answer.version}
        else:
            shown["current"] = None if answer.current is None else plain_record(answer.current)
        show_json(shown)
    elif answer.swapped:
        line("swapped")
    else:
        line(
            "not swapped: absent"
            if answer.current is None
            else f"not swapped: {text_value(answer.current.raw)}"
        )
    if not answer.swapped:
        raise typer.Exit(FAILED)


def next_id(
    ctx: typer.Context,
    counter: Annotated[str, typer.Argument(help="Name of the counter.")],
    count: Annotated[int, typer.Option(min=1, help="How many ids to take.")] = 1,
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Take ids that were never handed out before, and print the first."""
    settings = settle(ctx, endpoints, output, timeout)
    with settings.store() as store:
        first = store.allocate_monotonic_id(counter, count)
    if settings.format(Format.SIMPLE) is Format.JSON:
        show_json({"counter": counter, "first": first, "count": count})
    else:
        line(str(first))


def _number(how: Format, name: str, number: int) -> None:
    if how is Format.JSON:
        show_json({name: number})
    else:
        line(str(number))
