"""The log on disk: entries, hard state, purge point and snapshot pointer in one RocksDB.

Two column families: `log` (8-byte big-endian index → entry, see `entry_format`) and `meta` (a handful of small
values, each with a CRC32). `write` returns when everything it was given is durable; all of it is one WriteBatch and
one sync, so a crash leaves all or nothing of a batch, and never a later batch without the earlier ones.

Invariants: purged ≤ last; the log is purged+1 … last without a gap; terms never fall; the hard state's term is at
least the last entry's. Opening reads the whole log and proves them, with each CRC and the chain, or refuses.

After any failure the store refuses everything but `close`: what a failed write left behind is unknown until the
database is opened again, and a failed fsync repeated may say "fine" about pages that are gone.

What a store has to do, and how a log is proven, is in `recovery.py`; `memory_log.py` is the twin in memory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import rocksdict
from rocksdict import Rdict, WriteBatch

from danube_raft.errors import Corrupt, DataDirInUse, DiskFailed, DiskFull, Fatal, NewerFormat
from danube_raft.storage import entry_format, library_records
from danube_raft.storage.directory import sync_directory
from danube_raft.storage.disk_errors import disk_failed
from danube_raft.storage.entry_format import CHAIN_BYTES, NEWER_WAY_OUT, WAY_OUT
from danube_raft.storage.log_options import log_options
from danube_raft.storage.recovery import Beginning, Point, Recovery, recover
from danube_raft.wire import local
from danube_raft.wire.entry import Entry, HardState, entry_bytes

FORMAT = 2
"""Layout of the database as a whole; an entry has a format byte of its own. 1 knew no beginning of a purged log."""

SCAN_REPORT_BYTES = 32 << 20
SCAN_ENTRY_COST_BYTES = 1_024
"""A scan reports after about 0.1 s: so many bytes, where an entry costs as much time as so many more."""
SCAN_READAHEAD_BYTES = 2 << 20


_FORMAT_KEY, _HARD_STATE_KEY, _PURGED_KEY, _SNAPSHOT_KEY = b"format", b"hard_state", b"purged", b"snapshot"
_BEGINNING_KEY = b"beginning"
_STAMP = struct.Struct(">Q")
_POINT = struct.Struct(f">QQ{CHAIN_BYTES}s")
_META = {_FORMAT_KEY: struct.Struct(">I"), _HARD_STATE_KEY: struct.Struct(">QQ")}
_META |= {_PURGED_KEY: _POINT, _SNAPSHOT_KEY: _POINT}


def _key(index: int) -> bytes:
    return index.to_bytes(8, "big")


def _pack_meta(key: bytes, fields: Iterable[Any]) -> bytes:
    return _seal(_META[key].pack(*fields))


def _unpack_meta(key: bytes, value: bytes | None) -> tuple[Any, ...] | None:
    if value is None:
        return None
    data = _unseal(key, value)
    if len(data) != _META[key].size:
        raise _damaged(key)
    return _META[key].unpack(data)


def _seal(data: bytes) -> bytes:
    return data + crc32(data).to_bytes(4, "big")


def _unseal(key: bytes, value: bytes) -> bytes:
    data = value[:-4]
    if crc32(data).to_bytes(4, "big") != value[-4:]:
        raise _damaged(key)
    return data


def _damaged(key: bytes) -> Corrupt:
    return Corrupt(f"the {key.decode()} in the log database is damaged; {WAY_OUT}")


def _unpack_beginning(value: bytes | None) -> Beginning:
    if value is None:
        return Beginning()
    data = _unseal(_BEGINNING_KEY, value)
    if len(data) < _STAMP.size:
        raise _damaged(_BEGINNING_KEY)
    (stamp_ms,) = _STAMP.unpack_from(data)
    return Beginning(stamp_ms, data[_STAMP.size :])


def _mapped(text: str, doing: str, path: Path) -> Fatal:
    said = f"cannot {doing} in {path}: {' '.join(text.split())}"
    if "No space" in text or "quota exceeded" in text:
        return DiskFull(f"{said}; make room on that disk and start the node again")
    if "/LOCK:" in text:
        return DataDirInUse(f"{said}; another process has the log open")
    # A file of the database that is missing stays so, however often the node starts.
    if text.startswith("Corruption:") or "No such file" in text:
        return Corrupt(f"{said}; {WAY_OUT}")
    return DiskFailed(f"{said}; check the disk, then start the node again")


class RocksLogStore:
    """`LogStore` in RocksDB, in the directory `path` (`<data_dir>/log`)."""

    def __init__(self, path: str | Path, report: Callable[[], None] = lambda: None) -> None:
        self._path = Path(path)
        self._report = report
        """Called now and then while a long log is proven, so that somebody who waits knows of progress."""
        self._db: Rdict | None = None
        self._log: Rdict | None = None
        self._meta: Rdict | None = None
        self._log_family: rocksdict.ColumnFamily | None = None
        self._meta_family: rocksdict.ColumnFamily | None = None
        self._failed: Fatal | None = None
        self._purged = self._last = Point()
        self._hard_state = HardState()

    def open(self) -> Recovery:
        """See LogStore. The directory is created if there is none."""
        assert self._db is None, "a store is opened once"
        try:
            with self._guarded("open the log"):
                self._open_database()
                recovery = self._load()
        except Exception:
            self.close()
            raise
        self._purged, self._last, self._hard_state = recovery.purged, recovery.last, recovery.hard_state
        return recovery

    def write(self, writes: Sequence[local.Write]) -> None:
        """See LogStore."""
        with self._guarded("write the log"):
            batch = WriteBatch(raw_mode=True)
            last, hard_state = self._last, self._hard_state
            staged: dict[int, Point] = {}
            for write in writes:
                if write.truncate_from:
                    last = self._truncate(batch, write.truncate_from, last, staged)
                last = self._append(batch, write.entries, last, staged)
                if write.hard_state is not None:
                    assert write.hard_state.term >= hard_state.term, "the term only grows"
                    hard_state = write.hard_state
                    self._put_meta(batch, _HARD_STATE_KEY, hard_state)
                assert not write.entries or last.term <= hard_state.term
            if len(batch):
                self._commit(batch)
            self._last, self._hard_state = last, hard_state

    @property
    def last(self) -> Point:
        """See LogStore."""
        return self._last

    def point(self, index: int) -> Point:
        """See LogStore."""
        with self._guarded("read the log"):
            return self._point(index)

    def read(self, first: int, last: int, max_bytes: int) -> tuple[Entry, ...]:
        """See LogStore."""
        with self._guarded("read the log"):
            if first <= self._purged.index:
                return ()
            entries: list[Entry] = []
            size = 0
            # Single gets, no iterator: an iterator that is still alive keeps the database open after close.
            for index in range(first, min(last, self._last.index) + 1):
                entry, _ = entry_format.decode(index, self._stored(index))
                size += entry_bytes(entry)
                if entries and size > max_bytes:
                    break
                entries.append(entry)
            return tuple(entries)

    def purge(self, index: int, beginning: Beginning) -> None:
        """See LogStore. An index that is purged already is nothing to do."""
        with self._guarded("purge the log"):
            assert index <= self._last.index
            if index > self._purged.index:
                point = self._point(index)
                batch = WriteBatch(raw_mode=True)
                self._forget(batch, index)
                self._put_meta(batch, _PURGED_KEY, point)
                self._put_beginning(batch, beginning)
                self._database().write(batch)
                self._purged = point

    def install_point(self, index: int, term: int, chain: bytes, beginning: Beginning) -> None:
        """See LogStore. Raises Corrupt if the log has the same entry (index, term) with another chain."""
        with self._guarded("install a snapshot into the log"):
            assert index >= self._purged.index
            assert len(chain) == CHAIN_BYTES
            point = Point(index, term, chain)
            mine = self._point(index) if index <= self._last.index else None
            keeps = mine is not None and mine.term == term
            if keeps and mine != point:
                raise Corrupt(f"log entry {index} differs from the snapshot's, with the same term; {WAY_OUT}")
            batch = WriteBatch(raw_mode=True)
            self._forget(batch, index if keeps else self._last.index)
            for key in (_PURGED_KEY, _SNAPSHOT_KEY):
                self._put_meta(batch, key, point)
            self._put_beginning(batch, beginning)
            self._commit(batch)
            self._purged = point
            if not keeps:
                self._last = point

    def close(self) -> None:
        """See LogStore. The database's LOCK is free afterwards."""
        database = self._db
        # The column families hold the database open; they go first.
        self._log = self._meta = self._log_family = self._meta_family = self._db = None
        if database is not None:
            try:
                database.close()
            except Exception as error:  # noqa: BLE001 -- rocksdict raises nothing more precise
                if self._failed is None:
                    raise _mapped(str(error), "close the log", self._path) from None

    def _open_database(self) -> None:
        try:
            if not self._path.is_dir():
                self._path.mkdir(parents=True)
                # Whatever RocksDB syncs is below this name. A start that is cut short before the sync leaves it to the
                # next one's boot epoch, which is in the same directory.
                sync_directory(self._path.parent)
            names = {file.name for file in self._path.iterdir()}
            for name, at in library_records.torn_ends(self._path):
                self._cut(name, at)
        except OSError as error:
            raise disk_failed(
                error, f"cannot use {self._path} for the log: {error.strerror or error}"
            ) from None
        # Without CURRENT RocksDB would begin an empty database over the files of the old one.
        if "CURRENT" not in names and any(name.endswith((".sst", ".log")) for name in names):
            raise Corrupt(f"the log database in {self._path} has lost its file CURRENT; {WAY_OUT}")
        families = {name: log_options() for name in ("default", "log", "meta")}
        self._db = self._connect(log_options(), families)
        self._log = self._db.get_column_family("log")
        self._meta = self._db.get_column_family("meta")
        self._log_family = self._db.get_column_family_handle("log")
        self._meta_family = self._db.get_column_family_handle("meta")

    def _cut(self, name: str, at: int) -> None:
        os.truncate(self._path / name, at)

    def _connect(self, options: rocksdict.Options, families: dict[str, rocksdict.Options]) -> Rdict:
        return Rdict(str(self._path), options, column_families=families)

    def _load(self) -> Recovery:
        version = self._meta_value(_FORMAT_KEY)
        if version is not None and version[0] > FORMAT:
            raise NewerFormat(
                f"the log in {self._path} has format {version[0]}, this version reads up to {FORMAT}; {NEWER_WAY_OUT}"
            )
        hard_state = HardState(*(self._meta_value(_HARD_STATE_KEY) or ()))
        purged = Point(*(self._meta_value(_PURGED_KEY) or ()))
        snapshot = Point(*(self._meta_value(_SNAPSHOT_KEY) or ()))
        assert self._meta is not None
        beginning = _unpack_beginning(self._meta.get(_BEGINNING_KEY))
        with closing(self._scan(purged.index + 1)) as stored:
            recovery = recover(hard_state, purged, snapshot, beginning, stored)
        if version is None and (recovery.last.index or hard_state != HardState()):
            raise Corrupt(f"the log in {self._path} has entries but no format; {WAY_OUT}")
        if version != (FORMAT,):
            batch = WriteBatch(raw_mode=True)
            self._put_meta(batch, _FORMAT_KEY, (FORMAT,))
            self._commit(batch)
        return recovery

    def _scan(self, first: int) -> Generator[tuple[int, bytes], None, None]:
        """All that is stored from `first` on; never from below it, where range tombstones make it slow."""
        assert self._log is not None
        options = rocksdict.ReadOptions()
        options.set_readahead_size(SCAN_READAHEAD_BYTES)
        cursor = self._log.iter(options)
        try:
            cursor.seek(_key(first))
            scanned_bytes = 0
            while cursor.valid():
                value = cursor.value()
                yield int.from_bytes(cursor.key(), "big"), value
                cursor.next()
                scanned_bytes += len(value) + SCAN_ENTRY_COST_BYTES
                if scanned_bytes >= SCAN_REPORT_BYTES:
                    scanned_bytes = 0
                    self._report()
            # An iterator ends in silence at a damaged block; only its status tells.
            cursor.status()
        finally:
            del cursor

    def _truncate(self, batch: WriteBatch, first: int, last: Point, staged: dict[int, Point]) -> Point:
        """Cut from `first`; the point before it. Single deletes: the appends that follow cover most of them."""
        assert self._purged.index < first <= last.index + 1
        for index in range(first, last.index + 1):
            batch.delete(_key(index), self._log_family)
        if first == last.index + 1:
            return last
        return staged.get(first - 1) or self._point(first - 1)

    def _append(
        self, batch: WriteBatch, entries: Sequence[Entry], last: Point, staged: dict[int, Point]
    ) -> Point:
        for entry in entries:
            assert entry.index == last.index + 1, "the log has no gaps"
            assert entry.term >= last.term, "terms never fall"
            data = entry_format.encode(entry, last.chain)
            batch.put(_key(entry.index), data, self._log_family)
            last = staged[entry.index] = Point(entry.index, entry.term, entry_format.chain_of(data))
        return last

    def _forget(self, batch: WriteBatch, index: int) -> None:
        if index > self._purged.index:
            batch.delete_range(_key(self._purged.index + 1), _key(index + 1), self._log_family)

    def _put_meta(self, batch: WriteBatch, key: bytes, fields: Iterable[Any]) -> None:
        batch.put(key, _pack_meta(key, fields), self._meta_family)

    def _put_beginning(self, batch: WriteBatch, beginning: Beginning) -> None:
        data = _STAMP.pack(beginning.stamp_ms) + beginning.configuration
        batch.put(_BEGINNING_KEY, _seal(data), self._meta_family)

    def _commit(self, batch: WriteBatch) -> None:
        database = self._database()
        # Not a synced write: that would hold the GIL through the fsync, which flush_wal releases.
        database.write(batch)
        database.flush_wal(True)

    def _point(self, index: int) -> Point:
        if index == self._purged.index:
            return self._purged
        if index == self._last.index:
            return self._last
        data = self._stored(index)
        return Point(index, entry_format.verify(index, data)[0], entry_format.chain_of(data))

    def _stored(self, index: int) -> bytes:
        assert self._log is not None
        data: bytes | None = self._log.get(_key(index))
        if data is None:
            raise Corrupt(f"log entry {index} is missing; {WAY_OUT}")
        return data

    def _meta_value(self, key: bytes) -> tuple[Any, ...] | None:
        assert self._meta is not None
        return _unpack_meta(key, self._meta.get(key))

    def _database(self) -> Rdict:
        assert self._db is not None, "the store is not open"
        return self._db

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """Map what RocksDB raises, once; refuse everything after the first failure."""
        if self._failed is not None:
            raise type(self._failed)(
                f"cannot {doing}: the log failed before ({self._failed.message}); the node must start again"
            )
        try:
            yield
        except Fatal as error:
            self._failed = error
            raise
        except Exception as error:
            # rocksdict raises bare Exceptions with RocksDB's text; anything else is a bug, and stays one.
            if type(error) not in (Exception, rocksdict.DbClosedError):
                raise
            self._failed = _mapped(str(error), doing, self._path)
            raise self._failed from None
