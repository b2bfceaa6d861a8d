"""The public names, listed; and that asking for one of them is what costs, not the import of the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import danube_raft

NAMES = [
    "ABSENT", "AsyncLeadershipHandle", "AsyncMetadataStore", "AsyncWatch", "DanubeRaftError", "Event", "Fatal",
    "Leadership", "LeadershipHandle", "Listing", "MetaOptions", "MetadataStore", "Node", "Record", "Rejected",
    "Revision", "Swapped", "Uncertain", "Versioned", "Watch", "Written", "__version__", "errors",
]  # fmt: skip

METHODS = [
    "allocate_monotonic_id", "close", "compact", "compare_and_swap", "count", "delete", "delete_prefix", "digest",
    "digest_reports", "get", "get_bulk", "get_children", "get_childrens", "get_prefix", "keys", "leadership", "list_and_watch", "members", "pages", "put",
    "put_with_ttl", "range", "snapshot_piece", "snapshot_take", "status", "watch",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert sorted(danube_raft.__all__) == NAMES
    for name in NAMES:
        assert getattr(danube_raft, name) is not None
    assert dir(danube_raft) == NAMES


def test_the_store_offers_these_and_each_says_what_it_does() -> None:
    store = danube_raft.MetadataStore
    assert sorted(name for name in vars(store) if not name.startswith("_")) == METHODS
    assert all(getattr(store, name).__doc__ for name in METHODS)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        danube_raft.nothing_like_it  # noqa: B018 -- the access is the test


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, danube_raft; print([m for m in ('zmq', 'msgpack', 'rocksdict', 'pydantic') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"
