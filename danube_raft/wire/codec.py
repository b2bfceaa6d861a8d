"""MessagePack with limits: the only place that packs and unpacks bytes of a message.

Everything that arrives is checked for size before it is decoded, decoded into immutable tuples, and refused with
`Malformed` when it is not exactly one well-formed object (or, for a stream, a row of them). Extension types are
refused: no message uses them. Nothing here ever runs code that a message names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack


class Malformed(ValueError):
    """Bytes that are not a message of ours. The text says what is wrong with them."""


_FAILURES = (ValueError, TypeError, msgpack.UnpackException, RecursionError)


def pack(value: object) -> bytes:
    """MessagePack bytes of a value made of tuples, lists, dicts, strings, bytes, ints, floats, bools and None."""
    packed: bytes = msgpack.packb(value)
    return packed


def unpack(data: bytes) -> Any:
    """The one object in `data`, arrays as tuples; raises `Malformed` for anything else."""
    try:
        return msgpack.unpackb(data, use_list=False, max_ext_len=0)
    except _FAILURES as error:
        raise Malformed(f"not one MessagePack object: {type(error).__name__}") from None


def unpack_stream(data: bytes) -> Iterator[Any]:
    """The objects that stand back to back in `data`; raises `Malformed` where the row breaks."""
    unpacker = msgpack.Unpacker(use_list=False, max_ext_len=0, max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    end = 0
    while end < len(data):
        try:
            value = unpacker.unpack()
        except _FAILURES as error:
            raise Malformed(f"broken MessagePack after byte {end}: {type(error).__name__}") from None
        end = unpacker.tell()
        yield value


def expect(condition: bool, what: str) -> None:
    """Raise `Malformed(what)` unless `condition` holds."""
    if not condition:
        raise Malformed(what)
