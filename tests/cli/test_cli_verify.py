"""`node verify`: a data directory is proven part by part, nothing in it is touched, and the exit code tells."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_dirs import CLUSTER, ENTRIES, NODE, history, made

from danube_raft.errors import DiskFailed
from danube_raft.node import data_check
from danube_raft.storage.data_dir import DataDir
from danube_raft.storage.log_store import RocksLogStore
from danube_raft.storage.snapshot_file import MAGIC, SnapshotMeta, SnapshotWriter, read
from danube_raft.storage.snapshot_store import Odd
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import local
from danube_raft.wire.entry import HardState

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("sound") / "data")


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    """A directory of its own for each test."""
    shutil.copytree(sound, tmp_path / "data")
    return tmp_path / "data"


def files(path: Path) -> dict[str, tuple[int, int, str]]:
    """Every file: time of its last change, size, digest."""
    return {
        str(file.relative_to(path)): (
            file.stat().st_mtime_ns,
            file.stat().st_size,
            hashlib.sha256(file.read_bytes()).hexdigest(),
        )
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def shown(run: Run, path: Path, code: int) -> dict[str, tuple[str, str]]:
    """State and text of each part, after a look that has changed nothing."""
    before = files(path)
    done = run("node", "verify", "--data-dir", str(path), "-o", "json")
    assert files(path) == before
    assert (done.code, done.err) == (code, "")
    assert done.json["sound"] is (code == 0)
    return {part["part"]: (part["state"], part["said"]) for part in done.json["parts"]}


def snapshot(path: Path, index: int) -> Path:
    return next((path / "snapshots").glob(f"*-{index:020d}.snap"))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def test_a_sound_directory_is_shown_and_not_touched(run: Run, data: Path) -> None:
    parts = shown(run, data, 0)
    assert {state for state, _ in parts.values()} == {"ok"}
    assert parts["identity"][1] == f"node {NODE} of cluster {CLUSTER}"
    assert parts["boot epoch"][1] == "started 1 times"
    assert parts["log"][1].startswith(
        f"entries 21 to {ENTRIES} behind entry 20 of term 3, term 3, vote {NODE};"
    )
    assert parts["mark"][1] == f"vouches for entries up to {ENTRIES} of term 3, for term 3 and vote {NODE}"
    assert parts["start"][1] == "with the snapshot of entry 30, and 10 entries behind it"
    assert sum(part.startswith("snapshots/") for part in parts) == 2
    done = run("node", "verify", "--data-dir", str(data))
    assert done.out.endswith("\nsound\n")


def test_a_log_whose_end_lies_in_the_write_ahead_log_is_replayed_and_not_written(
    run: Run, tmp_path: Path
) -> None:
    """A killed node leaves it so; and opening it in the ordinary way would move it into a table."""
    path = made(tmp_path / "data", (), 0, killed=True)
    assert any(file.stat().st_size > 4_000 for file in (path / "log").glob("*.log"))
    assert shown(run, path, 0)["start"][1] == f"with an empty store, and {ENTRIES} entries of the log"


def test_a_damaged_snapshot_is_named_and_the_one_before_it_is_found(run: Run, data: Path) -> None:
    flip(snapshot(data, 30), 150)
    parts = shown(run, data, 11)
    state, said = parts[f"snapshots/{snapshot(data, 30).name}"]
    assert state == "Corrupt"
    assert "checksum" in said
    assert parts["start"] == ("ok", "with the snapshot of entry 20, and 20 entries behind it")
    done = run("node", "verify", "--data-dir", str(data))
    assert f"snapshots/{snapshot(data, 30).name}: CORRUPT: " in done.out
    assert done.out.endswith("\ndamaged: see above\n")


def test_no_whole_snapshot_and_a_purged_log_is_no_beginning(run: Run, data: Path) -> None:
    """Pitfall 28: said with the way out, before somebody starts the node to find out."""
    flip(snapshot(data, 30), 150)
    snapshot(data, 20).unlink()
    state, said = shown(run, data, 11)["start"]
    assert state == "Corrupt"
    assert "begins behind entry 20" in said
    assert "move log/ out of it and start the node again" in said


def test_what_only_a_later_version_can_begin_with_is_no_damage(run: Run, data: Path) -> None:
    """Whoever is told so starts that version, and moves nothing away."""
    newest = snapshot(data, 30)
    content = bytearray(newest.read_bytes())
    content[len(MAGIC)] += 1
    newest.write_bytes(content)
    parts = shown(run, data, 14)
    assert parts[f"snapshots/{newest.name}"][0] == "NewerFormat"
    assert parts["start"] == ("ok", "with the snapshot of entry 20, and 20 entries behind it")
    snapshot(data, 20).unlink()
    state, said = shown(run, data, 14)["start"]
    assert state == "NewerFormat"
    assert f"{newest.name} is of a later one; start the version that wrote it, or a later one" in said
    done = run("node", "verify", "--data-dir", str(data))
    assert done.out.endswith("\nof a newer version: see above\n")


def test_what_the_disk_could_not_read_is_no_damage(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever moves the log away for it loses what the next try may read."""
    newest = snapshot(data, 30).name
    snapshot(data, 20).unlink()

    def load(path: Path, cluster_id: int | None) -> Any:
        raise DiskFailed(f"cannot read {path.name}")

    monkeypatch.setattr(data_check, "load", load)
    state, said = shown(run, data, 12)["start"]
    assert state == "DiskFailed"
    assert f"the disk could not read {newest}" in said
    done = run("node", "verify", "--data-dir", str(data))
    assert done.out.endswith("\nnot all of it could be read: see above\n")


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_damaged_log_is_found_wherever_the_damage_is(
    run: Run, tmp_path: Path, place: float, killed: bool
) -> None:
    """In the write-ahead log and in a table."""
    data = made(tmp_path / "data", killed=killed)
    found = (data / "log").glob("*.log" if killed else "*.sst")
    file = max(found, key=lambda file: file.stat().st_size)
    flip(file, int(file.stat().st_size * place))
    parts = shown(run, data, 11)
    assert parts["log"][0] == "Corrupt"
    assert "/danube-raft-" not in parts["log"][1]
    assert "start" not in parts
    assert parts["identity"][0] == "ok"


def test_a_log_database_that_has_lost_files_is_damaged(run: Run, data: Path) -> None:
    (manifest,) = (data / "log").glob("MANIFEST-*")
    manifest.unlink()
    assert shown(run, data, 11)["log"][0] == "Corrupt"
    (data / "log" / "CURRENT").unlink()
    assert shown(run, data, 11)["log"][0] == "Corrupt"


def test_snapshots_without_a_log_are_damage(run: Run, data: Path) -> None:
    shutil.rmtree(data / "log")
    assert shown(run, data, 11)["log"][0] == "Corrupt"
    shutil.rmtree(data / "snapshots")
    assert "the durable mark vouches" in shown(run, data, 11)["log"][1]


def test_a_log_that_is_gone_with_its_mark_is_not_taken_for_one_that_never_was(run: Run, data: Path) -> None:
    for name in ("log", "snapshots"):
        shutil.rmtree(data / name)
    (data / "mark").unlink()
    state, said = shown(run, data, 11)["mark"]
    assert state == "Corrupt"
    assert "is missing" in said
    assert "SUSPECT" in said


def test_a_log_that_has_lost_its_end_is_found_by_the_mark(run: Run, data: Path, tmp_path: Path) -> None:
    """RocksDB opens what is left without a word; only the mark can tell."""
    shorter = tmp_path / "shorter"
    log = RocksLogStore(shorter)
    log.open()
    log.write([local.Write(1, 0, tuple(history()[:35]), HardState(3, NODE))])
    log.close()
    shutil.rmtree(data / "log")
    shorter.rename(data / "log")
    parts = shown(run, data, 11)
    assert parts["log"][0] == "ok"
    assert parts["mark"][0] == "Corrupt"
    assert f"the log ends with entry 35, and held entry {ENTRIES}" in parts["mark"][1]
    assert "SUSPECT" in parts["mark"][1]


def test_a_mark_that_is_missing_or_unreadable_is_told(run: Run, data: Path) -> None:
    (data / "mark").write_bytes(b"\0" * 8_192)
    assert "both copies" in shown(run, data, 11)["mark"][1]
    (data / "mark").unlink()
    assert "is missing" in shown(run, data, 11)["mark"][1]


@pytest.mark.parametrize("name", ["identity.json", "boot_epoch.json", "format.json"])
@pytest.mark.parametrize("gone", [True, False])
def test_each_small_file_is_proven(run: Run, data: Path, name: str, gone: bool) -> None:
    if gone:
        (data / name).unlink()
    else:
        flip(data / name, 12)
    parts = shown(run, data, 11)
    damaged = [part for part, (state, _) in parts.items() if state == "Corrupt"]
    assert damaged == [name.removesuffix(".json").replace("_", " ")]
    assert parts["log"][0] == "ok"


@pytest.mark.parametrize("purged", [0, 20])
def test_an_old_copy_of_the_boot_epoch_is_found(run: Run, tmp_path: Path, purged: int) -> None:
    """By what a later start has written, be it in the log or in a snapshot only."""
    data = made(tmp_path / "data", (20, 30) if purged else (), purged, boot_epoch=2)
    state, said = shown(run, data, 11)["boot epoch"]
    assert state == "Corrupt"
    assert "boot_epoch.json is an old copy: it counts 1 starts, and start 2 has written something" in said


def test_a_snapshot_of_another_history_is_found(run: Run, data: Path) -> None:
    """An old copy that was put back: whole by itself, and not of this log."""
    old = snapshot(data, 30)
    frames = list(read(old))
    writer = SnapshotWriter(data / "snapshots", SnapshotMeta(30, 3, CLUSTER, b"x" * 16))
    for frame in frames:
        writer.write(frame)
    writer.commit()
    parts = shown(run, data, 11)
    assert parts["start"][1].startswith("with the snapshot of entry 20")
    assert any("another history" in said for _, said in parts.values())


def test_a_snapshot_of_another_cluster_is_damage(run: Run, data: Path) -> None:
    (data / "identity.json").unlink()
    directory = DataDir(data)
    shutil.rmtree(data / "log")
    (data / "boot_epoch.json").unlink()
    directory.acquire()
    directory.load_or_create_identity(lambda _: NODE - 1)
    directory.join_cluster(CLUSTER + 1)
    directory.release()
    parts = shown(run, data, 11)
    assert [state for part, (state, _) in parts.items() if part.startswith("snapshots/")] == ["Corrupt"] * 2


def test_a_state_that_is_known_to_be_wrong_is_told_and_is_no_damage(run: Run, data: Path) -> None:
    """Its files are whole; only the other nodes can tell."""
    Snapshots(data / "snapshots", CLUSTER).mark_odd(Odd(9, "at index 9 it is not what a majority has"))
    parts = shown(run, data, 0)
    assert "at index 9" in parts["snapshots/odd"][1]
    assert "one of the leader's replaces them" in parts["snapshots/odd"][1]


def test_leftovers_are_told_and_are_no_damage(run: Run, data: Path) -> None:
    (data / "snapshots" / "x.snap.tmp").write_bytes(b"")
    (data / "snapshots" / "notes").write_bytes(b"")
    parts = shown(run, data, 0)
    assert parts["snapshots/x.snap.tmp"][1].startswith("was never finished")
    assert parts["snapshots/notes"][1].startswith("is no snapshot")


def test_a_directory_in_use_is_left_alone(run: Run, data: Path) -> None:
    held = DataDir(data)
    held.acquire()
    try:
        done = run("node", "verify", "--data-dir", str(data))
    finally:
        held.release()
    assert (done.code, done.out) == (10, "")
    assert "is in use by process" in done.err


def test_what_is_no_data_directory_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty", "file"):
        done = run("node", "verify", "--data-dir", str(tmp_path / name))
        assert (done.code, done.out) == (2, "")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_newer_format_is_not_called_damage(run: Run, data: Path) -> None:
    path = snapshot(data, 30)
    changed = bytearray(path.read_bytes())
    changed[8] = 9
    path.write_bytes(changed)
    assert shown(run, data, 14)[f"snapshots/{path.name}"][0] == "NewerFormat"
