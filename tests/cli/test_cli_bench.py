"""bench: honest figures. What it counts, what it refuses to count, and that it never hangs."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fake_node import LOST, FakeNode, put_event, refuse

from danube_raft import errors
from danube_raft.wire import client as wire
from danube_raft.wire import codec

Run = Callable[..., Any]
FIGURES = {
    "system",
    "mode",
    "clients",
    "connections",
    "ops",
    "ops_per_s",
    "p50_ms",
    "p99_ms",
    "max_ms",
    "errors",
}


def bench(run: Run, mode: str, *arguments: str) -> Any:
    """A small run."""
    return run(
        "bench",
        mode,
        "--clients",
        "8",
        "--connections",
        "3",
        "--total",
        "100",
        "--keys",
        "20",
        "-o",
        "json",
        *arguments,
    )


def test_puts_carry_sessions_and_the_workload_of_the_baseline(ask: Run, node: FakeNode) -> None:
    done = bench(ask, "put", "--value-size", "10")
    assert (done.code, done.err) == (0, "")
    shown = done.json
    assert set(shown) == FIGURES
    assert (shown["system"], shown["mode"], shown["clients"], shown["connections"]) == (
        "danube-raft",
        "put",
        8,
        3,
    )
    assert (shown["ops"], shown["errors"]) == (96, 0)
    assert 0 < shown["p50_ms"] <= shown["p99_ms"] <= shown["max_ms"]
    puts = node.of("put")
    assert len(puts) == 96
    assert {put[wire.ARGS + 1] for put in puts} == {b"v" * 10}
    assert {put[wire.ARGS] for put in puts} <= {f"/topics/default/t{number}" for number in range(20)}
    for client in {put[wire.CLIENT_ID] for put in puts}:
        mine = [put for put in puts if put[wire.CLIENT_ID] == client]
        serials = [put[wire.SERIAL] for put in mine]
        assert len(serials) == 12
        assert serials == sorted(set(serials))
        assert [put[wire.LOW_WATER] for put in mine] == serials, (
            "one request of a client is in flight at a time"
        )


def test_gets_write_their_keys_first_and_read_at_the_level_asked_for(ask: Run, node: FakeNode) -> None:
    shown = bench(ask, "get", "--consistency", "linearizable").json
    assert (shown["mode"], shown["ops"], shown["errors"]) == ("get-linearizable", 96, 0)
    assert len(node.records) == 20
    gets = [get for get in node.of("get") if get[wire.CONSISTENCY]]
    assert len(gets) == 96
    assert {get[wire.CONSISTENCY] for get in gets} == {"linearizable"}
    assert {get[wire.MIN_REVISION] for get in gets} == {(node.cluster_id, 21)}


def test_a_refusal_is_counted_not_repeated_and_fails_the_run(ask: Run, node: FakeNode) -> None:
    node.script += [refuse(errors.Overloaded("full"))] * 5
    done = bench(ask, "put")
    assert done.code == 1
    assert (done.json["ops"], done.json["errors"]) == (91, 5)
    assert len(node.of("put")) == 96
    assert "5 requests were refused, the first with Overloaded: full" in done.err


def test_an_answer_that_never_comes_ends_the_run(ask: Run, node: FakeNode) -> None:
    node.script += [LOST] * 2
    done = bench(ask, "put", "--timeout", "300ms")
    assert (done.code, done.out) == (1, "")
    assert "2 requests without an answer after 0.3 s" in done.err


def test_an_answer_to_nothing_ends_the_run(ask: Run, node: FakeNode) -> None:
    def twice(request: tuple[Any, ...]) -> bytes:
        return 2 * codec.pack((1, request[wire.REQUEST_ID], 0, 1, 1, 1, 2, 2, 1, None))

    node.script.append(twice)
    done = bench(ask, "put")
    assert done.code == 1
    assert "which waits for" in done.err


def test_rubbish_ends_the_run(ask: Run, node: FakeNode) -> None:
    node.script.append(lambda _: b"\xc1")
    done = bench(ask, "put")
    assert done.code == 1
    assert "not a MessagePack reply" in done.err


class Telling(FakeNode):
    """Tells every watch of every put, but for those after `mute_after`."""

    mute_after = 1_000_000

    def _put(self, key: str, value: bytes, prev: bool, ttl: int = 0) -> tuple[Any, ...]:
        result = super()._put(key, value, prev, ttl)
        if self.revision <= self.mute_after:
            event = put_event(key, value, self.revision)
            for request_id in list(self.streams):
                frame = (wire.FRAME_EVENTS, (event,), self.revision, False)
                self._stream(request_id, [self._reply(0, 0, *frame)[2:]])
        return result


def test_every_watcher_sees_every_put(run: Run) -> None:
    with Telling() as node:
        done = bench(run, "watch", "--watchers", "5", "--endpoints", node.endpoint)
        assert (done.code, done.err) == (0, "")
        assert set(done.json) == FIGURES | {"events", "events_wanted", "events_per_s"}
        assert done.json["events"] == done.json["events_wanted"] == 480
        assert len(node.of("watch")) == 5


def test_missing_events_fail_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danube_raft_cli.bench.WATCH_SILENCE_S", 0.2)
    with Telling() as node:
        node.mute_after = 50
        done = bench(run, "watch", "--watchers", "5", "--endpoints", node.endpoint)
        assert done.code == 1
        assert done.json["events"] == 245
        assert "245 events came of 480" in done.err


def test_a_stream_that_ends_fails_the_run(run: Run) -> None:
    with Telling() as node:
        node.mute_after = 0

        def fail() -> None:
            node.until(lambda: node.of("put"))
            node.fail_stream(errors.Compacted("gone", 3))

        thread = threading.Thread(target=fail)
        thread.start()
        done = bench(run, "watch", "--watchers", "2", "--endpoints", node.endpoint, "--timeout", "2s")
        thread.join(10)
        assert done.code == 1
        assert "Compacted" in done.err


def test_an_event_that_comes_twice_fails_the_run(run: Run) -> None:
    class Stammering(Telling):
        def _stream(self, watch: int | None, tails: list[tuple[Any, ...]]) -> None:
            super()._stream(watch, tails * 2)

    with Stammering() as node:
        done = bench(run, "watch", "--watchers", "2", "--endpoints", node.endpoint)
        assert (done.code, done.out) == (1, "")
        assert "went back" in done.err


def test_a_staleness_of_nothing_is_not_the_default(ask: Run, node: FakeNode) -> None:
    assert bench(ask, "get", "--consistency", "0").json["mode"] == "get-0"
    levels = [get[wire.CONSISTENCY] for get in node.of("get")]
    assert levels.count(0) == 96


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("put", "--consistency", "stale"), "--consistency"),
        (("watch", "--consistency", "0"), "--consistency"),
        (("get", "--watchers", "5"), "--watchers"),
        (("put", "--value-size", str(wire.MAX_REQUEST_BYTES - 50)), "--value-size"),
        (("get", "--value-size", str(10**15)), "--value-size"),
        (("put", "--value-size", "300000", "--clients", "20", "--connections", "2"), "--connections"),
        (("put", "--timeout", "1000h"), "--timeout"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    ask: Run, node: FakeNode, arguments: tuple[str, ...], text: str
) -> None:
    done = bench(ask, *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert text in done.err
    assert not node.requests


def test_the_largest_value_is_exactly_what_a_node_takes(ask: Run, node: FakeNode) -> None:
    size = wire.MAX_REQUEST_BYTES
    while ask("bench", "put", "--total", "1", "--keys", "10", "--value-size", str(size)).code == 2:
        size -= 1
        assert size > wire.MAX_REQUEST_BYTES - 200
    (put,) = node.of("put")
    assert len(put[wire.ARGS + 1]) == size
    # The numbers of a run take 5 bytes each, here 1; an argument that is left out takes none, here 1.
    sent = len(codec.pack(put)) + 3 * 4 - 1
    assert wire.MAX_REQUEST_BYTES - 4 <= sent <= wire.MAX_REQUEST_BYTES


def test_too_many_connections_are_one_clear_line(ask: Run) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        done = ask("bench", "put", "--connections", "2000", "--total", "2000")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "Too many open files" in done.err
