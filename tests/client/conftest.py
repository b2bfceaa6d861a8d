"""Short deadlines for the tests: what takes a second in life takes a twentieth here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
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


@pytest.fixture
def store(node: FakeNode) -> Iterator[MetadataStore]:
    """A store on it."""
    with MetadataStore(node.endpoint) as store:
        yield store
