"""The same three handlers as threads of one process, over inproc: for tests and small embedded stores.

They have one fate here as well: when one of them fails, the others are stopped, and the node stays down with the
error, since there is no parent to start them again: neither after a wrong state was replaced (StateReplaced), which is
no failure. The embedding program starts such a node anew. The collector and the interpreter lock are shared with the
embedding program, so this is the slow way to run a node.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from danube_raft.config import Config
from danube_raft.errors import DanubeRaftError, Fatal, Timeout
from danube_raft.node.assembly import PROCESSES, build, inproc_address
from danube_raft.node.bootstrap import belongs, held_data_dir, next_boot
from danube_raft.node.endpoints import Endpoint, LocalEdge, drained
from danube_raft.node.handler import SUPERVISOR
from danube_raft.node.identity import Identity
from danube_raft.node.loop import Loop
from danube_raft.wire.entry import Founding
from danube_raft.wire.local import Ready, Stop

JOIN_S = 10


class ThreadedNode:
    """One node in threads. `start` returns when clients are served."""

    def __init__(self, config: Config) -> None:
        self._config = replace(config, data_dir=str(Path(config.data_dir).absolute()))
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._wake, self._woken = socket.socketpair()
        self._served = threading.Event()
        self._main: threading.Thread | None = None

    def start(self, timeout_s: float) -> None:
        """Raises the node's error, or Timeout."""
        self._main = threading.Thread(target=self._run, name="danube-raft-supervisor", daemon=True)
        self._main.start()
        if not self._served.wait(timeout_s):
            self.stop()
            raise Timeout(f"the node did not serve within {timeout_s} s")
        self.check()

    def check(self) -> None:
        """Raise the error that brought the node down, if there is one."""
        if self._errors:
            error = self._errors[0]
            raise error if isinstance(error, DanubeRaftError) else Fatal(f"the node failed: {error!r}")

    def stop(self) -> None:
        """End all threads; returns when they have ended. Idempotent."""
        if self._main is not None:
            self._wake.close()
            self._main.join(JOIN_S)
            assert not self._main.is_alive(), "the threads of a node end when they are told to"
            self._main = None
            self._woken.close()

    def _run(self) -> None:
        try:
            with held_data_dir(self._config, inheritable=False) as data_dir:
                if belongs(self._config, data_dir, (self._woken.fileno(),)):
                    self._serve(next_boot(data_dir), data_dir.founding())
        except (DanubeRaftError, OSError) as error:
            self._errors.append(error)
        finally:
            self._served.set()

    def _serve(self, identity: Identity, founding: Founding | None) -> None:
        context: zmq.Context[Any] = zmq.Context()
        address = inproc_address(f"node-{identity.node_id}")
        edges = {
            name: LocalEdge(context, address(SUPERVISOR, name), True, identity.boot_epoch)
            for name in PROCESSES
        }
        for name in PROCESSES:
            arguments = (name, identity, founding, context)
            thread = threading.Thread(target=self._thread, args=arguments, name=f"danube-raft-{name}")
            thread.daemon = True
            thread.start()
            self._threads.append(thread)
        self._watch(edges)
        for name, thread in zip(reversed(PROCESSES), reversed(self._threads), strict=True):
            # One that has ended cannot be told; the others still have to be.
            with contextlib.suppress(Fatal):
                edges[name].send([Stop()])
            thread.join(JOIN_S)
        for edge in edges.values():
            edge.close()
        context.destroy(linger=0)

    def _watch(self, edges: dict[str, LocalEdge]) -> None:
        """Until told to stop or until a thread ends."""
        poller = zmq.Poller()
        poller.register(self._woken.fileno(), zmq.POLLIN)
        for edge in edges.values():
            poller.register(edge.socket, zmq.POLLIN)
        missing = set(PROCESSES)
        while all(thread.is_alive() for thread in self._threads):
            events = dict(poller.poll(self._config.progress_ms))
            for edge in edges.values():
                missing -= {message.name for message in drained(edge) if isinstance(message, Ready)}
            if not missing:
                self._served.set()
            if self._woken.fileno() in events:
                return

    def _thread(
        self, name: str, identity: Identity, founding: Founding | None, context: zmq.Context[Any]
    ) -> None:
        endpoints: dict[str, Endpoint] = {}
        address = inproc_address(f"node-{identity.node_id}")
        try:
            handler = build(
                name, self._config, identity, founding, context, address, os.getpid(), endpoints, False
            )
            with contextlib.closing(handler):
                Loop(name, os.getpid(), handler, endpoints, self._config).run()
        except Fatal as error:
            self._errors.append(error)
        finally:
            bug = sys.exception()
            if bug is not None:
                # The whole node goes down with it and says so; the traceback is printed as of any thread.
                self._errors.append(bug)
            for endpoint in endpoints.values():
                endpoint.close()
