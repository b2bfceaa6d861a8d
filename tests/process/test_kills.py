"""kill -9 of each process and of all at once, twenty rounds, while clients write and watch.

Checked at the end: every acknowledged write is there, each was applied once (versions count the writes), and the
watcher saw every version of every key in order without a gap.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
from real_node import PROCESSES, RealNode, until
from records import the

from danube_raft import MetadataStore

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

ROUNDS = 20
WRITERS = 4
PATIENCE_MS = 30_000


class Writer(threading.Thread):
    """Writes n = 1, 2, 3… to a key of its own; each acknowledgement carries the version that it led to."""

    def __init__(self, store: MetadataStore, name: str, enough: threading.Event) -> None:
        super().__init__(name=name)
        self.key = f"/writers/{name}"
        self.acknowledged = 0
        self.failure: BaseException | None = None
        self._store = store
        self._enough = enough

    def run(self) -> None:
        """Until told that it is enough."""
        try:
            while not self._enough.is_set():
                put = self._store.put(self.key, self.acknowledged + 1)
                self.acknowledged += 1
                assert put.version == self.acknowledged, f"{self.key}: {put} after {self.acknowledged} writes"
        except BaseException as error:
            self.failure = error
            raise


class Watcher(threading.Thread):
    """Collects the versions that a watch brings, by key."""

    def __init__(self, store: MetadataStore) -> None:
        super().__init__(name="watcher")
        self.seen: dict[str, list[int]] = {}
        self.revisions: list[int] = []
        self.watch = store.watch("/writers/", from_revision=2)

    def run(self) -> None:
        """Until the watch is closed."""
        for event in self.watch:
            self.seen.setdefault(event.key, []).append(event.record.version)
            self.revisions.append(event.revision)


def test_twenty_rounds_of_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    with RealNode(tmp_path / "data") as node, node.store(timeout_ms=PATIENCE_MS) as store:
        enough = threading.Event()
        watcher = Watcher(store)
        writers = [Writer(store, f"w{number}", enough) for number in range(WRITERS)]
        for thread in (watcher, *writers):
            thread.start()
        try:
            for round_ in range(ROUNDS):
                target = sum(writer.acknowledged for writer in writers) + 50
                until(partial(_past, target, writers), f"writes to go on before round {round_}")
                if round_ % 4 < len(PROCESSES):
                    node.kill_child(PROCESSES[round_ % 4])
                else:
                    node.kill_all()
                    assert node.process is not None
                    assert node.process.stdout is not None
                    node.process.stdout.close()
                    node.start()
        finally:
            enough.set()
            for writer in writers:
                writer.join(PATIENCE_MS / 1000 + 5)
        assert not _failed(writers)
        for writer in writers:
            record = the(store.get(writer.key))
            assert (record.value, record.version) == (writer.acknowledged, writer.acknowledged)
        wanted = {writer.key: list(range(1, writer.acknowledged + 1)) for writer in writers}
        until(
            lambda: sum(map(len, watcher.seen.values())) >= sum(map(len, wanted.values())),
            "the watcher to catch up",
        )
        watcher.watch.close()
        watcher.join(10)
        assert not watcher.is_alive()
        assert watcher.seen == wanted
        assert watcher.revisions == sorted(set(watcher.revisions))


def _past(target: int, writers: list[Writer]) -> bool:
    return sum(writer.acknowledged for writer in writers) >= target or bool(_failed(writers))


def _failed(writers: list[Writer]) -> list[BaseException]:
    return [writer.failure for writer in writers if writer.failure is not None]
