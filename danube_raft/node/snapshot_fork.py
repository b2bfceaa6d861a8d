"""A snapshot made by a child that was forked at the applied index: it has the state as it was then, for nothing.

The parent is held up for the fork alone. What the child owes to the node that it came from:

- It keeps two descriptors, the pipes to its parent, and the file that it writes. A listener or an ipc socket that it
  kept would keep the port busy after its parent's death; anything written to 0, 1 or 2 must not land in the snapshot.
- It dies with its parent: the kernel sends the signal, and it looks for itself before each chunk. The pipe on which it
  waits for the point closes with the parent as well.
- Signals of the node do nothing to it but end it; it collects no garbage, since touching objects copies their pages; it
  is nice, and has a name of its own. Not as nice as can be: beside busy neighbours it would never come to an end.
- It touches no socket, no thread, no lock and no logging of its parent's, and never returns into its code: it ends with
  `os._exit`, whatever happens.

The parent looks for its end with `waitpid`, which never waits, and believes in a snapshot when it lies there.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path

from danube_raft.errors import DiskFailed
from danube_raft.kv.machine import Machine
from danube_raft.kv.snapshot import encode
from danube_raft.node.snapshot_jobs import Failed, Outcome
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.storage.entry_format import CHAIN_BYTES

NAME = b"dr-snapshot"
POLL_MS = 100
NICE = 10
REASON_MAX_BYTES = 2048
"""What fits into a pipe that nobody reads meanwhile."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
# Looked up before any fork: the child must not wait for a lock of the dynamic linker.
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_CHAIN = struct.Struct(f"{CHAIN_BYTES}s")
_IGNORED = (signal.SIGINT, signal.SIGPIPE)
"""A terminal sends SIGINT to all at once, and the supervisor decides; who writes to a dead parent ends all the same."""
_DEFAULT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2)


class ForkedSnapshot:
    """See `Job`."""

    def __init__(self, shelf: Shelf, machine: Machine) -> None:
        self.index, self.term = machine.applied_index, machine.applied_term
        self._store = shelf.store
        self._over: Failed | None = None
        self.pid = 0
        self._point: int | None = None
        self._reason: int | None = None
        parent = os.getpid()
        of_child: list[int] = []
        # Until the child has handlers of its own, or rather none, a signal meant for the node must not meet the node's.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            point, self._point = os.pipe()
            of_child.append(point)
            self._reason, reason = os.pipe()
            of_child.append(reason)
            os.set_blocking(self._reason, False)
            pid = os.fork()
            if pid == 0:
                _Child(shelf, machine, parent, point, reason).run()
            self.pid = pid
        except OSError as error:
            self._over = Failed(f"no process can be started: {error.strerror or error}")
            self._close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            for number in of_child:
                os.close(number)

    @property
    def pause_ms(self) -> int:
        """See Job."""
        return POLL_MS

    def give_point(self, chain: bytes) -> None:
        """See Job. A child that is gone already is found by `poll`; the number of a pipe that is
        closed may be another one's by now."""
        if self._point is None:
            return
        with suppress(BrokenPipeError):
            os.write(self._point, _CHAIN.pack(chain))

    def poll(self) -> Outcome | None:
        """See Job."""
        if self._over is not None:
            return self._over
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        assert self._reason is not None, "there was a child"
        with suppress(BlockingIOError):
            said = os.read(self._reason, REASON_MAX_BYTES).decode(errors="replace")
        self._close()
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        outcome = Failed(said or f"its process ended with {code}") if code else self._made()
        if isinstance(outcome, Failed):
            self._over = outcome
        return outcome

    def _made(self) -> Outcome:
        try:
            found = self._store.newest().candidates
        except DiskFailed as error:
            return Failed(error.message)
        for meta in found:
            if (meta.index, meta.term) == (self.index, self.term):
                return meta
        return Failed("it was written, and is not there")

    def kill(self) -> None:
        """See Job. Whoever waits for the disk dies when the disk has answered."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    def _close(self) -> None:
        for number in (self._point, self._reason):
            if number is not None:
                os.close(number)
        self._point = self._reason = None


class _Child:
    """The child's whole life is `run`."""

    def __init__(self, shelf: Shelf, machine: Machine, parent: int, point: int, reason: int) -> None:
        self._shelf = shelf
        self._machine = machine
        self._parent = parent
        self._point = point
        self._reason = reason

    def run(self) -> None:
        """Does not return."""
        code = 1
        try:
            try:
                self._settle_in()
                self._write()
                code = 0
            finally:
                self._tell(sys.exception())
        finally:
            os._exit(code)

    def _tell(self, error: BaseException | None) -> None:
        if error is not None:
            reason = error.message if isinstance(error, DiskFailed) else repr(error)
            os.write(self._reason, reason.encode(errors="replace")[:REASON_MAX_BYTES])

    def _settle_in(self) -> None:
        gc.disable()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        self._check_parent()
        _prctl(_PR_SET_NAME, NAME, 0, 0, 0)
        signal.set_wakeup_fd(-1)
        faulthandler.disable()
        for number in _DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        self._keep_only_the_pipes()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.nice(NICE)

    def _keep_only_the_pipes(self) -> None:
        kept = (self._point, self._reason)
        assert min(kept) > 2, "the node has its first three descriptors"
        for path in list(Path("/proc/self/fd").iterdir()):
            if int(path.name) not in kept:
                # That of the listing itself is closed already.
                with suppress(OSError):
                    os.close(int(path.name))
        for number in range(3):
            assert os.open(os.devnull, os.O_RDWR) == number, "the lowest that is free"

    def _check_parent(self) -> None:
        if os.getppid() != self._parent:
            os._exit(1)

    def _write(self) -> None:
        machine = self._machine
        chunks = encode(machine)
        told = os.read(self._point, CHAIN_BYTES)
        if len(told) < CHAIN_BYTES:
            # The parent is gone, or wants nothing any more.
            os._exit(1)
        writer = self._shelf.store.writer(machine.applied_index, machine.applied_term, told)
        for chunk in chunks:
            self._check_parent()
            writer.write(chunk)
        writer.commit()
        # To delete a large file takes some 0.1 s, which the parent can be spared. What is left is its business again.
        with suppress(DiskFailed):
            self._shelf.tidy()
