"""Trials of `scripts/corruption --real`: one of three real nodes is killed while clients write, a file of its directory is
damaged, and it is started again as a user would.

Either it serves again, agrees with the others and is not SUSPECT any more; or it ends with its exit code, `node verify`
has named the damage, and what its last line tells to do brings it back. Histories of what all the clients saw are
checked like those of any other fault (`history_checks.py`): no wrong read, nothing acknowledged lost.
"""

from __future__ import annotations

import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Self

from corrupt_damage import OLD_COPY, damage, kinds, names
from corrupt_trial import BUG, CLEAN, LOST, MUTE, OLDER, REFUSED, STUCK, SUSPECT, UNSEEN, Result, Trial
from history import History
from history_checks import Fault, check_history
from real_cluster import ClusterNode, RealCluster

SETTINGS: dict[str, Any] = {
    "snapshot_log_bytes": 60_000,
    "snapshot_rest_max_ms": 500,
    "snapshot_tail_entries": 20,
    "ballast_bytes": 1 << 20,
}
REAL = "real"
ENDS_WAIT_S = 60.0
VERIFY_LIMIT_S = 60
NOT_THERE = "not there"
HISTORY_TRIALS = 12
"""So many trials share one history: its checks take time with the square of its length."""


class _Ended(NamedTuple):
    """How a start went: code None, it serves."""

    code: int | None
    said: str


class RealTrials:
    """One cluster, and one trial after the other on it. Use it in a `with`."""

    def __init__(self, scratch: Path, seed: int) -> None:
        self._scratch = scratch
        self._random = Random(seed)
        self._cluster = RealCluster(scratch, **SETTINGS)
        self._history: History | None = None
        self._faults: list[Fault] = []
        self._trials = 0
        self._turn = 0

    def __enter__(self) -> Self:
        self._cluster.__enter__()
        try:
            self._live()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _live(self) -> None:
        """Until there is something of everything, and an old copy of it."""
        self._begin_history()
        self._cluster.until(
            lambda: all(
                len(list((node.data_dir / "snapshots").glob("*.snap"))) > 1 for node in self._cluster.nodes
            ),
            "two snapshots of every node",
        )
        for node in self._cluster.nodes:
            with _killed(node):
                _copy(node.data_dir, self._old(node))
            self._cluster.restart(node)
        self._cluster.await_whole()

    def __exit__(self, *_: object) -> None:
        if self._history is not None:
            self._history.close()
        self._cluster.close()

    def plan(self, kind: str, damage_name: str) -> list[tuple[str, str]]:
        """Kinds and damages whose names have these in them."""
        node = self._cluster.nodes[0]
        with _killed(node):
            found = [
                (each, name)
                for each, paths in kinds(node.data_dir).items()
                for name in names(each, paths, node.data_dir, self._old(node))
                if kind.lower() in f"{REAL} {each}".lower() and damage_name.lower() in name.lower()
                # Whether a file of that name is still there differs from node to node.
                if not (name == OLD_COPY and each.startswith(("log: ", "newest", "older")))
            ]
        self._cluster.restart(node)
        return found

    def attempt(self, trial: Trial) -> Result:
        """One of the nodes; each in its turn."""
        node = self._cluster.nodes[self._turn % len(self._cluster.nodes)]
        self._turn += 1
        begun = time.monotonic()
        with _killed(node):
            backup = self._scratch / "backup"
            shutil.rmtree(backup, ignore_errors=True)
            _copy(node.data_dir, backup)
            paths = kinds(node.data_dir).get(trial.kind, [])
            there = paths and trial.damage in names(trial.kind, paths, node.data_dir, self._old(node))
            if there:
                done = damage(trial.kind, trial.damage, node.data_dir, self._old(node), Random(trial.seed))
                verified = _verify(node)
        if not there:
            # It was there on the node for which this was planned.
            self._cluster.restart(node)
            return Result(NOT_THERE, "", node.name)
        before = len(node.log_path.read_text())
        lifted = time.monotonic()
        try:
            outcome, said = self._started(node, before, verified, backup)
            self._cluster.await_whole()
        except AssertionError as error:
            outcome, said = STUCK, f"{error} {node.log_path.read_text()[before:][-2_000:]}"
        self._faults.append(Fault(begun, lifted, time.monotonic()))
        self._trials += 1
        wrong = self.check() if self._trials % HISTORY_TRIALS == 0 else ""
        if wrong:
            return Result(LOST, wrong, done)
        return Result(outcome, said, f"{node.name}: {done}")

    def check(self) -> str:
        """What is wrong with the history so far, empty if nothing is; another one begins."""
        assert self._history is not None
        history, self._history = self._history, None
        try:
            history.finish()
            check_history(history, self._faults)
        except AssertionError as error:
            return f"the history of the last {HISTORY_TRIALS} trials: {error}"
        finally:
            history.close()
        self._begin_history()
        return ""

    def _begin_history(self) -> None:
        self._faults.clear()
        self._history = History(f"h{self._trials}", self._cluster.endpoints).start()

    def _old(self, node: ClusterNode) -> Path:
        return self._scratch / f"{node.name}.old"

    def _started(self, node: ClusterNode, before: int, verified: str, backup: Path) -> tuple[str, str]:
        ended = _start(node)
        outcome, said = CLEAN, ""
        if ended.code is not None:
            outcome, said = self._refused(node, ended, backup)
        self._cluster.until(
            lambda: (status := self._cluster.status(node)) and status["suspect"] == "", "the end of SUSPECT"
        )
        log = node.log_path.read_text()[before:]
        if outcome == CLEAN:
            suspect = re.search(r"SUSPECT: .*", log)
            older = re.search(r"snapshot .* (cannot be used|is damaged).*", log)
            if suspect or older:
                outcome, said = (SUSPECT, suspect[0]) if suspect else (OLDER, older[0] if older else "")
        if "Traceback" in log:
            return BUG, log[log.index("Traceback") :][:2_000]
        return (
            (UNSEEN, f"{outcome}: {said}")
            if outcome not in (CLEAN, MUTE) and not verified
            else (outcome, said)
        )

    def _refused(self, node: ClusterNode, ended: _Ended, backup: Path) -> tuple[str, str]:
        file = re.search(r"(\S+\.json) .*; put the file back from a copy", ended.said)
        if file is not None:
            shutil.copy(backup / Path(file[1]).name, node.data_dir)
        elif "move log/ out of it and start the node again" in ended.said:
            shutil.move(node.data_dir / "log", self._scratch / f"log-moved-{self._turn}")
        else:
            self._repair(node, backup)
            return MUTE, f"{ended.code}: {ended.said}"
        again = _start(node)
        if again.code is not None:
            self._repair(node, backup)
            return MUTE, f"{ended.said}; after that: {again.said}"
        return f"{REFUSED} {ended.code}", ended.said

    def _repair(self, node: ClusterNode, backup: Path) -> None:
        """For the trials to come."""
        shutil.rmtree(node.data_dir)
        _copy(backup, node.data_dir)
        assert _start(node).code is None, node.log_path.read_text()[-2_000:]


def _copy(source: Path, target: Path) -> None:
    """Without the sockets of its processes."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("run"))


@contextmanager
def _killed(node: ClusterNode) -> Iterator[None]:
    node.kill_all()
    node.forget_output()
    yield


def _start(node: ClusterNode) -> _Ended:
    """Start it, and wait until it serves or has ended."""
    process = node.spawn()
    assert process.stdout is not None
    if _speaks(process):
        assert process.stdout.readline().startswith(b"ready")
        node.saw(node.family())
        return _Ended(None, "")
    code = process.wait(ENDS_WAIT_S)
    return _Ended(code, node.log_path.read_text().strip().splitlines()[-1])


def _speaks(process: subprocess.Popen[bytes]) -> bool:
    """Whether the ready line came before the end of the process."""
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    found = poll.poll(ENDS_WAIT_S * 1_000)
    assert found, f"neither ready nor ended after {ENDS_WAIT_S} s"
    return bool(found[0][1] & select.POLLIN)


def _verify(node: ClusterNode) -> str:
    """What `node verify` says if there is any damage, empty if all is sound."""
    done = subprocess.run(
        node.command("node", "verify", "--data-dir", str(node.data_dir)),
        capture_output=True,
        text=True,
        timeout=VERIFY_LIMIT_S,
        check=False,
        env=node.environment,
    )
    return (done.stdout + done.stderr) if done.returncode else ""
