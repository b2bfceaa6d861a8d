"""What the processes of one node say to each other.

Every message is `[kind, boot epoch, field…]` in MessagePack; a frame is one of them or an array of several, since the
cost is per frame. The receiving edge drops what is of another boot epoch: it is from before a restart. Edges never lose a message and keep the order; `node/endpoints.py` makes
them. The receiver trusts the content, since only processes of the same node can reach the sockets.

`seq` of a Propose counts batches of one kv-server boot; `seq` of a Write counts writes of one consensus boot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from danube_raft.wire import codec
from danube_raft.wire.entry import Entry, HardState
from danube_raft.wire.local_snapshots import (
    AskPoint,
    InstallPoint,
    InstallSnapshot,
    LoadSnapshot,
    Odd,
    Piece,
    PointRead,
    Purge,
    ReadPiece,
    ReadPoint,
    ReplaceState,
    SnapshotDone,
    SnapshotsFound,
    Staged,
    StagePiece,
    WantSnapshot,
)

# ---------------------------------------------------------------- kv-server → consensus


class Propose(NamedTuple):
    """A batch of commands, requests back to back. Repeated with the same seq until it is applied or fenced."""

    seq: int
    payload: bytes


class ReadIndex(NamedTuple):
    """Ask up to which index a linearizable read must wait. `id` is new on every retry."""

    id: int


class AskFresh(NamedTuple):
    """Ask when the leader was last heard; always answered, by this node."""

    id: int


class Applied(NamedTuple):
    """Everything up to `index` is in the state machine; returns the credit of those entries."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index


class MembershipRequest(NamedTuple):
    """An administrator's change: `action` is add, promote, remove or transfer."""

    id: int
    action: str
    node_id: int
    raft_addr: str
    client_addr: str


class StatusRequest(NamedTuple):
    """Ask for consensus' side of `status`."""

    id: int


# ---------------------------------------------------------------- consensus → kv-server


class Committed(NamedTuple):
    """Committed entries in index order, no-ops and configurations too; passed on at monotonic `at_ms` (0: unknown)."""

    entries: tuple[Entry, ...]
    at_ms: int = 0


class ProposeRejected(NamedTuple):
    """Batch `seq` was not taken. `reason` is no-leader, not-leader, overloaded or transferring; `hint` the leader's
    id (the next leader's), or 0.
    `left`: it was refused by another node, so that another copy of it may still be under way."""

    seq: int
    reason: str
    hint: int
    left: bool = False


class ReadReady(NamedTuple):
    """Read `id` may be answered once `index` is applied; index -1: no leader could be confirmed."""

    id: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index


class FreshAnswer(NamedTuple):
    """Answer to an AskFresh: the leader was heard at monotonic `heard_at_ms` (-1: there is none), and everything up to
    `index` was committed then."""

    id: int
    heard_at_ms: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index


class Role(NamedTuple):
    """Role, term, leader (0: none), and cluster time: `time_base_ms` as of monotonic `time_at_ms`."""

    role: str
    term: int
    leader_id: int
    time_base_ms: int
    time_at_ms: int
    commit_index: int


class Space(NamedTuple):
    """`low`: too little room on the disk, here or at a leader that can hand leadership to nobody. `read_only_index`
    ≥ 0: this node takes no writes at all, and of its log everything up to there is committed."""

    low: bool
    read_only_index: int = -1


class Removed(NamedTuple):
    """This node is no longer a member, as of the configuration at `index`."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index


class MembershipReply(NamedTuple):
    """Answer to a MembershipRequest: wire status code and message."""

    id: int
    status: int
    message: str


class StatusReply(NamedTuple):
    """Consensus' side of `status`, as a plain map."""

    id: int
    status: dict[str, Any]


# ---------------------------------------------------------------- consensus → log-writer


class Write(NamedTuple):
    """One atomic write: cut the log from `truncate_from` (0: do not), append, save the hard state if given."""

    seq: int
    truncate_from: int
    entries: tuple[Entry, ...]
    hard_state: HardState | None


class ReadLog(NamedTuple):
    """Ask for the entries from `first` to at most `last`, at most `max_bytes` or one entry."""

    first: int
    last: int
    max_bytes: int


class LeftSuspect(NamedTuple):
    """A leader has brought this node up to date: its promises count again, also after the next start."""


# ---------------------------------------------------------------- log-writer → consensus


class Recovered(NamedTuple):
    """What the disk holds. `runs` are (first index, term) of each stretch of one term, `configurations` are
    (index, payload) of the configuration entries, (`purged_index`, `purged_term`) is the entry before the first.
    `suspect`: what of it is known to be lost, so that nothing that this node has promised counts; empty: nothing.
    `hard_state` is then the newest that is known, be it from the log or from the durable mark. `forgot_term`: the mark is
    lost, so this node may have promised something in later terms than any that is known."""

    hard_state: HardState
    purged_index: int
    purged_term: int
    last_index: int
    last_stamp_ms: int
    runs: tuple[tuple[int, int], ...]
    configurations: tuple[tuple[int, bytes], ...]
    suspect: str
    pid: int
    forgot_term: bool = False


class Durable(NamedTuple):
    """All writes up to `seq` are on disk."""

    seq: int


class FreeSpace(NamedTuple):
    """How much may still be written to the disk; measured now and then."""

    free_bytes: int


class LogChunk(NamedTuple):
    """Answer to a ReadLog: entries from its `first` on; empty when that is not in the log (any more)."""

    first: int
    entries: tuple[Entry, ...]


# ---------------------------------------------------------------- all → supervisor, supervisor → all


class Ready(NamedTuple):
    """The process takes part: `name` of the process and its pid."""

    name: str
    pid: int


class Progress(NamedTuple):
    """Sent every second: `turns` of the loop so far."""

    turns: int


class Status(NamedTuple):
    """What a process tells of itself, for metrics."""

    status: dict[str, Any]


class ConfirmRead(NamedTuple):
    """Supervisor → kv-server: find out whether a majority confirms reads now. Answered by ReadConfirmed, or never."""


class ReadConfirmed(NamedTuple):
    """A ReadIndex that was asked for at monotonic `at_ms` was confirmed: `index` was committed then, and
    `applied_index` applied here when the answer came."""

    at_ms: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index
    applied_index: int


class Failed(NamedTuple):
    """The process ends with this error: wire code and one line of text."""

    code: int
    message: str


class Stop(NamedTuple):
    """End in order."""


Message = (
    Propose | ReadIndex | Applied | SnapshotDone | MembershipRequest | StatusRequest | Committed | ProposeRejected
    | ReadReady | Role | InstallSnapshot | Removed | MembershipReply | StatusReply | Write | ReadLog | Purge
    | InstallPoint | Recovered | Durable | LogChunk | Ready | Progress | Status | Failed | Stop | AskFresh | FreshAnswer
    | ConfirmRead | ReadConfirmed | SnapshotsFound | AskPoint | LoadSnapshot | ReadPoint | ReadPiece | StagePiece
    | PointRead | Piece | Staged | LeftSuspect | Space | FreeSpace | Odd | WantSnapshot | ReplaceState
)  # fmt: skip

KINDS: tuple[type[Message], ...] = (
    Propose, ReadIndex, Applied, SnapshotDone, MembershipRequest, StatusRequest, Committed, ProposeRejected,
    ReadReady, Role, InstallSnapshot, Removed, MembershipReply, StatusReply, Write, ReadLog, Purge, InstallPoint,
    Recovered, Durable, LogChunk, Ready, Progress, Status, Failed, Stop, AskFresh, FreshAnswer, ConfirmRead,
    ReadConfirmed, SnapshotsFound, AskPoint, LoadSnapshot, ReadPoint, ReadPiece, StagePiece, PointRead, Piece, Staged,
    LeftSuspect, Space, FreeSpace, Odd, WantSnapshot, ReplaceState,
)  # fmt: skip
"""The position of a class here is its kind on the wire: add at the end only."""

_KIND_OF: dict[type, int] = {cls: kind for kind, cls in enumerate(KINDS)}


def _entries(raw: tuple[Any, ...]) -> tuple[Entry, ...]:
    return tuple([Entry._make(fields) for fields in raw])


_REBUILD: dict[type, Callable[..., Message]] = {
    Committed: lambda entries, *rest: Committed(_entries(entries), *rest),
    LogChunk: lambda first, entries: LogChunk(first, _entries(entries)),
    Write: lambda seq, truncate_from, entries, hard_state: Write(
        seq, truncate_from, _entries(entries), None if hard_state is None else HardState(*hard_state)
    ),
    Recovered: lambda hard_state, *rest: Recovered(HardState(*hard_state), *rest),
}


def pack(boot_epoch: int, message: Message) -> bytes:
    """The frame of a message."""
    return codec.pack((_KIND_OF[type(message)], boot_epoch, *message))


def pack_frame(boot_epoch: int, messages: Sequence[Message]) -> bytes:
    """The frame of one or more messages."""
    if len(messages) == 1:
        return pack(boot_epoch, messages[0])
    return codec.pack([(_KIND_OF[type(message)], boot_epoch, *message) for message in messages])


def unpack(frame: bytes) -> list[tuple[int, Message]]:
    """(boot epoch, message) of each message in a frame; raises `codec.Malformed`."""
    content = codec.unpack(frame)
    codec.expect(type(content) is tuple and bool(content), "a local frame is an array")
    return [_message(fields) for fields in (content if type(content[0]) is tuple else (content,))]


def _message(fields: Any) -> tuple[int, Message]:
    codec.expect(
        type(fields) is tuple
        and len(fields) >= 2
        and type(fields[0]) is int
        and 0 <= fields[0] < len(KINDS)
        and type(fields[1]) is int,
        "a local message is [kind, boot epoch, field…]",
    )
    cls = KINDS[fields[0]]
    try:
        return fields[1], _REBUILD.get(cls, cls)(*fields[2:])
    except TypeError:
        raise codec.Malformed(f"{cls.__name__} does not have {len(fields) - 2} such fields") from None
