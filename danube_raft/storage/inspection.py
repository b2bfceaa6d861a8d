"""A data directory that is looked at and not touched: nothing here writes into it.

It is locked all the while, so no node starts on it meanwhile, and none runs. The log is opened by RocksDB for reading
only, and through links in a directory elsewhere: the library rewrites a small file of its own at every opening, and a
disk that is looked at because it fails may let nobody write. What a node does when it opens its log, it does too:
replay the end of it, read every entry, check every CRC and the chain.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import rocksdict
from rocksdict import AccessType, Rdict, WriteBatch

from danube_raft.errors import ConfigInvalid, Corrupt, DiskFailed, Fatal
from danube_raft.storage.data_dir import DataDir
from danube_raft.storage.log_store import RocksLogStore

_OF_THE_LIBRARY = "rocksdict-config.json"


class InspectedDir(DataDir):
    """A data directory for reading."""

    def acquire_to_read(self) -> None:
        """Lock it. Raises ConfigInvalid where no node has ever been, DataDirInUse where one is, DiskFailed."""
        with self._disk("open it"):
            names = {file.name for file in self.path.iterdir()}
            if not names & {"format.json", "identity.json", "log"}:
                raise ConfigInvalid(f"no node was ever started on {self.path}: there is nothing to look at")
            if "lock" not in names:
                raise Corrupt(
                    f"{self.path / 'lock'} is missing: it is an empty file that every data directory has; make sure that "
                    "no node runs on it, then put it back (touch) and look again"
                )
            descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._wait_for_lock(descriptor, 0)
        except Exception:
            os.close(descriptor)
            raise
        self._lock = descriptor

    def check_format(self) -> None:
        """Raises Corrupt or NewerFormat."""
        if not (self.path / "format.json").exists():
            raise self._damaged("format.json", "is missing")
        self._check_format()

    def _write(self, name: str, fields: dict[str, int | str]) -> None:
        raise AssertionError(f"{name} is only looked at, not written: {fields}")


class InspectedLog(RocksLogStore):
    """The log in `path`, for reading: nothing that writes is called."""

    def __init__(self, path: Path, report: Callable[[], None] = lambda: None) -> None:
        super().__init__(path, report)
        self._links: tempfile.TemporaryDirectory[str] | None = None
        self._cuts: dict[str, int] = {}

    def close(self) -> None:
        """See LogStore."""
        super().close()
        links, self._links = self._links, None
        if links is not None:
            links.cleanup()

    def _cut(self, name: str, at: int) -> None:
        """Of what the library is shown."""
        self._cuts[name] = at

    def _connect(self, options: rocksdict.Options, families: dict[str, rocksdict.Options]) -> Rdict:
        self._links = tempfile.TemporaryDirectory(prefix="danube-raft-")
        directory = Path(self._links.name)
        try:
            for file in self._path.iterdir():
                if file.name in self._cuts:
                    (directory / file.name).write_bytes(file.read_bytes()[: self._cuts[file.name]])
                elif file.name != _OF_THE_LIBRARY:
                    (directory / file.name).symlink_to(file)
        except OSError as error:
            raise DiskFailed(f"cannot look at {self._path}: {error.strerror or error}") from None
        return Rdict(str(directory), options, families, AccessType.read_only(False))

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """RocksDB names the links: say where they lead."""
        try:
            with super()._guarded(doing):
                yield
        except Fatal as error:
            links = "" if self._links is None else self._links.name
            said = error.message.replace(links, str(self._path)) if links else error.message
            raise type(error)(said, error.details) from None

    def _commit(self, batch: WriteBatch) -> None:
        """An empty log is given its format when it is opened. Not here."""
