"""One replica as a program: applies entries made from a seed and prints the digest of its state and results.

    python kv_replica.py origin|other

Run under different hash seeds, as the node that made the batches and as one that decodes them, it must always print
the same.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from typing import Any

from kv_driver import dump

from danube_raft.kv.machine import Machine
from danube_raft.kv.sessions import Result
from danube_raft.wire import client, codec
from danube_raft.wire.entry import KIND_BATCH, Entry


def _raw(rng: random.Random, serial: int) -> bytes:
    key, value = f"/{rng.choice('abc')}/{rng.randrange(30)}", b"v" * rng.randrange(4)
    command: tuple[Any, ...] = rng.choice(
        [
            ("put", key, value, rng.random() < 0.3), ("put_with_ttl", key, value, rng.randrange(1, 400)),
            ("delete", key, True), ("delete_prefix", key[:3]), ("compare_and_swap", key, None, value),
            ("compare_and_swap", key, value, b"new", 50), ("allocate_id", "ids", 3),
            ("compact", rng.randrange(1, 900)),
            ("expire", tuple((rng.randrange(1, 60), rng.randrange(3)) for _ in range(9))),
        ]
    )  # fmt: skip
    header: dict[str, Any] = {
        "client_id": rng.randrange(1, 9),
        "serial": serial,
        "low_water": max(1, serial - 40),
    }
    return client.pack_request(command[0], 1, *command[1:], **(header if rng.random() < 0.8 else {}))


def entries(seed: int, count: int) -> Iterator[Entry]:
    """`count` batches of any commands, some of them copies of older ones."""
    rng = random.Random(seed)
    stamp = 0
    for index in range(1, count + 1):
        payload = b"".join(_raw(rng, index - rng.randrange(3) + 2) for _ in range(rng.randrange(1, 8)))
        stamp += rng.choice((0, 5, 60))
        seq = index if rng.random() < 0.9 else 1
        yield Entry(index, 1, KIND_BATCH, stamp, stamp + 9, (rng.randrange(3), 1, seq), payload)


def replica(origin: bool) -> tuple[Machine, list[list[Result] | None]]:
    """A machine after 400 entries, and their results."""
    machine = Machine()
    results = []
    for entry in entries(20, 400):
        requests = [client.check(raw) for raw in codec.unpack_stream(entry.payload)] if origin else None
        results.append(machine.apply(entry, requests))
    assert machine.revision > 300
    return machine, results


def main(origin: bool) -> str:
    """The digest."""
    machine, results = replica(origin)
    return hashlib.sha256(repr((dump(machine), results)).encode()).hexdigest()


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1] == "origin"))
