"""Answers of one turn, gathered per connection so that each gets one message.

Small answers to one connection are packed back to back into one body; a large one (a page of records, a frame of a
watch) travels alone, so that no message grows past what a reader accepts. Every answer carries who answered, its term
and the store revision (layout in `wire/client.py`).
"""

from __future__ import annotations

from typing import Any

import msgpack

from danube_raft.errors import DanubeRaftError
from danube_raft.node.endpoints import Envelope
from danube_raft.wire.client import R_RESULT, STATUS_OK, VERSION

SMALL_PER_BODY = 256
"""Small answers per message; each is under a few hundred bytes unless it carries a previous record."""

_FRAME_REPLY = bytes([0x90 | (R_RESULT + 4)])
"""MessagePack header of a reply with the four result fields of a watch frame."""


class Replies:
    """Collects answers; `take` gives the messages of the turn."""

    def __init__(self, cluster_id: int, node_id: int) -> None:
        self._cluster_id = cluster_id
        self._node_id = node_id
        self.term = 0
        self._small: dict[Envelope, list[tuple[Any, ...]]] = {}
        self._large: list[tuple[Envelope, bytes]] = []
        self._packer = msgpack.Packer(autoreset=False)

    def add(
        self, envelope: Envelope, request_id: int, status: int, revision: int, result: tuple[Any, ...]
    ) -> None:
        """A small answer."""
        reply = (VERSION, request_id, status, self._cluster_id, self._node_id, self.term, revision, *result)
        waiting = self._small.get(envelope)
        if waiting is None:
            self._small[envelope] = [reply]
        else:
            waiting.append(reply)

    def add_large(self, envelope: Envelope, request_id: int, revision: int, result: tuple[Any, ...]) -> None:
        """A successful answer that gets a message of its own."""
        reply = (
            VERSION,
            request_id,
            STATUS_OK,
            self._cluster_id,
            self._node_id,
            self.term,
            revision,
            *result,
        )
        self._large.append((envelope, msgpack.packb(reply)))

    def add_frame(self, envelope: Envelope, request_id: int, revision: int, frame: bytes) -> None:
        """A frame of a watch: its result fields are packed already, once for everybody who gets them."""
        head = (VERSION, request_id, STATUS_OK, self._cluster_id, self._node_id, self.term, revision)
        self._large.append((envelope, _FRAME_REPLY + msgpack.packb(head)[1:] + frame))

    def error(self, envelope: Envelope, request_id: int, revision: int, error: DanubeRaftError) -> None:
        """An error as an answer."""
        self.add(envelope, request_id, error.code, revision, (error.message, error.details))

    def take(self) -> list[tuple[Envelope, bytes]]:
        """Every message to send; the collection starts anew."""
        packer = self._packer
        bodies = self._large
        for envelope, replies in self._small.items():
            for first in range(0, len(replies), SMALL_PER_BODY):
                for reply in replies[first : first + SMALL_PER_BODY]:
                    packer.pack(reply)
                bodies.append((envelope, packer.bytes()))
                packer.reset()
        self._small.clear()
        self._large = []
        return bodies
