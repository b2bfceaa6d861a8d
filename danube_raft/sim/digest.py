"""The whole replicated state of a node as one digest: what must be equal on all replicas, bit for bit."""

from __future__ import annotations

from hashlib import blake2b

from danube_raft.kv.machine import Machine


def digest(machine: Machine) -> str:
    """Of everything that entries decide, with every order that could matter.

    Orders that decide nothing are sorted away: a replica that began with a snapshot has others (see
    `kv/snapshot.py`).
    """
    history, sessions, leases = machine.history, machine.sessions, machine.leases
    parts = (
        (machine.applied_index, machine.applied_term, machine.cluster_ms, machine.configuration),
        sorted(machine.origins.items()),
        (history.revision, history.compaction_revision, history.event_bytes, history.state_bytes),
        sorted(history.records.items()),
        sorted(history.chains.items()),
        history.events,
        [(x.id, x.ttl_ms, x.deadline_ms, x.generation, x.private, sorted(x.keys)) for x in leases.all()],
        leases.next_id,
        [
            (client_id, s.used_ms, s.floor, sorted(s.results.items()), sorted(s.sizes.items()))
            for client_id, s in sessions.by_client.items()
        ],
        sessions.kept_bytes,
    )
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()
