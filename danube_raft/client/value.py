"""How Python values become the bytes of a value, and back.

The default is JSON with sorted keys and no blanks, so that equal values have equal bytes (compare_and_swap compares
bytes), `get` on the command line prints something readable, and other languages can read it. `RAW` leaves bytes as
they are. Anything with these two methods is a codec. NaN and infinity are no JSON and are refused.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from danube_raft.errors import InvalidArgument


class Codec(Protocol):
    """Turns values into bytes and back; raises InvalidArgument for what it cannot."""

    def encode(self, value: Any) -> bytes:
        """The bytes to store."""

    def decode(self, data: bytes) -> Any:
        """The value that the bytes stand for."""


class JsonCodec:
    """JSON, sorted keys, compact, UTF-8."""

    def __init__(self) -> None:
        self._dumps = json.JSONEncoder(
            sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode

    def encode(self, value: Any) -> bytes:
        """Raises InvalidArgument for what JSON does not have."""
        try:
            return self._dumps(value).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(f"the value cannot be written as JSON: {error}") from None

    def decode(self, data: bytes) -> Any:
        """Raises InvalidArgument for bytes that someone else stored and that are not JSON."""
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise InvalidArgument(f"the value {data[:40]!r} is not JSON; read it with raw=True") from None


class RawCodec:
    """Bytes as they are."""

    def encode(self, value: Any) -> bytes:
        """Raises InvalidArgument for anything but bytes."""
        if not isinstance(value, bytes | bytearray | memoryview):
            raise InvalidArgument(f"a raw value must be bytes, not {type(value).__name__}")
        return bytes(value)

    def decode(self, data: bytes) -> bytes:
        """The same bytes."""
        return data


JSON = JsonCodec()
RAW = RawCodec()
