"""A sample of `scripts/corruption`: one file of one node of three is damaged, and nothing is read wrong or lost in
silence. See `corrupt_trial.py` for what must hold.

It runs as a program: it forks, which a process that has had a RocksDB open must not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 170
SAMPLE = 9
"""Each so many of the files and damages; the script tries all, several times."""

pytestmark = pytest.mark.timeout(LIMIT_S + 10)

BROKEN = """
import sys
import corrupt_trial
from danube_raft.storage import mark_keeper
from danube_raft.storage.log_store import RocksLogStore

import runpy

real = corrupt_trial.attempt


def attempt(*given):
    {patch}
    return real(*given)


corrupt_trial.attempt = attempt
sys.argv[:] = ["corruption", *sys.argv[1:]]
runpy.run_path("tests/storage/corruption/__main__.py", run_name="__main__")
"""
NO_MARK = "mark_keeper.judge = lambda *_: ''"
OTHER_BYTES = (
    "read = RocksLogStore.read; "
    "RocksLogStore.read = lambda *given: tuple(each._replace(payload=each.payload + b'?') for each in read(*given))"
)


def swept(*arguments: str, program: str = "") -> tuple[int, str]:
    """The command's exit code and what it prints."""
    front = ["-c", program] if program else ["tests/storage/corruption"]
    done = subprocess.run(
        [sys.executable, *front, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:tests/support"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_damaged_file_is_read_right_or_not_at_all() -> None:
    code, said = swept("--per-kind", "1", "--every", str(SAMPLE))
    assert code == 0, said
    assert "SUSPECT, caught up" in said
    assert "refused 11" in said


@pytest.mark.parametrize(
    ("patch", "kind", "damage", "outcome"),
    [
        (NO_MARK, "grown log: WAL", "cut in half", "SILENT LOSS"),
        (OTHER_BYTES, "grown lock", "cut to 0", "WRONG READ"),
    ],
)
def test_a_node_that_does_not_check_is_noticed(patch: str, kind: str, damage: str, outcome: str) -> None:
    """The sweep itself: without the mark's verdict, and with a log that gives out other bytes than it was given."""
    program = BROKEN.format(patch=patch)
    code, said = swept("--per-kind", "1", "--kind", kind, "--damage", damage, program=program)
    assert code == 1, said
    assert f"{outcome}: {kind}, {damage}" in said
    assert f"1 {outcome}" in said


def test_what_there_is_none_of_is_wrong_usage() -> None:
    code, said = swept("--kind", "no such file")
    assert code == 2
    assert "grown log: WAL" in said
