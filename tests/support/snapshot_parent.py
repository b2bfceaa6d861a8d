"""A process that listens on a port, forks a snapshot child, and lives until it is killed.

    python snapshot_parent.py DIRECTORY

Prints the child's pid and the port. The child waits for its point, which never comes.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections import Counter
from pathlib import Path

from danube_raft.kv.machine import Machine
from danube_raft.node.snapshot_fork import ForkedSnapshot
from danube_raft.node.snapshot_shelf import Shelf
from danube_raft.storage.snapshots import Snapshots


def main() -> None:
    """See above."""
    shelf = Shelf(Snapshots(Path(sys.argv[1]), 7), Counter())
    shelf.open()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        job = ForkedSnapshot(shelf, Machine())
        print(job.pid, listener.getsockname()[1], flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
