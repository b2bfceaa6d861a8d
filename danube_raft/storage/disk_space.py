"""How much room the file system of the data directory has, and the ballast: a file that takes some of it, so that there
is something to give up when the disk is full. Opening a log needs room, and so does the next boot epoch.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from danube_raft.errors import DiskFailed


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write where `path` is. Raises DiskFailed."""
    try:
        found = os.statvfs(path)
    except OSError as error:
        raise DiskFailed(f"cannot ask how full the disk of {path} is: {error.strerror or error}") from None
    return found.f_bavail * found.f_frsize


class Ballast:
    """The file `ballast` in the data directory, of `size_bytes`; 0: none."""

    def __init__(self, data_dir: Path, size_bytes: int) -> None:
        self._path = data_dir / "ballast"
        self._size_bytes = size_bytes

    def take(self, keep_free_bytes: int) -> None:
        """Make it, if `keep_free_bytes` are left then. What goes wrong with it is no reason not to start."""
        with contextlib.suppress(OSError):
            if not self._size_bytes:
                self._path.unlink(missing_ok=True)
                return
            held = self._path.stat().st_size if self._path.exists() else 0
            if (
                held < self._size_bytes
                and free_bytes(self._path.parent) >= self._size_bytes + keep_free_bytes
            ):
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(descriptor, 0, self._size_bytes)
                finally:
                    os.close(descriptor)

    def give_up(self) -> None:
        """Free its room."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
