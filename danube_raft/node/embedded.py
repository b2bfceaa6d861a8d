"""`danube_raft.Node`: a node that a program starts, uses and stops.

By default it runs in processes of its own, under a supervisor that this program starts; it ends when the program
calls `stop`, leaves the `with` block, or dies. With `threads=True` it runs inside this process.
"""

from __future__ import annotations

import selectors
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from danube_raft import LeadershipHandle, errors
from danube_raft.config import Config, load
from danube_raft.node.launch import Launched
from danube_raft.node.threads import ThreadedNode


class Node:
    """A node of this program's own.

    `config` is a configuration file; `settings` are the settings of `danube_raft.config.Config` by name and win over
    it. Raises ConfigInvalid at once when one of them is bad. There is no HTTP port unless `health_listen` is set, and
    none with `threads=True`, which has no parent to answer for its processes.

        with Node(data_dir="/var/lib/broker/metadata") as node, MetadataStore(node.endpoint) as store:
            store.put("/clusters/main", {"name": "main"})
    """

    def __init__(self, config: str | Path | None = None, *, threads: bool = False, **settings: Any) -> None:
        self.config: Config = load(config, settings, {"health_listen": ""})
        self._threads = ThreadedNode(self.config) if threads else None
        self._launched: Launched | None = None

    @property
    def endpoint(self) -> str:
        """host:port for clients."""
        return self.config.client_address

    def start(self, timeout_s: float = 30.0) -> Self:
        """Returns when clients are served. Raises what keeps the node from starting, or Timeout."""
        if self._threads is not None:
            self._threads.start(timeout_s)
            return self
        assert self._launched is None, "a node is started once"
        self._launched = Launched(self.config)
        error: errors.DanubeRaftError | None
        if self._says_something(self._launched, timeout_s):
            error = self._launched.answer()
        else:
            error = errors.Timeout(f"the node did not serve within {timeout_s} s")
        if error is not None:
            self.stop()
            raise error
        return self

    @staticmethod
    def _says_something(launched: Launched, timeout_s: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(launched.stdout, selectors.EVENT_READ)
            return bool(selector.select(timeout_s))

    def leadership(self) -> LeadershipHandle:
        """Whether this node leads, and who does: pushed. Close it; it may outlive a stop and says then that nobody
        is known to lead."""
        return LeadershipHandle(self.endpoint)

    def stop(self) -> None:
        """End the node; returns when all its processes have ended. Idempotent."""
        if self._threads is not None:
            self._threads.stop()
            return
        launched, self._launched = self._launched, None
        if launched is not None:
            launched.stop()
            launched.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
