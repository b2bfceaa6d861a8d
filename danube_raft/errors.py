"""Every error of danube-raft, in one tree.

    DanubeRaftError
    ├── Rejected            surely not applied
    │   ├── InvalidArgument, KeyEmpty, RequestTooLarge, TooManyOperations, DuplicateKey
    │   ├── Compacted, FutureRevision, StaleSerial
    │   ├── LeaseNotFound, LeaseExists
    │   ├── NotLeader, NoLeader, Overloaded, Timeout, NoConnection, LearnerNotReady, NoSpace
    │   ├── MemberNotFound, MemberExists, ClusterIdMismatch
    │   └── PermissionDenied, Unauthenticated, ProtocolVersion
    ├── Uncertain           may have been applied: ask again with the same session and serial
    └── Fatal               this node or this data cannot be used
        ├── Corrupt, DiskFailed (DiskFull), StateReplaced
        └── ConfigInvalid, PortInUse, DataDirInUse, NewerFormat, CrashLoop

The first two kinds travel on the wire as a stable code (below 100: Rejected; 100 to 149: Uncertain; from 150:
Fatal), a message that names what was wrong and what to do, and details. Low-level errors are mapped to these once,
at the edge where they arise. A broken invariant is an AssertionError, which nobody catches.
"""

from __future__ import annotations

from typing import Any, ClassVar


class DanubeRaftError(Exception):
    """Base of all. `code` is the stable number on the wire; `details` is a plain value for programs."""

    code: ClassVar[int] = 0

    def __init__(self, message: str = "", details: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class Rejected(DanubeRaftError):
    """The request surely had no effect."""

    code = 1


class InvalidArgument(Rejected):
    """The request itself is wrong; sending it again is of no use."""

    code = 2


class KeyEmpty(Rejected):
    """A key or prefix is empty where it may not be."""

    code = 3


class RequestTooLarge(Rejected):
    """A key, a value or the whole request is over its limit."""

    code = 4


class TooManyOperations(Rejected):
    """A transaction has more operations than are allowed."""

    code = 5


class DuplicateKey(Rejected):
    """A transaction writes the same key twice."""

    code = 6


class Compacted(Rejected):
    """The revision asked for is older than the history that is kept. `details` is the compaction revision."""

    code = 7


class FutureRevision(Rejected):
    """The revision asked for does not exist yet. `details` is the current revision."""

    code = 8


class LeaseNotFound(Rejected):
    """The lease does not exist (any more)."""

    code = 9


class LeaseExists(Rejected):
    """A lease with that id exists already."""

    code = 10


class NotLeader(Rejected):
    """This node does not lead. `details` is the leader's node id, or None."""

    code = 11


class NoLeader(Rejected):
    """The cluster had no leader until the deadline."""

    code = 12


class Overloaded(Rejected):
    """A queue is full. Try again after a short pause."""

    code = 13


class Timeout(Rejected):
    """The deadline passed; a read was not answered, or a write never left the node that took it."""

    code = 14


class LearnerNotReady(Rejected):
    """The learner is not close enough to the leader's log to be promoted."""

    code = 15


class MemberNotFound(Rejected):
    """No member has that id."""

    code = 16


class MemberExists(Rejected):
    """A member with that id or address exists already."""

    code = 17


class ClusterIdMismatch(Rejected):
    """The request was meant for another cluster; forget what is known of that one."""

    code = 18


class PermissionDenied(Rejected):
    """The caller may not do this."""

    code = 19


class Unauthenticated(Rejected):
    """The caller is not known."""

    code = 20


class NoSpace(Rejected):
    """The store or the disk is full; deletes and compactions are still taken."""

    code = 21


class ProtocolVersion(Rejected):
    """The message is of a protocol version or an operation that this node does not know."""

    code = 22


class StaleSerial(Rejected):
    """The session has already given up the answer to this serial."""

    code = 23


class NoConnection(Rejected):
    """No endpoint could be reached, so nothing was ever sent. Never on the wire."""

    code = 24


class Uncertain(DanubeRaftError):
    """The deadline passed after the write had left: it may have been applied, or may be soon."""

    code = 100


class Fatal(DanubeRaftError):
    """Nothing that the caller can repeat will help; `exit_code` is what a node that stops with it returns."""

    code = 150
    exit_code: ClassVar[int] = 1


class Corrupt(Fatal):
    """Stored data is damaged."""

    code = 151
    exit_code = 11


class DiskFailed(Fatal):
    """The disk refused a write; its outcome is unknown."""

    code = 152
    exit_code = 12


class DiskFull(DiskFailed):
    """There was no room for a write; what became of it is unknown."""

    code = 158


class StateReplaced(Fatal):
    """The state of this node was wrong, and a snapshot of the leader's has taken its place: start again with that."""

    code = 159
    exit_code = 16


class ConfigInvalid(Fatal):
    """A setting is unknown or has a bad value."""

    code = 153
    exit_code = 2


class PortInUse(Fatal):
    """A listen address is taken or does not exist."""

    code = 154
    exit_code = 15


class DataDirInUse(Fatal):
    """Another node runs on the data directory."""

    code = 155
    exit_code = 10


class NewerFormat(Fatal):
    """The data was written by a newer version than this one can read."""

    code = 156
    exit_code = 14


class CrashLoop(Fatal):
    """The processes of the node keep dying."""

    code = 157
    exit_code = 13


def _tree(root: type[DanubeRaftError]) -> dict[int, type[DanubeRaftError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


BY_CODE: dict[int, type[DanubeRaftError]] = _tree(DanubeRaftError)
"""Error class by wire code."""


def from_wire(code: int, message: str, details: Any = None) -> DanubeRaftError:
    """The error that a reply carries. An unknown code keeps its kind, which its range tells."""
    kind = BY_CODE.get(code)
    if kind is None:
        kind = Rejected if code < Uncertain.code else Uncertain if code < Fatal.code else Fatal
    return kind(message, details)
