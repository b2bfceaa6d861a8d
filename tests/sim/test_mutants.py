"""The mutants fit the product, and what tries them out tells caught from survived.

Whether each of them is caught takes half an hour and is asked with `scripts/mutants`; here they must only be there,
apply and compile, and the command must be believable: it says SURVIVED where nothing changed, and takes neither a
mutant that cannot start nor a broken product for a success.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import trials
from mutants import MUTANTS, ROOT, UNCHANGED, BadMutant, Change, Mutant, changed, files, load
from trials import Children, Plan, Stopped, Verdict, attempt

COMMAND = [sys.executable, str(MUTANTS)]
LEAST = 25
QUORUM = "danube_raft/raft/quorum.py"
QUORUM_TESTS = "tests/raft/test_quorum.py"
MAJORITY = "    majority = len(voters) // 2 + 1\n"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    with subprocess.Popen(
        [*COMMAND, "--jobs", "1", *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "tests" / "support")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        try:
            said = command.communicate(timeout=100)
        except BaseException:
            # It ends its trials, which a kill would leave behind.
            command.terminate()
            raise
    return subprocess.CompletedProcess(command.args, command.returncode, *said)


def mutant(new: str) -> Mutant:
    """With that line where majorities are counted."""
    return Mutant("planted", 20, "Planted by a test.", (Change(QUORUM, MAJORITY, new),), ())


def written(directory: Path, new: str, old: str = MAJORITY) -> str:
    path = directory / "planted.toml"
    change = f"file = {QUORUM!r}\nold = '''\n{old}'''\nnew = '''\n{new}'''\n"
    path.write_text(f"row = 20\nfault = 'Planted by a test.'\n[[change]]\n{change}")
    return str(path)


# ---------------------------------------------------------------- the files


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_a_mutant_fits_the_product_and_compiles(path: Path) -> None:
    found = load(path)
    for file, text in changed(found, ROOT).items():
        assert file.startswith("danube_raft/"), "only the product is changed"
        assert not file.startswith("danube_raft/sim/"), "what looks for faults has to be whole"
        compile(text, file, "exec")
    assert all((ROOT / test).is_file() for test in found.tests)


def test_names_begin_with_the_row_and_there_are_enough() -> None:
    found = [load(path) for path in files()]
    assert len(found) >= LEAST
    for each in found:
        number = re.match(r"(\d\d)[b-z]?-[a-z0-9-]+$", each.name)
        assert number is not None, each.name
        assert int(number[1]) == each.row
    numbers = [each.name.split("-")[0] for each in found]
    assert len(set(numbers)) == len(numbers), "a number names one mutant"
    assert len({each.changes for each in found}) == len(found)


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("row = 20\nfault = 'F.'", "change"),
        ("row = 99\nfault = 'F.'\n[[change]]\nfile = 'f'\nold = 'a'\nnew = 'b'", "row 99"),
        ("row = 20\nfault = 'F'\n[[change]]\nfile = 'f'\nold = 'a'\nnew = 'b'", "not a sentence"),
        ("row = 20\nfault = 'F.'\nchange = []", "changes nothing"),
        ("row = 20\nfault = 'F.'\n[[change]]\nfile = 'f'\nold = 'a'\nnew = 'a'", "changes nothing"),
        ("row = 20\nfault = 'F.'\n[[change]]\nfile = 'f'\nold = 'a'", "new"),
        ("row = 20\nfault = 'F.'\nlevel = 1\n[[change]]\nfile = 'f'\nold = 'a'\nnew = 'b'", "level"),
        ("row = ", "Invalid value"),
    ],
)
def test_a_file_that_is_no_mutant_is_refused(tmp_path: Path, text: str, trouble: str) -> None:
    path = tmp_path / "20-some.toml"
    path.write_text(text)
    with pytest.raises(BadMutant, match=trouble):
        load(path)


@pytest.mark.parametrize("old", ["no such text", "voters"])
def test_a_change_that_does_not_fit_exactly_once_is_refused(old: str) -> None:
    with pytest.raises(BadMutant, match="times in"):
        changed(mutant("")._replace(changes=(Change(QUORUM, old, ""),)), ROOT)


# ---------------------------------------------------------------- the command


def test_a_fault_is_caught_and_named() -> None:
    done = run("20-half-is-a-majority-of-votes", "--only", "unit", "--tests", QUORUM_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith(
        "20-half-is-a-majority-of-votes (row 20): caught by tests/raft/test_quorum.py::test_tally"
    )
    assert last == "1 mutants: 1 caught by unit tests, 0 by the simulator, 0 survived"


def test_what_nobody_notices_survives_and_fails_the_command(tmp_path: Path) -> None:
    """A change of no consequence, looked at by tests and by a world."""
    equal = written(tmp_path, "    majority = 1 + len(voters) // 2\n")
    done = run(equal, "--seeds", "1", "--tests", QUORUM_TESTS)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "planted (row 20): SURVIVED",
        "1 mutants: 0 caught by unit tests, 0 by the simulator, 1 survived",
    ]


def test_a_mutant_that_does_not_fit_or_cannot_start_is_an_error_and_not_a_catch(tmp_path: Path) -> None:
    done = run(written(tmp_path, "    majority = \n"), "--only", "unit", "--tests", QUORUM_TESTS)
    assert (done.returncode, done.stdout) == (2, "")
    assert "tests cannot be run" in done.stderr
    done = run(written(tmp_path, "", "this is not there\n"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "0 times in danube_raft/raft/quorum.py" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("--seeds", "0"), ("--jobs", "0"), ("--only", "luck"), ("no-such-mutant",)]
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Where the shell has put the tests into the background, interrupts are ignored, and so they would be by children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_ends_what_is_running(tmp_path: Path) -> None:
    endless = written(tmp_path, "    while True:\n        majority = 1\n")
    with subprocess.Popen(
        [*COMMAND, endless, "--only", "unit", "--tests", QUORUM_TESTS],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "tests" / "support")},
        stderr=subprocess.PIPE,
    ) as command:
        running = psutil.Process(command.pid)
        children: list[psutil.Process] = []
        while not children:
            assert command.poll() is None
            children = running.children()
        command.send_signal(signal.SIGINT)
        try:
            assert command.wait(30) == 130
        finally:
            command.terminate()
        assert psutil.wait_procs(children, timeout=10)[1] == []


# ---------------------------------------------------------------- verdicts


def test_the_simulator_catches_and_says_after_how_many_worlds() -> None:
    """Here each node is a majority by itself."""
    verdict = attempt(mutant("    majority = 1\n"), Plan((), 3), Children())
    assert verdict.by == "simulator"
    assert re.match(r"the simulator after [123] seeds: \w+: .", verdict.what), verdict.what


def test_what_does_not_end_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SEED_LIMIT_S", 1)
    monkeypatch.setattr(trials, "UNIT_LIMIT_S", 1.5)
    endless = mutant("    while True:\n        majority = 1\n")
    assert attempt(endless, Plan((), 3), Children()) == Verdict(
        endless, "simulator", "the simulator after 1 seeds: Endless: it did not end"
    )
    verdict = attempt(endless, Plan((QUORUM_TESTS,), 0), Children())
    assert verdict.by == "unit"
    assert verdict.what.endswith("which did not end")


def test_nothing_starts_after_the_end() -> None:
    children = Children()
    children.kill()
    with pytest.raises(Stopped):
        attempt(UNCHANGED, Plan((QUORUM_TESTS,), 0), children)


def test_a_product_that_fails_unchanged_is_said_aloud() -> None:
    assert Verdict(UNCHANGED, "unit", "some test").line() == "the unchanged product: FAILS some test"
    assert Verdict(UNCHANGED, "", "").line() == "the unchanged product: passes"
