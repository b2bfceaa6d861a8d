"""States with something of everything in them, and their snapshots."""

from __future__ import annotations

from kv_replica import entries

from danube_raft.kv.machine import Machine
from danube_raft.kv.snapshot import encode


def whole(machine: Machine) -> bytes:
    return b"".join(encode(machine))


def grown(seed: int = 20, count: int = 142) -> Machine:
    """A machine after so many entries of the random stream; by default one that has items of every kind."""
    machine = Machine()
    for entry in entries(seed, count):
        machine.apply(entry)
    return machine
