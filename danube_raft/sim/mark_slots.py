"""The durable mark as the log-writer sees it, on a disk whose syncs take virtual time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from danube_raft.storage.memory_mark import MemoryMark


class Slots:
    """`MarkSlots` of a disk: safe only after its `finish`. `marking` is around every write."""

    def __init__(self, mark: MemoryMark, marking: Callable[[], AbstractContextManager[None]]) -> None:
        self._mark = mark
        self._marking = marking

    def read(self) -> tuple[bytes, bytes] | None:
        """See MarkSlots."""
        return self._mark.read()

    def create(self, slots: tuple[bytes, bytes]) -> None:
        """See MarkSlots."""
        with self._marking():
            self._mark.create_unsynced(slots)

    def write(self, place: int, slot: bytes) -> None:
        """See MarkSlots."""
        with self._marking():
            self._mark.write_unsynced(place, slot)

    def close(self) -> None:
        """See MarkSlots."""
        self._mark.close()
