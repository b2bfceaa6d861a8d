"""A digest accuses nobody wrongly: all nodes report the same hash of an index, that of the state which the log makes up to
there, and none is ever odd (INTERNALS §9, Digest).

Where a test has made the state of a node wrong on purpose (`View.falsified`) nothing is asked of what it says; but once it
knows it must not serve any read, through any number of starts, until it has begun with a right state again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from danube_raft.kv.digests import Report
from danube_raft.kv.machine import Machine
from danube_raft.kv.snapshot import FORMAT, encode
from danube_raft.sim.checks.facts import Booted, Delivered, Ended, Fact, FoundOdd, Loaded, Violation
from danube_raft.sim.checks.reference import Reference
from danube_raft.sim.checks.view import View
from danube_raft.sim.history import OK
from danube_raft.wire import client, codec
from danube_raft.wire.client import ARGS, OP
from danube_raft.wire.entry import KIND_BATCH, Entry
from danube_raft.wire.operations import READ

REPORT = "digest_report"
_MARK = REPORT.encode()


def hash_of(machine: Machine) -> str:
    """What a node has to report of this state."""
    found = hashlib.sha256()
    for chunk in encode(machine):
        found.update(chunk)
    return found.hexdigest()


def reports_in(entry: Entry) -> Iterator[tuple[int, Report]]:
    """(index, report) of each report in an entry."""
    # Looked for in the bytes first: few entries have any.
    if entry.kind != KIND_BATCH or _MARK not in entry.payload:
        return
    for request in map(client.check, codec.unpack_stream(entry.payload)):
        if request[OP] == REPORT:
            index, version, sha256 = request[ARGS:]
            yield index, Report(version, sha256)


class DigestsAgree:
    """Compares every report with the others of its index and with the log. `now`: virtual time."""

    wants = (Booted, Delivered, Ended, FoundOdd, Loaded)

    def __init__(self, view: View, now: Callable[[], int]) -> None:
        self._view = view
        self._now = now
        self._reference = Reference(view.committed, hash_of)
        self._by_index: dict[int, dict[int, Report]] = {}
        self._seen = 0
        self._odd_since: dict[int, int] = {}
        self._said: set[int] = set()
        """Nodes that have said in this boot that they are odd: with a right state, they do not know it yet."""
        self.replaced = 0

    @property
    def compared(self) -> int:
        """Digests of which two nodes or more have reported."""
        return sum(len(reports) > 1 for reports in self._by_index.values())

    @property
    def reported(self) -> int:
        """Reports in the log."""
        return sum(map(len, self._by_index.values()))

    def reports(self, index: int) -> dict[int, Report]:
        """What was reported of an index, by node."""
        return dict(self._by_index.get(index, {}))

    @property
    def odd(self) -> set[int]:
        """Nodes that know that their state is wrong."""
        return set(self._odd_since)

    def take(self, fact: Fact) -> None:
        """Nobody says anything wrong, and who is wrong says nothing."""
        if isinstance(fact, Delivered):
            for entry in fact.entries:
                if entry.index > self._seen:
                    self._seen = entry.index
                    self._reports(entry)
        elif isinstance(fact, FoundOdd):
            if fact.node not in self._view.falsified and fact.node not in self._odd_since:
                raise Violation(
                    f"node {fact.node} takes its state for wrong, after the digest of {fact.index}"
                )
            self._odd_since.setdefault(fact.node, self._now())
            self._said.add(fact.node)
        elif isinstance(fact, Booted):
            self._said.discard(fact.node)
        elif isinstance(fact, Loaded):
            # The check of snapshots, which comes before this one, has found whether it is right again.
            if fact.node not in self._view.falsified and fact.node not in self._said:
                self.replaced += self._odd_since.pop(fact.node, None) is not None
        elif isinstance(fact, Ended):
            self._ended(fact)

    def _reports(self, entry: Entry) -> None:
        node = entry.origin[0]
        for index, report in reports_in(entry):
            if index >= entry.index:
                raise Violation(f"node {node} reports a digest of {index} in entry {entry.index}")
            if self._by_index.setdefault(index, {}).setdefault(node, report) != report:
                raise Violation(f"node {node} reports two digests of {index}")
            right = self._reference.digest_at(index)
            if node not in self._view.falsified and report != Report(FORMAT, bytes.fromhex(right)):
                raise Violation(f"node {node} reports a digest of {index} that the log does not make")

    def _ended(self, fact: Ended) -> None:
        operation = fact.operation
        since = self._odd_since.get(operation.node)
        if since is None or operation.outcome != OK or client.kind_of(operation.kind) != READ:
            return
        if operation.answered > since:
            raise Violation(f"node {operation.node} knows that its state is wrong, and answers {operation}")
