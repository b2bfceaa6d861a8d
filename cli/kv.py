"""`danube-raft get | put | delete | cas | next-id`: keys and values.

A VALUE that is valid JSON is stored as that, with sorted keys and without blanks; anything else is stored as a JSON
string. So `put k 5` stores the number, `put k hello` the string "hello", `put k '{"b":1,"a":2}'` {"a":2,"b":1}; a
string that looks like JSON is given with its quotes: `put k '"5"'`. `-` reads the value from stdin. JSON whose numbers
are beyond a double (1e999) is refused: neither the number nor a string of it would be what was meant. `--raw` stores
the bytes of the VALUE as they are.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from .exit_codes import FAILED, NOT_FOUND
from .options import (
    ConsistencyOption,
    EndpointsOption,
    OutputOption,
    TimeoutOption,
    duration_ms,
    level,
    settle,
)
from .output import (
    Format,
    line,
    plain_record,
    printable,
    show_json,
    show_raw,
    show_records,
    show_table,
    text_value,
)

VALUE_HELP = (
    "Valid JSON is stored as such (a number out of range is refused), anything else as a JSON string; "
    "`-` reads stdin. One that begins with a dash needs `--` before KEY."
)


def stored(text: str) -> bytes:
    """The bytes to store for a VALUE of the command line; raises typer.BadParameter."""
    if text == "-":
        try:
            text = _stdin().decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise typer.BadParameter("stdin is not UTF-8 text") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (json.JSONDecodeError, _NoJsonError):
        value = text
    except (ValueError, RecursionError):
        raise typer.BadParameter("VALUE is JSON, but too deep or with too long a number") from None
    from danube_raft.client.value import JSON

    return JSON.encode(value)


class _NoJsonError(Exception):
    """NaN or Infinity, which Python reads and JSON does not have."""


def _refuse_constant(name: str) -> Any:
    raise _NoJsonError(name)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise typer.BadParameter(f"the number {text[:40]} is out of range: give it as a string, with quotes")
    return value


def _bytes(text: str) -> bytes:
    return _stdin() if text == "-" else os.fsencode(text)


def _stdin() -> bytes:
    if sys.stdin is None:
        raise typer.BadParameter("standard input is closed")
    return sys.stdin.buffer.read()


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
    if limit is not None and not prefix:
        raise typer.BadParameter("--limit goes with --prefix only: without it there is one record at most")
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
        line(printable(record.key) if keys_only else text_value(record.raw))


def put(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="Key.")],
    value: Annotated[str, typer.Argument(help=VALUE_HELP)],
    ttl: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delete it after 500ms, 32s, 5m or so many seconds.")
    ] = None,
    prev: Annotated[bool, typer.Option("--prev", help="Print the record that was there before.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Store the bytes of VALUE, or of stdin, as they are.")
    ] = False,
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Store a value. VALUE is JSON, or else stored as a JSON string; `-` reads stdin."""
    settings = settle(ctx, endpoints, output, timeout)
    ttl_ms = None if ttl is None else duration_ms("--ttl", ttl)
    data = _bytes(value) if raw else stored(value)
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
        header, row = ["KEY", "REVISION", "VERSION"], [key, written.revision, written.version]
        if prev:
            header.append("PREVIOUS")
            row.append("" if written.previous is None else text_value(written.previous.raw))
        show_table(header, [row])
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
    _show_one({"removed": removed}, "removed", settings.format(Format.SIMPLE))


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
    elif how is Format.TABLE:
        current = "" if answer.current is None else text_value(answer.current.raw)
        header = ("KEY", "SWAPPED", "REVISION", "VERSION", "CURRENT")
        numbers = (answer.revision, answer.version) if answer.swapped else ("", "")
        show_table(header, [(key, str(answer.swapped).lower(), *numbers, current)])
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
    shown = {"counter": counter, "first": first, "count": count}
    _show_one(shown, "first", settings.format(Format.SIMPLE))


def _show_one(shown: dict[str, Any], simple: str, how: Format) -> None:
    """An answer of a few fields, of which simple output shows one."""
    if how is Format.JSON:
        show_json(shown)
    elif how is Format.TABLE:
        show_table([name.upper() for name in shown], [list(shown.values())])
    else:
        line(str(shown[simple]))
