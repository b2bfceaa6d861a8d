"""Log lines of a node: one line per event on standard error, with time (UTC), level, process."""

from __future__ import annotations

import logging
import sys
import time


def set_up(level: str, process: str) -> None:
    """Log from `level` on, in the name of `process`."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {process} %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger("danube_raft")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(level.upper())
