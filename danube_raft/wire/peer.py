"""What nodes say to each other.

Every message is one frame, `[version, kind, cluster id, from, to, term, boot epoch, field…]`. What is for another
cluster or another node is refused and counted; what is late is inert, since every answer names its term.

Raft messages are one-way, from the sender's DEALER to the receiver's ROUTER. Only the questions at the end of this
file (GetNodeInfo, PrepareInit) are answered on the ROUTER; their cluster id and receiver may be 0, for not known.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_type_hints

from danube_raft.wire import codec
from danube_raft.wire.entry import KIND_CONFIGURATION, Entry, unpack_configuration

VERSION = 1

TERM_LIMIT = 1 << 53
"""Terms grow by one per election. A larger one is no term, and adopting it would leave none to elect in."""


class Header(NamedTuple):
    """Who speaks to whom: cluster id, sender, receiver, the sender's term and boot epoch."""

    cluster_id: int
    sender: int
    receiver: int
    term: int
    boot_epoch: int


# ---------------------------------------------------------------- Raft


class RequestPreVote(NamedTuple):
    """Would you vote for me in `next_term`? Changes nothing at the receiver."""

    next_term: int
    last_index: int
    last_term: int


class PreVoteReply(NamedTuple):
    """Answer for `next_term`."""

    next_term: int
    granted: bool


class RequestVote(NamedTuple):
    """Vote for me in the header's term. `transfer`: the leader asked for this election."""

    last_index: int
    last_term: int
    transfer: bool


class VoteReply(NamedTuple):
    """Answer in the header's term."""

    granted: bool


class AppendEntries(NamedTuple):
    """Entries after (prev_index, prev_term), the leader's commit index and its cluster time."""

    prev_index: int
    prev_term: int
    commit_index: int
    time_ms: int
    entries: tuple[Entry, ...]


class AppendReply(NamedTuple):
    """`success`: the log matches the leader's up to `match_index`, durably.

    Else `match_index` is the refused `prev_index`, by which the leader tells a late refusal from a new one, and the
    hint is the entry of the greatest index ≤ that one that may match. `counted` false: flow control only (SUSPECT).
    """

    success: bool
    match_index: int
    hint_index: int
    hint_term: int
    counted: bool


class Heartbeat(NamedTuple):
    """Sign of life; `round` confirms leadership for ReadIndex. `commit_index` is the leader's, whatever the peer has.
    `low_space`: the leader's disk is nearly full, and there is nobody to hand over to."""

    round: int
    commit_index: int
    time_ms: int
    low_space: bool = False


class HeartbeatReply(NamedTuple):
    """Answer to `round`, with the entry up to which the log is known to match, or is committed and so must match.
    `low_space`: the disk is nearly full."""

    round: int
    match_index: int
    match_term: int
    counted: bool
    low_space: bool = False


class InstallSnapshot(NamedTuple):
    """A piece, from `offset` on, of the snapshot that ends with (index, last_term, chain). `size_bytes` and `sha256` are
    the whole file's; `stamp_ms` and `configuration`: cluster time and configuration payload at its end."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    last_term: int
    chain: bytes
    size_bytes: int
    sha256: bytes
    stamp_ms: int
    configuration: bytes
    offset: int
    data: bytes


class InstallSnapshotReply(NamedTuple):
    """The receiver has the first `offset` bytes of the snapshot at (index, last_term). `installed`: its log begins
    behind it now, or has that entry anyway."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    last_term: int
    offset: int
    installed: bool


class AskSnapshot(NamedTuple):
    """A follower whose state is wrong asks its leader for a snapshot that reaches `index`; repeated until it has one."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index


class TimeoutNow(NamedTuple):
    """Campaign at once: leadership is handed to you."""


class ForwardBatch(NamedTuple):
    """A kv-server's batch for the leader, with its origin."""

    origin: tuple[int, int, int]
    payload: bytes


class ForwardRejected(NamedTuple):
    """The batch of that origin was not taken. Reasons as in `local.ProposeRejected`."""

    origin: tuple[int, int, int]
    reason: str
    hint: int


class ForwardReadIndex(NamedTuple):
    """A follower asks for a read index; `id` is (node, boot epoch, counter)."""

    id: tuple[int, int, int]


class ForwardReadReply(NamedTuple):
    """Answer: the index, or -1 when this node does not lead."""

    id: tuple[int, int, int]
    index: int  # type: ignore[assignment]  # a field, not tuple.index


# ---------------------------------------------------------------- questions


class GetNodeInfo(NamedTuple):
    """Who are you? The answer repeats the nonce, so that it is known to be given after the question was."""

    nonce: int


class NodeInfo(NamedTuple):
    """Answer: identity, addresses, the seeds it was started with, and whether it belongs to a cluster yet.

    Before that `cluster_id` is the cluster that it has promised to join and `leader_id` that cluster's initialiser,
    both 0 for no promise. `initialised`: the first entry is in its log.
    """

    node_id: int
    cluster_id: int
    raft_addr: str
    client_addr: str
    seed_nodes: tuple[str, ...]
    initialised: bool
    leader_id: int
    nonce: int


class PrepareInit(NamedTuple):
    """Promise to join the cluster of this id with this configuration (packed) and no other. The sender is its
    initialiser; `wall_ms` is its wall clock and only informs."""

    cluster_id: int
    configuration: bytes
    wall_ms: int


class PrepareInitReply(NamedTuple):
    """The promise to join `cluster_id`, or why not."""

    promised: bool
    reason: str
    cluster_id: int


Message = (
    RequestPreVote | PreVoteReply | RequestVote | VoteReply | AppendEntries | AppendReply | Heartbeat | HeartbeatReply
    | InstallSnapshot | InstallSnapshotReply | TimeoutNow | ForwardBatch | ForwardRejected | ForwardReadIndex
    | ForwardReadReply | GetNodeInfo | NodeInfo | PrepareInit | PrepareInitReply | AskSnapshot
)  # fmt: skip

KINDS: tuple[type[Message], ...] = (
    RequestPreVote, PreVoteReply, RequestVote, VoteReply, AppendEntries, AppendReply, Heartbeat, HeartbeatReply,
    InstallSnapshot, InstallSnapshotReply, TimeoutNow, ForwardBatch, ForwardRejected, ForwardReadIndex,
    ForwardReadReply, GetNodeInfo, NodeInfo, PrepareInit, PrepareInitReply, AskSnapshot,
)  # fmt: skip
"""The position of a class here is its kind on the wire: add at the end only."""

_KIND_OF: dict[type, int] = {cls: kind for kind, cls in enumerate(KINDS)}


def pack(header: Header, message: Message) -> bytes:
    """The frame of a message."""
    return codec.pack((VERSION, _KIND_OF[type(message)], *header, *message))


def unpack(frame: bytes) -> tuple[Header, Message]:
    """(header, message) of a frame. Raises `codec.Malformed` for anything that `pack` could not have made."""
    fields = codec.unpack(frame)
    codec.expect(type(fields) is tuple and len(fields) >= 7, "a peer message has a header of seven fields")
    if fields[0] != VERSION:
        raise codec.Malformed(f"peer protocol version {fields[0]!r}"[:60])
    codec.expect(all(map(_natural, fields[1:7])), "header fields are integers")
    codec.expect(fields[5] < TERM_LIMIT, "no cluster has had so many terms")
    if fields[1] >= len(KINDS):
        raise codec.Malformed(f"unknown kind {fields[1]}")
    cls = KINDS[fields[1]]
    shape = _SHAPES[cls]
    body = fields[7:]
    if len(body) != len(shape):
        raise codec.Malformed(f"{cls.__name__} has {len(shape)} fields")
    for value, fits in zip(body, shape, strict=True):
        if not fits(value):
            raise codec.Malformed(f"a field of {cls.__name__} is of the wrong type")
    if cls is AppendEntries:
        _expect_in_order(body, fields[5])
        body = (*body[:4], tuple([Entry._make(entry) for entry in body[4]]))
    return Header(*fields[2:7]), cls(*body)


def _expect_in_order(body: tuple[Any, ...], term: int) -> None:
    """Entries follow `prev_index` without a gap, and terms never fall nor pass the sender's."""
    index, last_term = body[0], body[1]
    codec.expect(index >= 0 <= last_term, "an AppendEntries begins behind an entry or at the beginning")
    for entry in body[4]:
        index += 1
        if entry[0] != index or not last_term <= entry[1] <= term:
            raise codec.Malformed("the entries of an AppendEntries are not in order")
        last_term = entry[1]
        if entry[2] == KIND_CONFIGURATION:
            unpack_configuration(entry[6])


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _integer(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _triple(value: Any) -> bool:
    return (
        type(value) is tuple
        and len(value) == 3
        and _natural(value[0])
        and _natural(value[1])
        and _natural(value[2])
    )


def _strings(value: Any) -> bool:
    return type(value) is tuple and all(type(item) is str for item in value)


def _entry(value: Any) -> bool:
    # Written out: this is done for every entry that every follower gets.
    if type(value) is not tuple or len(value) != 7:
        return False
    index, term, kind, stamp_ms, wall_ms, origin, payload = value
    return (
        type(index) is int
        and type(term) is int
        and type(kind) is int
        and type(stamp_ms) is int
        and type(wall_ms) is int
        and min(index, term, kind, stamp_ms, wall_ms) >= 0
        and max(index, term, kind, stamp_ms, wall_ms) < 1 << 63
        and _triple(origin)
        and type(payload) is bytes
    )


def _entries(value: Any) -> bool:
    return type(value) is tuple and all(_entry(item) for item in value)


_FITS: dict[Any, Any] = {
    int: _integer,
    bool: lambda value: type(value) is bool,
    bytes: lambda value: type(value) is bytes,
    str: lambda value: type(value) is str,
    tuple[int, int, int]: _triple,
    tuple[str, ...]: _strings,
    tuple[Entry, ...]: _entries,
}

_SHAPES = {cls: tuple(_FITS[hint] for hint in get_type_hints(cls).values()) for cls in KINDS}
