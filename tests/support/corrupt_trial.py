"""One trial of `scripts/corruption`: a killed node's directory is damaged in one place, and the node is started on it.

What must hold, whatever the damage:

- It serves what is true: its state machine is that of the entry up to which it has applied, byte for byte, alone and
  after the others have brought it up to date; and every acknowledged write is read from it, also when one of the two
  that had them is gone.
- What it promised counts: its log ends no earlier than it had acknowledged, its term and vote are not older, and what it
  holds is what was written; or it is SUSPECT.
- Or it refuses to start: with the exit code of its error and a message that tells the way out, which is taken, and
  leads back to all of the above; and `node verify` had named the damage before, as it had where the node is SUSPECT or
  passes over a snapshot.

Each trial is a process of its own: a library that ends it is an outcome, too.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import re
import shutil
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from corrupt_damage import damage
from corrupt_origin import CONFIG, VICTIM, Origin, Truth
from stepped_cluster import ClusterNode, DiskNode, SteppedCluster

from danube_raft.errors import DiskFailed, Fatal
from danube_raft.node import data_check
from danube_raft.node.handler import CONSENSUS, LOG
from danube_raft.sim.digest import digest
from danube_raft.wire import local
from danube_raft.wire.entry import HardState

LIMIT_S = 30
"""For one trial. What never ends is shown with where it was."""
CATCH_UP_MS = 20_000
CLEAN, OLDER, SUSPECT, REFUSED = "as usual", "older snapshot", "SUSPECT, caught up", "refused"
"""What may happen. A refusal has its exit code behind it."""
WRONG, LOST = "WRONG READ", "SILENT LOSS"
"""What the sweep is there for."""
MUTE, UNSEEN, STUCK, DIED, BUG = "NO WAY OUT", "VERIFY IS BLIND", "NEVER CAUGHT UP", "DIED", "BUG"
"""What must not happen either: a refusal that helps nobody or leads nowhere, damage that `node verify` calls sound, a node that never
comes back, a process that is killed or ends with something else than an error for people."""
BAD = (WRONG, LOST, MUTE, UNSEEN, STUCK, DIED, BUG)


class Trial(NamedTuple):
    """Which file of a node of which age, what is done to it, and the seed of where."""

    age: str
    kind: str
    damage: str
    seed: str


class Result(NamedTuple):
    """`outcome` is one of those above, `said` what the node or the check said of it, `done` what was damaged."""

    outcome: str
    said: str
    done: str


class _Wrong(Exception):
    """The check found something; (outcome, text)."""


def attempt(trial: Trial, origin: Origin, others: list[ClusterNode], scratch: Path) -> Result:
    """Do it, in this process and below `scratch`, which is empty."""
    path = scratch / "data"
    source, truth = origin.of(trial.age)
    shutil.copytree(source, path)
    done = damage(trial.kind, trial.damage, path, origin.old, Random(trial.seed))
    verified = _verified(path)
    try:
        try:
            outcome, said = _started(path, truth, others)
        except Fatal as error:
            outcome, said = _refused(error, path, source, truth, others)
        if outcome != CLEAN and not verified:
            outcome, said = UNSEEN, f"{outcome}, {said}"
    except _Wrong as wrong:
        outcome, said = wrong.args
    except Exception:  # noqa: BLE001 -- whatever it is, it is the outcome of the trial
        outcome, said = BUG, traceback.format_exc()
    return Result(outcome, said, done)


def _verified(path: Path) -> str:
    """What `node verify` finds, empty if all is sound."""
    try:
        return "; ".join(each.said for each in data_check.check(path) if each.error is not None)
    except Fatal as error:
        return error.message


def _started(path: Path, truth: Truth, others: list[ClusterNode]) -> tuple[str, str]:
    node: DiskNode | None = None
    with _warnings() as warned:
        try:
            # They may have come further, in the trial of a node that ended later.
            now = max([truth.now, *(other.now for other in others)])
            node = _boot(path, now)
            _check_recovered(node, truth)
            _check_log(node, truth)
            _check_state(node, truth)
            cluster = SteppedCluster([node, *others], now)
            _catch_up(cluster, node)
            _check_together(cluster, node, truth)
            _check_without(cluster, node, truth)
        finally:
            if node is not None:
                with contextlib.suppress(Fatal):
                    node.close()
    assert node.said is not None
    if node.said.suspect:
        return SUSPECT, node.said.suspect
    older = [said for said in warned if "cannot be used" in said or "is damaged" in said]
    return (OLDER, older[0]) if older else (CLEAN, "")


def _boot(path: Path, now: int) -> DiskNode:
    """As a supervisor does: a disk that failed gets one more chance."""
    try:
        return DiskNode(VICTIM, CONFIG, now, path)
    except DiskFailed:
        return DiskNode(VICTIM, CONFIG, now, path)


def _refused(
    error: Fatal, path: Path, source: Path, truth: Truth, others: list[ClusterNode]
) -> tuple[str, str]:
    """Do what the message says, and see whether that helps."""
    said = f"{type(error).__name__}: {error.message}"
    file = re.match(r"(\S+\.json) .*; put the file back from a copy", error.message)
    if file is not None:
        shutil.copy(source / Path(file[1]).name, path)
        wanted = CLEAN
    elif "move log/ out of it and start the node again" in error.message:
        shutil.move(path / "log", path.with_name("log-moved"))
        wanted = SUSPECT
    else:
        return MUTE, said
    try:
        found, why = _started(path, truth, others)
    except Fatal as again:
        found, why = f"{type(again).__name__}", again.message
    # A node that had promised nothing has lost nothing.
    if found != wanted and (truth.entries or found != CLEAN):
        return MUTE, f"{said}; after that: {found} {why}"
    return f"{REFUSED} {error.exit_code}", said


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Keep(logging.WARNING)
    logger = logging.getLogger("danube_raft")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)


# ---------------------------------------------------------------- alone


def _check_recovered(node: DiskNode, truth: Truth) -> None:
    """What it promised is there, or it is SUSPECT."""
    said = node.said
    assert said is not None, "the log-writer speaks first"
    if said.suspect:
        return
    last = max(truth.entries, default=0)
    if said.last_index < last:
        raise _Wrong(
            LOST, f"the log ends with entry {said.last_index} of {last}, and the node is not SUSPECT"
        )
    if _older(said.hard_state, truth.hard_state):
        raise _Wrong(LOST, f"term and vote are {said.hard_state}, they were {truth.hard_state}")


def _older(found: HardState, promised: HardState) -> bool:
    return found.term < promised.term or (found.term == promised.term and found.vote != promised.vote)


def _check_log(node: DiskNode, truth: Truth) -> None:
    """Every entry that it has is one that was written there."""
    assert node.said is not None
    index, last = node.said.purged_index + 1, node.said.last_index
    while index <= last:
        node.log.receive(CONSENSUS, local.ReadLog(index, last, 1 << 20), node.now)
        node.log.turn(node.now)
        chunks = [message for _, message in node.log.outbox if isinstance(message, local.LogChunk)]
        node.log.outbox.clear()
        for entry in chunks[0].entries:
            # What is behind that was written after this start.
            if entry.index in truth.entries and entry != truth.entries[entry.index]:
                raise _Wrong(WRONG, f"entry {entry.index} is another one than was written")
            index = entry.index + 1


def _check_state(node: ClusterNode, truth: Truth) -> None:
    """The state machine is that of its applied index, as far as the truth goes."""
    machine = node.machine
    known = truth.states.get(machine.applied_index)
    if known is not None and digest(machine) != known:
        raise _Wrong(WRONG, f"the state at entry {machine.applied_index} is not what it was")


# ---------------------------------------------------------------- with the others


def _catch_up(cluster: SteppedCluster, node: DiskNode) -> None:
    end = cluster.now + CATCH_UP_MS
    while not _is_whole(cluster, node):
        if cluster.now >= end:
            raise _Wrong(STUCK, f"{node.status()}")
        cluster.advance(200)
        _check_state_is_shared(cluster)


def _is_whole(cluster: SteppedCluster, node: DiskNode) -> bool:
    leader = cluster.leader()
    if leader is None or node.status()["suspect"] or not node.open:
        return False
    return bool(node.machine.applied_index == leader.status()["commit_index"])


def _check_state_is_shared(cluster: SteppedCluster) -> None:
    found: dict[int, str] = {}
    for node in cluster.up():
        state = digest(node.machine)
        if found.setdefault(node.machine.applied_index, state) != state:
            raise _Wrong(WRONG, f"two nodes differ at entry {node.machine.applied_index}")


def _check_together(cluster: SteppedCluster, node: DiskNode, truth: Truth) -> None:
    """Everything that clients were told is read from it; what they write now arrives there too."""
    _check_reads(cluster, node, truth)
    for asked in (cluster.await_leader(), node):
        for number in range(3):
            status, *found = cluster.ask(asked, "put", f"/new/{asked.node_id}", b"%d" % number)
            if status:
                raise _Wrong(STUCK, f"a write through node {asked.node_id} got {status} {found}")
    _catch_up(cluster, node)
    _check_state_is_shared(cluster)


def _check_without(cluster: SteppedCluster, node: DiskNode, truth: Truth) -> None:
    """With one of the others it is a majority that has everything, whichever of the two leads."""
    cluster.down = {2}
    cluster.await_leader(other_than=2)
    _catch_up(cluster, node)
    _check_reads(cluster, node, truth)
    _check_state_is_shared(cluster)


def _check_reads(cluster: SteppedCluster, node: DiskNode, truth: Truth) -> None:
    for key, value in truth.held.items():
        status, _, *found = cluster.ask(node, "get", key, consistency="linearizable")
        if status or found[0] is None or found[0][1] != value:
            raise _Wrong(WRONG, f"{key} is read as {status} {found}, and {value!r} was acknowledged")


# ---------------------------------------------------------------- a process of its own


def fork(trial: Trial, origin: Origin, others: list[ClusterNode], scratch: Path) -> int:
    """Begin the trial in a child, which writes its result to `scratch`; its pid. This process must have no threads."""
    scratch.mkdir()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(LIMIT_S)
        with (scratch / "output").open("wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        faulthandler.dump_traceback_later(LIMIT_S - 5)
        result = attempt(trial, origin, others, scratch)
        (scratch / "result").write_text(json.dumps(result))
        code = 0
    finally:
        os._exit(code)


def result_of(scratch: Path, status: int) -> Result:
    """What the child has left, which ended with that status of `waitpid`."""
    file = scratch / "result"
    if os.waitstatus_to_exitcode(status) == 0:
        result = Result(*json.loads(file.read_text()))
    else:
        code = os.waitstatus_to_exitcode(status)
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        output = (scratch / "output").read_text(errors="replace")
        result = Result(DIED, f"ended by {ended}: {output[-1_500:]}", "")
    shutil.rmtree(scratch)
    return result


__all__ = ["BAD", "LOG", "Result", "Trial", "fork", "result_of"]
