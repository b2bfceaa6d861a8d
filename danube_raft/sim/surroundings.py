"""What a node of the simulator is given by its world."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from danube_raft.node.endpoints import ClientGone, ClientSlow, Envelope
from danube_raft.sim.checks.facts import Fact
from danube_raft.sim.network import Network
from danube_raft.sim.schedule import Schedule
from danube_raft.sim.trace import Trace


class Surroundings(NamedTuple):
    """What a node lives in."""

    schedule: Schedule
    trace: Trace
    network: Network
    tell: Callable[[Fact], None]
    reply: Callable[[int, Envelope, bytes, int], ClientGone | ClientSlow | None]
    """Takes (node id, envelope, body, when it was made): an answer to a client. What it returns is told to the kv-server."""
    stopped: Callable[[int], None]
    """Takes the id of a node that has ended, and with it its connections."""
