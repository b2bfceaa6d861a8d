"""A snapshot made by a child that was forked at the applied index; what such a child owes its node is in
`forked_child.py`.

The child writes nothing before it was told the point of the log. The parent believes in a snapshot when it lies there.
"""

from __future__ import annotations

from contextlib import suppress

from danube_raft.errors import DiskFailed
from danube_raft.kv.machine import Machine
from danube_raft.kv.snapshot import encode
from danube_raft.node.forked_child import POLL_MS, ForkedChild, Line
from danube_raft.node.snapshot_jobs import Failed, Outcome
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.storage.entry_format import CHAIN_BYTES

NAME = b"dr-snapshot"


class ForkedSnapshot:
    """See `Job`."""

    def __init__(self, shelf: Shelf, machine: Machine) -> None:
        self.index, self.term = machine.applied_index, machine.applied_term
        self._store = shelf.store
        self._outcome: Outcome | None = None

        def work(line: Line) -> bytes:
            _write(shelf, machine, line)
            return b""

        self._child = ForkedChild(NAME, work)

    @property
    def pid(self) -> int:
        """See Job."""
        return self._child.pid

    @property
    def pause_ms(self) -> int:
        """See Job."""
        return POLL_MS

    def give_point(self, chain: bytes) -> None:
        """See Job."""
        assert len(chain) == CHAIN_BYTES
        self._child.tell(chain)

    def poll(self) -> Outcome | None:
        """See Job."""
        if self._outcome is None:
            ended = self._child.poll()
            if ended is not None:
                self._outcome = Failed(ended.failure) if ended.failure else self._made()
        return self._outcome

    def _made(self) -> Outcome:
        try:
            found = self._store.newest().candidates
        except DiskFailed as error:
            return Failed(error.message)
        for meta in found:
            if (meta.index, meta.term) == (self.index, self.term):
                return meta
        return Failed("it was written, and is not there")

    def kill(self) -> None:
        """See Job. Whoever waits for the disk dies when the disk has answered."""
        self._child.kill()


def _write(shelf: Shelf, machine: Machine, line: Line) -> None:
    """What the child does."""
    chunks = encode(machine)
    chain = line.hear(CHAIN_BYTES)
    writer = shelf.store.writer(machine.applied_index, machine.applied_term, chain)
    for chunk in chunks:
        line.check_parent()
        writer.write(chunk)
    writer.commit()
    # To delete a large file takes some 0.1 s, which the parent can be spared. What is left is its business again.
    with suppress(DiskFailed):
        shelf.tidy()
