"""Short deadlines for the tests: what takes a second in life takes a tenth here. And both stores for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
from blocking_store import BlockingStore, Make
from fake_node import FakeNode

from danube_raft import MetadataStore
from danube_raft.client import call


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt is given up after 100 ms."""
    monkeypatch.setattr(call, "ATTEMPT_MS", 100)


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """A fake node."""
    with FakeNode() as node:
        yield node


@pytest.fixture(params=["threads", "tasks"])
def make(request: pytest.FixtureRequest) -> Make:
    """Opens a store: the synchronous one, or the asynchronous one behind the same surface."""
    return MetadataStore if request.param == "threads" else cast("Make", BlockingStore)


@pytest.fixture
def store(node: FakeNode, make: Make) -> Iterator[MetadataStore]:
    """A store on it."""
    with make(node.endpoint) as store:
        yield store
