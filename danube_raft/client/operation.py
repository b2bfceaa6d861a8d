"""Every operation of the store as a question and a way to read the answer; no I/O.

An `Ask` names the wire operation, its arguments, and the function that turns the result fields into what the caller
gets. A result that takes several pages is a chain: each `Page` carries the Ask for the one after it, at the same
pinned revision. The synchronous and the asynchronous store are thin shells that send Asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from danube_raft.client.record import ABSENT, MetaOptions, Record, Revision, Swapped, Versioned, Written
from danube_raft.client.value import Codec
from danube_raft.errors import InvalidArgument

T = TypeVar("T")


class Ask(NamedTuple, Generic[T]):
    """One request and how to read its result."""

    op: str
    args: tuple[Any, ...]
    read: Callable[[tuple[Any, ...]], T]


class Page(NamedTuple, Generic[T]):
    """Part of a listing, the revision that all its parts show, and the question for the next part."""

    items: list[T]
    revision: int
    following: Ask[Page[T]] | None


def _first(result: tuple[Any, ...]) -> Any:
    return result[0]


def _record(fields: Sequence[Any] | None, codec: Codec) -> Record | None:
    return None if fields is None else Record.of(fields, codec)


def _written(codec: Codec) -> Callable[[tuple[Any, ...]], Written]:
    def read(result: tuple[Any, ...]) -> Written:
        revision, version, previous = result[:3]
        return Written(revision, version, _record(previous, codec), len(result) > 3 and bool(result[3]))

    return read


def check_option(option: MetaOptions) -> None:
    """Raises InvalidArgument for what looks like an option and is none."""
    if not isinstance(option, MetaOptions):
        raise InvalidArgument(f"option must be one of MetaOptions, not {type(option).__name__}")


def put(codec: Codec, key: str, value: Any, option: MetaOptions, prev: bool) -> Ask[Written]:
    """Store a value."""
    check_option(option)
    wanted = prev or option is MetaOptions.WITH_PREV_KEY
    return Ask("put", (key, codec.encode(value), wanted), _written(codec))


def put_with_ttl(codec: Codec, key: str, value: Any, ttl_ms: int, prev: bool) -> Ask[Written]:
    """Store a value with a private lease, or renew it."""
    return Ask("put_with_ttl", (key, codec.encode(value), ttl_ms, prev), _written(codec))


def delete(key: str) -> Ask[int]:
    """Remove a key."""
    return Ask("delete", (key,), _first)


def delete_prefix(prefix: str) -> Ask[int]:
    """Remove all keys that begin with the prefix."""
    return Ask("delete_prefix", (prefix,), _first)


def compare_and_swap(codec: Codec, key: str, expected: Any, new: Any, ttl_ms: int | None) -> Ask[Swapped]:
    """Store `new` if the key is as expected: a value, a Revision or ABSENT."""
    wanted: bytes | int | None
    if expected is ABSENT:
        wanted = None
    elif isinstance(expected, Revision):
        wanted = expected.number
    else:
        wanted = codec.encode(expected)

    def read(result: tuple[Any, ...]) -> Swapped:
        swapped, revision, version, current = result[:4]
        return Swapped(swapped, revision, version, _record(current, codec))

    return Ask("compare_and_swap", (key, wanted, codec.encode(new), ttl_ms), read)


def allocate_id(counter: str, count: int) -> Ask[int]:
    """Take a block of ids."""
    return Ask("allocate_id", (counter, count), _first)


def compact(revision: int) -> Ask[int]:
    """Forget the history below a revision."""
    return Ask("compact", (revision,), _first)


def get(codec: Codec, key: str, revision: int | None) -> Ask[Record | None]:
    """One record, now or in the past."""
    return Ask("get", (key, revision), lambda result: _record(result[0], codec))


def present() -> Ask[None]:
    """Nothing but the revision that the store has now, which comes with every reply."""
    return Ask("get", ("/", None), lambda _: None)


class Range(NamedTuple):
    """What to list: a prefix and/or start ≤ key < end; `limit` is the most keys in one page."""

    prefix: str = ""
    start: str | None = None
    end: str | None = None
    limit: int | None = None
    revision: int | None = None
    keys_only: bool = False
    reverse: bool = False


def records(
    codec: Codec, what: Range, most: int | None = None, token: bytes | None = None
) -> Ask[Page[Record]]:
    """A page of records; the chain of pages ends after `most` records, if that is given."""

    def read(result: tuple[Any, ...]) -> Page[Record]:
        found, following, revision = result[:3]
        items = [Record.of(fields, codec) for fields in found[:most]]
        left = None if most is None else most - len(items)
        if following is None or left == 0:
            return Page(items, revision, None)
        pinned = what._replace(revision=revision)
        return Page(items, revision, records(codec, pinned, left, following))

    arguments = (what.prefix, what.limit, token, what.revision, what.keys_only, False, what.reverse)
    return Ask("range", (*arguments, what.start, what.end), read)


def count(what: Range, token: bytes | None = None) -> Ask[Page[int]]:
    """The number of keys of a page, as its only item."""

    def read(result: tuple[Any, ...]) -> Page[int]:
        _, following, revision, number = result[:4]
        pinned = what._replace(revision=revision)
        return Page([number], revision, None if following is None else count(pinned, following))

    arguments = (what.prefix, what.limit, token, what.revision, False, True, False)
    return Ask("range", (*arguments, what.start, what.end), read)


def children(path: str, revision: int | None, token: bytes | None = None) -> Ask[Page[str]]:
    """A page of the keys under a path."""

    def read(result: tuple[Any, ...]) -> Page[str]:
        keys, following, pinned = result[:3]
        return Page(list(keys), pinned, None if following is None else children(path, pinned, following))

    return Ask("get_children", (path, None, token, revision), read)


def bulk(prefix: str, revision: int | None, token: bytes | None = None) -> Ask[Page[Versioned]]:
    """A page of (key, value bytes, version)."""

    def read(result: tuple[Any, ...]) -> Page[Versioned]:
        found, following, pinned = result[:3]
        items = [Versioned(*fields[:3]) for fields in found]
        return Page(items, pinned, None if following is None else bulk(prefix, pinned, following))

    return Ask("get_bulk", (prefix, None, token, revision), read)


def status() -> Ask[dict[str, Any]]:
    """What a node says of itself."""
    return Ask("status", (), _first)


class SavedMeta(NamedTuple):
    """A snapshot that a node has: the last entry in it, the size of its file and what that file proves itself by."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    size_bytes: int
    sha256: bytes


def snapshot_take(index: int) -> Ask[tuple[int, SavedMeta | None]]:
    """A snapshot that reaches an index; None: not yet."""

    def read(result: tuple[Any, ...]) -> tuple[int, SavedMeta | None]:
        asked, found = result[:2]
        return asked, None if found is None else SavedMeta(*found[:4])

    return Ask("snapshot_take", (index,), read)


def snapshot_piece(meta: SavedMeta, offset: int) -> Ask[bytes | None]:
    """Bytes of its file; None: it was replaced."""
    return Ask("snapshot_piece", (meta.index, meta.term, offset), _first)


class NodeDigest(NamedTuple):
    """What a node has reported of its state: the SHA-256 of its encoding, comparable where `format` is the same."""

    node_id: int
    format: int
    sha256: bytes


def digest() -> Ask[int]:
    """Have every node hash its state; the index of the log at which it does."""
    return Ask("digest", (), _first)


def digest_reports(index: int) -> Ask[tuple[int, list[NodeDigest]]]:
    """What a node has heard of the digest at an index, or of the newest."""

    def read(result: tuple[Any, ...]) -> tuple[int, list[NodeDigest]]:
        return result[0], [NodeDigest(*row[:3]) for row in result[1]]

    return Ask("digest_reports", (index,), read)


def members() -> Ask[list[dict[str, Any]]]:
    """The members of the cluster."""
    return Ask("members", (), lambda result: list(result[0]))
