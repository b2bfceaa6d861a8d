"""The durable mark: what the log was known to hold, in a small file beside the database (`<data_dir>/mark`).

    format 1 | seq 8 | index 8 | term 8 | chain 16 | hard state: term 8, vote 8 | reason length 2 | reason | 0… | CRC32 4

A slot has `SLOT_BYTES`; all integers are big-endian. There are two, far enough apart that no torn write reaches both.
A write replaces the older one and is synced: whatever happens to it, the other one still counts. The readable slot
with the higher seq is the mark. Neither readable, and nobody knows any more what the log had held.

The file never grows, so a sync of it needs no work of the file system's journal; it is made whole, by write, fsync,
rename and fsync of the directory, so a file that is there and cannot be read is damage and not a crash.

What the mark is compared with, and when it is written, is in `mark_keeper.py`; `memory_mark.py` is the twin in memory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol
from zlib import crc32

from danube_raft.errors import DiskFailed, NewerFormat
from danube_raft.storage.directory import sync_directory
from danube_raft.storage.disk_errors import disk_failed
from danube_raft.storage.entry_format import CHAIN_BYTES, NEWER_WAY_OUT
from danube_raft.storage.recovery import Point
from danube_raft.wire.entry import HardState

FORMAT = 1
NAME = "mark"
SLOT_BYTES = 512
SLOT_PLACES = (0, 4_096)
"""Where the two slots begin in the file: in blocks of their own."""
REASON_MAX_BYTES = 400

_FIELDS = struct.Struct(f">BQQQ{CHAIN_BYTES}sQQH")
_CRC = struct.Struct(">I")


class Mark(NamedTuple):
    """The log held `point` and `hard_state` durably. `suspect`: why this node's promises do not count, or empty; it
    stays until a leader has brought the node up to date."""

    point: Point = Point()
    hard_state: HardState = HardState()
    suspect: str = ""


class MarkSlots(Protocol):
    """Where the two slots are kept. Every method but `close` raises DiskFailed, and then always."""

    def read(self) -> tuple[bytes, bytes] | None:
        """Both slots as they are; None: there never was a mark."""

    def create(self, slots: tuple[bytes, bytes]) -> None:
        """Begin with these, in place of whatever there is; durable on return."""

    def write(self, place: int, slot: bytes) -> None:
        """Replace slot 0 or 1; durable on return."""

    def close(self) -> None:
        """Let go of everything. May be called again."""


def encode(seq: int, mark: Mark) -> bytes:
    """The slot of a mark."""
    reason = mark.suspect.encode()[:REASON_MAX_BYTES].decode(errors="ignore").encode()
    fields = _FIELDS.pack(FORMAT, seq, *mark.point, *mark.hard_state, len(reason))
    body = (fields + reason).ljust(SLOT_BYTES - _CRC.size, b"\0")
    return body + _CRC.pack(crc32(body))


def decode(slot: bytes) -> tuple[int, Mark] | None:
    """(seq, mark) of a slot; None if it is damaged. Raises NewerFormat."""
    body = slot[: -_CRC.size]
    if len(slot) != SLOT_BYTES or slot[-_CRC.size :] != _CRC.pack(crc32(body)) or body[0] == 0:
        return None
    if body[0] != FORMAT:
        raise NewerFormat(
            f"the durable mark has format {body[0]}, this version reads up to {FORMAT}; {NEWER_WAY_OUT}"
        )
    _, seq, index, term, chain, hard_term, vote, length = _FIELDS.unpack_from(body)
    reason = body[_FIELDS.size : _FIELDS.size + length].decode(errors="replace")
    return seq, Mark(Point(index, term, chain), HardState(hard_term, vote), reason)


FIRST = encode(1, Mark()), encode(0, Mark())
"""The slots of a node that has never written anything: they are there before it has an identity."""


class MarkFile:
    """`MarkSlots` in the file `path`."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._descriptor: int | None = None
        self._failed = ""

    def read(self) -> tuple[bytes, bytes] | None:
        """See MarkSlots."""
        with self._guarded("read"):
            try:
                descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                one, other = [os.pread(descriptor, SLOT_BYTES, place) for place in SLOT_PLACES]
            finally:
                os.close(descriptor)
            return one, other

    def create(self, slots: tuple[bytes, bytes]) -> None:
        """See MarkSlots."""
        self.close()
        temporary = self._path.with_name(f"{NAME}.tmp")
        with self._guarded("create"):
            with temporary.open("wb") as file:
                for place, slot in zip(SLOT_PLACES, slots, strict=True):
                    file.seek(place)
                    file.write(slot)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            sync_directory(self._path.parent)

    def write(self, place: int, slot: bytes) -> None:
        """See MarkSlots."""
        with self._guarded("write"):
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            written = os.pwrite(self._descriptor, slot, SLOT_PLACES[place])
            if written != len(slot):
                raise OSError(f"{written} of {len(slot)} bytes were written")
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """See MarkSlots."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """Map what the system raises, once; a sync that failed is never repeated, so refuse everything after it."""
        if self._failed:
            raise DiskFailed(f"cannot {doing} the durable mark: it failed before ({self._failed})")
        try:
            yield
        except OSError as error:
            self._failed = f"cannot {doing} the durable mark {self._path}: {error.strerror or error}"
            raise disk_failed(error, f"{self._failed}; check the disk, then start the node again") from None
