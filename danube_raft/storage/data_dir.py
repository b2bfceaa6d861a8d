"""The data directory: who holds it, what format it has, which node it is, how often it was started.

    lock            held by flock(2) while the node runs; its text says by whom
    format.json     layout of the directory as a whole
    boot_epoch.json number of the current start; it only grows
    identity.json   node id and cluster id
    restoring.json  it is being filled from a backup (`restore_target.py`); no node starts on it
    founding.json   the promise to found a cluster together, if the node was started with seeds
    log/            the RocksDB of the log (`log_store.py`)
    mark            what the log was known to hold (`durable_mark.py`); older than the identity
    snapshots/      snapshots of the state (`snapshots.py`)

Small files are JSON with a CRC32 over the rest, replaced by write, fsync, rename and fsync of the directory, so each
is the old one or the new one after a crash. A file that is damaged, or missing where others prove that it was there,
is Corrupt and never made anew: a second identity over an old log votes twice, and an epoch that starts again makes
the cluster take new batches for old ones.

The lock belongs to the open file, not to the process: children that inherit it keep the directory theirs until the
last of them is gone. What is in `log/` is not looked into here.
"""

from __future__ import annotations

import base64
import binascii
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import psutil

from danube_raft.errors import ConfigInvalid, Corrupt, DataDirInUse, NewerFormat
from danube_raft.storage import durable_mark
from danube_raft.storage.directory import sync_directory
from danube_raft.storage.disk_errors import disk_failed
from danube_raft.storage.entry_format import NEWER_WAY_OUT
from danube_raft.wire.codec import Malformed
from danube_raft.wire.entry import Founding, unpack_configuration

FORMAT = 1
NODE_ID_LIMIT = 1 << 53
"""Node ids are above 0 and below this, so that any language's JSON holds them."""

FOUNDING_MAX_BYTES = 8192
"""The longest packed configuration that a promise may hold: seven members with the longest names there are."""
SMALL_FILE_MAX_BYTES = 16384
"""Room for that configuration in base64."""
RESTORING = "restoring.json"
LOCK_POLL_MS = 20
START_TOLERANCE_S = 2.0
"""A process whose start differs by more from what the lock says is another one under a used-again pid."""

_MISUSE = frozenset(
    (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
    )
)
"""What an operator's choice of directory explains; every other error is the disk's."""


class Identity(NamedTuple):
    """Which node this is; `cluster_id` is 0 until it belongs to a cluster."""

    node_id: int
    cluster_id: int = 0


class DataDir:
    """One data directory. Everything but the paths needs `acquire` first."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.log_path = self.path / "log"
        self._lock: int | None = None
        self._addresses = ("", "")

    @property
    def lock_fd(self) -> int:
        """Descriptor of the held lock, for children that are to inherit it."""
        assert self._lock is not None, "the data directory is not held"
        return self._lock

    def acquire(
        self, raft_address: str = "", client_address: str = "", *, wait_ms: int = 0, inheritable: bool = False
    ) -> None:
        """Create the directory if need be, lock it, check its format.

        If it is locked but the holder named in the lock is dead, its children are about to end: they are waited
        for, at most `wait_ms`. Raises DataDirInUse, ConfigInvalid, DiskFailed, NewerFormat or Corrupt.
        """
        assert self._lock is None, "the data directory is held already"
        with self._disk("create or open it"):
            if not self.path.is_dir():
                self.path.mkdir(parents=True)
                sync_directory(self.path.parent)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._wait_for_lock(descriptor, wait_ms)
            os.set_inheritable(descriptor, inheritable)
            self._lock, self._addresses = descriptor, (raft_address, client_address)
            self._check_format()
            identity = self.identity()
            self._describe_holder(identity.node_id if identity else 0)
        except Exception:
            self._lock = None
            os.close(descriptor)
            raise

    def release(self) -> None:
        """Give the lock back, unless children still hold it. May be called again."""
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    def identity(self) -> Identity | None:
        """Which node this is; None on a fresh directory. Raises Corrupt."""
        fields = self._read("identity.json")
        if fields is None:
            epoch = self._read("boot_epoch.json")
            if self.log_path.exists() or (epoch is not None and epoch.get("boot_epoch") != 0):
                raise self._damaged("identity.json", "is missing, but the node was started before")
            return None
        found = Identity(_natural(fields.get("node_id")), _natural(fields.get("cluster_id")))
        if not 0 < found.node_id < NODE_ID_LIMIT or found.cluster_id < 0:
            raise self._damaged("identity.json", "does not hold a node id and a cluster id")
        return found

    def load_or_create_identity(self, random_below: Callable[[int], int]) -> Identity:
        """Which node this is; a fresh directory gets a random node id first.

        `random_below(n)` gives an unpredictable integer from 0 to n-1, such as `secrets.randbelow`.
        """
        found = self.identity()
        if found is None:
            found = Identity(1 + random_below(NODE_ID_LIMIT - 1))
            # Epoch and mark come first: where there is an identity, a missing one was lost.
            self._write("boot_epoch.json", {"boot_epoch": 0})
            durable_mark.MarkFile(self.path / durable_mark.NAME).create(durable_mark.FIRST)
            self._save(found)
        return found

    def join_cluster(self, cluster_id: int) -> Identity:
        """Belong to `cluster_id` from now on; durable on return. A node never changes its cluster."""
        found = self.identity()
        assert found is not None, "a node has an identity before it joins a cluster"
        assert cluster_id > 0
        assert found.cluster_id in (0, cluster_id), "a node never changes its cluster"
        promise = self.founding()
        assert promise is None or promise.cluster_id == cluster_id, (
            "a node joins the cluster that it promised to"
        )
        joined = found._replace(cluster_id=cluster_id)
        if joined != found:
            self._save(joined, promised=promise is not None)
        return joined

    def founding(self) -> Founding | None:
        """What this node has promised when its cluster was formed; None: nothing. Raises Corrupt."""
        fields = self._read("founding.json")
        if fields is None:
            # Without it a node that has not heard of the others yet would take the cluster for its own.
            if (self._read("identity.json") or {}).get("promised"):
                raise self._damaged("founding.json", "is missing, but the node has joined a cluster by it")
            return None
        try:
            packed = base64.b64decode(str(fields.get("configuration")), validate=True)
            unpack_configuration(packed)
        except (binascii.Error, Malformed):
            raise self._damaged("founding.json", "does not hold a configuration") from None
        numbers = [_natural(fields.get(name)) for name in ("cluster_id", "initialiser", "wall_ms")]
        found = Founding(numbers[0], numbers[1], packed, numbers[2])
        if found.cluster_id <= 0 or found.initialiser <= 0 or found.wall_ms < 0:
            raise self._damaged("founding.json", "does not hold a promise")
        return found

    def promise(self, founding: Founding) -> None:
        """Be bound to `founding` instead of any earlier promise; durable on return. Not after the node has joined."""
        found = self.identity()
        assert found is not None, "a node has an identity before it promises"
        assert found.cluster_id == 0, "a node that belongs to a cluster promises nothing"
        assert len(founding.configuration) <= FOUNDING_MAX_BYTES
        text = base64.b64encode(founding.configuration).decode()
        self._write("founding.json", {**founding._asdict(), "configuration": text})

    def boot_epoch(self) -> int:
        """How often the node was started; there is an identity. Raises Corrupt."""
        fields = self._read("boot_epoch.json")
        if fields is None:
            raise self._damaged("boot_epoch.json", "is missing")
        found = _natural(fields.get("boot_epoch"))
        if found < 0:
            raise self._damaged("boot_epoch.json", "does not hold a number")
        return found

    def next_boot_epoch(self) -> int:
        """The number of this start, greater than any before; durable on return. Needs an identity."""
        assert self.identity() is not None, "a node has an identity before it counts its starts"
        epoch = self.boot_epoch() + 1
        self._write("boot_epoch.json", {"boot_epoch": epoch})
        return epoch

    def _save(self, identity: Identity, promised: bool = False) -> None:
        self._write("identity.json", {**identity._asdict(), "promised": promised})
        self._describe_holder(identity.node_id)

    def _check_format(self) -> None:
        if (self.path / RESTORING).exists():
            raise Corrupt(
                f"a restore into {self.path} was not finished: run `danube-raft snapshot restore` again, or empty it"
            )
        fields = self._read("format.json")
        if fields is None:
            old = [
                name for name in ("identity.json", "boot_epoch.json", "log") if (self.path / name).exists()
            ]
            if old:
                raise self._damaged("format.json", f"is missing, but {old[0]} is there")
            self._write("format.json", {"format": FORMAT})
            return
        version = _natural(fields.get("format"))
        if version > FORMAT:
            raise NewerFormat(
                f"data directory {self.path} has format {version}, this version reads up to {FORMAT}; {NEWER_WAY_OUT}"
            )
        if version < 1:
            raise self._damaged("format.json", "does not hold a format number")

    # The lock.

    def _wait_for_lock(self, descriptor: int, wait_ms: int) -> None:
        deadline = time.monotonic() + wait_ms / 1000
        while True:
            try:
                with self._disk("lock it"):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(descriptor)
                if time.monotonic() >= deadline or _alive(holder):
                    raise self._in_use(holder) from None
                time.sleep(LOCK_POLL_MS / 1000)
            else:
                return

    def _describe_holder(self, node_id: int) -> None:
        raft_address, client_address = self._addresses
        pid = os.getpid()
        holder = {
            "pid": pid,
            "started": psutil.Process(pid).create_time(),
            "node_id": node_id,
            "raft_address": raft_address,
            "client_address": client_address,
        }
        text = json.dumps(holder).encode() + b"\n"
        with self._disk("write its lock"):
            os.pwrite(self.lock_fd, text, 0)
            os.ftruncate(self.lock_fd, len(text))

    def _in_use(self, holder: dict[str, Any]) -> DataDirInUse:
        pid = holder.get("pid", "unknown")
        who = f"process {pid} (node {holder.get('node_id', 0)}, {holder.get('raft_address') or 'no address'})"
        ended = "" if _alive(holder) else ", which has ended and left children that still hold it"
        return DataDirInUse(
            f"data directory {self.path} is in use by {who}{ended}; stop it or choose another data_dir",
            holder,
        )

    # Small files.

    def _read(self, name: str) -> dict[str, Any] | None:
        """The fields of a small file, None if there is none; raises Corrupt."""
        assert self._lock is not None, "the data directory is not held"
        with self._disk(f"read {name}"):
            try:
                with (self.path / name).open("rb") as file:
                    data = file.read(SMALL_FILE_MAX_BYTES)
            except FileNotFoundError:
                return None
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):
            raise self._damaged(name, "is not valid JSON") from None
        if not isinstance(fields, dict) or fields.pop("crc32", None) != _checksum(fields):
            raise self._damaged(name, "does not match its checksum")
        return fields

    def _write(self, name: str, fields: dict[str, int | str]) -> None:
        """Replace a small file, durably."""
        assert self._lock is not None, "the data directory is not held"
        data = json.dumps({**fields, "crc32": _checksum(fields)}).encode() + b"\n"
        temporary = self.path / f"{name}.tmp"
        with self._disk(f"write {name}"):
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / name)
            sync_directory(self.path)

    def _damaged(self, name: str, what: str) -> Corrupt:
        return Corrupt(
            f"{self.path / name} {what}; put the file back from a copy, or remove this node from the cluster, empty "
            "the directory and add it again"
        )

    @contextmanager
    def _disk(self, doing: str) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            raise
        except OSError as error:
            said = f"data_dir = {str(self.path)!r}: cannot {doing}: {error.strerror or error}"
            # One that a node has lived in was writable: file systems that meet an error may turn read-only.
            turned = error.errno == errno.EROFS and (self.path / "identity.json").exists()
            if error.errno in _MISUSE and not turned:
                raise ConfigInvalid(f"{said}; choose a directory that this user can write to") from None
            raise disk_failed(
                error, f"{said}; check the disk and its free space, then start the node again"
            ) from None


def _natural(value: Any) -> int:
    """`value` if it is an integer from 0 on, else -1."""
    return value if type(value) is int and value >= 0 else -1


def _checksum(fields: dict[str, Any]) -> int:
    return crc32(json.dumps(fields, sort_keys=True).encode())


def _holder(descriptor: int) -> dict[str, Any]:
    """What the lock's text says, empty while it is being written."""
    try:
        found = json.loads(os.pread(descriptor, SMALL_FILE_MAX_BYTES, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the process that took the lock still runs; yes when that cannot be told."""
    pid, started = holder.get("pid"), holder.get("started")
    if type(pid) is not int or not isinstance(started, int | float):
        return True
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) <= START_TOLERANCE_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, ValueError):
        return True
