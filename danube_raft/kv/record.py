"""What a key is at one revision, as the state machine holds it.

A record is a plain tuple with the fields of a record in `wire/client.py`, in that order. It is not a NamedTuple inside
`kv/`: exact tuples of plain values leave the garbage collector's lists, so that a store of a million keys does not
stop for its collections, and they are quicker to make.

An event is a record too. A put leaves its record, a delete leaves a *tombstone*: the key, no value, the revision of
the delete as mod_revision, zeros for the rest. Values are always bytes, so a record without a value is a tombstone.

Sizes are estimates made of lengths alone; they must be the same on every replica.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Record: TypeAlias = tuple[str, bytes | None, int, int, int, int, int]
"""(key, value, create_revision, mod_revision, version, lease, created_at_ms)"""

KEY: Final = 0
VALUE: Final = 1
CREATE_REVISION: Final = 2
MOD_REVISION: Final = 3
VERSION: Final = 4
LEASE: Final = 5
CREATED_AT_MS: Final = 6

OVERHEAD_BYTES = 320
"""What a record costs in memory beside its key and value: the tuple, its integers, its places in the indexes."""

_WIRE_OVERHEAD_BYTES = 48
"""What a record takes on the wire beside its key and value, at most: five integers and the headers."""


def tombstone(key: str, revision: int) -> Record:
    """The event of a delete at `revision`."""
    return (key, None, 0, revision, 0, 0, 0)


def cost(record: Record) -> int:
    """What `record` counts for in the size of the state. Characters of the key are counted, not bytes."""
    value = record[VALUE]
    return OVERHEAD_BYTES + len(record[KEY]) + (0 if value is None else len(value))


def wire_bytes(record: Record) -> int:
    """Upper bound of what `record` takes in a message."""
    key, value = record[KEY], record[VALUE]
    size = len(key) if key.isascii() else len(key.encode())
    return _WIRE_OVERHEAD_BYTES + size + (0 if value is None else len(value))


def without_value(record: Record) -> Record:
    """The record for a reader that asked for keys only."""
    return (record[0], None, *record[2:])


def prefix_end(prefix: str) -> str | None:
    """The least string above every string that starts with `prefix`, None when there is none.

    Strings compare by code point, which is the order of their UTF-8 bytes. The result is only ever compared with,
    so it does no harm that it may be half of a surrogate pair.
    """
    stripped = prefix.rstrip("\U0010ffff")
    return stripped[:-1] + chr(ord(stripped[-1]) + 1) if stripped else None
