"""How much room the file system of the data directory has."""

from __future__ import annotations

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
