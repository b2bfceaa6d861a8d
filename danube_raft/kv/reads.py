"""Reads: a key, a range in pages, children, bulk; at the present or at a kept revision.

A page is bounded in records and in bytes (but holds one record at least) and then hands out a continue token: the
pinned revision, the next key and the direction. All pages of one read show the store at one revision, the one at
which the first was taken; if that is compacted away meanwhile the next page is refused with Compacted, never mixed.
A token says where to go on, not what was asked: the caller repeats its other arguments, and a token that cannot
come from such a read is refused.

A range over the present walks over its matches only. `count_only` counts the present without walking at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from danube_raft.errors import InvalidArgument
from danube_raft.kv.history import History
from danube_raft.kv.record import KEY, VALUE, VERSION, Record, prefix_end, wire_bytes, without_value
from danube_raft.wire import codec
from danube_raft.wire.client import ARGS, OP, Request


class Span(NamedTuple):
    """What to read: keys from `start` on and below `end` (None: no bound), at a revision (None: the present)."""

    start: str
    end: str | None
    limit: int | None = None
    token: bytes | None = None
    revision: int | None = None
    reverse: bool = False


class Bounds(NamedTuple):
    """What one page may hold at most."""

    max_records: int
    max_bytes: int


class Page(NamedTuple):
    """`token` is None when nothing follows; `revision` is the one that the page shows."""

    records: list[Record]
    token: bytes | None
    revision: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count


def get(history: History, key: str, revision: int | None = None) -> Record | None:
    """The record of `key`, None when there is none. Raises Compacted or FutureRevision."""
    if revision is None:
        return history.records.get(key)
    history.check_revision(revision)
    return history.at(key, revision)


def span_of_prefix(prefix: str, start: str | None = None, end: str | None = None) -> tuple[str, str | None]:
    """(start, end) of the keys that begin with `prefix` and lie from `start` on and below `end`."""
    above = prefix_end(prefix)
    first = prefix if start is None or start < prefix else start
    if end is None or (above is not None and above < end):
        end = above
    return first, end


def read_page(history: History, span: Span, bounds: Bounds, keys_only: bool = False) -> Page:
    """One page of records. Raises Compacted, FutureRevision, or InvalidArgument for a bad token."""
    revision, keys = _open(history, span)
    max_records = min(bounds.max_records, span.limit or bounds.max_records)
    room = bounds.max_bytes
    present = revision == history.revision
    live = history.records
    records: list[Record] = []
    for key in keys:
        record = live[key] if present else history.at(key, revision)
        if record is None:
            continue
        if keys_only:
            record = without_value(record)
        room -= wire_bytes(record)
        if records and (room < 0 or len(records) >= max_records):
            return Page(records, _token(revision, key, span.reverse), revision, len(records))
        records.append(record)
    return Page(records, None, revision, len(records))


def count_page(history: History, span: Span, bounds: Bounds) -> Page:
    """The number of keys. The present is counted at once; the past in pages of `bounds.max_records` keys."""
    if span.revision in (None, history.revision) and span.token is None and span.limit is None:
        return Page([], None, history.revision, history.count(span.start, span.end))
    revision, keys = _open(history, span)
    most = min(bounds.max_records, span.limit or bounds.max_records)
    count = 0
    for key in keys:
        if history.at(key, revision) is None:
            continue
        if count >= most:
            return Page([], _token(revision, key, span.reverse), revision, count)
        count += 1
    return Page([], None, revision, count)


def _open(history: History, span: Span) -> tuple[int, Iterator[str]]:
    """The revision of the page, and the keys that may be in it."""
    start, end = span.start, span.end
    revision = history.revision if span.revision is None else span.revision
    key = None
    if span.token is not None:
        revision, key = _position(span)
    history.check_revision(revision)
    list_keys = history.keys if revision == history.revision else history.past_keys
    if end is not None and end <= start:
        return revision, iter(())
    if key is None:
        return revision, list_keys(start, end, span.reverse)
    if span.reverse:
        # A reversed page goes on at `key` itself, and NUL is the least that can follow a string.
        return revision, list_keys(start, key + "\0", True)
    return revision, list_keys(key, end)


# ---------------------------------------------------------------- continue tokens

_TOKEN_FORMAT = 1


def _token(revision: int, key: str, reverse: bool) -> bytes:
    return codec.pack((_TOKEN_FORMAT, revision, key, reverse))


def _position(span: Span) -> tuple[int, str]:
    assert span.token is not None
    try:
        fields = codec.unpack(span.token)
    except codec.Malformed:
        fields = None
    if (
        type(fields) is not tuple
        or len(fields) != 4
        or type(fields[0]) is not int
        or fields[0] != _TOKEN_FORMAT
        or type(fields[1]) is not int
        or fields[1] < 1
        or type(fields[2]) is not str
        or fields[3] is not span.reverse
        or fields[2] < span.start
        or (span.end is not None and fields[2] >= span.end)
        or span.revision not in (None, fields[1])
    ):
        raise InvalidArgument("the continue token is not from an earlier page of this read")
    return fields[1], fields[2]


# ---------------------------------------------------------------- answers to requests


def answer(history: History, request: Request, bounds: Bounds) -> tuple[Any, ...]:
    """Result fields of a checked READ request, as `wire.operations` lists them."""
    return _ANSWERS[request[OP]](history, request[ARGS:], bounds)


def _get(history: History, arguments: tuple[Any, ...], bounds: Bounds) -> tuple[Any, ...]:  # noqa: ARG001 -- one shape for all
    key, revision = arguments
    return (get(history, key, revision),)


def _range(history: History, arguments: tuple[Any, ...], bounds: Bounds) -> tuple[Any, ...]:
    prefix, limit, token, revision, keys_only, count_only, reverse, start, end = arguments
    span = Span(*span_of_prefix(prefix, start, end), limit, token, revision, reverse)
    page = count_page(history, span, bounds) if count_only else read_page(history, span, bounds, keys_only)
    return tuple(page)


def _children(history: History, arguments: tuple[Any, ...], bounds: Bounds) -> tuple[Any, ...]:
    path, limit, token, revision = arguments
    below = path if path.endswith("/") else path + "/"
    span = Span(*span_of_prefix(below), limit, token, revision)
    page = read_page(history, span, bounds, keys_only=True)
    return [record[KEY] for record in page.records], page.token, page.revision


def _bulk(history: History, arguments: tuple[Any, ...], bounds: Bounds) -> tuple[Any, ...]:
    prefix, limit, token, revision = arguments
    page = read_page(history, Span(*span_of_prefix(prefix), limit, token, revision), bounds)
    return (
        [(record[KEY], record[VALUE], record[VERSION]) for record in page.records],
        page.token,
        page.revision,
    )


_ANSWERS: dict[str, Callable[[History, tuple[Any, ...], Bounds], tuple[Any, ...]]] = {
    "get": _get,
    "range": _range,
    "get_children": _children,
    "get_bulk": _bulk,
}
