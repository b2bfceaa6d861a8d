"""A disk that answers EIO: strace attaches to a running process and makes its synchronising calls fail.

What the kernel would do to the pages of a file is not part of that; tests/storage takes such files apart.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import cache

from real_node import WAIT_S, RealNode, until


@cache
def why_not() -> str:
    """Why nobody can be traced here; empty if it works."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        ["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, timeout=WAIT_S, check=False
    )
    return "" if tried.returncode == 0 else "this user may not trace processes"


@contextlib.contextmanager
def failing_sync(node: RealNode, error: str = "EIO", role: str = "log-writer") -> Iterator[None]:
    """The next fdatasync or fsync of that process fails, and all that it and its own children make after that."""
    process = until(lambda: node.child(role), f"a {role}")
    calls = "fdatasync,fsync"
    # Only these are told of: nobody reads what strace says, and once the pipe was full all would stand still.
    told = ("-e", f"trace={calls}", "-e", "signal=none", "-e", f"inject={calls}:error={error}:when=1+")
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(process.pid), *told], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    try:
        assert "attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        try:
            tracer.communicate(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.communicate()
