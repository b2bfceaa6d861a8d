"""A sample of `scripts/crashpoints`: crashes at durable calls of the real log-writer and snapshot files, and what each
kind of power failure leaves. See `crash_trial.py` for what must hold.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_image import GARBAGE, HALVED, KEPT, LOST, Durable, compose
from crash_trial import BEFORE, Crash, build_shim, find, judge, run
from crash_workload import numbered, states

SAMPLE = 17
"""Each so many calls; the script tries all."""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = build_shim(tmp_path_factory.mktemp("shim"))
    if found is None:
        pytest.skip("no C compiler here")
    return found


def test_without_a_crash_everything_is_there(shim: Path, tmp_path: Path) -> None:
    promised, calls = run(shim, tmp_path / "work", None)
    found = find(tmp_path / "work" / "root")
    end = states()[-1]
    assert (found.hard_state, found.purged, found.entries) == (end.hard_state, end.purged, end.entries)
    assert promised == max(number for together in numbered() for number, _ in together)
    assert calls > 100


def test_what_was_promised_survives_a_crash_at_any_call(shim: Path, tmp_path: Path) -> None:
    _, calls = run(shim, tmp_path / "work", None)
    for number in range(1, calls + 1, SAMPLE):
        crash = Crash(number, BEFORE if number % 2 else "after")
        promised, _ = run(shim, tmp_path / "work", crash)
        assert judge(tmp_path / "work", crash, promised) == []


def test_a_promise_that_was_not_kept_is_noticed(shim: Path, tmp_path: Path) -> None:
    """The harness itself: more is claimed to have been promised than was done."""
    crash = Crash(60, BEFORE)
    promised, _ = run(shim, tmp_path / "work", crash)
    problems = judge(tmp_path / "work", crash, promised + 3)
    assert len(problems) == 4


@pytest.mark.parametrize(
    ("tail", "content"),
    [(KEPT, b"synced, not"), (LOST, b"synced"), (HALVED, b"synced, "), (GARBAGE, None)],
)
def test_what_was_not_synced_is_there_or_not(tail: str, content: bytes | None, tmp_path: Path) -> None:
    root, shadow = tmp_path / "root", tmp_path / "shadow"
    root.mkdir()
    shadow.mkdir()
    file = root / "a"
    file.write_bytes(b"synced, not")
    (root / "unnamed").write_bytes(b"x")
    (shadow / "1.img").write_bytes(b"synced")
    inode = file.stat().st_ino
    (shadow / "events").write_text(f"S 1 {inode} {file}\nD {root}|a:{inode}\n")
    compose(tail, root, Durable(shadow), tmp_path / "found", 3)
    found = (tmp_path / "found" / "a").read_bytes()
    if content is None:
        assert found[:6] == b"synced"
        assert len(found) == 11
        assert found != b"synced, not"
    else:
        assert found == content
    assert (tmp_path / "found" / "unnamed").exists() == (tail != LOST)


@pytest.mark.parametrize(
    ("synced", "wanted"),
    [
        ([], []),
        (["log"], ["log"]),
        (["log/deep"], []),
        (["log", "log/deep"], ["log", "log/deep", "log/deep/a"]),
    ],
)
def test_a_directory_whose_making_was_not_synced_is_lost_with_all_that_is_in_it(
    synced: list[str], wanted: list[str], tmp_path: Path
) -> None:
    """However durable that is in itself."""
    root, shadow, found = tmp_path / "root", tmp_path / "shadow", tmp_path / "found"
    file = root / "log" / "deep" / "a"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"synced")
    shadow.mkdir()
    (shadow / "1.img").write_bytes(b"synced")
    inode = file.stat().st_ino
    events = [f"S 1 {inode} {file}", f"D {file.parent}|a:{inode}"]
    for name in synced:
        made = root / name
        events += [f"D {made.parent}|{made.name}/:{made.stat().st_ino}"]
    (shadow / "events").write_text("\n".join(events))
    compose(LOST, root, Durable(shadow), found, 3)
    assert sorted(str(path.relative_to(found)) for path in found.rglob("*")) == wanted
