"""One snapshot on disk: what was written is read, and any damage is noticed before its end.

Frames are made tiny here, so that every byte and every length can be tried.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import pytest
from snapshot_files import CLUSTER, FRAME, META, PAYLOAD, made

from danube_raft.errors import Corrupt, DiskFailed, NewerFormat
from danube_raft.storage import snapshot_file
from danube_raft.storage.snapshot_file import (
    FOOTER_BYTES,
    HEADER_BYTES,
    MIN_BYTES,
    SnapshotMeta,
    SnapshotWriter,
    glance,
    read,
    read_piece,
    verify,
)


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_file, "FRAME_BYTES", FRAME)
    monkeypatch.setattr(snapshot_file, "SYNC_BYTES", 60)


def refuses(path: Path, data: bytes) -> str:
    """Put `data` in the file, which must be refused; why. What is read of it before is a prefix of what was written."""
    path.write_bytes(data)
    seen = b""
    with pytest.raises((Corrupt, NewerFormat)) as caught:  # noqa: PT012  # what comes before the refusal counts
        for frame in read(path):
            seen += frame
            assert PAYLOAD.startswith(seen)
    with pytest.raises((Corrupt, NewerFormat)):
        verify(path)
    return str(caught.value)


# ---------------------------------------------------------------- writing and reading


@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, 5 * FRAME, 205])
@pytest.mark.parametrize("piece", [1, 7, FRAME, 1000])
def test_what_was_written_is_read(tmp_path: Path, size: int, piece: int) -> None:
    writer = SnapshotWriter(tmp_path, META)
    for start in range(0, size, piece):
        writer.write(PAYLOAD[start : min(start + piece, size)])
        writer.write(b"")
    expected = writer.meta
    meta = writer.commit()
    frames = list(read(writer.path, CLUSTER))
    assert b"".join(frames) == PAYLOAD[:size]
    assert all(len(frame) == FRAME for frame in frames[:-1])
    assert meta == expected._replace(size=writer.path.stat().st_size, sha256=meta.sha256)
    assert glance(writer.path, CLUSTER) == verify(writer.path, CLUSTER) == meta
    assert len(meta.sha256) == 32
    assert [path.name for path in tmp_path.iterdir()] == [meta.name]


def test_the_layout_is_the_one_that_is_documented(tmp_path: Path) -> None:
    """Golden bytes: another layout needs another format number."""
    data = made(tmp_path, b"abc").read_bytes()
    assert data.hex() == GOLDEN
    assert len(data) == HEADER_BYTES + 8 + 3 + FOOTER_BYTES


GOLDEN = (
    "894452534e41500a0100000000000004d200000000000000050000000000000063"
    "000102030405060708090a0b0c0d0e0f56879578"
    "000000036f862d24616263"
    "000000003884d60100000000000000780000000000000001"
    "8a9f2a58f9907726bc43b4f12ddc2384ca2439a0f32add5d3068831b4f63e934"
)  # fmt: skip


def test_the_same_snapshot_is_the_same_file_however_it_was_cut(tmp_path: Path) -> None:
    first = made(tmp_path).read_bytes()
    writer = SnapshotWriter(tmp_path, META)
    writer.write(PAYLOAD)
    writer.commit()
    assert writer.path.read_bytes() == first


def test_names_sort_by_age(tmp_path: Path) -> None:
    places = [(9, 1), (10, 1), (3, 2), (10**12, 2), (1, 10**9)]
    names = [SnapshotMeta(index, term, 1).name for index, term in places]
    assert names == sorted(names)


def test_progress_is_reported_while_a_file_is_proven(tmp_path: Path) -> None:
    calls: list[int] = []
    verify(made(tmp_path), CLUSTER, lambda: calls.append(1))
    assert len(calls) == 11


def test_pieces_make_the_file(tmp_path: Path) -> None:
    path = made(tmp_path)
    data = path.read_bytes()
    pieces = [read_piece(path, offset, 50) for offset in range(0, len(data) + 100, 50)]
    assert b"".join(pieces) == data
    assert pieces[-1] == b""
    with pytest.raises(DiskFailed, match="No such file"):
        read_piece(tmp_path / "none", 0, 5)


def test_a_forked_child_writes_a_snapshot_with_its_one_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INTERNALS 9: the child closes everything else first."""
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from danube_raft.storage.snapshot_file import SnapshotMeta, SnapshotWriter\n"
        "writer = SnapshotWriter(Path(sys.argv[1]), SnapshotMeta(7, 1, 99))\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    keep = writer.fileno()\n"
        "    os.closerange(0, keep)\n"
        "    os.closerange(keep + 1, 1024)\n"
        "    writer.write(bytes(3 << 20))\n"
        "    writer.commit()\n"
        "    os._exit(0)\n"
        "writer.release()\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    root = Path(__file__).parent.parent.parent
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=60,
        check=True,
    )
    monkeypatch.undo()
    assert b"".join(read(tmp_path / SnapshotMeta(7, 1, 99).name, 99)) == bytes(3 << 20)


# ---------------------------------------------------------------- damage


def test_every_bit_of_every_byte_counts(tmp_path: Path) -> None:
    path = made(tmp_path)
    data = path.read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            refuses(path, data[:place] + bytes((data[place] ^ 1 << bit,)) + data[place + 1 :])
    path.write_bytes(data)
    assert b"".join(read(path)) == PAYLOAD


def test_a_file_of_any_other_length_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path)
    data = path.read_bytes()
    for size in range(len(data)):
        refuses(path, data[:size])
    for more in (b"\0", b"x", bytes(FOOTER_BYTES), data[-FOOTER_BYTES:], data, bytes(4096)):
        refuses(path, data + more)


def test_zeroed_cut_and_doubled_ranges_are_refused(tmp_path: Path) -> None:
    path = made(tmp_path)
    data = path.read_bytes()
    for size in (1, 8, FRAME + 8, 100):
        for place in range(0, len(data) - size, 5):
            old = data[place : place + size]
            if old.strip(b"\0"):
                refuses(path, data[:place] + bytes(size) + data[place + size :])
            refuses(path, data[:place] + data[place + size :])
            refuses(path, data[:place] + old + data[place:])
    refuses(path, bytes(len(data)))
    refuses(path, b"")


def frames_of(data: bytes) -> list[bytes]:
    size = FRAME + 8
    body = data[HEADER_BYTES:-FOOTER_BYTES]
    return [body[start : start + size] for start in range(0, len(body), size)]


def test_a_frame_at_another_place_is_refused_before_it_is_given_out(tmp_path: Path) -> None:
    path = made(tmp_path)
    data = path.read_bytes()
    frames = frames_of(data)
    for first in range(len(frames)):
        for second in range(first):
            swapped = list(frames)
            swapped[first], swapped[second] = swapped[second], swapped[first]
            why = refuses(path, data[:HEADER_BYTES] + b"".join(swapped) + data[-FOOTER_BYTES:])
            assert f"frame {second}," in why


def test_a_frame_of_another_snapshot_is_refused(tmp_path: Path) -> None:
    """Of the entry before: same place, same length, a good checksum where it comes from."""
    path = made(tmp_path)
    data = path.read_bytes()
    other = made(tmp_path, PAYLOAD, META._replace(index=1233)).read_bytes()
    frames, others = frames_of(data), frames_of(other)
    for place in range(len(frames)):
        mixed = [*frames[:place], others[place], *frames[place + 1 :]]
        assert f"frame {place}," in refuses(
            path, data[:HEADER_BYTES] + b"".join(mixed) + data[-FOOTER_BYTES:]
        )
    refuses(path, data[:-FOOTER_BYTES] + other[-FOOTER_BYTES:])


def test_two_frames_less_with_a_footer_that_says_so_still_fail_by_the_hash(tmp_path: Path) -> None:
    """The footer's numbers are made to fit; only SHA-256 is left to notice it."""
    path = made(tmp_path)
    data = path.read_bytes()
    short = made(tmp_path, PAYLOAD[:-5]).read_bytes()
    refuses(path, short[:-32] + data[-32:])


def sealed(body: bytes, size: int, frames: int) -> bytes:
    """`body` with a footer whose checksums are right, whatever its numbers say."""
    numbers = snapshot_file._FOOTER.pack(size, frames)
    crc = snapshot_file._crc_of(numbers, frames, 0, crc32(body[:HEADER_BYTES]))
    body += snapshot_file._FRAME.pack(0, crc) + numbers
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(("longer", "more"), [(0, 1), (0, -1), (1, 0), (-1, 0), (1 << 63, 0)])
def test_a_footer_that_counts_wrong_is_refused(tmp_path: Path, longer: int, more: int) -> None:
    path = made(tmp_path)
    data = path.read_bytes()
    body, frames = data[:-FOOTER_BYTES], len(frames_of(data))
    assert sealed(body, len(data), frames) == data
    why = refuses(path, sealed(body, len(data) + longer, frames + more))
    assert f"and should have {len(data) + longer} and {frames + more}" in why


def test_a_frame_that_swallows_half_of_the_footer_leaves_one_that_is_cut_short(tmp_path: Path) -> None:
    """All checksums are right, so only the length of what is left tells."""
    path = made(tmp_path, b"")
    header = path.read_bytes()[:HEADER_BYTES]
    size = HEADER_BYTES + 11 + FOOTER_BYTES
    swallowed = sealed(header, size, 1)[HEADER_BYTES : HEADER_BYTES + 8]
    crc = snapshot_file._crc_of(b"abc" + swallowed, 0, 11, crc32(header))
    path.write_bytes(sealed(header + snapshot_file._FRAME.pack(11, crc) + b"abc", size, 1))
    assert glance(path).size == size
    with pytest.raises(Corrupt, match="cut short"):
        verify(path)


def test_both_ends_alone_show_that_the_middle_is_longer_or_shorter(tmp_path: Path) -> None:
    path = made(tmp_path)
    data = path.read_bytes()
    for middle in (data[HEADER_BYTES + 1 : -FOOTER_BYTES], data[HEADER_BYTES:-FOOTER_BYTES] + b"x"):
        path.write_bytes(data[:HEADER_BYTES] + middle + data[-FOOTER_BYTES:])
        with pytest.raises(Corrupt, match="and should have"):
            glance(path)


def test_another_snapshot_under_this_name_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path)
    other = made(tmp_path, PAYLOAD, META._replace(index=1233)).read_bytes()
    assert "is the snapshot of index 1233 in term 5 under a wrong name" in refuses(path, other)


def test_a_snapshot_of_another_cluster_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path)
    for refused in (lambda: verify(path, 98), lambda: glance(path, 98), lambda: list(read(path, 98))):
        with pytest.raises(Corrupt, match="is of cluster 99, and this node belongs to 98"):
            refused()


def test_a_newer_format_is_told_apart_from_damage(tmp_path: Path) -> None:
    path = made(tmp_path)
    data = bytearray(path.read_bytes())
    data[8] = 2
    path.write_bytes(data)
    with pytest.raises(NewerFormat, match=r"has format 2, this version reads up to 1; start the version"):
        verify(path)


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_is_refused_with_one_of_our_errors(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = made(tmp_path)
    data = path.read_bytes()
    for _ in range(400):
        broken = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            place = rng.randrange(len(broken))
            if rng.random() < 0.5:
                broken[place : place + rng.randrange(1, 30)] = rng.randbytes(rng.randrange(40))
            else:
                broken[place] = rng.randrange(256)
        if broken != data:
            refuses(path, bytes(broken))


def test_the_smallest_file_is_a_snapshot_of_nothing(tmp_path: Path) -> None:
    path = made(tmp_path, b"")
    assert path.stat().st_size == MIN_BYTES
    assert list(read(path)) == []
