"""watch: one flushed line per event, and every way in which it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fake_node import FakeNode, delete_event, put_event

from danube_raft import errors
from danube_raft.wire import client as wire

LIMIT_S = 20


@contextmanager
def watching(node: FakeNode, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process, subscribed."""
    command = [sys.executable, "-m", "danube_raft_cli", "watch", *arguments, "--endpoints", node.endpoint]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        node.until(lambda: node.of("watch"), "the subscription")
        yield process
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_S)


def line(process: subprocess.Popen[bytes]) -> bytes:
    """Its next line, which must come while the process lives."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], LIMIT_S)
    assert ready
    return os.read(process.stdout.fileno(), 65536)


def test_each_event_is_a_line_at_once_and_count_ends_it(node: FakeNode) -> None:
    with watching(node, "/a", "--prefix", "--count", "3") as process:
        node.frame(wire.FRAME_EVENTS, (put_event("/a/1", b'{"x":1}', 2),), 2, False)
        assert line(process) == b'put\t2\t/a/1\t{"x":1}\n'
        node.frame(wire.FRAME_EVENTS, (delete_event("/a/1", 3), put_event("/ab", b"1", 3)), 3, False)
        out, err = process.communicate(timeout=LIMIT_S)
        assert (out, err, process.returncode) == (b"delete\t3\t/a/1\nput\t3\t/ab\t1\n", b"", 0)


def test_json_is_one_object_per_line(node: FakeNode) -> None:
    with watching(node, "/a", "--prefix", "--count", "1", "-o", "json", "--from-revision", "2") as process:
        assert node.of("watch")[0][wire.ARGS + 1] == 2
        node.frame(wire.FRAME_EVENTS, (put_event("/a/1", b'{"x":1}', 2),), 2, False)
        out, _ = process.communicate(timeout=LIMIT_S)
        shown = json.loads(out)
        assert (shown["event"], shown["key"], shown["value"], shown["mod_revision"]) == (
            "put",
            "/a/1",
            {"x": 1},
            2,
        )


def test_without_prefix_it_is_that_key_alone(node: FakeNode) -> None:
    with watching(node, "/a", "--count", "1") as process:
        node.frame(wire.FRAME_EVENTS, (put_event("/ab", b"1", 2), put_event("/a", b"2", 2)), 2, False)
        out, _ = process.communicate(timeout=LIMIT_S)
        assert out == b"put\t2\t/a\t2\n"


def test_ctrl_c_ends_it_in_peace(node: FakeNode) -> None:
    with watching(node, "/a") as process:
        node.frame(wire.FRAME_EVENTS, (put_event("/a", b"2", 2),), 2, False)
        line(process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
        assert (out, err, process.returncode) == (b"", b"", 0)


def test_compacted_is_an_error(node: FakeNode) -> None:
    with watching(node, "/a", "--from-revision", "1") as process:
        node.fail_stream(errors.Compacted("events up to revision 30 are compacted", 30))
        _, err = process.communicate(timeout=LIMIT_S)
        assert (err, process.returncode) == (b"error: Compacted: events up to revision 30 are compacted\n", 1)


def test_a_line_stays_a_line_and_a_table_has_columns(node: FakeNode) -> None:
    for how, shown in (("simple", b"put\t2\t/a\\n\tx\\ty\n"), ("table", None)):
        with watching(node, "/a", "--prefix", "--count", "1", "-o", how) as process:
            node.frame(wire.FRAME_EVENTS, (put_event("/a\n", b"x\ty", 2),), 2, False)
            out, _ = process.communicate(timeout=LIMIT_S)
            if shown is not None:
                assert out == shown
            else:
                header, row = out.decode().splitlines()
                assert header.split() == ["EVENT", "REVISION", "KEY", "VALUE"]
                assert row.split() == ["put", "2", "/a\\n", "x\\ty"]
                assert header.index("VALUE") == row.index("x")
        node.requests.clear()
