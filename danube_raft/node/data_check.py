"""What is in a data directory, what of it is damaged, and what to do: `node verify`, while the node is stopped.

Each part is proven by itself, as a start would prove it, so that one damage hides no other; then whether the parts fit
together: a node begins with a snapshot whose end its log has, and goes on with the log behind it.

Nothing is written, not even where it could be mended: a node that starts mends what can be, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from danube_raft.errors import ConfigInvalid, Corrupt, DiskFailed, Fatal, NewerFormat
from danube_raft.node.assembly import SNAPSHOTS_DIR
from danube_raft.node.saved_snapshot import load
from danube_raft.node.snapshot_traffic import NEWER_IS_LEFT, UNREADABLE_IS_LEFT
from danube_raft.storage import durable_mark
from danube_raft.storage.durable_mark import Mark, MarkFile
from danube_raft.storage.entry_format import WAY_OUT
from danube_raft.storage.inspection import InspectedDir, InspectedLog
from danube_raft.storage.mark_keeper import MISSING, UNREADABLE, judge, newest
from danube_raft.storage.recovery import Point, Recovery
from danube_raft.storage.snapshot_file import NAME, UNFINISHED_SUFFIX, SnapshotMeta
from danube_raft.storage.snapshots import ODD_NAME, Snapshots

_SUSPECT = (
    "the node starts as SUSPECT: it does not vote, and what it confirms is not counted, until a leader has brought it up "
    "to date; nothing is to be done while the other nodes have one"
)

READ_BYTES = 1 << 20

_DAMAGE = (Corrupt, DiskFailed, NewerFormat)
"""What a part may be found to be, the worst first."""


class Finding(NamedTuple):
    """One part: what is there, or the error that a start would have with it."""

    part: str
    said: str
    error: Fatal | None = None


def exit_code(findings: list[Finding]) -> int:
    """0 if all is sound, else that of the worst."""
    codes = [kind.exit_code for kind in _DAMAGE for each in findings if isinstance(each.error, kind)]
    return codes[0] if codes else 0


def check(path: Path, report: Callable[[], None] = lambda: None) -> list[Finding]:
    """Prove everything in the data directory. Raises ConfigInvalid, DataDirInUse, DiskFailed or Corrupt when it cannot
    be looked at."""
    data_dir = InspectedDir(path)
    data_dir.acquire_to_read()
    try:
        return _Check(data_dir, report).run()
    finally:
        data_dir.release()


class _Check:
    """One look at one directory."""

    def __init__(self, data_dir: InspectedDir, report: Callable[[], None]) -> None:
        self._data_dir = data_dir
        self._report = report
        self._findings: list[Finding] = []
        self._cluster_id: int | None = None
        self._started = True
        self._node_id = self._boot_epoch = self._newest_start = 0
        self._good: list[SnapshotMeta] = []
        self._newer = ""
        """Name of the newest snapshot that only a later version can read."""
        self._unreadable = ""
        """Name of the newest snapshot that the disk could not read."""

    def run(self) -> list[Finding]:
        """All parts, in the order in which a start needs them."""
        with self._part("format"):
            self._data_dir.check_format()
        self._identity()
        self._snapshots()
        self._log()
        with self._part("boot epoch"):
            self._check_start()
        return self._findings

    def _identity(self) -> None:
        known = False
        with self._part("identity"):
            found = self._data_dir.identity()
            if found is None:
                self._say("identity", "none yet: the node was never started")
                self._started = False
                return
            known = True
            self._cluster_id = found.cluster_id or None
            cluster = f"of cluster {found.cluster_id}" if found.cluster_id else "of no cluster yet"
            self._say("identity", f"node {found.node_id} {cluster}")
            self._node_id = found.node_id
        with self._part("boot epoch"):
            self._boot_epoch = self._data_dir.boot_epoch()
            self._say("boot epoch", f"started {self._boot_epoch} times")
        with self._part("founding"):
            # Whether a missing one was lost is known from the identity, if that can be read.
            there = known or (self._data_dir.path / "founding.json").exists()
            promise = self._data_dir.founding() if there else None
            if promise is not None:
                self._say(
                    "founding", f"promised to node {promise.initialiser} for cluster {promise.cluster_id}"
                )

    def _snapshots(self) -> None:
        directory = self._data_dir.path / SNAPSHOTS_DIR
        try:
            names = sorted((file.name for file in directory.iterdir()), reverse=True)
        except FileNotFoundError:
            names = []
        except OSError as error:
            self._bad(SNAPSHOTS_DIR, DiskFailed(f"cannot read {directory}: {error.strerror or error}"))
            return
        for name in names:
            part = f"{SNAPSHOTS_DIR}/{name}"
            if name.endswith(UNFINISHED_SUFFIX):
                self._say(part, "was never finished; the next start removes it")
            elif name == ODD_NAME:
                with self._part(part):
                    self._odd(part, directory)
            elif not NAME.fullmatch(name):
                self._say(part, "is no snapshot of a node, and not used")
            else:
                self._snapshot(part, directory / name)

    def _odd(self, part: str, directory: Path) -> None:
        odd = Snapshots(directory, self._cluster_id or 0).odd()
        if odd is not None:
            self._say(
                part,
                f"the state in these snapshots is wrong: {odd.reason}; while the node runs one of the leader's replaces them",
            )

    def _snapshot(self, part: str, path: Path) -> None:
        self._report()
        with self._part(part):
            try:
                meta, machine = load(path, self._cluster_id)
            except NewerFormat:
                self._newer = self._newer or path.name
                raise
            except DiskFailed:
                self._unreadable = self._unreadable or path.name
                raise
            self._newest_start = max(self._newest_start, machine.origins.get(self._node_id, (0, 0))[0])
            keys, revision = len(machine.history.records), machine.revision
            self._say(
                part,
                f"entries up to {meta.index} of term {meta.term}, revision {revision}, {keys} keys, {meta.size} bytes, "
                f"SHA-256 {meta.sha256.hex()}",
            )
            self._good.append(meta)

    def _log(self) -> None:
        if not self._data_dir.log_path.is_dir():
            self._no_log()
            return
        with closing(InspectedLog(self._data_dir.log_path, self._report)) as log, self._part("log"):
            found = log.open()
            purged, last, (term, vote) = found.purged, found.last, found.hard_state
            entries = (
                f"entries {purged.index + 1} to {last.index}" if last.index > purged.index else "no entries"
            )
            behind = f" behind entry {purged.index} of term {purged.term}" if purged.index else ""
            self._say(
                "log",
                f"{entries}{behind}, term {term}, vote {vote or 'none'}; every checksum and the chain hold",
            )
            with self._part("mark"):
                self._mark(found, log)
            self._look_for_starts(found, log)
            with self._part("start"):
                self._say("start", self._beginning(found, log))

    def _look_for_starts(self, found: Recovery, log: InspectedLog) -> None:
        """The newest start of this node that has made an entry of the log."""
        index = found.purged.index + 1
        while index <= found.last.index:
            self._report()
            entries = log.read(index, found.last.index, READ_BYTES)
            own = [boot for node, boot, _ in (each.origin for each in entries) if node == self._node_id]
            self._newest_start = max(self._newest_start, *own, 0)
            index += len(entries)

    def _check_start(self) -> None:
        """A node counts a start before it writes anything. Raises Corrupt."""
        if 0 < self._boot_epoch < self._newest_start:
            raise Corrupt(
                f"boot_epoch.json is an old copy: it counts {self._boot_epoch} starts, and start {self._newest_start} has "
                "written something; put the file back from a copy"
            )

    def _no_log(self) -> None:
        known = Mark()
        with self._part("mark"):
            known = self._known_mark() if self._started else Mark()
        if known != Mark():
            self._bad("log", Corrupt(f"is gone, and the durable mark vouches for entries; {_SUSPECT}"))
        elif self._good:
            self._bad("log", Corrupt(f"is gone, and there are snapshots; {WAY_OUT}"))
        else:
            self._say("log", "none yet: the node has not begun to write")

    def _known_mark(self) -> Mark:
        """What the durable mark says. Raises Corrupt, NewerFormat or DiskFailed."""
        slots = MarkFile(self._data_dir.path / durable_mark.NAME).read()
        if slots is None:
            raise Corrupt(f"{MISSING}; {_SUSPECT}")
        found = newest(slots)
        if found is None:
            raise Corrupt(f"{UNREADABLE}; {_SUSPECT}")
        return found[2]

    def _mark(self, found: Recovery, log: InspectedLog) -> None:
        """What the log-writer finds when it compares the two. Raises Corrupt, NewerFormat or DiskFailed."""
        mark = self._known_mark()
        suspect = mark.suspect or judge(mark, found, log)
        if suspect:
            raise Corrupt(f"{suspect}; {_SUSPECT}")
        (index, term, _), (own_term, vote) = mark.point, mark.hard_state
        self._say(
            "mark",
            f"vouches for entries up to {index} of term {term}, for term {own_term} and vote {vote or 'none'}",
        )

    def _beginning(self, found: Recovery, log: InspectedLog) -> str:
        """What the node would begin with. Raises Corrupt; NewerFormat when a later version may have something, DiskFailed
        when the disk may."""
        for meta in self._good:
            if not found.purged.index <= meta.index <= found.last.index:
                newer = meta.index > found.last.index
                where = (
                    "behind the log, and holds what that has not, or no more" if newer else "before the log"
                )
                self._say(f"{SNAPSHOTS_DIR}/{meta.name}", f"is not used: it ends {where}")
                continue
            here = log.point(meta.index)
            if here == Point(meta.index, meta.term, meta.chain):
                return f"with the snapshot of entry {meta.index}, and {found.last.index - meta.index} entries behind it"
            self._bad(
                f"{SNAPSHOTS_DIR}/{meta.name}",
                Corrupt(f"ends with another entry {meta.index} than the log has: it is of another history"),
            )
        if found.purged.index == 0:
            return f"with an empty store, and {found.last.index} entries of the log"
        if self._unreadable:
            raise DiskFailed(UNREADABLE_IS_LEFT.format(index=found.purged.index, name=self._unreadable))
        if self._newer:
            raise NewerFormat(NEWER_IS_LEFT.format(index=found.purged.index, newer=self._newer))
        raise Corrupt(
            f"the log begins behind entry {found.purged.index}, and no snapshot that reaches there is whole; {WAY_OUT}"
        )

    # ---------------------------------------------------------------- what was found

    @contextmanager
    def _part(self, part: str) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            self._bad(part, error)
        except ConfigInvalid as error:
            self._bad(part, DiskFailed(error.message))

    def _say(self, part: str, said: str) -> None:
        self._findings.append(Finding(part, said))

    def _bad(self, part: str, error: Fatal) -> None:
        self._findings.append(Finding(part, error.message, error))
