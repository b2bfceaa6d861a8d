"""`danube-raft bench`: how fast the cluster is, measured like the etcd baseline; the generator is in `load.py`."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import ConsistencyOption, EndpointsOption, OutputOption, TimeoutOption, level, settle
from .output import Format, line, show_json, show_table

if TYPE_CHECKING:
    from .load import Load, Measured

WATCHERS = 100
WATCH_SILENCE_S = 10.0
"""Silence after which events that have not come are counted as missing."""


class Mode(StrEnum):
    """What is measured."""

    PUT = "put"
    GET = "get"
    WATCH = "watch"


def bench(
    ctx: typer.Context,
    mode: Annotated[
        Mode, typer.Argument(help="put; get, of keys written first; watch: puts, seen by watchers.")
    ],
    clients: Annotated[int, typer.Option(min=1, help="Clients, each with one request in flight.")] = 1,
    connections: Annotated[int, typer.Option(min=1, help="Connections, spread over the endpoints.")] = 1,
    total: Annotated[
        int, typer.Option(min=1, help="Requests in all, rounded down to the same number for each client.")
    ] = 10_000,
    value_size: Annotated[int, typer.Option(min=0, help="Bytes in a value.")] = 256,
    keys: Annotated[int, typer.Option(min=1, help="Distinct keys.")] = 1_000,
    watchers: Annotated[
        int | None, typer.Option(min=1, help=f"watch: watchers on the one prefix. [default: {WATCHERS}]")
    ] = None,
    consistency: ConsistencyOption = None,
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Put load on a cluster and print what it did. Exit code 1 if a request failed or an event is missing.

    Overwrites keys below /topics/default/.
    """
    settings = settle(ctx, endpoints, output, timeout)
    chosen = level(consistency)
    if chosen is not None and mode is not Mode.GET:
        raise typer.BadParameter(f"--consistency is a level of reads: it does not go with {mode.value}")
    if watchers is not None and mode is not Mode.WATCH:
        raise typer.BadParameter(f"--watchers does not go with {mode.value}")
    if total < clients:
        raise typer.BadParameter(f"--total {total} is less than one request for each of {clients} clients")
    _check_size(value_size, keys, settings.timeout_ms, -(-clients // connections))
    from danube_raft.client.call import Endpoints

    from .load import Load

    load = Load(Endpoints.parse(settings.endpoints).names, connections, settings.timeout_ms)
    try:
        per_client = total // clients
        # Each client draws from a seed of its own, as the baseline does.
        draws = [
            random.Random(seed).choices(range(keys), k=per_client)  # noqa: S311 -- repeatable, not secret
            for seed in range(clients)
        ]
        plan = Plan(load, draws, keys, b"v" * value_size, settings.timeout_ms)
        shown: dict[str, Any] = {"system": "danube-raft", "mode": mode.value, "clients": clients}
        shown["connections"] = connections
        if mode is Mode.GET:
            read_at = "session" if chosen is None else chosen
            shown["mode"] = f"get-{read_at}"
            measured = plan.get(read_at)
        elif mode is Mode.WATCH:
            measured, events = plan.watch(WATCHERS if watchers is None else watchers)
            shown |= events
        else:
            measured = plan.put()
    finally:
        load.close()
    shown |= summary(measured)
    _show(shown, settings.format(Format.SIMPLE))
    _judge(shown, measured)


BODY_MAX_BYTES = 2 << 20
"""What a node takes in one frame unless it is set up otherwise; a larger one costs the connection."""


def _check_size(value_size: int, keys: int, timeout_ms: int, per_connection: int) -> None:
    """Raises typer.BadParameter when the puts would be over what one request, or one body of them, may be."""
    from danube_raft.wire import client as wire

    from .load import key_name, puts

    # The longest put: head, request id, middle, serial and low_water (its type included), tail; see load.py.
    work = puts(1, [key_name(keys)], b"", timeout_ms)
    around = len(work.head) + 4 + len(work.middles[0]) + 4 + 5 + len(work.tails[0])
    length_bytes = 4  # an empty value has 1 byte of length, a long one 5
    if around + length_bytes + value_size > wire.MAX_REQUEST_BYTES:
        raise typer.BadParameter(
            f"--value-size {value_size}: a request may have {wire.MAX_REQUEST_BYTES} bytes, key and all"
        )
    if (around + length_bytes + value_size) * per_connection > BODY_MAX_BYTES:
        raise typer.BadParameter(
            f"--value-size {value_size}: the puts of {per_connection} clients on one connection may share a body, "
            f"which may have {BODY_MAX_BYTES} bytes; use more --connections"
        )


class Plan:
    """The three modes over one load."""

    def __init__(self, load: Load, draws: list[list[int]], keys: int, value: bytes, timeout_ms: int) -> None:
        from .load import key_name

        self._load = load
        self._draws = draws
        self._keys = [key_name(number) for number in range(keys)]
        self._value = value
        self._timeout_ms = timeout_ms

    def put(self, draws: list[list[int]] | None = None) -> Measured:
        """Puts of random keys."""
        from .load import puts

        draws = draws or self._draws
        return self._load.run(puts(len(draws), self._keys, self._value, self._timeout_ms), draws)

    def get(self, consistency: str | int) -> Measured:
        """Gets of random keys, after every key was written; raises the first error of that."""
        from danube_raft.wire import client as wire

        from .load import gets, key_name

        writers = min(len(self._keys), 8 * len(self._load.sockets))
        written = self.put([list(range(writer, len(self._keys), writers)) for writer in range(writers)])
        if written.first_error is not None:
            raise written.first_error
        seen = self._load.ask("get", key_name(0))
        token = (seen[wire.R_CLUSTER_ID], seen[wire.R_REVISION])
        return self._load.run(
            gets(len(self._draws), self._keys, consistency, token, self._timeout_ms), self._draws
        )

    def watch(self, count: int) -> tuple[Measured, dict[str, Any]]:
        """Puts of random keys while watchers look on; every watcher must see every put that was not refused."""
        import time

        watchers = self._load.watch(count)
        begin = time.perf_counter()
        measured = self.put()
        wanted = len(measured.latencies) * count
        self._load.collect(lambda: sum(watchers.events) >= wanted, WATCH_SILENCE_S)
        events = sum(watchers.events)
        took = max(watchers.last_at - begin, 1e-9)
        return measured, {"events": events, "events_wanted": wanted, "events_per_s": events / took}


def summary(measured: Measured) -> dict[str, Any]:
    """The figures of the baseline, plus the number of errors."""
    ordered = sorted(measured.latencies)
    number = len(ordered)

    def ms(seconds: float) -> float:
        return round(seconds * 1000, 3)

    return {
        "ops": number,
        "ops_per_s": number / measured.elapsed,
        "p50_ms": ms(ordered[number // 2]) if number else None,
        "p99_ms": ms(ordered[number * 99 // 100]) if number else None,
        "max_ms": ms(ordered[-1]) if number else None,
        "errors": measured.errors,
    }


def _show(shown: dict[str, Any], how: Format) -> None:
    if how is Format.JSON:
        show_json(shown)
        return
    cells = {name: f"{value:.1f}" if name.endswith("_per_s") else value for name, value in shown.items()}
    if how is Format.TABLE:
        show_table([name.upper() for name in cells], [list(cells.values())])
    else:
        for name, value in cells.items():
            line(f"{name}: {value}")


def _judge(shown: dict[str, Any], measured: Measured) -> None:
    from danube_raft.errors import DanubeRaftError

    if measured.first_error is not None:
        error = measured.first_error
        raise DanubeRaftError(
            f"{measured.errors} requests were refused, the first with {type(error).__name__}: {error.message}"
        )
    if shown.get("events") != shown.get("events_wanted"):
        raise DanubeRaftError(f"{shown['events']} events came of {shown['events_wanted']}")
