"""The parent of a node's three processes: starts them, watches them, stops them. It shares no work with them.

They start once the node belongs to a cluster (`bootstrap.py`). The three have one fate. When one ends or stops making
progress, all three are ended and started again under a new boot epoch. How soon, and when the node rather stays down
with one line that says why, is decided in `restarts.py`.

The supervisor holds the lock on the data directory, and so do its children through the inherited descriptor: while
one of them lives, stuck in the disk perhaps, no other node can start on the directory. It ends on SIGINT, SIGTERM,
SIGHUP, and when the descriptor that it was given by an embedding process closes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from danube_raft import errors
from danube_raft.config import Config, split_address
from danube_raft.node import logs
from danube_raft.node.assembly import PROCESSES, RUN_DIR, ipc_address
from danube_raft.node.bootstrap import belongs, held_data_dir, next_boot
from danube_raft.node.child import Child, reason_of_all, says_why, silent
from danube_raft.node.endpoints import LocalEdge, drained
from danube_raft.node.full_disk import FullDisk
from danube_raft.node.handler import CONSENSUS, KV, LOG, SUPERVISOR
from danube_raft.node.health_port import health_port
from danube_raft.node.identity import Identity, founding_to_json
from danube_raft.node.loop import monotonic_ms
from danube_raft.node.restarts import Ending, Restarts
from danube_raft.node.view import NodeView, ProcessView
from danube_raft.storage.data_dir import DataDir
from danube_raft.storage.disk_errors import disk_failed
from danube_raft.wire.local import ConfirmRead, Failed, Progress, ReadConfirmed, Ready, Status

OWN_PAUSE_MS = 1_000
STACK_DUMP_MS = 200
ROOM_AGAIN = "there is room on the disk again"
LAST_WORDS_MS = 500
"""How long to wait for the last words of a process that has ended, or of the one that it followed."""

log = logging.getLogger("danube_raft.supervisor")


def _clear_run_dir(run_dir: Path) -> None:
    """Socket files of an earlier boot epoch, whose processes have all ended. Raises DiskFailed."""
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in run_dir.iterdir():
            if left.is_socket():
                left.unlink()
    except OSError as error:
        raise disk_failed(
            error, f"cannot clear {run_dir}: {error.strerror or error}; check the disk"
        ) from None


class Supervisor:
    """Runs one node until it is told to stop. `view` is kept up to date for those who ask how it is."""

    def __init__(
        self, config: Config, data_dir: DataDir, stop_descriptors: tuple[int, ...], view: NodeView
    ) -> None:
        self._config = config
        self._view = view
        self._data_dir = data_dir
        self._context: zmq.Context[Any] = zmq.Context()
        self._stop_descriptors = stop_descriptors
        self._children: list[Child] = []
        self._failed: errors.DanubeRaftError | None = None
        self._identity = Identity(0, 0, 0)
        self._announced = False
        self._ready_at = 0
        self._restarts = Restarts(config)
        self._full_disk = FullDisk(config, data_dir.path)
        self._stuck_ms = {
            LOG: config.log_stuck_ms,
            CONSENSUS: config.consensus_stuck_ms,
            KV: config.kv_stuck_ms,
        }

    def run(self) -> int:
        """Boot epochs, one after the other, until a stop. Returns the exit code; raises Fatal."""
        try:
            while True:
                began = monotonic_ms()
                reason = self._boot()
                if reason is None:
                    self._view.stopping()
                    self._stop_in_order()
                    return 0
                self._view.ended(reason)
                self._kill()
                if self._goes_on(reason):
                    continue
                pause = self._restarts.after(
                    Ending(reason, self._failed, began, self._ready_at, monotonic_ms(), self._announced)
                )
                fields = {"reason": reason, "pause_ms": pause, "failures": self._restarts.failures}
                log.warning("%s; restarting all three in %d ms", reason, pause, extra={"fields": fields})
                if self._pause(pause):
                    return 0
        finally:
            self._kill()
            # Whatever went wrong on the way here may have left a socket open; waiting for it would be for ever.
            self._context.destroy(linger=0)

    def _goes_on(self, reason: str) -> bool:
        """A full disk that was none before, or has room again, is no failure."""
        if reason == ROOM_AGAIN:
            self._full_disk.over(monotonic_ms())
            log.info("%s: starting as usual", reason)
            return True
        return isinstance(self._failed, errors.DiskFull) and self._full_disk.found(reason, monotonic_ms())

    # ---------------------------------------------------------------- start

    def _boot(self) -> str | None:
        """Start all three and watch them; as `_watch`. What goes wrong here is one more reason to start again for a node
        that has served; of one that never has, whoever started it is told at once, unless there is the ballast to give.
        """
        self._failed = None
        self._ready_at = 0
        try:
            self._full_disk.prepare()
            self._start()
            return self._watch()
        except errors.Fatal as error:
            has_ballast = isinstance(error, errors.DiskFull) and not self._full_disk.read_only
            if not self._announced and not has_ballast:
                raise
            self._failed = error
            return error.message

    def _start(self) -> None:
        identity = self._identity = next_boot(self._data_dir)
        _clear_run_dir(self._data_dir.path / RUN_DIR)
        address = ipc_address(identity.boot_epoch)
        setup = {
            "config": self._config.to_json(),
            "identity": identity,
            "founding": founding_to_json(self._data_dir.founding()),
            "supervisor_pid": os.getpid(),
            "read_only": self._full_disk.read_only,
        }
        line = json.dumps(setup).encode() + b"\n"
        for name in PROCESSES:
            edge = LocalEdge(self._context, address(SUPERVISOR, name), True, identity.boot_epoch)
            try:
                process = self._spawn(name)
                child = Child(
                    process, edge, ProcessView(name, process.pid, self._stuck_ms[name], monotonic_ms())
                )
            except OSError as error:
                edge.close()
                raise errors.Fatal(f"cannot start the {name}: {error.strerror or error}") from None
            self._children.append(child)
            assert process.stdin is not None, "the setup goes through standard input"
            # A pipe that is broken already: the child has ended, and `_watch` tells how.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(line)
                process.stdin.flush()
        self._view.started(identity, tuple(child.view for child in self._children))

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 -- this interpreter, our own module
            [sys.executable, "-P", "-m", "danube_raft.node.process", name, self._config.data_dir],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=self._config.data_dir,
            pass_fds=(self._data_dir.lock_fd,),
            process_group=0,
        )

    # ---------------------------------------------------------------- watch

    def _watch(self) -> str | None:
        """Until the node has to end: None for a stop that was asked for, else what went wrong."""
        poller = zmq.Poller()
        for child in self._children:
            poller.register(child.edge.socket, zmq.POLLIN)
            poller.register(child.descriptor, zmq.POLLIN)
        for descriptor in (*self._stop_descriptors, self._view.question):
            poller.register(descriptor, zmq.POLLIN)
        last = monotonic_ms()
        while True:
            events = dict(poller.poll(self._config.progress_ms))
            now = monotonic_ms()
            for child in self._children:
                self._hear(child, now)
            if any(descriptor in events for descriptor in self._stop_descriptors):
                return None
            dead = next((child for child in self._children if child.ended()), None)
            if dead is not None:
                return self._last_words(dead)
            if self._full_disk.has_room_again(now):
                return ROOM_AGAIN
            if now - last > OWN_PAUSE_MS + self._config.progress_ms:
                # This process was stopped itself: what it did not hear says nothing.
                for child in self._children:
                    child.view.progress_at = now
            last = now
            stuck = next((child for child in self._children if child.view.is_stuck(now)), None)
            if stuck is not None:
                return self._dump(stuck, now)
            if self._view.question in events and self._view.take_question():
                self._ask_for_confirmed_read()

    def _last_words(self, dead: Child) -> str:
        """How it ended, or the one that it followed, and why if that told. What it said last may still be on its way:
        nobody else knows whether a restart helps."""
        deadline = monotonic_ms() + LAST_WORDS_MS
        while True:
            for child in self._children:
                self._hear(child, monotonic_ms())
            reason = reason_of_all(self._children)
            left = deadline - monotonic_ms()
            if reason is not None or left <= 0:
                return f"{(reason or silent(self._children) or dead).ended()}"
            self._await_news(left)

    def _await_news(self, wait_ms: int) -> None:
        """Until a child says something or one more ends, or it took too long."""
        poller = zmq.Poller()
        for child in self._children:
            poller.register(child.edge.socket, zmq.POLLIN)
            if not child.ended():
                poller.register(child.descriptor, zmq.POLLIN)
        poller.poll(wait_ms)

    def _ask_for_confirmed_read(self) -> None:
        """Only of a kv-server that has spoken, which the bound end of an edge has to wait for."""
        for child in self._children:
            if child.name == KV and child.view.ready:
                # One that is gone: the next turn of the loop hears of it.
                with contextlib.suppress(errors.Fatal):
                    child.edge.send([ConfirmRead()])

    def _hear(self, child: Child, now: int) -> None:
        for message in drained(child.edge):
            if isinstance(message, Progress):
                child.view.progress_at = now
            elif isinstance(message, Status):
                child.view.report = message.status
            elif isinstance(message, ReadConfirmed):
                self._view.confirm(message)
            elif isinstance(message, Ready):
                child.view.ready = True
                child.view.progress_at = now
                if all(other.view.ready for other in self._children):
                    self._announce(now)
            elif isinstance(message, Failed):
                child.told = errors.from_wire(message.code, message.message)
                self._failed = self._failed if says_why(self._failed) else child.told

    def _announce(self, now: int) -> None:
        self._ready_at = now
        pids = {child.name: child.process.pid for child in self._children}
        text = " ".join(f"{name}={pid}" for name, pid in pids.items())
        log.info("ready %s", text, extra={"fields": {"pids": pids}})
        if not self._announced:
            self._announced = True
            config = self._config
            # A reader of this line that has gone is no reason to stop.
            with contextlib.suppress(OSError):
                print(  # noqa: T201 -- the one line that tells a user or a script that the node serves
                    f"ready endpoint={config.client_address} raft={config.raft_address} node_id={self._identity.node_id} "
                    f"data_dir={config.data_dir}",
                    flush=True,
                )

    def _dump(self, child: Child, now: int) -> str:
        log.warning("%s (pid %d) makes no progress; this is where it is:", child.name, child.process.pid)
        child.process.send_signal(signal.SIGUSR1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(STACK_DUMP_MS / 1000)
        return (
            f"{child.name} (pid {child.process.pid}) made no progress for {now - child.view.progress_at} ms"
        )

    # ---------------------------------------------------------------- stop

    def _stop_in_order(self) -> None:
        """kv-server first, so that no client is answered by half a node; log-writer last."""
        deadline = monotonic_ms() + self._config.stop_timeout_ms
        for child in reversed(self._children):
            # A signal, not a message: it reaches a child in every state, also one that is starting or gone.
            child.process.terminate()
            try:
                child.process.wait(max(deadline - monotonic_ms(), 0) / 1000)
            except subprocess.TimeoutExpired:
                log.warning("%s (pid %d) does not end; killing it", child.name, child.process.pid)
        self._kill()

    def _kill(self) -> None:
        for child in self._children:
            child.process.kill()
        for child in self._children:
            # One that is stuck in the disk cannot be killed before the disk answers; none is started beside it.
            child.process.wait()
            child.close()
        self._children.clear()
        # What ended the node is told, not that its disk does not let it tidy up: the next start does.
        with contextlib.suppress(errors.DiskFailed):
            _clear_run_dir(self._data_dir.path / RUN_DIR)

    def _pause(self, pause_ms: int) -> bool:
        poller = zmq.Poller()
        for descriptor in self._stop_descriptors:
            poller.register(descriptor, zmq.POLLIN)
        return bool(poller.poll(pause_ms))


def stop_on_signals() -> int:
    """A descriptor that becomes readable on SIGINT, SIGTERM and SIGHUP."""
    readable, writable = socket.socketpair()
    writable.setblocking(False)
    signal.set_wakeup_fd(writable.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup has a say. A shell's script ignores SIGINT for what it starts in the background, but who sends that
        # signal to a node means it.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
    return readable.detach()


def _check_port(name: str, address: str) -> None:
    """Refuse early, before anything is started; the process that listens later checks again."""
    host, port = split_address(name, address)
    try:
        info = socket.getaddrinfo(
            host.strip("[]").replace("*", "") or None, port, flags=socket.AI_PASSIVE, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(info[0], info[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(info[4])
    except OSError as error:
        raise errors.PortInUse(f"cannot listen on {address} ({name}): {error.strerror or error}") from None


def serve(config: Config, parent_descriptors: tuple[int, ...] = ()) -> int:
    """Run a node in this process until it is stopped. Raises Fatal when it cannot run (any more).

    `parent_descriptors`: also stop when one of these becomes readable or closed.
    """
    descriptors = (stop_on_signals(), *parent_descriptors)
    config = replace(config, data_dir=str(Path(config.data_dir).absolute()))
    with held_data_dir(config, inheritable=True) as data_dir:
        found = data_dir.identity()
        logs.set_up(config, "supervisor", 0 if found is None else found.node_id)
        _check_port("raft_listen", config.raft_listen)
        _check_port("client_listen", config.client_listen)
        os.chdir(config.data_dir)
        with contextlib.closing(NodeView()) as view, health_port(config, view):
            if not belongs(config, data_dir, descriptors):
                return 0
            return Supervisor(config, data_dir, descriptors, view).run()


def run(config: Config) -> int:
    """`serve` for the command line: errors are one line on standard error; returns the exit code."""
    try:
        return serve(config)
    except errors.Fatal as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201 -- the one line that says why it ends
        return error.exit_code


def main() -> int:
    """`serve` for an embedding program (`node/embedded.py`): the settings come in one JSON line on standard input,
    which closes when that program ends or wants the node to stop; an error goes out as JSON on standard output.
    """
    config = Config.from_json(sys.stdin.buffer.readline().decode())
    # Two nets: a child that the program forked may hold the pipe open after the program has died.
    parent = os.pidfd_open(os.getppid())
    try:
        return serve(config, (sys.stdin.fileno(), parent))
    except errors.Fatal as error:
        print(json.dumps([error.code, error.message]), flush=True)  # noqa: T201 -- the embedding program reads it
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
