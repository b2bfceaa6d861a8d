"""Requests and replies of clients: their exact bytes, and what the checks say to everything else.

The bytes are the contract with programs in other languages and with older clients. The checks run on every replica
while it applies, so for any input they give an answer or one of four errors, and the same one everywhere.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from danube_raft.errors import InvalidArgument, KeyEmpty, ProtocolVersion, RequestTooLarge
from danube_raft.wire import client, codec
from danube_raft.wire.operations import ADMIN, INTERNAL, OPERATIONS, READ, WATCH, WRITE

BARE = "c0c0c0c0c0c0"  # timeout, consistency, min_revision, client id, serial, low_water: all nil

GOLDEN: dict[str, tuple[tuple[Any, ...], str, tuple[Any, ...]]] = {
    "put": (("/a", b"v"), "9b01a370757405" + BARE + "a22f61c40176", ("/a", b"v", False)),
    "put_with_ttl": (
        ("/a", b"v", 32_000),
        "9c01ac7075745f776974685f74746c05" + BARE + "a22f61c40176cd7d00",
        ("/a", b"v", 32_000, False),
    ),
    "delete": (("/a", True), "9b01a664656c65746505" + BARE + "a22f61c3", ("/a", True)),
    "delete_prefix": (("/a",), "9a01ad64656c6574655f70726566697805" + BARE + "a22f61", ("/a",)),
    "compare_and_swap": (
        ("/a", None, b"v"),
        "9c01b0636f6d706172655f616e645f7377617005" + BARE + "a22f61c0c40176",
        ("/a", None, b"v", None),
    ),
    "allocate_id": (("t", 9), "9b01ab616c6c6f636174655f696405" + BARE + "a17409", ("t", 9)),
    "compact": ((300,), "9a01a7636f6d7061637405" + BARE + "cd012c", (300,)),
    "digest": ((), "9901a664696765737405" + BARE, ()),
    "expire": ((((1, 0), (2, 7)),), "9a01a665787069726505" + BARE + "92920100920207", (((1, 0), (2, 7)),)),
    "digest_report": (
        (7, 1, b"s" * 32),
        "9c01ad6469676573745f7265706f727405" + BARE + "0701c420" + "73" * 32,
        (7, 1, b"s" * 32),
    ),
    "get": (("/a",), "9a01a367657405" + BARE + "a22f61", ("/a", None)),
    "range": (
        ("/a", 10),
        "9b01a572616e676505" + BARE + "a22f610a",
        ("/a", 10, None, None, False, False, False, None, None),
    ),
    "get_children": (
        ("/a",),
        "9a01ac6765745f6368696c6472656e05" + BARE + "a22f61",
        ("/a", None, None, None),
    ),
    "get_bulk": (
        ("/a", None, b"t", 4),
        "9d01a86765745f62756c6b05" + BARE + "a22f61c0c4017404",
        ("/a", None, b"t", 4),
    ),
    "watch": (
        (("/a", "/b"), 7),
        "9b01a5776174636805" + BARE + "92a22f61a22f6207",
        (("/a", "/b"), 7, 1_048_576, False, False, True, True),
    ),
    "watch_credit": ((5, 100), "9b01ac77617463685f63726564697405" + BARE + "0564", (5, 100)),
    "watch_cancel": ((5,), "9a01ac77617463685f63616e63656c05" + BARE + "05", (5,)),
    "watch_progress": ((5,), "9a01ae77617463685f70726f677265737305" + BARE + "05", (5,)),
    "watch_poll": (
        ("/a", 7),
        "9b01aa77617463685f706f6c6c05" + BARE + "a22f6107",
        ("/a", 7, 0, False, False, True, True),
    ),
    "status": ((), "9901a673746174757305" + BARE, ()),
    "members": ((), "9901a76d656d6265727305" + BARE, ()),
    "digest_reports": ((7,), "9a01ae6469676573745f7265706f72747305" + BARE + "07", (7,)),
    "snapshot_take": ((7,), "9a01ad736e617073686f745f74616b6505" + BARE + "07", (7,)),
    "snapshot_piece": (
        (7, 2, 1_048_576, 65_536),
        "9d01ae736e617073686f745f706965636505" + BARE + "0702ce00100000ce00010000",
        (7, 2, 1_048_576, 65_536),
    ),
    "leadership_poll": ((3, 1), "9b01af6c6561646572736869705f706f6c6c05" + BARE + "0301", (3, 1, 0)),
}


def test_every_operation_has_its_bytes_here() -> None:
    assert set(GOLDEN) == set(OPERATIONS)


@pytest.mark.parametrize("op", GOLDEN)
def test_requests_keep_their_bytes_and_get_their_defaults(op: str) -> None:
    arguments, golden, checked = GOLDEN[op]
    packed = client.pack_request(op, 5, *arguments)
    assert packed.hex() == golden
    request = client.check(codec.unpack(packed))
    assert request == (1, op, 5, None, None, None, None, None, None, *checked)
    assert client.check(request) == request


def test_all_header_fields_have_their_place() -> None:
    packed = client.pack_request(
        "get", 2**53, "/a", timeout_ms=5, consistency="stale", min_revision=(9, 8), client_id=7, serial=6, low_water=4
    )  # fmt: skip
    assert packed.hex() == "9a01a3676574cf002000000000000005a57374616c6592090807" + "0604a22f61"
    request = client.check(codec.unpack(packed))
    assert request[client.TIMEOUT_MS : client.ARGS] == (5, "stale", (9, 8), 7, 6, 4)


def test_a_bare_request_may_leave_out_all_but_version_op_and_id() -> None:
    assert client.check((1, "status", 3)) == (1, "status", 3, None, None, None, None, None, None)
    with pytest.raises(InvalidArgument):
        client.check((1, "get", 3))


def test_the_fields_of_a_reply_keep_their_places() -> None:
    reply = (1, 5, 0, 11, 12, 13, 14, "result")
    assert list(client.unpack_replies(codec.pack(reply) * 2)) == [reply, reply]
    assert [
        client.R_REQUEST_ID, client.R_STATUS, client.R_CLUSTER_ID, client.R_NODE_ID, client.R_TERM,
        client.R_REVISION, client.R_RESULT,
    ] == [1, 2, 3, 4, 5, 6, 7]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [b"\xc1", codec.pack(5), codec.pack((1, 2, 3)), codec.pack((2, 1, 1, 1, 1, 1, 1)),
     codec.pack((1, "1", 1, 1, 1, 1, 1)), codec.pack((1, True, 1, 1, 1, 1, 1)), codec.pack((1,) * 7)[:-1]],
)  # fmt: skip
def test_a_reply_of_another_shape_is_malformed(body: bytes) -> None:
    with pytest.raises(codec.Malformed):
        list(client.unpack_replies(body))


def _request(op: str, *arguments: Any) -> tuple[Any, ...]:
    return (1, op, 1, None, None, None, None, None, None, *arguments)


@pytest.mark.parametrize(
    ("op", "arguments", "error"),
    [
        ("put", ("", b""), KeyEmpty), ("put", (b"/a", b""), InvalidArgument), ("put", ("/a", "v"), InvalidArgument),
        ("put", ("/a", b"", 1), InvalidArgument), ("put", ("/a",), InvalidArgument),
        ("put", ("/a", b"", True, 1), InvalidArgument), ("put", ("k" * 4097, b""), RequestTooLarge),
        ("put", ("é" * 2049, b""), RequestTooLarge), ("put", ("/counters/x", b""), InvalidArgument),
        ("put_with_ttl", ("/a", b"", 0), InvalidArgument), ("put_with_ttl", ("/a", b"", -5), InvalidArgument),
        ("put_with_ttl", ("/a", b"", 1.5), InvalidArgument), ("put_with_ttl", ("/a", b"", True), InvalidArgument),
        ("put_with_ttl", ("/a", b"", 2**53 + 1), InvalidArgument), ("delete_prefix", ("",), KeyEmpty),
        ("delete_prefix", ("/counters/",), InvalidArgument),
        ("compare_and_swap", ("/a", "v", b""), InvalidArgument),
        ("compare_and_swap", ("/a", 0, b""), InvalidArgument),
        ("compare_and_swap", ("/a", True, b""), InvalidArgument),
        ("allocate_id", ("c", 0), InvalidArgument), ("allocate_id", ("c", 1_000_001), InvalidArgument),
        ("allocate_id", ("",), KeyEmpty), ("compact", (0,), InvalidArgument),
        ("expire", ([],), InvalidArgument), ("expire", (((1,),),), InvalidArgument),
        ("expire", (((0, 1),),), InvalidArgument), ("expire", (((1, 0),) * 1001,), InvalidArgument),
        ("digest_report", (0, 1, bytes(32)), InvalidArgument), ("digest_report", (7, -1, bytes(32)), InvalidArgument),
        ("digest_report", (7, 1, bytes(31)), InvalidArgument), ("digest_report", (7, 1, "s" * 32), InvalidArgument),
        ("get", ("/a", 0), InvalidArgument), ("range", ("/", 0), InvalidArgument),
        ("range", ("p" * 4097,), RequestTooLarge), ("range", ("/", None, "token"), InvalidArgument),
        ("watch", ((),), InvalidArgument), ("watch", (("/",) * 65,), InvalidArgument),
        ("watch", ((5,),), InvalidArgument), ("watch", (None,), InvalidArgument),
        ("nonsense", (), ProtocolVersion), (7, (), ProtocolVersion), (("put",), (), ProtocolVersion),
        (None, (), ProtocolVersion), ("x" * 10_000, (), ProtocolVersion),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_by_kind(
    op: Any, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        client.check(_request(op, *arguments))
    assert type(caught.value) is error
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (2, None), (2, -1), (2, True), (2, 2**53 + 1), (3, 0), (3, "5"), (4, "fresh"), (4, -1), (4, b"session"),
        (5, 7), (5, (1,)), (5, (1, -1)), (5, [1, 1]), (6, 5), (7, 5), (8, 5),
    ],
)  # fmt: skip
def test_bad_header_fields_are_refused(place: int, value: Any) -> None:
    fields = list(_request("get", "/a"))
    fields[place] = value
    with pytest.raises(InvalidArgument):
        client.check(tuple(fields))


@pytest.mark.parametrize("version", [0, 2, None, "1", 1.0, True, (1,)])
def test_another_version_is_refused(version: Any) -> None:
    with pytest.raises(ProtocolVersion):
        client.check((version, "get", 1))


@pytest.mark.parametrize("place", range(11))
def test_deep_nesting_is_refused_like_any_other_wrong_type(place: int) -> None:
    """A repr in an error text once turned it into a RecursionError, which no client may cause."""
    fields = [codec.pack(field) for field in _request("put", "/a", b"v")]
    fields[place] = b"\x91" * 1_015 + b"\x01"
    with pytest.raises((InvalidArgument, ProtocolVersion)):
        client.check(codec.unpack(bytes([0x90 + len(fields)]) + b"".join(fields)))


@pytest.mark.parametrize("raw", [None, 5, "x", b"x", (), (1,), (1, "get"), [1, "get", 1], {1: 2}])
def test_what_is_no_request_at_all_is_refused(raw: Any) -> None:
    with pytest.raises(InvalidArgument):
        client.check(raw)
    assert not client.is_request(raw)


def test_an_answer_to_a_broken_request_still_finds_its_id() -> None:
    assert client.is_request((9, None, 77))
    assert not client.is_request((9, None, True))
    assert not client.is_request((9, None, -1))


def test_kinds_say_which_way_a_request_goes() -> None:
    kinds = {op: client.kind_of(op) for op in OPERATIONS}
    assert [op for op, kind in kinds.items() if kind == INTERNAL] == ["expire", "digest_report"]
    assert {op for op, kind in kinds.items() if kind == READ} == {"get", "range", "get_children", "get_bulk"}
    assert set(kinds.values()) == {WRITE, INTERNAL, READ, WATCH, ADMIN}
    assert client.kind_of("nonsense") is client.kind_of(5) is client.kind_of(("put",)) is None


def _value(rng: random.Random, depth: int) -> Any:
    pick = rng.randrange(11 if depth else 9)
    if pick < 9:
        return (
            None, True, rng.randrange(-3, 3), rng.randrange(2**60), 0.5, "/a", b"v", "", rng.choice(list(OPERATIONS)),
        )[pick]  # fmt: skip
    return tuple(_value(rng, depth - 1) for _ in range(rng.randrange(4)))


def test_checks_answer_anything_with_a_request_or_one_of_four_errors() -> None:
    rng = random.Random(7)
    good = 0
    for _ in range(20_000):
        op = rng.choice(list(OPERATIONS))
        arguments = list(GOLDEN[op][2])
        fields = list(_request(op, *arguments))
        for _ in range(rng.randrange(3)):
            fields[rng.randrange(len(fields))] = _value(rng, 2)
        raw = tuple(fields[: rng.randrange(len(fields) + 1)] if rng.random() < 0.3 else fields)
        try:
            request = client.check(raw)
        except (InvalidArgument, ProtocolVersion, KeyEmpty, RequestTooLarge):
            continue
        good += 1
        assert len(request) == client.ARGS + len(OPERATIONS[request[1]].arguments)
        assert client.check(request) == request
    assert 4_000 < good < 18_000


def test_broken_bytes_are_malformed_and_nothing_else() -> None:
    rng = random.Random(8)
    whole = b"".join(client.pack_request(op, 5, *GOLDEN[op][0]) for op in GOLDEN)
    for _ in range(5_000):
        broken = bytearray(whole[: rng.randrange(1, len(whole))])
        for _ in range(rng.randrange(3)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            for raw in codec.unpack_stream(bytes(broken)):
                client.check(raw)
        except (codec.Malformed, InvalidArgument, ProtocolVersion, KeyEmpty, RequestTooLarge):
            continue
