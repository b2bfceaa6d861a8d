"""Answers of one turn, gathered per connection: what goes to one connection goes in as few messages as can be.

Answers are packed back to back into one body, in the order in which they were given, and a body is closed once it has
`BODY_BYTES`, so that no message grows past what a reader accepts. Frames of watches come packed already, once for all
who get them. Every answer carries who answered, its term and the store revision (layout in `wire/client.py`): 0 where
the state is wrong, since clients keep the revisions that they have seen and ask other nodes for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgpack

from danube_raft.errors import DanubeRaftError
from danube_raft.node.endpoints import Envelope
from danube_raft.wire.client import R_RESULT, STATUS_OK, VERSION

BODY_BYTES = 1 << 20
"""A body is closed when it has this size; it is larger only by its last answer."""

_FRAME_REPLY = bytes([0x90 | (R_RESULT + 4)])
"""MessagePack header of a reply with the four result fields of a watch frame."""


class Replies:
    """Collects answers; `take` gives the messages of the turn."""

    def __init__(self, cluster_id: int, node_id: int, wrong: Callable[[], bool] = lambda: False) -> None:
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._wrong = wrong
        self.term = 0
        self._waiting: dict[Envelope, list[tuple[Any, ...] | bytes]] = {}
        self._packer = msgpack.Packer(autoreset=False)

    def add(
        self, envelope: Envelope, request_id: int, status: int, revision: int, result: tuple[Any, ...]
    ) -> None:
        """An answer."""
        said = 0 if self._wrong() else revision
        reply = (VERSION, request_id, status, self._cluster_id, self._node_id, self.term, said, *result)
        waiting = self._waiting.get(envelope)
        if waiting is None:
            self._waiting[envelope] = [reply]
        else:
            waiting.append(reply)

    def add_frame(self, envelope: Envelope, request_id: int, revision: int, frame: bytes) -> None:
        """A frame of a watch: its four result fields, packed back to back."""
        head = (VERSION, request_id, STATUS_OK, self._cluster_id, self._node_id, self.term, revision)
        reply = _FRAME_REPLY + msgpack.packb(head)[1:] + frame
        self._waiting.setdefault(envelope, []).append(reply)

    def error(self, envelope: Envelope, request_id: int, revision: int, error: DanubeRaftError) -> None:
        """An error as an answer."""
        self.add(envelope, request_id, error.code, revision, (error.message, error.details))

    def take(self) -> list[tuple[Envelope, bytes]]:
        """Every message to send; the collection starts anew."""
        bodies: list[tuple[Envelope, bytes]] = []
        for envelope, replies in self._waiting.items():
            bodies += [(envelope, body) for body in self._bodies(replies)]
        self._waiting.clear()
        return bodies

    def _bodies(self, replies: list[tuple[Any, ...] | bytes]) -> Iterator[bytes]:
        packer = self._packer
        parts: list[bytes] = []
        size = 0
        for reply in replies:
            if type(reply) is bytes:
                part = reply
            else:
                packer.pack(reply)
                part = packer.bytes()
                packer.reset()
            parts.append(part)
            size += len(part)
            if size >= BODY_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        if parts:
            yield b"".join(parts)
