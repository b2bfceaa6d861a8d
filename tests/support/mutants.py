"""Faults of the product that were made on purpose, each one a file of `tests/sim/mutants`, and the copies they live in.

A mutant is a change that somebody tired could make. The file says which row of PITFALLS.md it belongs to, what goes
wrong because of it, and which text of which file becomes which other text:

    row = 12
    fault = "A leader commits entries of older terms as soon as a majority holds them."
    tests = ["tests/node/test_reads.py"]     # optional: unit tests beside those of raft/ and kv/, run first

    [[change]]                               # one or more
    file = "danube_raft/raft/leader.py"
    old = '''text that occurs exactly once'''
    new = '''text in its place'''

The product itself is never touched: changes are made in a copy that has all that the tests need.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
MUTANTS = ROOT / "tests" / "sim" / "mutants"

ROWS = range(1, 49)
"""The numbered rows of PITFALLS.md."""
COPIED = ("danube_raft", "tests", "pyproject.toml")


class BadMutant(Exception):
    """The file is not a mutant, or its change does not fit the product any more."""


class Change(NamedTuple):
    """`old`, which occurs once in `file`, becomes `new`. `file` is relative to the root of the tree."""

    file: str
    old: str
    new: str


class Mutant(NamedTuple):
    """One fault. `tests`: paths of unit tests that are run before those of raft/ and kv/."""

    name: str
    row: int
    fault: str
    changes: tuple[Change, ...]
    tests: tuple[str, ...]


UNCHANGED = Mutant("unchanged", 0, "none: the product as it is, which nothing may catch", (), ())


def files() -> list[Path]:
    """The files of all mutants, by name."""
    return sorted(MUTANTS.glob("*.toml"))


def load(path: Path) -> Mutant:
    """The mutant of a file. Raises BadMutant when the file does not say what it must."""
    try:
        fields = tomllib.loads(path.read_text())
        mutant = Mutant(
            path.stem,
            fields.pop("row"),
            fields.pop("fault"),
            tuple(Change(**change) for change in fields.pop("change")),
            tuple(fields.pop("tests", ())),
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise BadMutant(f"{path}: {error!r}") from error
    trouble = _trouble(mutant) or (f"nothing is known of {', '.join(fields)}" if fields else "")
    if trouble:
        raise BadMutant(f"{path}: {trouble}")
    return mutant


def _trouble(mutant: Mutant) -> str:
    if mutant.row not in ROWS:
        return f"row {mutant.row!r} is not one of PITFALLS.md"
    if not isinstance(mutant.fault, str) or not mutant.fault.endswith("."):
        return "`fault` is not a sentence"
    if not mutant.changes:
        return "it changes nothing"
    same = [change.file for change in mutant.changes if change.old == change.new]
    return f"the change of {same[0]} changes nothing" if same else ""


def changed(mutant: Mutant, root: Path) -> dict[str, str]:
    """The text of each file that the mutant changes, as it is then. Raises BadMutant unless every change fits once."""
    texts: dict[str, str] = {}
    for change in mutant.changes:
        try:
            text = texts[change.file] if change.file in texts else (root / change.file).read_text()
        except OSError as error:
            raise BadMutant(f"{mutant.name}: {error}") from error
        found = text.count(change.old)
        if found != 1:
            raise BadMutant(
                f"{mutant.name}: its old text is {found} times in {change.file}, not once:\n{change.old}"
            )
        texts[change.file] = text.replace(change.old, change.new)
    return texts


def make_copy(mutant: Mutant, copy: Path) -> None:
    """Put a tree with the fault, and with the tests, into the empty directory `copy`. Raises BadMutant."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    for file, text in changed(mutant, copy).items():
        (copy / file).write_text(text)
