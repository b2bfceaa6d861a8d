"""The child that hashes a state: of the moment of the fork, without holding up its parent, and no file of it anywhere.

What any child owes the node that it came from is tested in test_snapshot_fork.py: there is one way to fork.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from kv_snapshots import grown, whole

from danube_raft.node import digest_jobs
from danube_raft.node.digest_jobs import ForkedDigest, HashOutcome
from danube_raft.node.snapshot_jobs import Failed

PATIENCE_S = 10


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it never came to be"
        os.sched_yield()


def outcome(job: ForkedDigest) -> HashOutcome:
    found: list[HashOutcome] = []

    def over() -> bool:
        ended = job.poll()
        found.extend([] if ended is None else [ended])
        return ended is not None

    until(over)
    return found[0]


def test_the_hash_is_of_the_moment_of_the_fork() -> None:
    machine = grown()
    right = hashlib.sha256(whole(machine)).digest()
    job = ForkedDigest(machine)
    assert (job.index, job.pid > 0) == (142, True)
    machine.history.records.clear()
    assert outcome(job) == right
    assert job.pid == 0


def test_it_has_a_name_of_its_own_and_can_be_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_jobs, "encode", lambda _: iter(lambda: b"more", b""))
    job = ForkedDigest(grown())
    child = psutil.Process(job.pid)
    until(lambda: child.name() == "dr-digest")
    assert job.poll() is None
    job.kill()
    assert outcome(job) == Failed(f"its process ended with {-signal.SIGKILL}")


def test_what_goes_wrong_in_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_jobs, "encode", lambda _: 1 / 0)
    found = outcome(ForkedDigest(grown()))
    assert isinstance(found, Failed)
    assert "ZeroDivisionError" in found.reason


def test_where_no_process_can_be_started_there_is_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    job = ForkedDigest(grown())
    assert outcome(job) == Failed("no process can be started: Resource temporarily unavailable")
    assert job.pid == 0
