"""How results are printed: `simple` for people and pipes, `table` for people, `json` for programs.

JSON goes to one line, except for streams, which print one object per line. A stored value that is valid JSON is shown
as that value, UTF-8 text as a string, anything else as {"base64": …}. Nothing but results goes to stdout.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from danube_raft.client.record import Event, Record


class Format(Enum):
    """Values of --output."""

    SIMPLE = "simple"
    TABLE = "table"
    JSON = "json"


FORMATS = {item.value: item for item in Format}

# What would break a line or a column, or be a command to the terminal: C0, DEL, C1 and the line separators.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_ESCAPES |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def printable(text: str) -> str:
    """The text with its control characters escaped: it takes one line, and one column."""
    return text.translate(_ESCAPES)


def line(text: str) -> None:
    """One line, at once and in one piece: a reader at the other end of a pipe is waiting for it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def show_json(value: Any) -> None:
    """One line of JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # Somebody stored half of a surrogate pair, which JSON can only escape.
        text = json.dumps(value, separators=(",", ":"))
    line(text)


def show_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns wide enough for what is in them."""
    cells = [[printable(str(cell)) if cell is not None else "" for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [list(header), *cells]) for at in range(len(header))]
    for row in [list(header), *cells]:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_raw(value: bytes) -> None:
    """The bytes and nothing else."""
    sys.stdout.buffer.write(value)
    sys.stdout.buffer.flush()


def plain_value(raw: bytes | None) -> Any:
    """The stored bytes as a JSON value."""
    if raw is None:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        pass
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def text_value(raw: bytes | None) -> str:
    """The stored bytes as text without control characters."""
    if raw is None:
        return ""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()
    return printable(text)


def plain_record(record: Record) -> dict[str, Any]:
    """A record as a JSON object; without value where keys alone were asked for."""
    shown = {"key": record.key}
    if record.raw is not None:
        shown["value"] = plain_value(record.raw)
    return {
        **shown,
        "create_revision": record.create_revision,
        "mod_revision": record.mod_revision,
        "version": record.version,
        "lease": record.lease,
        "created_at_ms": record.created_at_ms,
    }


def plain_event(event: Event) -> dict[str, Any]:
    """An event as a JSON object."""
    shown: dict[str, Any] = {"event": event.kind, **plain_record(event.record)}
    if event.previous is not None:
        shown["previous"] = plain_record(event.previous)
    return shown


def show_records(records: Sequence[Record], how: Format) -> None:
    """A listing."""
    if how is Format.JSON:
        show_json([plain_record(record) for record in records])
    elif how is Format.TABLE:
        rows = [(r.key, text_value(r.raw), r.version, r.mod_revision, r.lease or "") for r in records]
        show_table(("KEY", "VALUE", "VERSION", "REVISION", "LEASE"), rows)
    else:
        for record in records:
            key = printable(record.key)
            line(key if record.raw is None else f"{key}\t{text_value(record.raw)}")
