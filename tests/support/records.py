"""Records that a test expects to be there."""

from __future__ import annotations

from danube_raft import Record


def the(record: Record | None) -> Record:
    """The record, which must exist."""
    assert record is not None, "there is no record"
    return record
