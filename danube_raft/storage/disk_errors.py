"""Which error it is that a system call of the disk has ended with: a disk without room is not a broken one."""

from __future__ import annotations

import errno

from danube_raft.errors import DiskFailed, DiskFull

_FULL = (errno.ENOSPC, errno.EDQUOT)


def disk_failed(error: OSError, said: str) -> DiskFailed:
    """What to raise for it; `said` tells what went wrong, and ends with what to do."""
    return DiskFull(said) if error.errno in _FULL else DiskFailed(said)
