"""Danube's replicated metadata store: the public names.

    MetadataStore       the synchronous client
    AsyncMetadataStore  the same for asyncio
    LeadershipHandle    who leads, pushed
    Node                a node inside a Python process
    Record, Event, Watch, Written, Swapped, Versioned, Listing      what a store returns
    AsyncWatch, AsyncLeadershipHandle, Leadership                   what else it returns
    ABSENT, Revision, MetaOptions                                   what some of its methods take
    errors, DanubeRaftError, Rejected, Uncertain, Fatal             what may be raised

They are imported when first used, so that `import danube_raft` costs nothing: a node's processes and the command
line load what they need and no more.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from danube_raft import errors
    from danube_raft.client.async_leadership import AsyncLeadershipHandle
    from danube_raft.client.async_store import AsyncMetadataStore
    from danube_raft.client.async_watch import AsyncWatch
    from danube_raft.client.attachment import Leadership
    from danube_raft.client.leadership import LeadershipHandle
    from danube_raft.client.record import (
        ABSENT,
        Event,
        Listing,
        MetaOptions,
        Record,
        Revision,
        Swapped,
        Versioned,
        Written,
    )
    from danube_raft.client.store import MetadataStore
    from danube_raft.client.watch import Watch
    from danube_raft.errors import DanubeRaftError, Fatal, Rejected, Uncertain
    from danube_raft.node.embedded import Node

__version__ = "0.1.0"

__all__ = [
    "ABSENT", "AsyncLeadershipHandle", "AsyncMetadataStore", "AsyncWatch", "DanubeRaftError", "Event", "Fatal",
    "Leadership", "LeadershipHandle", "Listing", "MetaOptions", "MetadataStore", "Node", "Record", "Rejected",
    "Revision", "Swapped", "Uncertain", "Versioned", "Watch", "Written", "__version__", "errors",
]  # fmt: skip

_HOMES = {
    "danube_raft.client.async_leadership": ("AsyncLeadershipHandle",),
    "danube_raft.client.async_store": ("AsyncMetadataStore",),
    "danube_raft.client.async_watch": ("AsyncWatch",),
    "danube_raft.client.attachment": ("Leadership",),
    "danube_raft.client.leadership": ("LeadershipHandle",),
    "danube_raft.client.record": (
        "ABSENT", "Event", "Listing", "MetaOptions", "Record", "Revision", "Swapped", "Versioned", "Written"
    ),
    "danube_raft.client.store": ("MetadataStore",),
    "danube_raft.client.watch": ("Watch",),
    "danube_raft.errors": ("DanubeRaftError", "Fatal", "Rejected", "Uncertain"),
    "danube_raft.node.embedded": ("Node",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("danube_raft.errors")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
