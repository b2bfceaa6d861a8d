"""A row of objects that comes in pieces: given out as soon as they are whole, refused before they cost much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from danube_raft.wire import codec
from danube_raft.wire.codec import Malformed, Row

OBJECTS: list[Any] = [1, ("a", b"b" * 300, None), (), (True, (2**64 - 1, -1, 1.5)), "é" * 20]


def fed(row: Row, data: bytes, size: int) -> Iterator[Any]:
    for start in range(0, len(data), size):
        yield from row.feed(data[start : start + size])


@pytest.mark.parametrize("size", [1, 2, 3, 50, 10_000])
def test_objects_come_out_whole_however_the_bytes_are_cut(size: int) -> None:
    data = b"".join(map(codec.pack, OBJECTS))
    row = Row(10, 1_000)
    assert list(fed(row, data, size)) == OBJECTS
    row.finish()
    assert row.end == len(data)


def test_the_packer_for_many_and_the_header_of_an_array_make_the_same_bytes() -> None:
    pack = codec.packer()
    assert [pack(value) for value in OBJECTS] == list(map(codec.pack, OBJECTS))
    assert codec.array_header(5) + b"".join(map(pack, OBJECTS)) == codec.pack(OBJECTS)
    assert codec.array_header(4_096) == codec.pack([0] * 4_096)[:3]


def test_an_object_is_given_out_with_the_piece_that_ends_it() -> None:
    row = Row(10, 1_000)
    packed = codec.pack((1, 2))
    assert list(row.feed(packed[:-1])) == []
    with pytest.raises(Malformed, match="begins at byte 0 is cut short"):
        row.finish()
    assert list(row.feed(packed[-1:] + packed + packed[:1])) == [(1, 2), (1, 2)]
    with pytest.raises(Malformed, match="begins at byte 6 is cut short"):
        row.finish()


@pytest.mark.parametrize(
    "data",
    [
        codec.pack([0] * 11), b"\xdd\xff\xff\xff\xff", codec.pack({"a": 2}), msgpack.packb(msgpack.ExtType(1, b"x")),
        b"\xc1", b"\xa2\xff\xff", b"\x91" * 5_000,
    ],
    ids=["too long", "far too long", "map", "extension", "no type", "no UTF-8", "too deep"],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 10_000])
def test_what_no_row_has_is_refused_with_its_place(data: bytes, size: int) -> None:
    with pytest.raises(Malformed, match="after byte 1"):
        list(fed(Row(10, 1_000), b"\x07" + data, size))


def test_a_value_that_never_ends_is_not_collected_for_ever() -> None:
    row = Row(10, 1_000)
    with pytest.raises(Malformed, match="after byte 0"):
        list(fed(row, b"\xc6\xff\xff\xff\xff" + bytes(8 << 20), codec.PIECE_BYTES))
