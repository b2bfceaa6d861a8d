"""Short deadlines for the tests: what takes a second in life takes a quarter here. And both stores for each test."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import cast

import pytest
from blocking_store import BlockingStore, LoopThread, Make
from fake_node import FakeNode

from danube_raft import MetadataStore
from danube_raft.client import call


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt is given up after 250 ms, which is still long for a busy machine."""
    monkeypatch.setattr(call, "ATTEMPT_MS", 250)


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """A fake node."""
    with FakeNode() as node:
        yield node


@pytest.fixture(params=["threads", "tasks"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Opens a store: the synchronous one, or the asynchronous one behind the same surface."""
    if request.param == "threads":
        yield MetadataStore
        return
    thread = LoopThread()
    yield cast("Make", functools.partial(BlockingStore, thread))
    thread.stop()


@pytest.fixture
def store(node: FakeNode, make: Make) -> Iterator[MetadataStore]:
    """A store on it."""
    with make(node.endpoint) as store:
        yield store
