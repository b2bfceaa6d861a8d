"""One crash: the workload is ended at one durable call; then, for each way in which the power may have gone out, the
node's own code opens what is left, and what it finds is compared with what had been promised.

Invariant: whatever was promised before the crash is there after it, exactly; what was not promised is there as a whole
(one step after the other) or not at all; and nothing that is there is doubted, since no disk has lied.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from crash_image import TAILS, Durable, compose
from crash_workload import CLUSTER_ID, NODE_ID, State, begin, log_writer, starts, states

from danube_raft.errors import DanubeRaftError
from danube_raft.node.handler import CONSENSUS
from danube_raft.storage.data_dir import DataDir
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import local
from danube_raft.wire.entry import Entry, HardState

HERE = Path(__file__).parent
BEFORE, AFTER = WHEN = ("before", "after")
LIMIT_S = 60
STRANGER = NODE_ID + 1
"""Id of the node that begins where nothing was found."""
_STATES = states()
_STARTS = starts()


class Crash(NamedTuple):
    """End at the `call`-th durable call, `when` it begins (before) or when it is over (after)."""

    call: int
    when: str


class Unusable(Exception):
    """What was found cannot be what any crash leaves."""


class Found(NamedTuple):
    """What a node that starts finds."""

    node_id: int
    boot_epoch: int
    hard_state: HardState
    purged: int
    last: int
    entries: dict[int, Entry]
    suspect: str
    snapshots: tuple[tuple[int, int], ...]


def build_shim(directory: Path) -> Path | None:
    """The library to be loaded into the workload; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = directory / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "crash_shim.c"), "-ldl"]
    subprocess.run(command, check=True, timeout=LIMIT_S)
    return library


def run(shim: Path, work: Path, crash: Crash | None) -> tuple[int, int]:
    """Do the workload in `work`, which is made anew. Returns how many steps were promised, all before the highest one
    included, and how many durable calls there were (0 after a crash)."""
    shutil.rmtree(work, ignore_errors=True)
    for name in ("root", "shadow"):
        (work / name).mkdir(parents=True)
    around = {
        "LD_PRELOAD": str(shim),
        "CRASH_ROOT": str(work / "root"),
        "CRASH_SHADOW": str(work / "shadow"),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    if crash is not None:
        around |= {"CRASH_AT": str(crash.call), "CRASH_WHEN": crash.when}
    command = [sys.executable, str(HERE / "crash_workload.py"), str(work / "root"), str(work / "source")]
    done = subprocess.run(
        command,
        env=os.environ | around,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        start_new_session=True,
    )
    wanted = 0 if crash is None else -9
    assert done.returncode == wanted, f"the workload ended with {done.returncode}: {done.stderr}"
    promised = max(map(int, done.stdout.split()), default=0)
    calls = work / "shadow" / "calls"
    return promised, int(calls.read_text()) if calls.exists() else 0


def judge(work: Path, crash: Crash, promised: int) -> list[str]:
    """What is wrong with what a node finds after `crash`, for each tail."""
    durable = Durable(work / "shadow")
    problems = []
    for tail in TAILS:
        target = work / "found"
        shutil.rmtree(target, ignore_errors=True)
        compose(tail, work / "root", durable, target, crash.call)
        problem = _problem(target, promised)
        if problem:
            problems.append(
                f"call {crash.call} {crash.when}, tail {tail}, {promised} steps promised: {problem}"
            )
    return problems


def _problem(target: Path, promised: int) -> str | None:
    try:
        found = find(target)
    except (DanubeRaftError, Unusable) as error:
        return f"{type(error).__name__}: {error}"
    if found.suspect:
        return f"SUSPECT without a reason: {found.suspect}"
    starts = _STARTS[promised]
    if promised and (found.node_id != NODE_ID or found.boot_epoch <= starts):
        return f"found node {found.node_id} at its start {found.boot_epoch}; wanted {NODE_ID}, started {starts} times"
    if not any(_fits(found, state) for state in _STATES[promised:]):
        wanted = _STATES[promised]
        return (
            f"found {found.hard_state}, log {found.purged}..{found.last}; wanted at least {wanted.hard_state}, "
            f"{wanted.purged}..{max(wanted.entries, default=wanted.purged)}"
        )
    newest = _STATES[promised].snapshots[-1:]
    if any(snapshot not in found.snapshots for snapshot in newest):
        return f"snapshots {found.snapshots}, wanted {newest}"
    return None


def find(target: Path) -> Found:
    """Start on a directory and look at everything. Raises what a node would end with."""
    data_dir = DataDir(target)
    try:
        identity, boot_epoch = begin(data_dir, STRANGER)
    finally:
        data_dir.release()
    snapshots = Snapshots(target / "snapshots", CLUSTER_ID)
    snapshots.open()
    writer = log_writer(target)
    try:
        writer.start(0)
        recovered = writer.outbox.pop()[1]
        assert isinstance(recovered, local.Recovered)
        first, last = recovered.purged_index + 1, recovered.last_index
        entries: dict[int, Entry] = {}
        while first + len(entries) <= last:
            writer.receive(CONSENSUS, local.ReadLog(first + len(entries), last, 1 << 20), 0)
            writer.turn(0)
            chunk = writer.outbox.pop()[1].entries
            if not chunk:
                raise Unusable(f"entry {first + len(entries)} cannot be read")
            entries |= {each.index: each for each in chunk}
        candidates, skipped = snapshots.newest()
        if skipped:
            raise Unusable(f"half a snapshot has a name: {skipped}")
        for meta in candidates:
            snapshots.verify(meta)
    finally:
        writer.close()
    places = tuple((meta.index, meta.term) for meta in candidates)
    return Found(
        identity.node_id,
        boot_epoch,
        recovered.hard_state,
        recovered.purged_index,
        last,
        entries,
        recovered.suspect,
        places,
    )


def _fits(found: Found, state: State) -> bool:
    """A purge alone may be forgotten, so the log may begin earlier."""
    end = max(state.entries, default=state.purged)
    return (
        found.hard_state == state.hard_state
        and found.last == end
        and found.purged <= state.purged
        and all(found.entries.get(index) == each for index, each in state.entries.items())
    )
