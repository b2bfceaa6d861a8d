"""Takes the bodies of clients apart into requests and their bytes, and says until when a request may take.

Only decoding happens here, so that what is caught here is the fault of the sender's bytes and never one of ours. A body
is good up to the first thing in it that is no request: what stands behind that cannot be trusted, and answering each of
a million stray bytes would stop the node for everybody else.
"""

from __future__ import annotations

from typing import Any

import msgpack

from danube_raft.config import Config
from danube_raft.wire.client import TIMEOUT_MS, Request, is_request


class Bodies:
    """One decoder for all bodies: making one costs more than decoding a request."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._max_bytes = config.client_frame_max_bytes
        self._max_requests = config.body_max_requests
        self._unpacker = self._new_unpacker()

    def _new_unpacker(self) -> msgpack.Unpacker:
        return msgpack.Unpacker(use_list=False, max_ext_len=0, max_buffer_size=self._max_bytes)

    def split(self, body: bytes) -> tuple[list[tuple[Any, bytes]], str]:
        """The (request, its bytes) in a body, unchecked; and what is wrong with the rest of it, if anything is."""
        requests: list[tuple[Any, bytes]] = []
        trouble = self._split(body, requests)
        if trouble:
            # The decoder stands somewhere inside the bad part.
            self._unpacker = self._new_unpacker()
        return requests, trouble

    def deadline(self, request: Request, now: int) -> int:
        """When a request that came now must be answered."""
        timeout = request[TIMEOUT_MS]
        if timeout is None:
            return now + self._config.request_timeout_ms
        return now + min(int(timeout), self._config.request_timeout_max_ms)

    def _split(self, body: bytes, requests: list[tuple[Any, bytes]]) -> str:
        if not body:
            return "empty"
        unpacker = self._unpacker
        first = unpacker.tell()
        end = 0
        try:
            unpacker.feed(body)
            while end < len(body):
                if len(requests) == self._max_requests:
                    return f"one of more than {self._max_requests} in a body"
                request = unpacker.unpack()
                begin, end = end, unpacker.tell() - first
                if not is_request(request):
                    return "not an array of version, op, request id and so on"
                requests.append((request, body[begin:end]))
        except (ValueError, msgpack.UnpackException, msgpack.BufferFull) as error:
            return f"not valid MessagePack ({type(error).__name__})"
        return ""
