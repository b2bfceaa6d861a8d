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

`operations.py` declares every operation: its kind, its arguments with their checks, and its result. A check is the same for a node that takes a request and for the replica that applies it, so both decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from danube_raft.errors import InvalidArgument, ProtocolVersion
from danube_raft.wire import arguments, codec
from danube_raft.wire.operations import OPERATIONS, Operation

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

MAX_REQUEST_BYTES = 1_572_864

Request = tuple[Any, ...]
"""A checked request: all its fields and arguments are there, with defaults where the sender left them out."""


class _Rule(NamedTuple):
    checks: tuple[tuple[str, Callable[[str, Any], None]], ...]
    required: int
    defaults: tuple[Any, ...]
    kind: str


def _rule(operation: Operation) -> _Rule:
    declared, required = operation.arguments, operation.required
    checks = tuple((argument.name, argument.check) for argument in declared)
    return _Rule(
        checks, required, tuple(argument.default for argument in declared[required:]), operation.kind
    )


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
    if type(request_id) is not int or not 0 <= request_id <= arguments.MAX_INTEGER:
        raise InvalidArgument("request id must be an integer from 0 to 2^53")
    if timeout_ms is not None:
        arguments.positive("timeout_ms", timeout_ms)
    if consistency is not None and consistency not in (SESSION, LINEARIZABLE, STALE):
        arguments.natural("consistency (session, linearizable, stale or a number of ms)", consistency)
    if min_revision is not None:
        if type(min_revision) is not tuple or len(min_revision) != 2:
            raise InvalidArgument("min_revision must be [cluster id, revision]")
        arguments.natural("cluster id", min_revision[0])
        arguments.natural("min_revision", min_revision[1])
    if client_id is not None or serial is not None or low_water is not None:
        arguments.positive("client id", client_id)
        arguments.positive("serial", serial)
        arguments.natural("low_water", 0 if low_water is None else low_water)


def kind_of(op: Any) -> str | None:
    """The kind of an operation, None when there is no such operation."""
    rule = _RULES.get(op) if type(op) is str else None
    return None if rule is None else rule.kind


def is_request(value: Any) -> bool:
    """Whether this has the beginning of a request, so that an answer can name its request id."""
    return (
        type(value) is tuple
        and len(value) > REQUEST_ID
        and type(value[REQUEST_ID]) is int
        and 0 <= value[REQUEST_ID] <= arguments.MAX_INTEGER
    )


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
