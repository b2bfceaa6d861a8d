"""One entry of the log as it lies on disk.

    format 1 | term 8 | kind 1 | stamp_ms 8 | wall_ms 8 | origin 3 × 8 | chain 16 | payload | CRC32 4

All integers are big-endian. The index is the key under which the bytes are stored; it seeds the CRC, so an entry
that turns up under another index is refused. `chain` is the BLAKE2b hash of the complete encoding of the
predecessor, its own chain included: it vouches for the whole log before it. Every field is replicated, so all nodes
compute the same chain for the same log, and an entry that was replaced, lost or brought back from an old copy
breaks the chain at its successor.

What an entry means is not known here, nor where the bytes are kept.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from zlib import crc32

from danube_raft.errors import Corrupt, NewerFormat
from danube_raft.wire.entry import KINDS, Entry

FORMAT = 1
CHAIN_BYTES = 16
ZERO_CHAIN = bytes(CHAIN_BYTES)
"""The chain before the first entry of all."""

WAY_OUT = (
    "this node's log cannot be trusted any more: keep a copy of its data directory, move log/ out of it and start the "
    "node again: it is SUSPECT until a leader has brought it up to date; where no other node can lead, restore a backup"
)
"""Moving the log away is safe as long as the durable mark stays: by that the node knows that it has lost something."""
NEWER_WAY_OUT = "start the version that wrote it, or a later one"

_HEAD = struct.Struct(f">BQBQQQQQ{CHAIN_BYTES}s")
_CRC = struct.Struct(">I")
MIN_BYTES = _HEAD.size + _CRC.size
"""Size of an entry without payload: what the format adds to each."""


def encode(entry: Entry, previous_chain: bytes) -> bytes:
    """The stored form of `entry`, whose predecessor has the chain `previous_chain`."""
    assert len(previous_chain) == CHAIN_BYTES
    index, term, kind, stamp_ms, wall_ms, origin, payload = entry
    head = _HEAD.pack(FORMAT, term, kind, stamp_ms, wall_ms, *origin, previous_chain)
    return b"".join((head, payload, _CRC.pack(crc32(payload, crc32(head, index & 0xFFFFFFFF)))))


def chain_of(encoded: bytes) -> bytes:
    """The chain that the successor of this stored entry carries."""
    return blake2b(encoded, digest_size=CHAIN_BYTES).digest()


def chain_after(entry: Entry, previous_chain: bytes) -> bytes:
    """The chain up to and including `entry`, for those who hold entries but no log."""
    return chain_of(encode(entry, previous_chain))


def verify(index: int, data: bytes) -> tuple[int, int, int, bytes]:
    """(term, kind, stamp_ms, previous chain) of a stored entry; checks everything but the chain itself.

    Raises NewerFormat or Corrupt. It copies no payload, which is what makes the scan of a whole log quick.
    """
    if not data or data[0] != FORMAT:
        _refuse_format(index, data)
    if len(data) < MIN_BYTES:
        raise Corrupt(f"log entry {index} is cut short ({len(data)} of {MIN_BYTES} bytes or more); {WAY_OUT}")
    body = memoryview(data)[: -_CRC.size]
    if crc32(body, index & 0xFFFFFFFF) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
        raise Corrupt(f"log entry {index} does not match its checksum; {WAY_OUT}")
    _, term, kind, stamp_ms, _, _, _, _, previous_chain = _HEAD.unpack_from(data)
    if kind not in KINDS:
        raise NewerFormat(f"log entry {index} is of a kind ({kind}) that is unknown here; {NEWER_WAY_OUT}")
    return term, kind, stamp_ms, previous_chain


def payload_of(data: bytes) -> bytes:
    """The payload of a stored entry that was verified."""
    return data[_HEAD.size : -_CRC.size]


def decode(index: int, data: bytes) -> tuple[Entry, bytes]:
    """(entry, previous chain) of the bytes stored under `index`. Raises NewerFormat or Corrupt."""
    term, kind, stamp_ms, previous_chain = verify(index, data)
    _, _, _, _, wall_ms, node_id, boot_epoch, batch_seq, _ = _HEAD.unpack_from(data)
    origin = (node_id, boot_epoch, batch_seq)
    return Entry(index, term, kind, stamp_ms, wall_ms, origin, payload_of(data)), previous_chain


def _refuse_format(index: int, data: bytes) -> None:
    if not data or data[0] == 0:
        raise Corrupt(f"log entry {index} is empty or zeroed; {WAY_OUT}")
    raise NewerFormat(
        f"log entry {index} has format {data[0]}, this version reads up to {FORMAT}; {NEWER_WAY_OUT}"
    )
