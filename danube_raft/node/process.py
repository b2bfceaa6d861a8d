"""Main program of the three child processes: `python -m danube_raft.node.process NAME DATA-DIR`.

The name and the directory on the command line are for `ps`; the setup comes as one JSON line on standard input. That
pipe stays open for as long as the supervisor lives: when it closes, the child ends. The kernel's parent-death signal
is the first net, the pipe the second, since the signal is missed when the parent died before it was asked for.

Signals: SIGTERM ends in order; SIGINT is ignored (a terminal sends it to the supervisor too, which decides); SIGUSR1
prints the stacks of all threads, which the supervisor asks for before it kills a process that makes no progress.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import zmq

from danube_raft.config import Config
from danube_raft.errors import Fatal
from danube_raft.node import logs
from danube_raft.node.assembly import build, ipc_address
from danube_raft.node.endpoints import Endpoint
from danube_raft.node.handler import SUPERVISOR, Handler
from danube_raft.node.identity import Identity, founding_from_json
from danube_raft.node.loop import Loop
from danube_raft.wire.entry import Founding
from danube_raft.wire.local import Failed

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

log = logging.getLogger("danube_raft.process")


def die_with_parent(parent: int) -> None:
    """Be killed when the parent is; end at once if it is gone already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def _yield_rarely() -> None:
    """Ask the kernel not to interrupt one of the node's threads each time another one wakes up. The processes of a node
    wake each other all the time, and each is done in a fraction of a millisecond; being interrupted costs it its warm
    caches. Three nodes on two cores wrote a fifth more that way.
    """
    # A sandbox may forbid it.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _name_process(title: str) -> None:
    # `top` and `ps -o comm` show at most 15 bytes.
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"dr-{title}".encode()[:15], 0, 0, 0)


def _stop_descriptor() -> int:
    """Becomes readable on SIGTERM."""
    readable, writable = socket.socketpair()
    writable.setblocking(False)
    signal.set_wakeup_fd(writable.fileno())
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The pair has to live as long as the process does.
    writable.detach()
    return readable.detach()


def _settled() -> None:
    """What was loaded lives as long as the process, or until a snapshot replaces it: the collector need not look at it
    again and again. A million records would hold it up for most of a second each time."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def raise_descriptor_limit() -> None:
    """A ROUTER that runs out of descriptors spins or aborts: take all that the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def _closing(handler: Handler) -> Iterator[None]:
    """What goes wrong at the end does not hide what went wrong before."""
    failed = True
    try:
        yield
        failed = False
    finally:
        with contextlib.suppress(Fatal) if failed else contextlib.nullcontext():
            handler.close()


def run(
    process: str,
    config: Config,
    identity: Identity,
    founding: Founding | None,
    stop_descriptor: int,
    read_only: bool = False,
) -> int:
    """Serve until told to stop; the process's exit code."""
    context: zmq.Context[Any] = zmq.Context()
    endpoints: dict[str, Endpoint] = {}
    try:
        address = ipc_address(identity.boot_epoch)
        handler = build(
            process,
            config,
            identity,
            founding,
            context,
            address,
            os.getpid(),
            endpoints,
            True,
            _settled,
            read_only,
        )
        _settled()
        stop_descriptors = (stop_descriptor, sys.stdin.fileno())
        with _closing(handler):
            Loop(
                process, os.getpid(), handler, endpoints, config, stop_descriptors, report=handler.report
            ).run()
    except Fatal as error:
        endpoints[SUPERVISOR].send([Failed(error.code, error.message)])
        return error.exit_code
    finally:
        for endpoint in endpoints.values():
            endpoint.close()
        # And what an error on the way may have left open: waiting for it would be for ever.
        context.destroy()
    return 0


def main() -> int:
    """Entry point."""
    process = sys.argv[1]
    setup = json.loads(sys.stdin.buffer.readline())
    stop_descriptor = _stop_descriptor()
    die_with_parent(setup["supervisor_pid"])
    _name_process(process)
    _yield_rarely()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    config = Config.from_json(setup["config"])
    identity = Identity(*setup["identity"])
    founding = founding_from_json(setup["founding"])
    logs.set_up(config, process, identity.node_id)
    raise_descriptor_limit()
    return run(process, config, identity, founding, stop_descriptor, setup["read_only"])


if __name__ == "__main__":
    sys.exit(main())
