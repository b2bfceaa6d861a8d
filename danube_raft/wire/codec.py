"""MessagePack with limits: the only place that packs and unpacks bytes of a message.

Everything that arrives is checked for size before it is decoded, decoded into immutable tuples, and refused with
`Malformed` when it is not exactly one well-formed object (or, for a stream, a row of them). Extension types are
refused: no message uses them. Nothing here ever runs code that a message names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgpack

PIECE_BYTES = 1 << 20
"""What a row of objects is fed by."""


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


def packer() -> Callable[[object], bytes]:
    """`pack` for a long row of values, without its cost for each."""
    packed: Callable[[object], bytes] = msgpack.Packer().pack
    return packed


def array_header(size: int) -> bytes:
    """What comes before `size` packed objects that make one array together."""
    header: bytes = msgpack.Packer().pack_array_header(size)
    return header


class Row:
    """Objects that stand back to back in bytes that come piece by piece, cut anywhere.

    No array may have more than `max_items` items, no single value more than `max_value_bytes`; both bound what a few
    bytes can make this allocate. Maps are refused as well.
    """

    def __init__(self, max_items: int, max_value_bytes: int) -> None:
        self._unpacker = msgpack.Unpacker(
            use_list=False,
            max_ext_len=0,
            max_map_len=0,
            max_array_len=max_items,
            max_buffer_size=max_value_bytes + PIECE_BYTES,
        )
        self._fed = 0
        self._end = 0

    @property
    def end(self) -> int:
        """How many bytes the objects took that were given out."""
        return self._end

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The objects that are whole now; raises `Malformed` where the row breaks, and is of no use after that."""
        for start in range(0, len(piece), PIECE_BYTES):
            part = piece[start : start + PIECE_BYTES]
            try:
                self._unpacker.feed(part)
            except _FAILURES as error:
                raise self._broken(error) from None
            self._fed += len(part)
            yield from self._whole()

    def finish(self) -> None:
        """Raise `Malformed` unless the last object is whole."""
        expect(self._end == self._fed, f"the object that begins at byte {self._end} is cut short")

    def _whole(self) -> Iterator[Any]:
        while self._end < self._fed:
            try:
                value = self._unpacker.unpack()
            except msgpack.OutOfData:
                return
            except _FAILURES as error:
                raise self._broken(error) from None
            self._end = self._unpacker.tell()
            yield value

    def _broken(self, error: Exception) -> Malformed:
        return Malformed(f"broken MessagePack after byte {self._end}: {type(error).__name__}")


def expect(condition: bool, what: str) -> None:
    """Raise `Malformed(what)` unless `condition` holds."""
    if not condition:
        raise Malformed(what)
