"""The durable mark in memory: twin of the file, on a disk that can lose, tear and refuse.

As in `memory_log.py` there are two images: what is shown, and what is surely on the disk. `write_unsynced` changes the
first, `sync` the second. A `crash` goes back to the second, plus the first few unsynced writes; the one after those
may be torn, which leaves its slot unreadable and the other as it was. The object is the disk and outlives the process;
it begins as a disk of a node that has an identity.
"""

from __future__ import annotations

from danube_raft.errors import DiskFailed
from danube_raft.storage.durable_mark import FIRST
from danube_raft.storage.memory_log import AFTER, BEFORE, NEVER

TORN = b""


class MemoryMark:
    """`MarkSlots` in memory."""

    def __init__(self) -> None:
        self._durable: tuple[bytes, bytes] | None = FIRST
        self._shown: tuple[bytes, bytes] | None = FIRST
        self._unsynced: list[tuple[int, tuple[bytes, bytes]]] = []
        """Place that was written (-1: both at once, in a file that is renamed), and both slots after it."""
        self._failed = False
        self._fails_next = NEVER

    # What a test or a simulator does to the disk.

    @property
    def unsynced(self) -> int:
        """Number of writes that a crash may lose."""
        return len(self._unsynced)

    def crash(self, surviving: int = 0, *, torn: bool = False) -> None:
        """Lose power: of the unsynced writes only the first `surviving` remain, and of the next one a part."""
        for _, slots in self._unsynced[:surviving]:
            self._durable = slots
        for place, _ in self._unsynced[surviving : surviving + torn]:
            if place >= 0:
                self.damage(place)
        self._shown = self._durable
        self._unsynced.clear()
        self.close()

    def damage(self, place: int, slot: bytes = TORN) -> None:
        """Put `slot` in the place of what is stored."""
        assert self._durable is not None, "there is a mark to damage"
        slots = list(self._durable)
        slots[place] = slot
        self._durable = self._shown = (slots[0], slots[1])

    def lose(self) -> None:
        """The file is gone."""
        self._durable = self._shown = None

    def fail_next_write(self, when: str = BEFORE) -> None:
        """The next write raises DiskFailed, `BEFORE` or `AFTER` it took effect, and so does everything after it until the
        next `close`; `NEVER`: not after all."""
        assert when in (BEFORE, AFTER, NEVER)
        self._fails_next = when

    # MarkSlots.

    def read(self) -> tuple[bytes, bytes] | None:
        """See MarkSlots."""
        return self._shown

    def create(self, slots: tuple[bytes, bytes]) -> None:
        """See MarkSlots."""
        self.create_unsynced(slots)
        self.sync()

    def write(self, place: int, slot: bytes) -> None:
        """See MarkSlots."""
        self.write_unsynced(place, slot)
        self.sync()

    def create_unsynced(self, slots: tuple[bytes, bytes]) -> None:
        """First half of `create`: lost at a crash before the `sync`."""
        self._change(-1, slots)

    def write_unsynced(self, place: int, slot: bytes) -> None:
        """First half of `write`: lost, or torn, at a crash before the `sync`."""
        assert self._shown is not None, "a mark is created before it is written"
        self._change(place, (slot, self._shown[1]) if place == 0 else (self._shown[0], slot))

    def sync(self) -> None:
        """Second half: everything so far survives a crash."""
        self._durable = self._shown
        self._unsynced.clear()

    def close(self) -> None:
        """See MarkSlots. What is unsynced stays: a process that ends loses nothing that it wrote."""
        self._failed = False

    def _change(self, place: int, slots: tuple[bytes, bytes]) -> None:
        when, self._fails_next = self._fails_next, NEVER
        self._failed |= when == BEFORE
        if not self._failed:
            self._shown = slots
            self._unsynced.append((place, slots))
            self._failed = when == AFTER
        if self._failed:
            raise DiskFailed("the disk was told to fail")
