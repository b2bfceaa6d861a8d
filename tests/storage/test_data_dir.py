"""The data directory: one holder, one identity for ever, an epoch that only grows, and damage told apart from new.

Holders are real processes where it matters, since the lock's life is a matter of file descriptors.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import pytest

from danube_raft.errors import ConfigInvalid, Corrupt, DataDirInUse, DiskFailed, DiskFull, Fatal, NewerFormat
from danube_raft.storage.data_dir import NODE_ID_LIMIT, DataDir, Identity
from danube_raft.storage.durable_mark import FIRST, MarkFile
from danube_raft.wire.entry import VOTER, Configuration, Founding, Member, pack_configuration


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


@pytest.fixture
def held(path: Path) -> Iterator[DataDir]:
    directory = DataDir(path)
    directory.acquire("127.0.0.1:1", "127.0.0.1:2")
    yield directory
    directory.release()


def taken(path: Path) -> DataDir:
    directory = DataDir(path)
    directory.acquire()
    return directory


def seal(fields: dict[str, object]) -> str:
    return json.dumps({**fields, "crc32": crc32(json.dumps(fields, sort_keys=True).encode())})


# ---------------------------------------------------------------- identity, epoch, format


def test_a_fresh_directory_gets_one_identity_and_keeps_it(held: DataDir, path: Path) -> None:
    assert held.identity() is None
    first = held.load_or_create_identity(secrets.randbelow)
    assert 0 < first.node_id < NODE_ID_LIMIT
    assert first.cluster_id == 0
    assert held.load_or_create_identity(secrets.randbelow) == first
    held.release()
    assert taken(path).identity() == first


@pytest.mark.parametrize(("drawn", "node_id"), [(0, 1), (NODE_ID_LIMIT - 2, NODE_ID_LIMIT - 1)])
def test_the_whole_range_of_the_random_source_gives_valid_node_ids(
    held: DataDir, drawn: int, node_id: int
) -> None:
    assert held.load_or_create_identity(lambda _: drawn) == Identity(node_id, 0)


def test_a_node_joins_one_cluster_for_ever(held: DataDir, path: Path) -> None:
    held.load_or_create_identity(secrets.randbelow)
    joined = held.join_cluster(99)
    assert held.join_cluster(99) == joined
    with pytest.raises(AssertionError):
        held.join_cluster(98)
    held.release()
    assert taken(path).identity() == joined


def founding_of(count: int, cluster_id: int = 99) -> Founding:
    name = "h" * 250
    members = [
        Member(NODE_ID_LIMIT - n, VOTER, f"{name}:6500{n}", f"{name}:6510{n}") for n in range(1, count + 1)
    ]
    return Founding(
        cluster_id, NODE_ID_LIMIT - 1, pack_configuration(Configuration(tuple(members))), 1_795_477_972_376
    )


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_promise_is_kept_as_it_was_given_and_replaced_until_the_node_joins(
    held: DataDir, path: Path, count: int
) -> None:
    held.load_or_create_identity(secrets.randbelow)
    assert held.founding() is None
    held.promise(founding_of(1, 98))
    held.promise(founding_of(count))
    held.release()
    again = taken(path)
    assert again.founding() == founding_of(count)
    with pytest.raises(AssertionError):
        again.join_cluster(98)
    again.join_cluster(99)
    with pytest.raises(AssertionError):
        again.promise(founding_of(count))
    assert again.founding() == founding_of(count)
    again.release()


def test_a_promise_that_the_node_has_joined_by_is_missed(held: DataDir, path: Path) -> None:
    """Without it the node would begin a cluster of its own under the id of the one that it belongs to."""
    held.load_or_create_identity(secrets.randbelow)
    held.promise(founding_of(3))
    held.join_cluster(99)
    (path / "founding.json").unlink()
    with pytest.raises(Corrupt, match=r"founding\.json is missing, but the node has joined a cluster by it"):
        held.founding()


def test_a_node_that_has_promised_nothing_misses_nothing(held: DataDir) -> None:
    held.load_or_create_identity(secrets.randbelow)
    held.join_cluster(99)
    assert held.founding() is None


def test_the_mark_is_there_before_the_identity(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a missing one was lost, even if there is no log (yet, or any more)."""
    directory = taken(path)
    made: list[str] = []
    rename = Path.replace

    def record_rename(self: Path, target: Path) -> Path:
        made.append(target.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", record_rename)
    directory.load_or_create_identity(secrets.randbelow)
    assert made == ["boot_epoch.json", "mark", "identity.json"]
    assert MarkFile(path / "mark").read() == FIRST
    (path / "mark").unlink()
    directory.load_or_create_identity(secrets.randbelow)
    assert not (path / "mark").exists()
    directory.release()


def test_a_promise_is_on_the_disk_before_anyone_hears_of_it(
    held: DataDir, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.load_or_create_identity(secrets.randbelow)
    calls: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        calls.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def record_rename(self: Path, target: Path) -> Path:
        calls.append("rename " + self.name)
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_rename)
    held.promise(founding_of(3))
    assert calls == ["sync founding.json.tmp", "rename founding.json.tmp", "sync " + path.name]


@pytest.mark.parametrize(
    "change",
    [
        {"cluster_id": 0},
        {"cluster_id": "99"},
        {"initialiser": -1},
        {"wall_ms": None},
        {"configuration": "no base64!"},
        {"configuration": "AAAA"},
        {"configuration": 5},
    ],
)
def test_a_promise_that_cannot_be_is_damage(held: DataDir, path: Path, change: dict[str, object]) -> None:
    held.load_or_create_identity(secrets.randbelow)
    held.promise(founding_of(3))
    fields = json.loads((path / "founding.json").read_text())
    del fields["crc32"]
    (path / "founding.json").write_text(seal(fields))
    assert held.founding() == founding_of(3)
    (path / "founding.json").write_text(seal({**fields, **change}))
    with pytest.raises(
        Corrupt, match=r"founding\.json does not hold a (promise|configuration); put the file back"
    ):
        held.founding()


def test_the_boot_epoch_only_grows(path: Path) -> None:
    epochs = []
    for _ in range(3):
        directory = taken(path)
        directory.load_or_create_identity(secrets.randbelow)
        epochs += [directory.next_boot_epoch(), directory.next_boot_epoch()]
        directory.release()
    assert epochs == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["identity.json", "boot_epoch.json", "format.json"])
@pytest.mark.parametrize("damage", ["flip", "empty", "garbage", "missing", "not utf-8", "list"])
def test_a_damaged_file_is_named_and_never_made_anew(path: Path, name: str, damage: str) -> None:
    directory = taken(path)
    directory.load_or_create_identity(secrets.randbelow)
    directory.next_boot_epoch()
    directory.release()
    file = path / name
    data = bytearray(file.read_bytes())
    place = next(i for i, byte in enumerate(data) if chr(byte).isdigit())
    data[place] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(
            {
                "flip": bytes(data),
                "empty": b"",
                "garbage": b"{]",
                "not utf-8": b'{"\xff": 1}',
                "list": b"[1]",
            }[damage]
        )
    before = sorted(entry.name for entry in path.iterdir())
    directory = DataDir(path)

    def start() -> None:
        directory.acquire()
        directory.load_or_create_identity(secrets.randbelow)
        directory.next_boot_epoch()

    with pytest.raises(Corrupt, match=f"{name} .*; put the file back"):
        start()
    directory.release()
    assert sorted(entry.name for entry in path.iterdir()) == before


def test_a_log_without_an_identity_is_refused(path: Path) -> None:
    (taken(path)).release()
    (path / "log").mkdir()
    with pytest.raises(Corrupt, match=r"identity\.json is missing"):
        taken(path)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("identity.json", {"node_id": 0, "cluster_id": 1}),
        ("identity.json", {"node_id": NODE_ID_LIMIT, "cluster_id": 1}),
        ("identity.json", {"node_id": "7", "cluster_id": 1}),
        ("identity.json", {"node_id": 7}),
        ("boot_epoch.json", {"boot_epoch": -1}),
        ("boot_epoch.json", {"boot_epoch": True}),
        ("format.json", {"format": 0}),
    ],
)
def test_values_out_of_range_are_damage_even_with_a_good_checksum(
    path: Path, name: str, fields: dict[str, object]
) -> None:
    directory = taken(path)
    directory.load_or_create_identity(secrets.randbelow)
    directory.release()
    (path / name).write_text(seal(fields))

    def start() -> None:
        directory.acquire()
        directory.next_boot_epoch()

    with pytest.raises(Corrupt, match=name):
        start()
    directory.release()


def test_a_later_format_is_named_and_the_lock_is_given_back(path: Path) -> None:
    taken(path).release()
    (path / "format.json").write_text(seal({"format": 2}))
    for _ in range(2):
        with pytest.raises(NewerFormat, match="has format 2, this version reads up to 1"):
            DataDir(path).acquire()


class DiedError(Exception):
    pass


def test_every_step_of_making_a_directory_may_be_the_last(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever rename the first start dies before, the next start succeeds and finds or makes one identity."""
    real = Path.replace
    renames = 4
    for survived in range(renames + 1):
        left = [survived]

        def replace(self: Path, target: Path, left: list[int] = left) -> Path:
            if not left[0]:
                raise DiedError
            left[0] -= 1
            return real(self, target)

        first, second = DataDir(path / str(survived)), DataDir(path / str(survived))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            try:
                first.acquire()
                first.load_or_create_identity(secrets.randbelow)
                assert survived == renames
            except DiedError:
                assert survived < renames
        first.release()
        second.acquire()
        second.load_or_create_identity(secrets.randbelow)
        assert second.next_boot_epoch() == 1
        second.release()


# ---------------------------------------------------------------- disk and operator


def test_a_file_is_synced_before_its_rename_and_the_directory_after(
    held: DataDir, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename that reaches the disk before the content, or never, loses the epoch at a power cut."""
    held.load_or_create_identity(secrets.randbelow)
    calls: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        calls.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def record_rename(self: Path, target: Path) -> Path:
        calls.append("rename " + self.name)
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_rename)
    held.next_boot_epoch()
    assert calls == ["sync boot_epoch.json.tmp", "rename boot_epoch.json.tmp", "sync " + path.name]


@pytest.mark.parametrize("where", ["file", "file/below", "long"])
def test_a_directory_that_cannot_be_is_the_operators_error(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    name = "x" * 300 if where == "long" else where
    with pytest.raises(ConfigInvalid, match=r"data_dir = .*choose a directory") as refused:
        DataDir(tmp_path / name).acquire()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EIO, DiskFailed),
        (errno.EROFS, DiskFailed),
        (errno.EACCES, ConfigInvalid),
    ],
)
def test_what_the_disk_refuses_is_one_clear_line(
    held: DataDir, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Fatal]
) -> None:
    identity = held.load_or_create_identity(secrets.randbelow)
    assert held.next_boot_epoch() == 1

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(kind, match=rf"cannot write boot_epoch.json: {os.strerror(number)}; "):
            held.next_boot_epoch()
    assert held.identity() == identity
    assert held.next_boot_epoch() in (2, 3)


# ---------------------------------------------------------------- the lock


def test_a_second_holder_is_refused_with_the_first_ones_name(held: DataDir, path: Path) -> None:
    node_id = held.load_or_create_identity(secrets.randbelow).node_id
    with pytest.raises(DataDirInUse) as refused:
        DataDir(path).acquire(wait_ms=60_000)
    said = str(refused.value)
    assert f"process {os.getpid()} (node {node_id}, 127.0.0.1:1)" in said
    assert str(path) in said
    assert "\n" not in said
    held.release()
    held.release()
    taken(path).release()


def test_a_lock_with_unreadable_text_is_still_a_lock(held: DataDir, path: Path) -> None:
    for text in (b"", b"{", b"[1]", b"\xff" * 9000):
        (path / "lock").write_bytes(text)
        with pytest.raises(DataDirInUse, match="process unknown"):
            DataDir(path).acquire(wait_ms=30)


def test_without_permission_to_inherit_the_lock_ends_with_its_process(held: DataDir, path: Path) -> None:
    """The child speaks first: until its exec is over it shares every descriptor of its parent."""
    assert not os.get_inheritable(held.lock_fd)
    code = "import sys; print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], close_fds=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"1\n"
        held.release()
        taken(path).release()
        assert child.poll() is None
        child.communicate()


SUPERVISOR = """
import subprocess, sys
from danube_raft.storage.data_dir import DataDir
directory = DataDir(sys.argv[1])
directory.acquire("127.0.0.1:1", "127.0.0.1:2", inheritable=True)
# The orphan lives until its standard input, which the test holds, is closed.
subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=(directory.lock_fd,), stdout=subprocess.DEVNULL)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def orphaned(path: Path) -> Iterator[BinaryIO]:
    """A directory whose supervisor was killed while its child lives; gives what keeps the child."""
    reading, writing = os.pipe()
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(path)], stdin=reading, stdout=subprocess.PIPE
    )
    os.close(reading)
    assert supervisor.stdout is not None
    with supervisor.stdout:
        assert supervisor.stdout.readline() == b"held\n"
        supervisor.send_signal(signal.SIGKILL)
        supervisor.wait()
    with os.fdopen(writing, "wb") as child:
        yield child


def test_orphans_keep_the_directory_and_are_waited_for_a_bounded_time(orphaned: BinaryIO, path: Path) -> None:
    with pytest.raises(DataDirInUse, match="has ended and left children"):
        DataDir(path).acquire(wait_ms=100)


def test_the_lock_is_taken_once_the_orphans_are_gone(
    orphaned: BinaryIO, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The orphan ends during the wait: at the first pause of the poll, which here lasts until it is gone."""
    paused = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        orphaned.close()
        with (path / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)

    monkeypatch.setattr("danube_raft.storage.data_dir.time.sleep", pause)
    directory = DataDir(path)
    directory.acquire(wait_ms=20_000)
    assert paused
    directory.release()


def test_a_pid_used_again_by_another_process_counts_as_dead(orphaned: BinaryIO, path: Path) -> None:
    text = json.loads((path / "lock").read_text())
    (path / "lock").write_text(json.dumps({**text, "pid": os.getpid(), "started": 1.0}))
    with pytest.raises(DataDirInUse, match="has ended"):
        DataDir(path).acquire()
