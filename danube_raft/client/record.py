"""What a store hands out: records, events, and the answers to writes. Plain values, no behaviour but decoding.

A record keeps the bytes of its value and decodes them when `value` is first asked for: a listing of 100,000 keys of
which three values are looked at decodes three. `value` is None where keys alone were asked for, in the record of a
delete event, and for a stored JSON null; `raw` tells these apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, TypeVar

from danube_raft.client.value import Codec
from danube_raft.wire import client as wire

W = TypeVar("W")

PUT: Final = "put"
DELETE: Final = "delete"


@dataclass(frozen=True, slots=True)
class Record:
    """A key as it is, or was, at some revision. Two records are equal when all that is stored is."""

    key: str
    raw: bytes | None
    create_revision: int
    mod_revision: int
    version: int
    lease: int
    created_at_ms: int
    codec: Codec = field(repr=False, compare=False)

    @property
    def value(self) -> Any:
        """The decoded value. Raises InvalidArgument if the bytes are not what the codec expects."""
        return None if self.raw is None else self.codec.decode(self.raw)

    @staticmethod
    def of(fields: Sequence[Any], codec: Codec) -> Record:
        """From the wire."""
        key, raw, create_revision, mod_revision, version, lease, created_at_ms = fields[:7]
        return Record(key, raw, create_revision, mod_revision, version, lease, created_at_ms, codec)


@dataclass(frozen=True, slots=True)
class Event:
    """One change: `kind` is "put" or "delete"; `previous` is the record before it, if asked for and there was one."""

    kind: str
    record: Record
    previous: Record | None

    @property
    def key(self) -> str:
        """The key that changed."""
        return self.record.key

    @property
    def value(self) -> Any:
        """The new value; None for a delete."""
        return self.record.value

    @property
    def revision(self) -> int:
        """The revision of the change."""
        return self.record.mod_revision

    @staticmethod
    def of(fields: Sequence[Any], codec: Codec) -> Event:
        """From the wire."""
        kind, record, previous = fields[:3]
        return Event(
            PUT if kind == wire.PUT_EVENT else DELETE,
            Record.of(record, codec),
            None if previous is None else Record.of(previous, codec),
        )


class Versioned(NamedTuple):
    """One match of `get_bulk`: the value as bytes."""

    key: str
    value: bytes
    version: int


class Listing(NamedTuple, Generic[W]):
    """What `list_and_watch` returns: the records as of `revision`, and a watch of everything that comes after it."""

    records: list[Record]
    revision: int
    watch: W


class Written(NamedTuple):
    """Answer to a put. `renewed`: only the TTL was renewed, nothing else changed."""

    revision: int
    version: int
    previous: Record | None
    renewed: bool = False


class Swapped(NamedTuple):
    """Answer to a compare_and_swap. If `swapped` is false, `current` is the record that is there (None: absent)."""

    swapped: bool
    revision: int
    version: int
    current: Record | None

    def __bool__(self) -> bool:
        return self.swapped


class Revision(NamedTuple):
    """Expected by compare_and_swap: that the key was last changed at this revision."""

    number: int


class Absent(Enum):
    """The type of ABSENT."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""Expected by compare_and_swap: that the key does not exist."""


class MetaOptions(Enum):
    """Second argument of `get` and third of `put`, as in the contract of the Rust danube-raft.

    WITH_PREFIX makes `get` return every record below the key. WITH_PREV_KEY asks for the record before the operation:
    for a put that is the old one; for a get, which changes nothing, it is the record itself.
    """

    NONE = "none"
    WITH_PREFIX = "with_prefix"
    WITH_PREV_KEY = "with_prev_key"
