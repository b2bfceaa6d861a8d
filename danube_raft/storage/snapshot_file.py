"""One snapshot as it lies on disk, or travels to a peer: framed, with checksums, made in one pass and read in one.

    header    magic 8 | format 1 | index 8 | term 8 | cluster id 8 | chain 16 | CRC32 4
    frame     length 4 (1 to 1 MiB) | CRC32 4 | payload           as many as it takes, all full but the last
    footer    zero 4 | CRC32 4 | length of the whole file 8 | number of frames 8 | SHA-256 32 of all before it

All integers are big-endian. The CRC of a frame is seeded with the header's and covers its number and length, so that a
frame at another place, or of another snapshot, is refused before anybody sees it; the footer's covers its two numbers
in the same way. SHA-256 names the whole. No time and no node is in it: snapshots of the same entry are the same files
on every node.

The file's name is made of term and index; sorting by name is sorting by age. A file that is not finished has another
ending, and gets its name by a rename after its fsync; so whatever has the name was once whole.

What the payload means is not known here; `kv/snapshot.py` makes it. Which files there are is in `snapshots.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, NamedTuple, Protocol
from zlib import crc32

from danube_raft.errors import Corrupt, DiskFailed, NewerFormat
from danube_raft.storage.directory import sync_directory
from danube_raft.storage.disk_errors import disk_failed
from danube_raft.storage.entry_format import CHAIN_BYTES, NEWER_WAY_OUT, ZERO_CHAIN

MAGIC = b"\x89DRSNAP\n"
"""No text, and broken by whatever would change line ends."""
FORMAT = 1
SUFFIX = ".snap"
UNFINISHED_SUFFIX = ".tmp"
NAME = re.compile(r"\d{20}-\d{20}" + re.escape(SUFFIX))
FRAME_BYTES = 1 << 20
SYNC_BYTES = 8 << 20
"""Written so often to the disk, so that no single sync holds up the log for long."""

_HEADER = struct.Struct(f">8sBQQQ{CHAIN_BYTES}s")
_CRC = struct.Struct(">I")
_FRAME = struct.Struct(">II")
_SEED = struct.Struct(">QI")
_FOOTER = struct.Struct(">QQ")
SHA_BYTES = 32
HEADER_BYTES = _HEADER.size + _CRC.size
FOOTER_BYTES = _FRAME.size + _FOOTER.size + SHA_BYTES
MIN_BYTES = HEADER_BYTES + FOOTER_BYTES


class SnapshotMeta(NamedTuple):
    """What a snapshot is of: the last entry in it, and the chain up to and including that entry. `size` (of the
    file, in bytes) and `sha256` are those of the finished file, 0 and empty before."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    cluster_id: int
    chain: bytes = ZERO_CHAIN
    size: int = 0
    sha256: bytes = b""

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.term:020d}-{self.index:020d}{SUFFIX}"


class Source(Protocol):
    """Where a snapshot is read from: a Path, or its twin in memory."""

    @property
    def name(self) -> str:
        """As of a Path."""

    @property
    def suffix(self) -> str:
        """As of a Path."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """As of a Path. Raises OSError."""


@contextmanager
def guarded(path: Path | Source, doing: str) -> Iterator[None]:
    """OSError becomes DiskFailed, with the file and what was about to happen."""
    try:
        yield
    except OSError as error:
        raise disk_failed(
            error, f"cannot {doing} {path}: {error.strerror or error}; check the disk and its free space"
        ) from None


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, in as many calls as it takes. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def publish(unfinished: Path, path: Path) -> None:
    """Give a file that is durable its final name, durably. Raises OSError."""
    unfinished.replace(path)
    sync_directory(path.parent)


def _pack_header(meta: SnapshotMeta) -> bytes:
    header = _HEADER.pack(MAGIC, FORMAT, meta.index, meta.term, meta.cluster_id, meta.chain)
    return header + _CRC.pack(crc32(header))


def _crc_of(payload: bytes | memoryview, number: int, length: int, seed: int) -> int:
    """The CRC of a frame, or of the footer's numbers (length 0)."""
    return crc32(payload, crc32(_SEED.pack(number, length), seed))


class Framing:
    """Makes the bytes of one file from its payload, in pieces as they come to be written."""

    def __init__(self, meta: SnapshotMeta) -> None:
        self._buffer = bytearray()
        self._sha = hashlib.sha256()
        self._frames = 0
        self.size = 0
        """Of what was made so far."""
        self._header = _pack_header(meta)
        self._seed = crc32(self._header)

    def begin(self) -> bytes:
        """The header, once."""
        return self._made(self._header)

    def add(self, chunk: bytes) -> Iterator[bytes]:
        """The frames that are full with this chunk."""
        self._buffer += chunk
        start = 0
        while len(self._buffer) - start >= FRAME_BYTES:
            yield from self._frame(bytes(self._buffer[start : start + FRAME_BYTES]))
            start += FRAME_BYTES
        del self._buffer[:start]

    def end(self) -> Iterator[bytes]:
        """The last frame and the footer."""
        if self._buffer:
            yield from self._frame(bytes(self._buffer))
        numbers = _FOOTER.pack(self.size + FOOTER_BYTES, self._frames)
        yield self._made(_FRAME.pack(0, _crc_of(numbers, self._frames, 0, self._seed)) + numbers)
        self.sha256 = self._sha.digest()
        yield self._made(self.sha256)

    def _frame(self, payload: bytes) -> Iterator[bytes]:
        length = len(payload)
        yield self._made(_FRAME.pack(length, _crc_of(payload, self._frames, length, self._seed)))
        self._frames += 1
        yield self._made(payload)

    def _made(self, data: bytes) -> bytes:
        self._sha.update(data)
        self.size += len(data)
        return data


class SnapshotWriter:
    """Writes one snapshot. Ends with `commit` or `abort`; after an error it has aborted by itself.

    It needs nothing but its one descriptor and the calls of `os`, no thread and no lock, so it may be made before a
    fork and used by the child.
    """

    def __init__(self, directory: Path, meta: SnapshotMeta) -> None:
        """Begin the file in `directory`, which exists. Raises DiskFailed."""
        assert len(meta.chain) == CHAIN_BYTES
        self.meta = meta._replace(size=0, sha256=b"")
        self.path = directory / meta.name
        self._unfinished = directory / (meta.name + UNFINISHED_SUFFIX)
        self._framing = Framing(self.meta)
        self._synced = 0
        self._descriptor: int | None = None
        self._ended = False
        with self._writing("create"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._descriptor = os.open(self._unfinished, flags, 0o644)
            write_all(self.fileno(), self._framing.begin())

    def fileno(self) -> int:
        """The descriptor, the only one that a forked child has to keep."""
        assert self._descriptor is not None, "the snapshot is finished or aborted"
        return self._descriptor

    def write(self, chunk: bytes) -> None:
        """Add to the payload. Raises DiskFailed."""
        with self._writing("write"):
            for piece in self._framing.add(chunk):
                write_all(self.fileno(), piece)
                if self._framing.size - self._synced >= SYNC_BYTES:
                    os.fdatasync(self.fileno())
                    self._synced = self._framing.size

    def commit(self) -> SnapshotMeta:
        """Finish the file and give it its name, durably. Raises DiskFailed; then there may or may not be the whole
        file under its name, and never a part of it."""
        with self._writing("finish"):
            for piece in self._framing.end():
                write_all(self.fileno(), piece)
            os.fsync(self.fileno())
            self.release()
            publish(self._unfinished, self.path)
            self._ended = True
        return self.meta._replace(size=self._framing.size, sha256=self._framing.sha256)

    def release(self) -> None:
        """Let go of the descriptor and leave the file alone, as a parent does that has forked. Raises OSError."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def abort(self) -> None:
        """Leave nothing behind, as far as the disk lets it. May be called at any time; nothing after `commit`."""
        # What the disk refuses here is refused again, with a text, by whoever opens the directory.
        if not self._ended:
            self._ended = True
            with suppress(OSError):
                self.release()
            with suppress(OSError):
                self._unfinished.unlink()

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        try:
            with guarded(self.path, doing):
                yield
        except DiskFailed:
            self.abort()
            raise


def glance(path: Source, cluster_id: int | None = None) -> SnapshotMeta:
    """What the file says that it is, from its two ends; the middle is not read.

    Proves the header, that the file has the length that it was finished with, its cluster if that is given, and its
    name if it has one as a node gives it: what an operator has saved may have any other. Raises Corrupt, NewerFormat or DiskFailed.
    """
    with guarded(path, "read"), path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - FOOTER_BYTES))
        footer = file.read(FOOTER_BYTES)
    meta = _meta_of(path, header, cluster_id)
    if NAME.fullmatch(path.name) and path.name != meta.name:
        raise _damaged(path, f"is the snapshot of index {meta.index} in term {meta.term} under a wrong name")
    if size < MIN_BYTES:
        raise _damaged(path, f"is cut short: it has {size} bytes")
    sha256 = _check_footer(path, footer, size, None, crc32(header))
    return meta._replace(size=size, sha256=sha256)


def read(path: Source, cluster_id: int | None = None) -> Iterator[bytes]:
    """The payload, frame by frame, each checked before it is given out.

    The end proves the whole: what was made of the frames must not be used before this iterator has ended by itself.
    Raises Corrupt, NewerFormat or DiskFailed, at whatever frame.
    """
    meta = glance(path, cluster_id)
    with guarded(path, "read"), path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        seed = crc32(header)
        sha = hashlib.sha256(header)
        size, number = HEADER_BYTES, 0
        while True:
            head = file.read(_FRAME.size)
            if len(head) < _FRAME.size:
                raise _damaged(path, f"is cut short at byte {size + len(head)}")
            length, crc = _FRAME.unpack(head)
            if length == 0:
                break
            payload = file.read(length) if length <= FRAME_BYTES else b""
            if len(payload) != length or crc != _crc_of(payload, number, length, seed):
                raise _damaged(path, f"does not match the checksum of frame {number}, at byte {size}")
            sha.update(head)
            sha.update(payload)
            size += len(head) + length
            number += 1
            yield payload
        footer = head + file.read(FOOTER_BYTES - len(head))
    if len(footer) != FOOTER_BYTES:
        raise _damaged(path, f"is cut short at byte {size + len(footer)}")
    sha.update(footer[:-SHA_BYTES])
    sha256 = _check_footer(path, footer, size + FOOTER_BYTES, number, seed)
    if sha256 != sha.digest() or sha256 != meta.sha256:
        raise _damaged(path, "does not match its SHA-256")


def verify(
    path: Source, cluster_id: int | None = None, report: Callable[[], None] = lambda: None
) -> SnapshotMeta:
    """What the file is, after all of it was read and proven; `report` is called after each frame.

    Raises Corrupt, NewerFormat or DiskFailed.
    """
    meta = glance(path, cluster_id)
    for _ in read(path, cluster_id):
        report()
    return meta


class Pieces:
    """A finished file, held open: it can be read to its end even if it is deleted meanwhile. Raises DiskFailed."""

    def __init__(self, path: Source) -> None:
        self._path = path
        with guarded(path, "read"):
            self._file = path.open("rb")

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Bytes from `offset` on, at most so many; empty at and behind its end. Raises DiskFailed."""
        assert offset >= 0
        assert max_bytes > 0
        with guarded(self._path, "read"):
            self._file.seek(offset)
            return self._file.read(max_bytes)

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


def read_piece(path: Source, offset: int, max_bytes: int) -> bytes:
    """A piece of it, see `Pieces.read`. Raises DiskFailed, also when the file is gone."""
    with closing(Pieces(path)) as pieces:
        return pieces.read(offset, max_bytes)


def _meta_of(path: Source, header: bytes, cluster_id: int | None) -> SnapshotMeta:
    if len(header) < HEADER_BYTES:
        raise _damaged(path, f"is cut short: it has {len(header)} bytes")
    if _CRC.unpack_from(header, _HEADER.size)[0] != crc32(header[: _HEADER.size]):
        if header.startswith(MAGIC) and header[len(MAGIC)] > FORMAT:
            raise _newer(path, header[len(MAGIC)])
        raise _damaged(path, "has a header that does not match its checksum")
    magic, version, index, term, found_cluster, chain = _HEADER.unpack_from(header)
    if magic != MAGIC or version < 1:
        raise _damaged(path, "does not begin as a snapshot does")
    if version > FORMAT:
        raise _newer(path, version)
    if cluster_id is not None and found_cluster != cluster_id:
        raise _damaged(path, f"is of cluster {found_cluster}, and this node belongs to {cluster_id}")
    return SnapshotMeta(index, term, found_cluster, chain)


def _check_footer(path: Source, footer: bytes, size: int, frames: int | None, seed: int) -> bytes:
    """The SHA-256 in the footer of a file that is `size` long. `frames` None: not counted."""
    zero, crc = _FRAME.unpack_from(footer)
    numbers = footer[_FRAME.size : -SHA_BYTES]
    said_size, said_frames = _FOOTER.unpack(numbers)
    if zero != 0 or crc != _crc_of(numbers, said_frames, 0, seed):
        raise _damaged(path, "does not end as a snapshot does: it is cut short, or its end is damaged")
    if said_size != size or frames not in (None, said_frames):
        raise _damaged(
            path, f"has {size} bytes and {frames} frames, and should have {said_size} and {said_frames}"
        )
    return footer[-SHA_BYTES:]


def _newer(path: Source, version: int) -> NewerFormat:
    return NewerFormat(
        f"snapshot {path} has format {version}, this version reads up to {FORMAT}; {NEWER_WAY_OUT}"
    )


def _damaged(path: Source, what: str) -> Corrupt:
    return Corrupt(f"snapshot {path} {what}")
