"""A data directory that is being filled from a backup: it counts once all of it is there, and not before.

    restoring.json   there while it is being filled; what the backup was, for whoever finds it

Only a directory that is new or empty is filled; a volume's `lost+found` and a lock that nobody holds do not count. The
marker comes first and goes last, durably both times: a start refuses a directory that has it, and another restore
empties such a directory and begins again. So an interruption at any point loses nothing but the work.
"""

from __future__ import annotations

import os
import shutil

from danube_raft.errors import ConfigInvalid
from danube_raft.storage.data_dir import FORMAT, RESTORING, DataDir, Identity
from danube_raft.storage.directory import sync_directory

_NOTHING = frozenset(("lock", "lost+found"))
_BEFORE_THE_MARKER = f"{RESTORING}.tmp"
"""What an empty directory may have; and what is left where a restore has not even begun."""


class RestoreTarget(DataDir):
    """A data directory to fill: `begin`, then whatever a node has, then `finish`."""

    def begin(self, about: dict[str, int | str]) -> None:
        """Lock it and put up the marker. Raises ConfigInvalid when there is data, DataDirInUse, DiskFailed."""
        with self._disk("create or open it"):
            if not self.path.is_dir():
                self.path.mkdir(parents=True)
                sync_directory(self.path.parent)
            # Before a lock file is put into somebody else's directory.
            self._refuse_data()
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._wait_for_lock(descriptor, 0)
            self._lock = descriptor
            self._refuse_data()
            self._write(RESTORING, about)
            self._empty()
            self._describe_holder(0)
        except Exception:
            self._lock = None
            os.close(descriptor)
            raise

    def create_identity(self, node_id: int, cluster_id: int) -> Identity:
        """Which node this will be; durable on return. It has not been started yet."""
        self._write("format.json", {"format": FORMAT})
        self._write("boot_epoch.json", {"boot_epoch": 0})
        identity = Identity(node_id, cluster_id)
        self._save(identity)
        return identity

    def finish(self) -> None:
        """All of it is there and durable: from now on a node may start."""
        with self._disk("finish the restore"):
            sync_directory(self.path)
            (self.path / RESTORING).unlink()
            sync_directory(self.path)

    def _refuse_data(self) -> None:
        with self._disk("read it"):
            names = {file.name for file in self.path.iterdir()} - _NOTHING - {_BEFORE_THE_MARKER}
        if names and RESTORING not in names:
            found = ", ".join(sorted(names)[:3])
            raise ConfigInvalid(
                f"data directory {self.path} is not empty ({found}): a snapshot is restored into a new or empty one"
            )

    def _empty(self) -> None:
        """What an interrupted restore has left."""
        with self._disk("empty it"):
            for file in self.path.iterdir():
                if file.name in _NOTHING or file.name == RESTORING:
                    continue
                if file.is_dir() and not file.is_symlink():
                    shutil.rmtree(file)
                else:
                    file.unlink()
            sync_directory(self.path)
