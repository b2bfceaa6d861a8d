"""What the log is made of: entries, the hard state and the configuration.

An entry is one batch of commands with its place in the log (term, index), the cluster time at which the leader
took it (`stamp_ms`, see INTERNALS §7 in the design), the wall clock for `created_at_ms` only, and the origin
that makes a batch happen once. The payload is opaque to everything but the state machine.

These types are shared by the Raft core, the log store, the state machine and the messages between them, so they
live below all of these. No logic here, only shapes and their encodings.
"""

from __future__ import annotations

from typing import NamedTuple

from danube_raft.wire import codec

KIND_NOOP = 0
KIND_BATCH = 1
KIND_CONFIGURATION = 2
KINDS = (KIND_NOOP, KIND_BATCH, KIND_CONFIGURATION)

VOTER = "voter"
LEARNER = "learner"

NO_ORIGIN = (0, 0, 0)

ENTRY_OVERHEAD_BYTES = 64
"""What an entry costs beside its payload, for every window that counts bytes."""


class Entry(NamedTuple):
    """One entry of the log.

    `origin` is (node id, boot epoch, batch seq) of the kv-server that made the batch, or `NO_ORIGIN`.
    `stamp_ms` is cluster time; `wall_ms` is the leader's wall clock and only informs.
    """

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int
    kind: int
    stamp_ms: int
    wall_ms: int
    origin: tuple[int, int, int]
    payload: bytes


def entry_bytes(entry: Entry) -> int:
    """What `entry` counts for in windows and caches, in bytes."""
    return len(entry.payload) + ENTRY_OVERHEAD_BYTES


class HardState(NamedTuple):
    """Term and vote: durable before anything that depends on them leaves. `vote` is 0 for none."""

    term: int = 0
    vote: int = 0


class Member(NamedTuple):
    """One member of the cluster, with its advertised addresses (host:port)."""

    node_id: int
    kind: str
    raft_addr: str
    client_addr: str


class Configuration(NamedTuple):
    """Who is in the cluster, as of one log index.

    `outgoing` holds the voters of the old configuration while two of them overlap (joint consensus), else it is
    empty. `removed` keeps every id that ever left, so that none of them returns.
    """

    members: tuple[Member, ...] = ()
    outgoing: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()

    @property
    def voters(self) -> tuple[int, ...]:
        """Node ids of the incoming (or only) set of voters, in member order."""
        return tuple(m.node_id for m in self.members if m.kind == VOTER)

    @property
    def learners(self) -> tuple[int, ...]:
        """Node ids of the learners, in member order."""
        return tuple(m.node_id for m in self.members if m.kind == LEARNER)


class Founding(NamedTuple):
    """What a founding member has promised: to join this cluster with this configuration (packed) and no other. Only
    the initialiser writes it into the log; `wall_ms` is its wall clock and only informs."""

    cluster_id: int
    initialiser: int
    configuration: bytes
    wall_ms: int


def pack_configuration(configuration: Configuration) -> bytes:
    """The payload of a configuration entry."""
    return codec.pack(configuration)


def unpack_configuration(payload: bytes) -> Configuration:
    """Reverse of `pack_configuration`; raises `codec.Malformed`."""
    fields = codec.unpack(payload)
    codec.expect(isinstance(fields, tuple) and len(fields) == 3, "a configuration has three fields")
    members, outgoing, removed = fields
    codec.expect(
        isinstance(members, tuple)
        and all(_is_member(m) for m in members)
        and _ids(outgoing)
        and _ids(removed),
        "a configuration lists members, outgoing voters and removed ids",
    )
    return Configuration(tuple(Member(*m) for m in members), outgoing, removed)


def _ids(value: object) -> bool:
    return isinstance(value, tuple) and all(type(item) is int for item in value)


def _is_member(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 4
        and type(value[0]) is int
        and value[1] in (VOTER, LEARNER)
        and type(value[2]) is str
        and type(value[3]) is str
    )
