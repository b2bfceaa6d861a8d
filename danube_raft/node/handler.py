"""What a process is: messages in, messages out.

A handler owns no socket, no clock and no source of randomness. The loop (`node/loop.py`), the stepped node of the
tests and the simulator drive it in the same way: `start` once; then, again and again, `receive` for every message
that waits, `turn` once, and everything in `outbox` is sent. `now` is monotonic milliseconds and never goes back.

Edges are named after what is at the far end: "kv-server", "consensus", "log-writer", "supervisor", "clients". To other
nodes there are two: "peers" is what they send to this node (and the answers to their questions), "links" what this
node sends to them.
"""

from __future__ import annotations

from typing import Any, Protocol

KV = "kv-server"
CONSENSUS = "consensus"
LOG = "log-writer"
SUPERVISOR = "supervisor"
CLIENTS = "clients"
PEERS = "peers"
LINKS = "links"


class Handler(Protocol):
    """What the loop drives: one of the three processes of a node, or its forming phase."""

    outbox: list[tuple[str, Any]]
    """(edge, message) pairs to send, in order; the driver takes them after every turn."""

    @property
    def ready(self) -> bool:
        """Whether the process takes its part in the node; once true it stays true."""

    @property
    def done(self) -> bool:
        """Whether nothing is left to do; the processes of a running node never are."""

    def start(self, now: int) -> None:
        """Begin. Called once, before anything else."""

    def receive(self, edge: str, message: Any, now: int) -> None:
        """Take one message. What it leads to may wait for `turn`."""

    def turn(self, now: int) -> None:
        """Everything that waited was received: do the work, and whatever is due by time."""

    def next_timer(self) -> int | None:
        """Monotonic ms at which `turn` is wanted even if nothing arrives; None: only then."""

    def close(self) -> None:
        """Release what the handler owns: the log, for one."""


class Timed(Protocol):
    """A part of a handler that may wait for time."""

    def next_timer(self) -> int | None:
        """See Handler."""


class ProcessHandler(Handler, Protocol):
    """One of the three processes of a node."""

    def report(self, now: int) -> dict[str, Any]:
        """What the supervisor is told of it every second, for metrics and for whoever asks whether the node is ready:
        plain values, cheap to gather."""
