"""What a client and a node say to each other.

A message from a client is an envelope (empty frame last) and one body frame; a body holds one or more requests
back to back, and so does the body of an answer. A REQ client sends one at a time; a DEALER may send as many as it
likes in one body, and the answers come as they are ready, in any order.

    request  [version, op, request id, timeout_ms, consistency, min_revision, client id, serial, low_water, args…]
    reply    [version, request id, status, cluster id, node id, term, revision, result…]

Any field of a request but version, op and request id may be nil; arguments at the end may be left out. A status
other than 0 is an error code (see `danube_raft.errors`), and its result is [message, details].

    consistency    nil or "session" | "linearizable" | "stale" | an integer: stale, at most that many ms behind
    min_revision   nil | [cluster id, revision]: what this client has already seen
    record         [key, value, create_revision, mod_revision, version, lease, created_at_ms]
    event          [kind, record, previous record or nil]; kind 0 put, 1 delete; a deleted record has the value nil
                   and the delete's revision as mod_revision

The table `OPERATIONS` declares every operation: its kind, its arguments with their checks, and its result. A check
is the same for a node that takes a request and for the replica that applies it, so both decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from danube_raft.errors import InvalidArgument, KeyEmpty, ProtocolVersion, RequestTooLarge
from danube_raft.wire import codec

VERSION = 1

# Places in a request.
OP, REQUEST_ID, TIMEOUT_MS, CONSISTENCY, MIN_REVISION, CLIENT_ID, SERIAL, LOW_WATER, ARGS = range(1, 10)
# Places in a reply.
R_REQUEST_ID, R_STATUS, R_CLUSTER_ID, R_NODE_ID, R_TERM, R_REVISION, R_RESULT = range(1, 8)

STATUS_OK = 0

SESSION = "session"
LINEARIZABLE = "linearizable"
STALE = "stale"

PUT_EVENT = 0
DELETE_EVENT = 1

# Watch frames: the first item of a stream reply's result.
FRAME_EVENTS = 0
FRAME_PROGRESS = 1

MAX_KEY_BYTES = 4096
MAX_REQUEST_BYTES = 1_572_864
MAX_INTEGER = 2**53
COUNTERS = "/counters/"
"""Keys below this prefix are written by `allocate_id` only."""

Request = tuple[Any, ...]
"""A checked request: all its fields and arguments are there, with defaults where the sender left them out."""


class Record(NamedTuple):
    """A key as it is, or was, at some revision. `value` is bytes, or None where keys alone were asked for."""

    key: str
    value: bytes | None
    create_revision: int
    mod_revision: int
    version: int
    lease: int
    created_at_ms: int


class Event(NamedTuple):
    """One change: kind `PUT_EVENT` or `DELETE_EVENT`, the record after it, the record before it if asked for."""

    kind: int
    record: Record
    previous: Record | None


# ---------------------------------------------------------------- checks of single arguments


def _key(name: str, value: Any) -> None:
    if type(value) is not str:
        raise InvalidArgument(f"{name} must be a string")
    if not value:
        raise KeyEmpty(f"{name} must not be empty")
    if len(value) > 1024 and len(value.encode()) > MAX_KEY_BYTES:
        raise RequestTooLarge(f"{name} is longer than {MAX_KEY_BYTES} bytes")


def _own_key(name: str, value: Any) -> None:
    _key(name, value)
    if value.startswith(COUNTERS):
        raise InvalidArgument(f"{name} is below {COUNTERS}, which only allocate_id writes")


def _prefix(name: str, value: Any) -> None:
    if type(value) is not str:
        raise InvalidArgument(f"{name} must be a string")
    if len(value) > 1024 and len(value.encode()) > MAX_KEY_BYTES:
        raise RequestTooLarge(f"{name} is longer than {MAX_KEY_BYTES} bytes")


def _optional_prefix(name: str, value: Any) -> None:
    if value is not None:
        _prefix(name, value)


def _prefixes(name: str, value: Any) -> None:
    if type(value) is tuple:
        if not 1 <= len(value) <= 64:
            raise InvalidArgument(f"{name} must list 1 to 64 prefixes")
        for item in value:
            _prefix(name, item)
    else:
        _prefix(name, value)


def _bytes(name: str, value: Any) -> None:
    if type(value) is not bytes:
        raise InvalidArgument(f"{name} must be bytes (MessagePack bin)")


def _flag(name: str, value: Any) -> None:
    if type(value) is not bool:
        raise InvalidArgument(f"{name} must be true or false")


def _natural(name: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise InvalidArgument(f"{name} must be an integer from 0 to 2^53")


def _positive(name: str, value: Any) -> None:
    if type(value) is not int or not 1 <= value <= MAX_INTEGER:
        raise InvalidArgument(f"{name} must be an integer from 1 to 2^53")


def _block(name: str, value: Any) -> None:
    if type(value) is not int or not 1 <= value <= 1_000_000:
        raise InvalidArgument(f"{name} must be an integer from 1 to 1000000")


def _optional_natural(name: str, value: Any) -> None:
    if value is not None:
        _natural(name, value)


def _optional_positive(name: str, value: Any) -> None:
    if value is not None:
        _positive(name, value)


def _expected(name: str, value: Any) -> None:
    if value is not None and type(value) is not bytes:
        _positive(name, value)


def _token(name: str, value: Any) -> None:
    if value is not None and type(value) is not bytes:
        raise InvalidArgument(f"{name} must be a continue token from an earlier page")


def _pairs(name: str, value: Any) -> None:
    if type(value) is not tuple or len(value) > 1000:
        raise InvalidArgument(f"{name} must be a list of at most 1000 (lease, generation) pairs")
    for pair in value:
        if type(pair) is not tuple or len(pair) != 2:
            raise InvalidArgument(f"{name} must be a list of (lease, generation) pairs")
        _positive(name, pair[0])
        _natural(name, pair[1])


# ---------------------------------------------------------------- operations

WRITE = "write"
READ = "read"
WATCH = "watch"
ADMIN = "admin"
INTERNAL = "internal"
"""Kinds: a WRITE goes through the log; INTERNAL is a write that only a kv-server makes."""

_REQUIRED: Any = object()


class Argument(NamedTuple):
    """One argument: its name, its check, its default (required when there is none)."""

    name: str
    check: Callable[[str, Any], None]
    default: Any = _REQUIRED


class Operation(NamedTuple):
    """One operation: its kind, its arguments in order, its result in words."""

    kind: str
    arguments: tuple[Argument, ...]
    result: str

    @property
    def required(self) -> int:
        """How many arguments cannot be left out; they come first."""
        return sum(1 for argument in self.arguments if argument.default is _REQUIRED)


_PAGE = (
    Argument("limit", _optional_positive, None),
    Argument("token", _token, None),
    Argument("revision", _optional_positive, None),
)

OPERATIONS: dict[str, Operation] = {
    "put": Operation(
        WRITE,
        (Argument("key", _own_key), Argument("value", _bytes), Argument("prev", _flag, False)),
        "mod_revision, version, previous record or nil",
    ),
    "put_with_ttl": Operation(
        WRITE,
        (
            Argument("key", _own_key),
            Argument("value", _bytes),
            Argument("ttl_ms", _positive),
            Argument("prev", _flag, False),
        ),
        "mod_revision, version, previous record or nil, whether it was only renewed",
    ),
    "delete": Operation(
        WRITE,
        (Argument("key", _own_key), Argument("prev", _flag, False)),
        "number removed, previous record or nil",
    ),
    "delete_prefix": Operation(WRITE, (Argument("prefix", _own_key),), "number removed"),
    "compare_and_swap": Operation(
        WRITE,
        (
            Argument("key", _own_key),
            Argument("expected", _expected),
            Argument("new", _bytes),
            Argument("ttl_ms", _optional_positive, None),
        ),
        "whether it was swapped, mod_revision, version, current record where it was not swapped or nil",
    ),
    "allocate_id": Operation(
        WRITE, (Argument("counter", _key), Argument("count", _block, 1)), "first id of the block"
    ),
    "compact": Operation(WRITE, (Argument("revision", _positive),), "compaction revision"),
    "expire": Operation(INTERNAL, (Argument("leases", _pairs),), "number of leases that had expired"),
    "get": Operation(
        READ, (Argument("key", _key), Argument("revision", _optional_positive, None)), "record or nil"
    ),
    "range": Operation(
        READ,
        (
            Argument("prefix", _prefix, ""),
            *_PAGE,
            Argument("keys_only", _flag, False),
            Argument("count_only", _flag, False),
            Argument("reverse", _flag, False),
            Argument("start", _optional_prefix, None),
            Argument("end", _optional_prefix, None),
        ),
        "records, continue token or nil, revision of the page, number of keys in the page",
    ),
    "get_children": Operation(
        READ, (Argument("path", _key), *_PAGE), "keys, continue token or nil, revision of the page"
    ),
    "get_bulk": Operation(
        READ,
        (Argument("prefix", _prefix), *_PAGE),
        "[key, value, version] of each match, continue token or nil, revision of the page",
    ),
    "watch": Operation(
        WATCH,
        (
            Argument("prefixes", _prefixes),
            Argument("from_revision", _optional_positive, None),
            Argument("credit_bytes", _natural, 1_048_576),
            Argument("prev", _flag, False),
            Argument("keys_only", _flag, False),
            Argument("puts", _flag, True),
            Argument("deletes", _flag, True),
        ),
        "stream of [0, events, last revision in them, whether more of that revision follows] and [1, revision]: "
        "all up to it was delivered",
    ),
    "watch_credit": Operation(
        WATCH,
        (Argument("watch", _natural), Argument("credit_bytes", _natural, 0)),
        "no reply; keeps the watch alive",
    ),
    "watch_cancel": Operation(WATCH, (Argument("watch", _natural),), "nothing"),
    "watch_progress": Operation(WATCH, (Argument("watch", _natural),), "a progress frame on the stream"),
    "watch_poll": Operation(
        WATCH,
        (
            Argument("prefixes", _prefixes),
            Argument("after_revision", _natural),
            Argument("wait_ms", _natural, 0),
            Argument("prev", _flag, False),
            Argument("keys_only", _flag, False),
            Argument("puts", _flag, True),
            Argument("deletes", _flag, True),
        ),
        "events, revision to ask after next, whether there is more already",
    ),
    "status": Operation(ADMIN, (), "map of the node's state"),
    "members": Operation(ADMIN, (), "list of maps, one per member"),
}


class _Rule(NamedTuple):
    checks: tuple[tuple[str, Callable[[str, Any], None]], ...]
    required: int
    defaults: tuple[Any, ...]
    kind: str


def _rule(operation: Operation) -> _Rule:
    arguments = operation.arguments
    required = operation.required
    checks = tuple((a.name, a.check) for a in arguments)
    return _Rule(checks, required, tuple(a.default for a in arguments[required:]), operation.kind)


_RULES = {name: _rule(operation) for name, operation in OPERATIONS.items()}


def check(request: Any) -> Request:
    """The request with every field in place, or the error that says what is wrong with it.

    Pure and the same on every replica. Raises ProtocolVersion, InvalidArgument, KeyEmpty or RequestTooLarge.
    """
    if type(request) is not tuple or len(request) < 3:
        raise InvalidArgument("a request is an array of at least version, op and request id")
    # What is quoted in an error is quoted by type: the repr of a deeply nested value ends in a RecursionError.
    if type(request[0]) is not int or request[0] != VERSION:
        raise ProtocolVersion(f"the request is not of protocol version {VERSION}, which this node speaks")
    size = len(request)
    op = request[OP]
    rule = _RULES.get(op) if type(op) is str else None
    if rule is None:
        quoted = ascii(op[:60]) if type(op) is str else "that is not a string"
        raise ProtocolVersion(f"unknown operation {quoted}")
    if size < ARGS:
        request += (None,) * (ARGS - size)
        size = ARGS
    _check_header(request)
    given = size - ARGS
    total = len(rule.checks)
    if given != total:
        if not rule.required <= given <= total:
            raise InvalidArgument(f"{op} takes {rule.required} to {total} arguments, got {given}")
        request += rule.defaults[given - rule.required :]
    place = ARGS
    for name, verify in rule.checks:
        verify(name, request[place])
        place += 1
    checked: Request = request
    return checked


def _check_header(request: Request) -> None:
    _, _, request_id, timeout_ms, consistency, min_revision, client_id, serial, low_water = request[:ARGS]
    if type(request_id) is not int or not 0 <= request_id <= MAX_INTEGER:
        raise InvalidArgument("request id must be an integer from 0 to 2^53")
    if timeout_ms is not None:
        _positive("timeout_ms", timeout_ms)
    if consistency is not None and consistency not in (SESSION, LINEARIZABLE, STALE):
        _natural("consistency (session, linearizable, stale or a number of ms)", consistency)
    if min_revision is not None:
        if type(min_revision) is not tuple or len(min_revision) != 2:
            raise InvalidArgument("min_revision must be [cluster id, revision]")
        _natural("cluster id", min_revision[0])
        _natural("min_revision", min_revision[1])
    if client_id is not None or serial is not None or low_water is not None:
        _positive("client id", client_id)
        _positive("serial", serial)
        _natural("low_water", 0 if low_water is None else low_water)


def kind_of(op: Any) -> str | None:
    """The kind of an operation, None when there is no such operation."""
    rule = _RULES.get(op) if type(op) is str else None
    return None if rule is None else rule.kind


def request_id_of(request: Any) -> int:
    """The id to answer a request under, 0 when it has none that can be used."""
    if type(request) is tuple and len(request) > REQUEST_ID:
        value = request[REQUEST_ID]
        if type(value) is int and 0 <= value <= MAX_INTEGER:
            return value
    return 0


def pack_request(
    op: str,
    request_id: int,
    *args: Any,
    timeout_ms: int | None = None,
    consistency: str | int | None = None,
    min_revision: tuple[int, int] | None = None,
    client_id: int | None = None,
    serial: int | None = None,
    low_water: int | None = None,
) -> bytes:
    """The bytes of one request, unchecked."""
    return codec.pack(
        (VERSION, op, request_id, timeout_ms, consistency, min_revision, client_id, serial, low_water, *args)
    )


def unpack_replies(body: bytes) -> Iterator[tuple[Any, ...]]:
    """The replies in a body; raises `codec.Malformed` on anything else."""
    for reply in codec.unpack_stream(body):
        codec.expect(
            type(reply) is tuple
            and len(reply) >= R_RESULT
            and reply[0] == VERSION
            and all(type(field) is int for field in reply[1:R_RESULT]),
            "a reply is [version, request id, status, cluster id, node id, term, revision, result…]",
        )
        yield reply
