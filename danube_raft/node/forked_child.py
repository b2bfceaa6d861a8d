"""A child that was forked from the kv-server: it has the state as it was then, for nothing, and does one thing with it.

The parent is held up for the fork alone. What the child owes to the node that it came from:

- It keeps two descriptors, the pipes to its parent, and what it opens itself. A listener or an ipc socket that it
  kept would keep the port busy after its parent's death; anything written to 0, 1 or 2 must not land in a file of its own.
- It dies with its parent: the kernel sends the signal, and its work looks for itself now and then. The pipe on which it
  waits for what the parent tells closes with the parent as well.
- Signals of the node do nothing to it but end it; it collects no garbage, since touching objects copies their pages; it
  is nice, and has a name of its own. Not as nice as can be: beside busy neighbours it would never come to an end.
- It touches no socket, no thread, no lock and no logging of its parent's, and never returns into its code: it ends with
  `os._exit`, whatever happens.

The parent looks for its end with `waitpid`, which never waits.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from danube_raft.errors import DiskFailed

POLL_MS = 100
NICE = 10
WORDS_MAX_BYTES = 2048
"""What fits into a pipe that nobody reads meanwhile."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
# Looked up before any fork: the child must not wait for a lock of the dynamic linker.
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_IGNORED = (signal.SIGINT, signal.SIGPIPE)
"""A terminal sends SIGINT to all at once, and the supervisor decides; who writes to a dead parent ends all the same."""
_DEFAULT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2)


class Line:
    """What the work of a child has of its parent."""

    def __init__(self, parent: int, told: int) -> None:
        self._parent = parent
        self._told = told

    def hear(self, size: int) -> bytes:
        """Wait for so many bytes of the parent's. Does not return when it is gone, or wants nothing any more."""
        words = os.read(self._told, size)
        if len(words) < size:
            os._exit(1)
        return words

    def check_parent(self) -> None:
        """Does not return when the parent is gone."""
        if os.getppid() != self._parent:
            os._exit(1)


Work = Callable[[Line], bytes]
"""What the child does; its result, at most `WORDS_MAX_BYTES`, is what the parent gets."""


class Ended(NamedTuple):
    """`words`: the result if all went well; else `failure` says why not, for people."""

    words: bytes
    failure: str = ""


class ForkedChild:
    """One child, from its fork on. `name` is the process's, at most 15 bytes."""

    def __init__(self, name: bytes, work: Work) -> None:
        self._over: Ended | None = None
        self.pid = 0
        self._tells: int | None = None
        self._hears: int | None = None
        parent = os.getpid()
        of_child: list[int] = []
        # Until the child has handlers of its own, or rather none, a signal meant for the node must not meet the node's.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            told, self._tells = os.pipe()
            of_child.append(told)
            self._hears, says = os.pipe()
            of_child.append(says)
            os.set_blocking(self._hears, False)
            pid = os.fork()
            if pid == 0:
                _Child(name, work, Line(parent, told), (told, says)).run()
            self.pid = pid
        except OSError as error:
            self._over = Ended(b"", f"no process can be started: {error.strerror or error}")
            self._close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            for number in of_child:
                os.close(number)

    def tell(self, words: bytes) -> None:
        """Say something to the child. One that is gone already is found by `poll`; the number of a pipe that is closed
        may be another one's by now."""
        if self._tells is None:
            return
        with suppress(BrokenPipeError):
            os.write(self._tells, words)

    def poll(self) -> Ended | None:
        """How it ended, None while it runs."""
        if self._over is not None:
            return self._over
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        assert self._hears is not None, "there was a child"
        words = b""
        with suppress(BlockingIOError):
            words = os.read(self._hears, WORDS_MAX_BYTES)
        self._close()
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        failure = (words.decode(errors="replace") or f"its process ended with {code}") if code else ""
        self._over = Ended(words, failure)
        return self._over

    def kill(self) -> None:
        """End it. It is over when `poll` says so: whoever waits for the disk dies when the disk has answered."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    def _close(self) -> None:
        for number in (self._tells, self._hears):
            if number is not None:
                os.close(number)
        self._tells = self._hears = None


class _Child:
    """The child's whole life is `run`."""

    def __init__(self, name: bytes, work: Work, line: Line, pipes: tuple[int, int]) -> None:
        self._name = name
        self._work = work
        self._line = line
        self._pipes = pipes

    def run(self) -> None:
        """Does not return."""
        code = 1
        try:
            try:
                self._settle_in()
                self._say(self._work(self._line))
                code = 0
            finally:
                error = sys.exception()
                if error is not None:
                    reason = error.message if isinstance(error, DiskFailed) else repr(error)
                    self._say(reason.encode(errors="replace")[:WORDS_MAX_BYTES])
        finally:
            os._exit(code)

    def _say(self, words: bytes) -> None:
        os.write(self._pipes[1], words)

    def _settle_in(self) -> None:
        gc.disable()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        self._line.check_parent()
        _prctl(_PR_SET_NAME, self._name, 0, 0, 0)
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
        assert min(self._pipes) > 2, "the node has its first three descriptors"
        for path in list(Path("/proc/self/fd").iterdir()):
            if int(path.name) not in self._pipes:
                # That of the listing itself is closed already.
                with suppress(OSError):
                    os.close(int(path.name))
        for number in range(3):
            assert os.open(os.devnull, os.O_RDWR) == number, "the lowest that is free"
