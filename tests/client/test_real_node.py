"""The asynchronous store and the handles on a node that is none of pretence."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from real_node import free_ports

from danube_raft import ABSENT, AsyncMetadataStore, Leadership, LeadershipHandle, MetadataStore, Node

LIMIT_S = 20.0


def node_in(tmp_path: Path) -> Node:
    """One that is not started yet."""
    client, raft = (f"127.0.0.1:{port}" for port in free_ports(2))
    return Node(data_dir=str(tmp_path / "data"), client_listen=client, raft_listen=raft, threads=True)


def reached(handle: LeadershipHandle, leads: bool) -> Leadership:
    """The state once the node leads, or does not."""
    deadline = time.monotonic() + LIMIT_S
    while handle.is_leader != leads:
        assert time.monotonic() < deadline, handle.state
        handle.wait(100)
    return handle.state


def test_a_node_says_that_it_leads_until_it_is_stopped(tmp_path: Path) -> None:
    node = node_in(tmp_path)
    with node.leadership() as handle:
        assert handle.state == Leadership(False, None, None, 0)
        with node, MetadataStore(node.endpoint) as store:
            status = store.status()
            state = reached(handle, True)
            assert state == Leadership(True, status["node_id"], status["node_id"], status["term"])
            # Longer than one poll waits: it is asked again and stays sure.
            assert handle.wait(2_500) is None
        assert reached(handle, False) == state._replace(is_leader=False, current_leader=None)


def test_tasks_write_read_and_watch(tmp_path: Path) -> None:
    async def work(endpoint: str) -> None:
        async with AsyncMetadataStore(endpoint, timeout_ms=30_000) as store:
            listing = await store.list_and_watch("/k/")
            assert listing.records == []
            await asyncio.gather(*(store.put(f"/k/{number:04}", number) for number in range(1_000)))
            seen = [(await anext(listing.watch)).value for _ in range(1_000)]
            assert sorted(seen) == list(range(1_000))
            assert listing.watch.revision == 1_001
            records = await store.get_prefix("/k/")
            assert [record.value for record in records] == list(range(1_000))
            swaps = await asyncio.gather(*(store.compare_and_swap("/one", ABSENT, n) for n in range(50)))
            assert sum(map(bool, swaps)) == 1
            ids = await asyncio.gather(*(store.allocate_monotonic_id("ids") for _ in range(100)))
            assert sorted(ids) == list(range(1, 101))
            async with store.leadership() as handle:
                while not handle.is_leader:
                    await handle.wait(1_000)
                assert handle.node_id == (await store.status())["node_id"]

    with node_in(tmp_path) as node:
        asyncio.run(asyncio.wait_for(work(node.endpoint), 60))
