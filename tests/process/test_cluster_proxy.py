"""The proxy that partitions real nodes: what passes, what does not, and for whom.

A fault that is not in force makes every test behind it pass for nothing, so each is seen from both ends here.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from proxy import FROM_TARGET, TO_TARGET, Proxy
from real_node import until

pytestmark = [pytest.mark.timeout(30)]

SILENCE_S = 0.3
"""Long enough for bytes that pass: over loopback they take less than a millisecond."""


class Echo:
    """Sends back what it gets."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.received = 0
        self.open: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(connection)
            self.threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self.threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    self.received += len(data)
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)
        assert not any(thread.is_alive() for thread in self.threads)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


def connected(proxy: Proxy) -> socket.socket:
    host, port = proxy.endpoint.split(":")
    connection = socket.create_connection((host, int(port)), timeout=5)
    connection.settimeout(5)
    return connection


def said(connection: socket.socket, text: bytes) -> bytes:
    """What comes back."""
    connection.sendall(text)
    answer = b""
    while len(answer) < len(text):
        data = connection.recv(len(text) - len(answer))
        if not data:
            raise ConnectionResetError
        answer += data
    return answer


def silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE_S)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)
    return False


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_bytes_pass_unchanged_and_are_counted(echo: Echo) -> None:
    with Proxy(echo.endpoint) as proxy, connected(proxy) as one, connected(proxy) as two:
        text = bytes(range(256)) * 4_000
        sender = threading.Thread(target=one.sendall, args=(text,))
        sender.start()
        assert said(two, b"other") == b"other"
        answer = b""
        while len(answer) < len(text):
            answer += one.recv(1 << 16)
        sender.join(5)
        assert answer == text
        assert proxy.connections() == 2
        assert proxy.passed_bytes(TO_TARGET) == proxy.passed_bytes(FROM_TARGET) == len(text) + 5


def test_a_connection_that_one_side_closes_ends_on_the_other(echo: Echo) -> None:
    with Proxy(echo.endpoint) as proxy:
        with connected(proxy) as one:
            assert said(one, b"x") == b"x"
        until(lambda: proxy.connections() == 0, "the connection to end")
        with connected(proxy) as two:
            assert said(two, b"x") == b"x"
            echo.open[1].shutdown(socket.SHUT_RDWR)
            assert ended(two)


def test_no_target_is_a_connection_that_ends_at_once(echo: Echo) -> None:
    with Proxy("127.0.0.1:1") as proxy, connected(proxy) as one:
        assert ended(one)


def test_cut_resets_what_is_there_and_what_comes_until_healed(echo: Echo) -> None:
    with Proxy(echo.endpoint) as proxy:
        with connected(proxy) as one:
            assert said(one, b"x") == b"x"
            proxy.cut()
            assert ended(one)
        with connected(proxy) as two:
            assert ended(two)
        assert echo.received == 1
        proxy.heal()
        with connected(proxy) as three:
            assert said(three, b"x") == b"x"


def test_a_black_hole_keeps_the_connection_and_delivers_when_it_heals(echo: Echo) -> None:
    with Proxy(echo.endpoint) as proxy, connected(proxy) as one:
        assert said(one, b"x") == b"x"
        proxy.black_hole()
        one.sendall(b"later")
        with connected(proxy) as two:
            two.sendall(b"new")
            assert silent(two)
            assert silent(one)
            assert echo.received == 1
            proxy.heal()
            assert (one.recv(5), two.recv(3)) == (b"later", b"new")


@pytest.mark.parametrize(("direction", "received"), [(TO_TARGET, 1), (FROM_TARGET, 2)])
def test_one_direction_alone_can_be_black_holed(echo: Echo, direction: str, received: int) -> None:
    with Proxy(echo.endpoint) as proxy, connected(proxy) as one:
        assert said(one, b"x") == b"x"
        proxy.black_hole(direction=direction)
        one.sendall(b"y")
        assert silent(one)
        assert echo.received == received
        proxy.heal()
        assert one.recv(1) == b"y"


def test_delay_holds_every_byte_back_and_keeps_the_order(echo: Echo) -> None:
    with Proxy(echo.endpoint) as proxy, connected(proxy) as one:
        proxy.delay(0.2, direction=TO_TARGET)
        begun = time.monotonic()
        assert said(one, b"abc") == b"abc"
        assert 0.2 <= time.monotonic() - begun < 2
        # Many at once are as late as one, not one after the other.
        begun = time.monotonic()
        for number in range(10):
            one.sendall(bytes([number]))
        assert b"".join(one.recv(1) for _ in range(10)) == bytes(range(10))
        assert 0.2 <= time.monotonic() - begun < 1.5
        one.sendall(b"slow")
        proxy.heal()
        one.sendall(b"fast")
        assert b"".join(one.recv(1) for _ in range(8)) == b"slowfast"


def test_a_fault_for_one_source_leaves_the_others_alone(echo: Echo) -> None:
    ports: dict[int, str] = {}

    def source_of(port: int) -> str:
        return str(until(lambda: ports.get(port), "the test to name the source"))

    with Proxy(echo.endpoint, source_of) as proxy, connected(proxy) as one, connected(proxy) as two:
        ports.update({one.getsockname()[1]: "one", two.getsockname()[1]: "two"})
        assert (said(one, b"1"), said(two, b"2")) == (b"1", b"2")
        proxy.black_hole("one")
        one.sendall(b"held")
        assert said(two, b"passes") == b"passes"
        assert silent(one)
        assert (proxy.connections("one"), proxy.connections("two")) == (1, 1)
        proxy.cut("one")
        assert ended(one)
        assert said(two, b"passes") == b"passes"
        assert (proxy.connections("one"), proxy.connections("two")) == (0, 1)
        assert proxy.passed_bytes(TO_TARGET, "one") == 1
