"""A process of a node as its parent sees it, and which of several that have ended is the reason of it all.

When one ends, the others notice at their edges that it has gone, and end too, with that as their last words. They may
be faster than the one that is the reason, which has files to close. What the node does next depends on the reason: a
disk that failed must not be taken for a neighbour that has gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

from danube_raft.errors import DanubeRaftError, Fatal
from danube_raft.node.endpoints import LocalEdge
from danube_raft.node.view import ProcessView


class Child:
    """One running process, seen from the parent. `view` is what others may look at, `told` its last words. Raises
    OSError when it cannot be watched, and has ended it then."""

    def __init__(self, process: subprocess.Popen[bytes], edge: LocalEdge, view: ProcessView) -> None:
        self.name = view.name
        self.process = process
        self.edge = edge
        self.view = view
        self.told: DanubeRaftError | None = None
        try:
            self.descriptor = os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
            raise

    def ended(self) -> str | None:
        """How it ended, None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        why = "" if self.told is None else f": {self.told.message}"
        return f"{self.name} (pid {self.process.pid}) ended: {how}{why}"

    def close(self) -> None:
        """Release what the parent holds of it; the process has ended."""
        os.close(self.descriptor)
        if self.process.stdin is not None:
            # One that ended before it read its setup leaves it in the buffer, and closing tries to write it once more.
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.edge.close()


def says_why(error: DanubeRaftError | None) -> bool:
    """Whether it is more than that a neighbour has gone."""
    return error is not None and type(error) is not Fatal


def reason_of_all(children: Sequence[Child]) -> Child | None:
    """The one that ended for a reason of its own: it told why, or was killed, or was asked to end. None: whoever has
    ended so far only followed another, or has not been heard yet; if nothing more comes it is `silent`."""
    ended = [child for child in children if child.ended()]
    told = (child for child in ended if says_why(child.told))
    return next(told, next((child for child in ended if child.process.returncode <= 0), None))


def silent(children: Sequence[Child]) -> Child | None:
    """One that ended without last words, as a bug ends a process."""
    return next((child for child in children if child.ended() and child.told is None), None)
