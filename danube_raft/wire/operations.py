"""Every operation that a client may ask for, declared once: its kind, its arguments with their checks, its result.

Arguments that are added later come last and have defaults, so that an older client may leave them out. The README's
table is made from this one, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from danube_raft.wire import arguments

WRITE = "write"
READ = "read"
WATCH = "watch"
ADMIN = "admin"
INTERNAL = "internal"
"""Kinds: a WRITE goes through the log; INTERNAL is a write that only a kv-server makes."""

REQUIRED: Any = object()


class Argument(NamedTuple):
    """One argument: its name, its check, its default (required when there is none)."""

    name: str
    check: Callable[[str, Any], None]
    default: Any = REQUIRED


class Operation(NamedTuple):
    """One operation: its kind, its arguments in order, its result in words."""

    kind: str
    arguments: tuple[Argument, ...]
    result: str

    @property
    def required(self) -> int:
        """How many arguments cannot be left out; they come first."""
        return sum(1 for argument in self.arguments if argument.default is REQUIRED)


_PAGE = (
    Argument("limit", arguments.optional_positive, None),
    Argument("token", arguments.token, None),
    Argument("revision", arguments.optional_positive, None),
)

OPERATIONS: dict[str, Operation] = {
    "put": Operation(
        WRITE,
        (
            Argument("key", arguments.own_key),
            Argument("value", arguments.binary),
            Argument("prev", arguments.flag, False),
        ),
        "mod_revision, version, previous record or nil",
    ),
    "put_with_ttl": Operation(
        WRITE,
        (
            Argument("key", arguments.own_key),
            Argument("value", arguments.binary),
            Argument("ttl_ms", arguments.positive),
            Argument("prev", arguments.flag, False),
        ),
        "mod_revision, version, previous record or nil, whether it was only renewed",
    ),
    "delete": Operation(
        WRITE,
        (Argument("key", arguments.own_key), Argument("prev", arguments.flag, False)),
        "number removed, previous record or nil",
    ),
    "delete_prefix": Operation(WRITE, (Argument("prefix", arguments.own_key),), "number removed"),
    "compare_and_swap": Operation(
        WRITE,
        (
            Argument("key", arguments.own_key),
            Argument("expected", arguments.expected),
            Argument("new", arguments.binary),
            Argument("ttl_ms", arguments.optional_positive, None),
        ),
        "whether it was swapped, mod_revision, version, current record where it was not swapped or nil",
    ),
    "allocate_id": Operation(
        WRITE,
        (Argument("counter", arguments.key), Argument("count", arguments.block, 1)),
        "first id of the block",
    ),
    "compact": Operation(WRITE, (Argument("revision", arguments.positive),), "compaction revision"),
    "digest": Operation(
        WRITE,
        (),
        "index of the log at which every node hashes its state; the hashes are told by digest_reports",
    ),
    "expire": Operation(
        INTERNAL, (Argument("leases", arguments.pairs),), "number of leases that had expired"
    ),
    "digest_report": Operation(
        INTERNAL,
        (
            Argument("index", arguments.positive),
            Argument("format", arguments.natural),
            Argument("sha256", arguments.sha256),
        ),
        "nothing",
    ),
    "get": Operation(
        READ,
        (Argument("key", arguments.key), Argument("revision", arguments.optional_positive, None)),
        "record or nil",
    ),
    "range": Operation(
        READ,
        (
            Argument("prefix", arguments.prefix, ""),
            *_PAGE,
            Argument("keys_only", arguments.flag, False),
            Argument("count_only", arguments.flag, False),
            Argument("reverse", arguments.flag, False),
            Argument("start", arguments.optional_prefix, None),
            Argument("end", arguments.optional_prefix, None),
        ),
        "records, continue token or nil, revision of the page, number of keys in the page",
    ),
    "get_children": Operation(
        READ, (Argument("path", arguments.key), *_PAGE), "keys, continue token or nil, revision of the page"
    ),
    "get_bulk": Operation(
        READ,
        (Argument("prefix", arguments.prefix), *_PAGE),
        "[key, value, version] of each match, continue token or nil, revision of the page",
    ),
    "watch": Operation(
        WATCH,
        (
            Argument("prefixes", arguments.prefixes),
            Argument("from_revision", arguments.optional_positive, None),
            Argument("credit_bytes", arguments.natural, 1_048_576),
            Argument("prev", arguments.flag, False),
            Argument("keys_only", arguments.flag, False),
            Argument("puts", arguments.flag, True),
            Argument("deletes", arguments.flag, True),
        ),
        "stream of [0, events, last revision in them, whether more of that revision follows] and [1, revision]: "
        "all up to it was delivered",
    ),
    "watch_credit": Operation(
        WATCH,
        (Argument("watch", arguments.natural), Argument("credit_bytes", arguments.natural, 0)),
        "no reply; keeps the watch alive",
    ),
    "watch_cancel": Operation(WATCH, (Argument("watch", arguments.natural),), "nothing"),
    "watch_progress": Operation(
        WATCH, (Argument("watch", arguments.natural),), "a progress frame on the stream"
    ),
    "watch_poll": Operation(
        WATCH,
        (
            Argument("prefixes", arguments.prefixes),
            Argument("after_revision", arguments.natural),
            Argument("wait_ms", arguments.natural, 0),
            Argument("prev", arguments.flag, False),
            Argument("keys_only", arguments.flag, False),
            Argument("puts", arguments.flag, True),
            Argument("deletes", arguments.flag, True),
        ),
        "events, revision to ask after next, whether there is more already",
    ),
    "status": Operation(ADMIN, (), "map of the node's state"),
    "members": Operation(ADMIN, (), "list of maps, one per member"),
    "digest_reports": Operation(
        ADMIN,
        (Argument("index", arguments.natural, 0),),
        "index of the digest (0 asked for the newest), and [node id, format, SHA-256] of each node that has reported its "
        "hash, as far as this node has heard since it started",
    ),
    "snapshot_take": Operation(
        ADMIN,
        (Argument("index", arguments.natural, 0),),
        "index that was asked for (0: what is applied now), and [index, term, size in bytes, SHA-256] of a snapshot that "
        "reaches it or nil: ask again",
    ),
    "snapshot_piece": Operation(
        ADMIN,
        (
            Argument("index", arguments.positive),
            Argument("term", arguments.positive),
            Argument("offset", arguments.natural),
            Argument("max_bytes", arguments.positive, 1_048_576),
        ),
        "bytes of that snapshot's file, none behind its end; nil: it was replaced by a newer one",
    ),
    "leadership_poll": Operation(
        ADMIN,
        (
            Argument("known_term", arguments.natural, 0),
            Argument("known_leader", arguments.natural, 0),
            Argument("wait_ms", arguments.natural, 0),
        ),
        "leader's node id or 0, term, role of this node; waits until term or leader is another than known",
    ),
}
