"""What the checks are told: everything of a run that an invariant can be about, as plain values.

A fact is told at the moment at which it becomes true, before anything that it leads to. Facts name what passed an edge
between processes, nodes or clients, and what the disk did; no check looks into a handler. So the same stream can be
made up in a test, with a violation in it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from danube_raft.client.record import Event
from danube_raft.sim.history import Operation, WatchLog
from danube_raft.wire import local, peer
from danube_raft.wire.entry import Entry, HardState


class Booted(NamedTuple):
    """The node starts under a new boot epoch; it knows what its disk holds and nothing else."""

    node: int
    boot: int


class Issued(NamedTuple):
    """Consensus told the log-writer to do `write`: this is its log from now on."""

    node: int
    write: local.Write


class Synced(NamedTuple):
    """`write` became durable, whether or not anybody was told."""

    node: int
    write: local.Write


class Forgot(NamedTuple):
    """The disk of a node that is down has come back with an older log, which holds entries of these terms behind
    `purged_index`, or with a mark that cannot be read: the node must be SUSPECT when it comes up. `promised` is the newest
    term and vote that anybody may have been told of."""

    node: int
    purged_index: int
    terms: tuple[int, ...]
    promised: HardState


class Judged(NamedTuple):
    """The log-writer told consensus what the disk holds, and whether the node is SUSPECT."""

    node: int
    suspect: bool


class Cleared(NamedTuple):
    """Consensus told the log-writer that the node is SUSPECT no more."""

    node: int


class MarkSynced(NamedTuple):
    """A durable mark became safe, which says whether the node is SUSPECT."""

    node: int
    suspect: bool


class Begun(NamedTuple):
    """On the node's disk the log begins behind `index` now: purged up to there, or `installed` behind a snapshot of
    (index, term)."""

    node: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    installed: bool


class PurgeIssued(NamedTuple):
    """Consensus told the log-writer to forget the log up to `upto`; `good` are the (index, term) of the snapshots that
    can be read there now, the newest last."""

    node: int
    upto: int
    good: tuple[tuple[int, int], ...]


class SnapshotTold(NamedTuple):
    """The kv-server has made or loaded a snapshot, and said so."""

    node: int
    done: local.SnapshotDone


class LoadTold(NamedTuple):
    """Consensus told the kv-server to begin with the snapshot at (index, term), 0 for none; `installed`: with one of the
    leader's, in place of what it has."""

    node: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    installed: bool


class Loaded(NamedTuple):
    """The state machine was replaced by what a snapshot holds: everything up to `upto`, with this digest."""

    node: int
    upto: int
    digest: str


class Told(NamedTuple):
    """Consensus told the kv-server its role, term, leader and commit index."""

    node: int
    role: local.Role


class Delivered(NamedTuple):
    """Consensus handed committed entries to the kv-server."""

    node: int
    entries: tuple[Entry, ...]


class Applied(NamedTuple):
    """The kv-server has applied everything up to `upto`."""

    node: int
    upto: int


class ReadAsked(NamedTuple):
    """The kv-server asked how far a linearizable read must wait; `number` is new each time within a boot."""

    node: int
    number: int


class ReadAnswered(NamedTuple):
    """Consensus answered: up to `upto`, or -1 if nobody confirmed it."""

    node: int
    number: int
    upto: int


class Sent(NamedTuple):
    """A message to a peer left the node."""

    header: peer.Header
    message: peer.Message


class Refused(NamedTuple):
    """A message to a peer was to leave, and there was no link that took it."""

    header: peer.Header
    message: peer.Message


class Received(NamedTuple):
    """Consensus of `node` takes a message of a peer, at virtual time `at`."""

    node: int
    at: int
    header: peer.Header
    message: peer.Message


class Ended(NamedTuple):
    """A client knows the outcome of an operation."""

    operation: Operation


class Filled(NamedTuple):
    """The node has found its disk nearly full."""

    node: int


class StartedReadOnly(NamedTuple):
    """The node starts on a disk that has no room, and may write nothing."""

    node: int


class FoundOdd(NamedTuple):
    """The kv-server takes its own state for wrong, as the digest at `index` has shown, and said so."""

    node: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index


class Subscribed(NamedTuple):
    """A watch asks a node, anew or for the first time, for everything from `revision` on. Frames of what it had before
    do not reach it any more."""

    watch: WatchLog
    revision: int


class Framed(NamedTuple):
    """A frame of its subscription has reached a watch; `result`: the fields of the reply, as the node made them."""

    watch: WatchLog
    result: tuple[Any, ...]


class HandedOut(NamedTuple):
    """A watch hands out all events of a revision. What `watch` holds is from before that."""

    watch: WatchLog
    revision: int
    events: tuple[Event, ...]


class Marked(NamedTuple):
    """A watch says that all events up to `revision` were handed out."""

    watch: WatchLog
    revision: int


Fact = (
    Booted | Issued | Synced | Begun | PurgeIssued | SnapshotTold | LoadTold | Loaded | Told | Delivered | Applied
    | ReadAsked | ReadAnswered | Sent | Refused | Received | Ended | HandedOut | Marked | Forgot | Judged | Cleared | MarkSynced
    | Filled | StartedReadOnly | FoundOdd | Subscribed | Framed
)  # fmt: skip


class Violation(AssertionError):
    """An invariant does not hold."""
