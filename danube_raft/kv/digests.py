"""Digests: what replicas have said of their states at one index, and what follows from it.

A `digest` in the log asks every node to hash its state as it is behind that very entry, and each says its hash with a
`digest_report`. Both are commands like any other, and neither changes the state: what is kept here is of this process
alone, and a replica that began later has heard less. So nothing that is applied may depend on it.

    a state is odd  ⇔  more than half of the voters reported one hash, of the same format, and its own is another

- More than half of the *voters*, not of those who reported: of two that differ nobody knows who is right, and a minority
  of wrong states must not send away the others.
- Hashes of different formats say nothing of each other. A learner's is compared, and does not count.
- What a node reported first of an index stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

KEPT = 16
"""Digests whose reports are kept, the newest."""


class Report(NamedTuple):
    """What a node says of its state: the format of the encoding, and the SHA-256 of that."""

    format: int
    sha256: bytes


class Verdict(NamedTuple):
    """`settled`: there is a majority. `hopeful`: there is none, and those who have not reported may still make one.
    `differ`: two hashes of one format are not the same. `odd`: who is, sorted."""

    settled: bool
    hopeful: bool
    differ: bool
    odd: tuple[int, ...]


class Digests:
    """What was asked and reported."""

    def __init__(self) -> None:
        self.asked_index = 0
        """Of the last one that was asked for."""
        self._reports: dict[int, dict[int, Report]] = {}
        self._news: dict[int, None] = {}

    def ask(self, index: int) -> None:
        """A digest was asked for at this index."""
        self.asked_index = index
        self._reports.setdefault(index, {})
        if len(self._reports) > KEPT:
            del self._reports[min(self._reports)]

    def report(self, index: int, node_id: int, report: Report) -> None:
        """A node reports. Of a digest of which nothing is known (any more) it is left out."""
        reports = self._reports.get(index)
        if reports is not None and node_id not in reports:
            reports[node_id] = report
            self._news[index] = None

    def knows(self, index: int) -> bool:
        """Whether reports of this index are still taken."""
        return index in self._reports

    def of(self, index: int) -> Mapping[int, Report]:
        """The reports at an index, by node."""
        return self._reports.get(index, {})

    def take_news(self) -> list[int]:
        """The indexes of which there are new reports."""
        news, self._news = list(self._news), {}
        return news


def judge(reports: Mapping[int, Report], voters: Collection[int]) -> Verdict:
    """What the reports at one index say."""
    counts = Counter(report for node_id, report in reports.items() if node_id in voters)
    right = {report.format: report.sha256 for report, count in counts.items() if count > len(voters) // 2}
    hashes = set(reports.values())
    odd = [node_id for node_id, (version, sha256) in reports.items() if right.get(version, sha256) != sha256]
    differ = len({report.format for report in hashes}) < len(hashes)
    silent = sum(node_id not in reports for node_id in voters)
    hopeful = not right and max(counts.values(), default=0) + silent > len(voters) // 2
    return Verdict(bool(right), hopeful, differ, tuple(sorted(odd)))
