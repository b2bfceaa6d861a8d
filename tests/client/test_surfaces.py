"""The two stores, watches and handles offer the same: names, parameters, defaults and words can not drift apart."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from danube_raft import (
    AsyncLeadershipHandle,
    AsyncMetadataStore,
    AsyncWatch,
    LeadershipHandle,
    MetadataStore,
    Watch,
)

TWINS = [(MetadataStore, AsyncMetadataStore), (Watch, AsyncWatch), (LeadershipHandle, AsyncLeadershipHandle)]
PLAIN = {"watch", "leadership"}
"""Methods of the asynchronous store that only hand out something, and so wait for nothing."""
OWN_WORDS = {"watch", "close"}
"""Whose descriptions differ, because what they do does."""


def surface(kind: type) -> dict[str, Any]:
    """The public members by name, `aclose` under the name of its twin."""
    named = {name: getattr(kind, name) for name in vars(kind) if not name.startswith("_")}
    if "aclose" in named:
        named["close"] = named.pop("aclose")
    return named


def parameters(member: Any) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of each."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]


@pytest.mark.parametrize(("blocking", "asynchronous"), TWINS)
def test_twins_have_the_same_members(blocking: type, asynchronous: type) -> None:
    one, other = surface(blocking), surface(asynchronous)
    assert sorted(one) == sorted(other)
    assert len(one) >= 4
    for name, member in one.items():
        twin = other[name]
        assert isinstance(twin, property) == isinstance(member, property), name
        if name not in OWN_WORDS:
            assert inspect.getdoc(member) == inspect.getdoc(twin), name
        if isinstance(member, property):
            continue
        assert parameters(member) == parameters(twin), name
        waits = inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin)
        assert waits != (name in PLAIN and blocking is MetadataStore), name
        assert inspect.isasyncgenfunction(twin) == inspect.isgeneratorfunction(member), name


def test_both_stores_are_opened_alike() -> None:
    assert parameters(MetadataStore.__init__) == parameters(AsyncMetadataStore.__init__)


@pytest.mark.parametrize(("blocking", "asynchronous"), TWINS)
def test_both_are_contexts(blocking: type, asynchronous: type) -> None:
    assert hasattr(blocking, "__enter__")
    assert hasattr(asynchronous, "__aenter__")
