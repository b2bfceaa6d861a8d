"""What a broker does with the store, against a real node: in processes, and in threads of this one.

The first part is the seed's contract (the Rust danube-raft), by behaviour; the second what a program that embeds a
node relies on.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from real_node import WAIT_S, free_ports, until
from records import the

from danube_raft import ABSENT, MetadataStore, MetaOptions, Node, Revision, errors

pytestmark = pytest.mark.process


def new_node(data_dir: Path, threads: bool) -> Node:
    client, raft = free_ports(2)
    return Node(
        data_dir=str(data_dir),
        client_listen=f"127.0.0.1:{client}",
        raft_listen=f"127.0.0.1:{raft}",
        log_level="warning",
        threads=threads,
    )


@pytest.fixture(scope="module", params=[True, False], ids=["threads", "processes"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with new_node(tmp_path_factory.mktemp("node") / "data", request.param) as node:
        yield node


@pytest.fixture
def store(node: Node) -> Iterator[MetadataStore]:
    with MetadataStore(node.endpoint) as store:
        yield store
        for prefix in ("/", "a"):
            store.delete_prefix(prefix)


def put_all(store: MetadataStore, keys: list[str], value: Any) -> None:
    """From many threads, which share batches and syncs."""
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda key: store.put(key, value), keys))


# ---------------------------------------------------------------- the seed's cases


def test_the_version_grows_with_each_put(store: MetadataStore) -> None:
    assert [store.put("/v", n).version for n in range(3)] == [1, 2, 3]
    store.delete("/v")
    assert store.put("/v", 9).version == 1


def test_deleting_a_missing_key_is_fine(store: MetadataStore) -> None:
    before = store.put("/other", 1).revision
    assert store.delete("/missing") == 0
    assert store.put("/other", 2).revision == before + 1


def test_children_of_an_empty_prefix_are_an_empty_list(store: MetadataStore) -> None:
    assert store.get_childrens("/nothing/here") == []


def test_children_stop_at_the_slash(store: MetadataStore) -> None:
    for key in ("/a", "/a/b", "/a/b/c", "/ab"):
        store.put(key, 1)
    assert store.get_childrens("/a") == ["/a/b", "/a/b/c"]


def test_a_prefix_read_returns_every_match(store: MetadataStore) -> None:
    wanted = [f"/many/{n:05}" for n in range(6_000)]
    put_all(store, wanted, 1)
    found = store.get("/many/", MetaOptions.WITH_PREFIX)
    assert [record.key for record in found] == wanted, "more than a page"
    assert store.count("/many/") == len(wanted)


def test_a_watch_sees_puts_and_deletes_in_order_and_nothing_of_other_prefixes(store: MetadataStore) -> None:
    with store.watch("/seen/") as watch:
        store.put("/unseen/1", 0)
        store.put("/seen/1", 1)
        store.put("/seen/1", 2)
        store.delete("/seen/1")
        store.put("/unseen/2", 0)
        store.put("/seen/2", 3)
        events = [next(watch) for _ in range(4)]
    assert [(event.kind, event.key, event.value) for event in events] == [
        ("put", "/seen/1", 1),
        ("put", "/seen/1", 2),
        ("delete", "/seen/1", None),
        ("put", "/seen/2", 3),
    ]


def test_a_key_with_a_ttl_goes_by_itself(store: MetadataStore) -> None:
    with store.watch("/ttl/") as watch:
        store.put_with_ttl("/ttl/1", "x", ttl_ms=300)
        assert [next(watch).kind, next(watch).kind] == ["put", "delete"]
    assert store.get("/ttl/1") is None


def test_renewal_keeps_a_key_and_makes_no_event(store: MetadataStore) -> None:
    with store.watch("/ttl/") as watch:
        store.put_with_ttl("/ttl/1", "x", ttl_ms=400)
        store.put_with_ttl("/ttl/2", "x", ttl_ms=400)
        gone = threading.Event()
        renewals = 0
        while not gone.is_set():
            renewals += store.put_with_ttl("/ttl/1", "x", ttl_ms=400).renewed
            if store.get("/ttl/2") is None:
                gone.set()
        assert renewals > 3
        assert the(store.get("/ttl/1")).version == 1
        assert [next(watch).key for _ in range(3)] == ["/ttl/1", "/ttl/2", "/ttl/2"]


def test_a_put_over_a_ttl_key_clears_the_ttl(store: MetadataStore) -> None:
    store.put_with_ttl("/ttl/1", "x", ttl_ms=300)
    store.put_with_ttl("/ttl/2", "x", ttl_ms=300)
    store.put("/ttl/1", "stays")
    until(lambda: store.get("/ttl/2") is None, "the other key to expire")
    assert the(store.get("/ttl/1")).value == "stays"
    assert the(store.get("/ttl/1")).lease == 0


def test_the_single_node_is_the_leader(store: MetadataStore) -> None:
    status = store.status()
    assert status["role"] == "leader"
    assert status["leader_id"] == status["node_id"]


def test_a_brokers_start_up(store: MetadataStore) -> None:
    """Cluster, namespaces, topics, registration, an unassigned topic that somebody watches for, and the clean-up."""
    assert store.compare_and_swap("/cluster", ABSENT, {"name": "main"})
    assert not store.compare_and_swap("/cluster", ABSENT, {"name": "other"})
    store.put("/namespaces/default/policy", {"max": 10})
    store.put("/topics/default/orders", {"partitions": 3})
    store.put_with_ttl("/cluster/register/b1", {"url": "b1:6650"}, ttl_ms=32_000)
    with store.watch("/cluster/unassigned/") as watch:
        store.put("/cluster/unassigned/default/orders", None)
        event = next(watch)
        assert event.key == "/cluster/unassigned/default/orders"
        store.put("/cluster/brokers/b1/default/orders", None)
        assert store.delete(event.key) == 1
        assert next(watch).kind == "delete"
    assert store.get_childrens("/cluster/brokers/b1") == ["/cluster/brokers/b1/default/orders"]
    assert store.delete_prefix("/cluster/brokers/b1") == 1
    assert store.get_childrens("/cluster/brokers/b1") == []
    assert the(store.get("/cluster")).value == {"name": "main"}


def test_load_reports_are_posted_and_read_in_bulk(store: MetadataStore) -> None:
    report = {"topics": ["t" * 50] * 4_000}
    for broker in range(6):
        store.put(f"/cluster/load/{broker}", {**report, "broker": broker})
    found = store.get_bulk("/cluster/load/")
    assert [match.key for match in found] == [f"/cluster/load/{broker}" for broker in range(6)]
    assert all(match.version == 1 and len(match.value) > 200_000 for match in found)


def test_ids_are_unique_and_increasing_from_many_threads(store: MetadataStore) -> None:
    taken: list[list[int]] = []

    def take() -> None:
        taken.append([store.allocate_monotonic_id("topic-ids") for _ in range(50)])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert all(row == sorted(row) for row in taken)
    assert len({number for row in taken for number in row}) == 200
    assert the(store.get("/counters/topic-ids")).value >= 200


# ---------------------------------------------------------------- the rest of the contract


def test_compare_and_swap_by_value_and_by_revision(store: MetadataStore) -> None:
    first = store.put("/cas", {"b": 1, "a": 2})
    assert store.compare_and_swap("/cas", {"a": 2, "b": 1}, "second").version == 2
    lost = store.compare_and_swap("/cas", Revision(first.revision), "third")
    assert (lost.swapped, the(lost.current).value) == (False, "second")
    assert store.compare_and_swap("/cas", Revision(lost.revision), "third")


def test_the_past_can_be_read_and_watched_until_it_is_compacted(store: MetadataStore) -> None:
    first = store.put("/past", "old").revision
    second = store.put("/past", "new").revision
    assert the(store.get("/past", revision=first)).value == "old"
    with store.watch("/past", from_revision=first) as watch:
        assert [next(watch).value, next(watch).value] == ["old", "new"]
    store.compact(second)
    with pytest.raises(errors.Compacted):
        store.get("/past", revision=first)
    with store.watch("/past", from_revision=first) as watch, pytest.raises(errors.Compacted):
        next(watch)


@pytest.mark.parametrize("level", ["session", "linearizable", "stale", 1_000])
def test_every_read_level_sees_the_own_write_here(store: MetadataStore, level: str | int) -> None:
    for n in range(20):
        store.put("/level", n)
        assert the(store.get("/level", consistency=level)).value == n


def test_a_large_delete_is_one_revision_and_reaches_a_watch_whole(store: MetadataStore) -> None:
    put_all(store, [f"/many/{n:05}" for n in range(3_000)], "x" * 300)
    with store.watch("/many/", prev=True) as watch:
        assert store.delete_prefix("/many/") == 3_000
        changes = watch.changes(timeout_ms=10_000)
    assert len(changes) == 3_000
    assert len({event.revision for event in changes}) == 1
    assert all(event.kind == "delete" and the(event.previous).value == "x" * 300 for event in changes)


def test_a_value_over_the_limit_is_refused(store: MetadataStore) -> None:
    with pytest.raises(errors.RequestTooLarge):
        store.put("/large", "x" * 1_600_000)
    store.put("/large", "x" * 1_500_000)
    assert len(the(store.get("/large")).value) == 1_500_000


# ---------------------------------------------------------------- a node of one's own


@pytest.mark.parametrize("threads", [True, False], ids=["threads", "processes"])
def test_a_restarted_node_has_everything(tmp_path: Path, threads: bool) -> None:
    for round_ in range(3):
        with new_node(tmp_path / "data", threads) as node, MetadataStore(node.endpoint) as store:
            assert store.put("/rounds", round_).version == round_ + 1
            assert store.allocate_monotonic_id("ids", 10) == 1 + 10 * round_


@pytest.mark.parametrize("threads", [True, False], ids=["threads", "processes"])
def test_a_node_that_cannot_start_raises_the_reason(tmp_path: Path, threads: bool) -> None:
    with new_node(tmp_path / "data", threads):
        other = new_node(tmp_path / "data", threads)
        with pytest.raises(errors.DataDirInUse):
            other.start()
        other.stop()


@pytest.mark.parametrize("threads", [True, False], ids=["threads", "processes"])
@pytest.mark.parametrize("taken", ["raft_listen", "client_listen"])
def test_a_taken_port_is_the_reason_and_nothing_is_left_behind(
    tmp_path: Path, threads: bool, taken: str
) -> None:
    node = new_node(tmp_path / "data", threads)
    host, port = getattr(node.config, taken).split(":")
    with socket.socket() as holder:
        holder.bind((host, int(port)))
        holder.listen()
        with pytest.raises(errors.PortInUse):
            node.start()
        node.stop()
    with new_node(tmp_path / "data", threads) as again, MetadataStore(again.endpoint) as store:
        store.put("/a", 1)


def test_a_child_that_the_program_forked_does_not_keep_the_node_alive(tmp_path: Path) -> None:
    node = new_node(tmp_path / "data", threads=False)
    node.start()
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        begun = time.monotonic()
        node.stop()
        assert time.monotonic() - begun < 2
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_bad_setting_is_refused_at_once() -> None:
    with pytest.raises(errors.ConfigInvalid, match="heartbeat"):
        Node(heartbeat=5)


def test_a_node_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    client, raft = free_ports(2)
    code = (
        "from danube_raft import Node; import sys\n"
        f"node = Node(data_dir={str(tmp_path / 'data')!r}, client_listen='127.0.0.1:{client}', "
        f"raft_listen='127.0.0.1:{raft}', log_level='warning').start()\n"
        "print('up', flush=True); sys.stdin.read()\n"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdin is not None
    assert program.stdout.readline() == b"up\n"
    with MetadataStore(f"127.0.0.1:{client}") as store:
        pids = store.status()["pids"]
        os.kill(program.pid, signal.SIGKILL)
        program.wait(WAIT_S)
        program.stdout.close()
        program.stdin.close()
        until(lambda: not any(map(_lives, pids.values())), "the node to end")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
