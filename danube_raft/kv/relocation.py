"""The state of one cluster as the first state of another: what a restored backup begins with.

The old cluster may have gone on after the backup, and clients remember what it told them. None of that may be mistaken
for something that the new cluster says:

- The revision moves forward by 2^32, and the history is compacted up to there. Whoever asks for a revision or for
  events that only the old cluster had gets Compacted, and no revision is given out twice. Records keep theirs, so what
  was read before the backup still compares equal.
- Counters and the next lease id move forward by 2^32: no id is handed out twice. A counter is a record that changes, so
  it gets the new revision; one that would go past the last id has none left.
- Cluster time goes on where the backup was made, so every lease has the time that it had left then.
- Sessions stay, since they are what makes a write happen once: a client that repeats a write whose effect is in the
  backup gets its first answer, and one whose write came later has it applied, for the first time here.
- Nodes do not stay. What they had proposed can never reach another cluster, so their origins are forgotten; the
  configuration is the caller's.

Index and term stay: the new cluster's log goes on behind the backup's last entry.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from danube_raft.errors import InvalidArgument
from danube_raft.kv.history import History
from danube_raft.kv.leases import Leases
from danube_raft.kv.machine import Machine
from danube_raft.kv.record import Record, prefix_end
from danube_raft.kv.sessions import Sessions
from danube_raft.wire.arguments import COUNTERS, MAX_INTEGER

STEP: Final = 1 << 32
"""The old cluster would have to make 10,000 changes a second for five days after the backup to come so far."""


def relocate(machine: Machine, configuration: bytes) -> Machine:
    """The state of `machine` for a new cluster with that (packed) configuration. `machine` is used up.

    Raises InvalidArgument when its revisions or lease ids cannot move forward any more.
    """
    old = machine.history
    revision, next_lease_id = old.revision + STEP, machine.leases.next_id + STEP
    if max(revision, next_lease_id) > MAX_INTEGER - STEP:
        raise InvalidArgument("the store has been restored too often: it has no revisions or lease ids left")
    records = {key: old.records[key] for key in old.keys("", None)}
    for key in list(old.keys(COUNTERS, prefix_end(COUNTERS))):
        records[key] = _moved(records[key], revision)
    history = History.restore(revision, revision, records, {}, [])
    return Machine.restore(
        (machine.applied_index, machine.applied_term),
        machine.cluster_ms,
        configuration,
        history,
        Leases.restore(next_lease_id, machine.leases.all()),
        Sessions.restore(OrderedDict(machine.sessions.by_client)),
        {},
    )


def _moved(counter: Record, revision: int) -> Record:
    """The counter, changed at `revision`."""
    key, value, create_revision, _, version, lease, created_at_ms = counter
    assert value is not None
    last = min(int(value) + STEP, MAX_INTEGER)
    return key, b"%d" % last, create_revision, revision, version + 1, lease, created_at_ms
