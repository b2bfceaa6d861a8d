"""Limits that change how an entry is applied.

They are constants and not settings, because every replica must apply an entry in the same way whatever its
configuration file says: two nodes that forget a session at different moments are two different stores. Changing
one of them is a change of the format and needs a new feature level.

Limits that only shape an answer or a proposal of one node (page sizes, how much history to keep) are settings.
All sizes are counted by `kv/record.py` from lengths alone, never by asking the interpreter, so that they agree
between versions of Python.
"""

from __future__ import annotations

MAX_STATE_BYTES = 2 << 30
"""Records, history and kept results together. Above it, commands that grow the state get NoSpace; delete, compact,
expire and the renewal of a lease always pass, since they are the way out."""

MAX_SESSIONS = 10_000
"""Sessions that are remembered. Above it the one that wrote longest ago is dropped."""

SESSION_IDLE_MS = 3_600_000
"""A session that has not written for this long (in cluster time) is dropped. Clients never retry a write that is
older than five minutes, so nothing that may still be repeated is forgotten."""

MAX_SESSION_SERIALS = 256
"""Results kept per session: what a client may have outstanding, counted from its low_water."""

MAX_KEPT_RESULT_BYTES = 64 << 10
"""A result whose record is larger is kept without the record."""
