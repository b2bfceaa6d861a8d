"""A disk that is really full, as a small tmpfs: the node goes on read-only, and writes again when there is room."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from real_node import WAIT_S, RealNode, free_ports, until
from records import the

from danube_raft import MetadataStore
from danube_raft.errors import DanubeRaftError, NoSpace

pytestmark = pytest.mark.process

MIB = 1 << 20
SIZE_MIB = 80
BALLAST = 8 * MIB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, where nothing else takes or frees room."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(place)],
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    if made.returncode:
        pytest.skip("this user may not mount file systems")
    yield place
    subprocess.run(["umount", "-l", str(place)], timeout=WAIT_S, check=True)


def ready(node: RealNode) -> str:
    """The reasons why it is not, "" if it is."""
    host, port = node.environment["DANUBE_RAFT_HEALTH_LISTEN"].rsplit(":", 1)
    connection = HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", "/ready")
        return " ".join(json.loads(connection.getresponse().read())["reasons"])
    except (OSError, HTTPException):
        return "no answer"
    finally:
        connection.close()


def fill(place: Path) -> None:
    """Somebody else takes what is left."""
    with contextlib.suppress(OSError), (place / "other").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(64 << 10))


def put_until_refused(store: MetadataStore) -> int:
    """The number of the last one that was acknowledged."""
    for number in range(10, 10_000):
        try:
            store.put(f"/k{number}", "v" * (64 << 10))
        except DanubeRaftError:
            return number - 1
    raise AssertionError("the disk is never full")


def test_a_full_disk_makes_a_node_read_only_until_there_is_room(small: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    node = RealNode(
        small / "data", low_space_bytes=0, ballast_bytes=BALLAST, health_listen=f"127.0.0.1:{port}"
    )
    node.log_path = tmp_path / "node.log"
    with node, node.store(timeout_ms=2_000) as store:
        for number in range(10):
            store.put(f"/k{number}", number)
        assert (node.data_dir / "ballast").stat().st_size == BALLAST
        fill(small)
        acknowledged = put_until_refused(store)
        until(lambda: "read-only" in node.log_path.read_text(), "the node to notice")
        until(lambda: "the disk is full" in ready(node), "/ready to say so")
        assert not (node.data_dir / "ballast").exists()
        assert the(until(lambda: store.get("/k3", consistency="stale"), "a read")).value == 3
        assert the(store.get(f"/k{acknowledged}", consistency="stale")) is not None
        for refused in (lambda: store.put("/new", 1), lambda: store.delete("/k1")):
            with pytest.raises(NoSpace):
                refused()
        epoch = store.status()["boot_epoch"]
        assert store.status()["read_only"] is True
        (small / "other").unlink()
        until(lambda: ready(node) == "", "the node to be ready again")
        assert the(store.get("/k3")).value == 3
        store.put("/new", 1)
        assert store.status()["boot_epoch"] > epoch
        assert (node.data_dir / "ballast").stat().st_size == BALLAST
        assert not node.logged("Traceback")


def test_a_node_starts_read_only_on_a_disk_that_is_full_already(small: Path, tmp_path: Path) -> None:
    """Not even the boot epoch can be written then, before the ballast is given up."""
    node = RealNode(small / "data", low_space_bytes=0, ballast_bytes=BALLAST)
    node.log_path = tmp_path / "node.log"
    with node, node.store() as store:
        store.put("/k", 1)
        node.stop()
    fill(small)
    with node, node.store(timeout_ms=2_000) as store:
        assert the(until(lambda: store.get("/k", consistency="stale"), "a read")).value == 1
        assert store.status()["read_only"] is True
        assert not (node.data_dir / "ballast").exists()
        (small / "other").unlink()
        until(lambda: store.status()["read_only"] is False, "the node to write again")
        store.put("/k", 2)
