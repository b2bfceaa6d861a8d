"""The committed log, applied once more by itself, explains everything that anybody saw.

- Every node's state equals the replay's at the same index, bit for bit (Raft paper, state machine safety).
- Every read, of whatever level, shows its key exactly as it was at the revision that the answer names, or that was asked for:
  nobody reads what was never committed.
"""

from __future__ import annotations

from collections.abc import Sequence

from danube_raft.kv.machine import Machine
from danube_raft.kv.sessions import Sessions
from danube_raft.sim.checks.archive import Archive
from danube_raft.sim.checks.facts import Violation
from danube_raft.sim.digest import digest
from danube_raft.sim.history import OK, Operation
from danube_raft.wire.entry import Entry


def replay(
    committed: Sequence[Entry],
    revisions: list[int] | None = None,
    archive: Archive | None = None,
    sessions: Sessions | None = None,
) -> Machine:
    """A state machine that has applied the committed log. `revisions` gets the store's revision at every index,
    `archive` all changes and compactions; `sessions` is the table to use."""
    machine = Machine()
    if sessions is not None:
        machine.sessions = sessions
    history = machine.history
    if archive is not None:
        archive.attach(history)
    if revisions is not None:
        revisions.append(history.revision)
    for entry in committed:
        compacted_to = history.compaction_revision
        machine.apply(entry)
        if revisions is not None:
            revisions.append(history.revision)
        if archive is not None and history.compaction_revision > compacted_to:
            archive.compacted_to(history.compaction_revision)
    if archive is not None:
        archive.collect()
    return machine


def check_reads(operations: Sequence[Operation], archive: Archive) -> None:
    """`archive` is what the whole log makes."""
    for operation in operations:
        if operation.kind == "get" and operation.outcome == OK:
            found = operation.result[0]
            if operation.revision > archive.revision:
                raise Violation(f"an answer from a revision that is not committed: {operation}")
            shown = operation.revision if operation.past is None else operation.past
            expected = archive.at(operation.key, shown)
            if found != expected:
                raise Violation(f"at revision {shown} the key was {expected}: {operation}")


def check_replicas(machines: dict[int, Machine], reference: Machine) -> None:
    """All replicas stand where `reference` stands, and are equal to it."""
    wanted = digest(reference)
    for node, machine in machines.items():
        if machine.applied_index != reference.applied_index:
            raise Violation(
                f"node {node} has applied {machine.applied_index} of {reference.applied_index} committed entries"
            )
        if digest(machine) != wanted:
            raise Violation(f"the state of node {node} is not what the committed log makes")
