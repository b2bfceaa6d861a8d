"""/health, /ready and /metrics over HTTP, answered by threads of the supervisor.

They answer whatever state the processes are in, and touch nothing of them but what the supervisor has heard. Nothing
that a client does may hold the supervisor up or make it grow:
- A request's head has to be there within `HEAD_S` and `HEAD_MAX_BYTES`, in whatever pieces it comes; its answer has to
  be taken within the same time. No body is read; every answer ends its connection.
- At most `CONNECTIONS_MAX` are served at a time; one more is closed without an answer.
- GET and HEAD of three paths, nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from danube_raft.config import Config, split_address
from danube_raft.errors import PortInUse
from danube_raft.node.health import health, readiness
from danube_raft.node.loop import monotonic_ms
from danube_raft.node.view import NodeView

HEAD_S = 2.0
HEAD_MAX_BYTES = 8_192
CONNECTIONS_MAX = 8
ACCEPT_PAUSE_S = 0.1

_END = b"\r\n\r\n"


class HealthPort(ThreadingMixIn, TCPServer):
    """Listens from its making on; a thread accepts, and one per request answers."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 2 * CONNECTIONS_MAX

    def __init__(self, address: str, view: NodeView) -> None:
        """Raises PortInUse."""
        self.view = view
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._closing = threading.Event()
        host, port = split_address("health_listen", address)
        try:
            found = socket.getaddrinfo(
                host.strip("[]").replace("*", "") or None,
                port,
                flags=socket.AI_PASSIVE,
                type=socket.SOCK_STREAM,
            )[0]
            self.address_family = found[0]
            super().__init__(found[4], _Request)  # type: ignore[arg-type]  # of whatever family it is
        except OSError as error:
            raise PortInUse(
                f"cannot listen on {address} (health_listen): {error.strerror or error}; another node of this machine "
                "may have it: give each its own, or none (empty)"
            ) from None
        self._thread = threading.Thread(target=self._accept, name="danube-raft-health", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            self.handle_request()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection."""
        try:
            return super().get_request()
        except OSError:
            # Out of descriptors, as a rule: the connection still waits, and asking again at once would spin.
            self._closing.wait(ACCEPT_PAUSE_S)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 -- the base's signature
        """Whether there is a place for one more."""
        return self._places.acquire(blocking=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread that serves it."""
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # The system has no thread left; the base drops the connection.
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection; its place is free again afterwards."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away or was too slow is none of the node's business; anything else is a bug."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        # Wakes the thread that waits for a connection; there is none to shut down if it was not connected.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(HEAD_S)
        self.server_close()


class _Request(BaseHTTPRequestHandler):
    """One request."""

    server: HealthPort
    server_version = "danube-raft"
    sys_version = ""
    protocol_version = "HTTP/1.0"
    timeout = HEAD_S

    def setup(self) -> None:
        super().setup()
        # The base would wait `timeout` for each piece: a client that sends a byte now and then could stay for ever.
        self.rfile.close()
        self.rfile = BytesIO(self._head())

    def _head(self) -> bytes:
        deadline = time.monotonic() + HEAD_S
        head = b""
        while _END not in head and len(head) < HEAD_MAX_BYTES:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the request did not come in time")
            self.connection.settimeout(left)
            piece = self.connection.recv(HEAD_MAX_BYTES - len(head))
            if not piece:
                break
            head += piece
        self.connection.settimeout(HEAD_S)
        return head

    def do_GET(self) -> None:
        view, path = self.server.view, self.path.partition("?")[0]
        if path == "/health":
            self._answer_json(health(view, monotonic_ms()), ("ok", "forming"))
        elif path == "/ready":
            self._answer_json(readiness(view, monotonic_ms()), ("ready",))
        elif path == "/metrics":
            # Takes a while to load, which no node waits for at its start.
            from danube_raft.node import metrics  # noqa: PLC0415

            self._answer(HTTPStatus.OK, metrics.CONTENT_TYPE, metrics.text(view, os.getpid()))
        else:
            body = b'{"status": "not found", "reasons": ["there are /health, /ready and /metrics"]}\n'
            self._answer(HTTPStatus.NOT_FOUND, "application/json", body)

    do_HEAD = do_GET  # noqa: N815 -- the base's name

    def _not_allowed(self) -> None:
        body = b'{"status": "method not allowed", "reasons": ["only GET and HEAD are"]}\n'
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "application/json", body, ("Allow", "GET, HEAD"))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _not_allowed  # noqa: N815

    def _answer_json(self, body: dict[str, Any], fine: tuple[str, ...]) -> None:
        code = HTTPStatus.OK if body["status"] in fine else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(code, "application/json", json.dumps(body).encode() + b"\n")

    def _answer(self, code: HTTPStatus, kind: str, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(code)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            *headers,
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base's name
        """A request of a monitor is no event."""


@contextlib.contextmanager
def health_port(config: Config, view: NodeView) -> Iterator[None]:
    """Answer until the end, if an address is configured. Raises PortInUse."""
    if not config.health_listen:
        yield
        return
    port = HealthPort(config.health_listen, view)
    try:
        yield
    finally:
        port.close()
