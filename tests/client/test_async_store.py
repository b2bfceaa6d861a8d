"""What is the asynchronous store's own: one connection for all, cancelled tasks, its loop, its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import zmq
from fake_node import HOLD, LOST, NODE_ID, FakeNode, put_event

from danube_raft import AsyncMetadataStore, AsyncWatch, Leadership, errors
from danube_raft.client import async_channel, call, stream
from danube_raft.client.call import WRITES_MAX
from danube_raft.client.channel import connect, events
from danube_raft.wire import client as wire

NOWHERE = "127.0.0.1:1"
LIMIT_S = 10.0


async def until(node: FakeNode, condition: Callable[[], Any]) -> Any:
    """Wait for something that requests bring about, and let the loop go on meanwhile."""
    return await asyncio.to_thread(node.until, condition)


async def ended(task: asyncio.Task[Any]) -> BaseException | None:
    """Its error, when it has ended."""
    await asyncio.wait([task], timeout=LIMIT_S)
    assert task.done()
    try:
        return task.exception()
    except asyncio.CancelledError as cancelled:
        return cancelled


@pytest.fixture(autouse=True)
def impatient() -> None:
    """Real values here: an attempt is given up after a second, so that a busy machine makes none."""


def nothing_left(store: AsyncMetadataStore) -> bool:
    """Whether no request has left anything behind."""
    channel = store._channel
    return not (
        channel._flights
        or channel._under_way
        or store._terms.session._in_flight
        or any(line._queue for line in channel._lines.values())
    )


async def disconnected(store: AsyncMetadataStore) -> None:
    """When nothing could be sent."""
    deadline = time.monotonic() + LIMIT_S
    while any(events(line._socket) & zmq.POLLOUT for line in store._channel._lines.values()):
        assert time.monotonic() < deadline
        await asyncio.wait([asyncio.create_task(asyncio.to_thread(time.monotonic))])


def test_a_thousand_puts_at_once_share_one_connection_and_few_messages(node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint, timeout_ms=30_000) as store:
            written = await asyncio.gather(*(store.put(f"/k/{number}", number) for number in range(1_000)))
            assert sorted(put.revision for put in written) == list(range(2, 1_002))
            assert await store.count("/k/") == 1_000
            records = await asyncio.gather(*(store.get(f"/k/{number}") for number in range(1_000)))
            assert [record and record.value for record in records] == list(range(1_000))
            assert nothing_left(store)

    node.page = 2_000
    asyncio.run(work())
    puts = node.of("put")
    assert sorted(put[wire.SERIAL] for put in puts) == list(range(1, 1_001))
    assert max(put[wire.SERIAL] - put[wire.LOW_WATER] for put in puts) < WRITES_MAX
    assert len(node.connections) == 1
    assert len(node.bodies) < 100


def test_messages_stay_below_what_a_node_takes(node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint, raw=True) as store:
            await asyncio.gather(*(store.put(f"/k/{number}", bytes(400_000)) for number in range(8)))

    asyncio.run(work())
    assert max(node.bodies) <= async_channel.BATCH_BYTES
    assert len(node.bodies) == 4, "two fit into one message"


def test_no_more_writes_are_in_flight_than_a_session_may_have(node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint, timeout_ms=30_000) as store:
            node.script += [HOLD] * WRITES_MAX
            puts = [asyncio.create_task(store.put(f"/k/{number}", 1)) for number in range(WRITES_MAX + 50)]
            await until(node, lambda: len(node.of("put")) == WRITES_MAX)
            assert await store.get("/k/0") is not None, "reads have room of their own"
            assert len(node.of("put")) == WRITES_MAX
            await asyncio.to_thread(node.release)
            await asyncio.gather(*puts)

    asyncio.run(work())
    assert len(node.of("put")) == WRITES_MAX + 50


def test_waiting_for_a_turn_is_part_of_the_deadline(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_channel, "WRITES_MAX", 1)
    node.script += [LOST] * 99

    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint, timeout_ms=800) as store:
            first = asyncio.create_task(store.put("/a", 1))
            await until(node, lambda: node.of("put"))
            store._terms.timeout_ms = 50
            others = [asyncio.create_task(store.put("/a", 2)) for _ in range(3)]
            assert [type(await ended(other)) for other in others] == [errors.Overloaded] * 3
            assert not first.done()
            assert isinstance(await ended(first), errors.Uncertain)
            assert nothing_left(store)
            store._terms.timeout_ms = 5_000
            node.script.clear()
            assert (await store.put("/a", 3)).version >= 1

    asyncio.run(work())


def test_a_request_that_got_its_turn_late_has_what_is_left_of_its_time(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_channel, "WRITES_MAX", 1)
    node.script.append(HOLD)

    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint, timeout_ms=20_000) as store:
            first = asyncio.create_task(store.put("/a", 1))
            await until(node, lambda: node.of("put"))
            second = asyncio.create_task(store.put("/a", 2))
            await asyncio.wait([second], timeout=0.3)
            await asyncio.to_thread(node.release)
            await asyncio.gather(first, second)

    asyncio.run(work())
    assert node.of("put")[-1][wire.TIMEOUT_MS] <= 19_750


@pytest.mark.parametrize("endpoint", ["node", NOWHERE])
def test_a_deadline_is_never_early_and_not_late(
    node: FakeNode, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who waited for the end of an attempt would be much later than a busy machine makes anybody.
    monkeypatch.setattr(call, "ATTEMPT_MS", 20_000)
    monkeypatch.setattr(call, "CONNECT_MS", 20_000)
    node.script += [LOST] * 99

    async def work() -> None:
        async with AsyncMetadataStore(
            node.endpoint if endpoint == "node" else endpoint, timeout_ms=250
        ) as store:
            started = time.monotonic()
            with pytest.raises((errors.Timeout, errors.NoConnection)):
                await store.get("/a")
            took = time.monotonic() - started
            assert 0.25 <= took < 5.0
            assert nothing_left(store)

    asyncio.run(work())


# ---------------------------------------------------------------- cancelled


def test_a_cancelled_write_gives_up_its_serial_and_its_late_answer_is_dropped(node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint) as store:
            node.script.append(HOLD)
            task = asyncio.create_task(store.put("/a", 1))
            await until(node, lambda: node.of("put"))
            task.cancel()
            assert isinstance(await ended(task), asyncio.CancelledError)
            assert nothing_left(store)
            await asyncio.to_thread(node.release)
            assert (await store.put("/a", 2)).version == 2
            assert node.requests[-1][wire.SERIAL : wire.LOW_WATER + 1] == (2, 2)

    asyncio.run(work())


def test_a_request_that_is_cancelled_before_it_left_never_leaves(node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint) as store:
            await store.status()
            await asyncio.to_thread(node.down)
            await disconnected(store)
            tasks = [asyncio.create_task(store.put("/a", number)) for number in range(5)]
            assert await asyncio.wait(tasks, timeout=0.05) == (set(), set(tasks))
            for task in tasks:
                task.cancel()
            assert [type(await ended(task)) for task in tasks] == [asyncio.CancelledError] * 5
            assert nothing_left(store)
            await asyncio.to_thread(node.up)
            assert (await store.put("/a", 9)).version == 1
            assert [put[wire.ARGS + 1] for put in node.of("put")] == [b"9"]

    asyncio.run(work())


def test_a_task_that_is_cancelled_while_it_waits_for_its_turn_leaves_the_turn_to_others(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_channel, "WRITES_MAX", 1)

    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint) as store:
            node.script.append(HOLD)
            first = asyncio.create_task(store.put("/a", 1))
            await until(node, lambda: node.of("put"))
            waiting = [asyncio.create_task(store.put("/a", number)) for number in range(2, 6)]
            await asyncio.wait(waiting, timeout=0.02)
            for task in waiting[:3]:
                task.cancel()
            await asyncio.to_thread(node.release)
            assert (await first).version == 1
            assert (await waiting[3]).version == 2
            assert (await asyncio.wait_for(store.put("/a", 7), LIMIT_S)).version == 3

    asyncio.run(work())


def test_a_place_that_was_given_to_a_task_that_is_cancelled_goes_on_to_the_next() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        room = async_channel._Room(1)
        assert await room.enter(loop, 1)
        task = asyncio.create_task(room.enter(loop, 60_000))
        assert await asyncio.wait([task], timeout=0.02) == (set(), {task})
        room.leave()
        task.cancel()
        assert isinstance(await ended(task), asyncio.CancelledError)
        assert await room.enter(loop, 1_000)
        assert not await room.enter(loop, 1)

    asyncio.run(work())


# ---------------------------------------------------------------- other endpoints


def test_what_is_in_flight_moves_to_the_next_endpoint(node: FakeNode) -> None:
    async def work(other: FakeNode) -> None:
        async with AsyncMetadataStore([node.endpoint, other.endpoint]) as store:
            node.script += [LOST] * 99
            puts = [asyncio.create_task(store.put(f"/k/{number}", number)) for number in range(50)]
            await until(node, lambda: len(node.of("put")) == 50)
            await asyncio.to_thread(node.down)
            await asyncio.wait_for(asyncio.gather(*puts), LIMIT_S)
            assert nothing_left(store)

    with FakeNode() as other:
        asyncio.run(work(other))
        serials = sorted(put[wire.SERIAL] for put in other.of("put"))
        assert serials == sorted(put[wire.SERIAL] for put in node.of("put")) == list(range(1, 51))
    node.up()


# ---------------------------------------------------------------- loops


def test_a_store_belongs_to_the_loop_that_first_used_it(node: FakeNode) -> None:
    store = AsyncMetadataStore(node.endpoint)

    async def use() -> None:
        await store.put("/a", 1)

    async def misuse() -> None:
        uses = (store.get("/a"), store.aclose(), store.watch("/a", from_revision=1).changes(1))
        for use in uses:
            with pytest.raises(errors.Rejected, match="event loop that first used it"):
                await use
        with pytest.raises(errors.Rejected, match="event loop that first used it"):
            store.leadership()

    first = asyncio.new_event_loop()
    first.run_until_complete(use())
    asyncio.run(misuse())
    first.run_until_complete(use())
    first.run_until_complete(store.aclose())
    first.close()


def test_several_loops_each_have_their_store(node: FakeNode) -> None:
    async def use(name: str) -> int:
        async with AsyncMetadataStore(node.endpoint) as store:
            puts = await asyncio.gather(*(store.put(f"/{name}/{number}", 1) for number in range(20)))
            return len(puts)

    async def both() -> list[int]:
        elsewhere = (asyncio.to_thread(asyncio.run, use(name)) for name in "abc")
        return list(await asyncio.gather(use("d"), *elsewhere))

    assert asyncio.run(both()) == [20] * 4
    assert len(node.records) == 80


# ---------------------------------------------------------------- the end


def test_the_end_waits_for_the_answers_under_way_and_refuses_the_rest(node: FakeNode) -> None:
    async def work() -> None:
        store = AsyncMetadataStore(node.endpoint)
        node.script.append(HOLD)
        put = asyncio.create_task(store.put("/a", 1))
        await until(node, lambda: node.of("put"))
        ends = [asyncio.create_task(store.aclose()) for _ in range(2)]
        await asyncio.wait(ends, timeout=0.02)
        with pytest.raises(errors.Rejected, match="closed"):
            await store.get("/a")
        with pytest.raises(errors.Rejected, match="closed"):
            store.watch("/a")
        assert not store._channel.context.closed
        await asyncio.to_thread(node.release)
        assert (await put).version == 1
        await asyncio.gather(*ends)
        await store.aclose()
        assert store._channel.context.closed

    asyncio.run(work())


def test_an_end_that_is_cancelled_ends_what_is_under_way_and_says_what_is_known(node: FakeNode) -> None:
    async def work() -> None:
        store = AsyncMetadataStore(node.endpoint)
        node.script += [LOST] * 9
        put, get = asyncio.create_task(store.put("/a", 1)), asyncio.create_task(store.get("/a"))
        await until(node, lambda: len(node.requests) >= 2)
        end = asyncio.create_task(store.aclose())
        await asyncio.wait([end], timeout=0.02)
        end.cancel()
        assert isinstance(await ended(end), asyncio.CancelledError)
        assert isinstance(await ended(put), errors.Uncertain)
        assert type(await ended(get)) is errors.Rejected
        await store.aclose()
        assert store._channel.context.closed

    asyncio.run(work())


# ---------------------------------------------------------------- watches and handles


def test_a_watch_begins_when_it_is_awaited_entered_or_iterated(node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint) as store:
            awaited, entered, iterated = (store.watch("/a/") for _ in range(3))
            assert awaited.revision == 0
            assert (await awaited) is awaited
            await store.put("/a/1", 1)
            async with entered:
                assert (awaited.revision, entered.revision, iterated.revision) == (1, 2, 0)
            assert store.watch("/a/", from_revision=9).revision == 8
            following = asyncio.create_task(anext(aiter(iterated)))
            await until(node, lambda: node.streams)
            event = put_event("/a/2", b"2", 3)
            await asyncio.to_thread(node.frame, wire.FRAME_EVENTS, (event,), 3, False)
            assert (await following).value == 2

    asyncio.run(work())


def test_a_cancelled_wait_for_an_event_loses_none(node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint) as store, store.watch("/a/", from_revision=2) as watch:
            seen = []
            for revision in range(2, 8):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(watch), 0.05)
                event = put_event(f"/a/{revision}", b"1", revision)
                await asyncio.to_thread(node.frame, wire.FRAME_EVENTS, (event,), revision, False)
                seen.append((await asyncio.wait_for(anext(watch), LIMIT_S)).revision)
            assert seen == list(range(2, 8))
        assert len(node.of("watch")) == 1

    asyncio.run(work())


def test_the_end_of_a_watch_ends_the_iteration_of_another_task(node: FakeNode) -> None:
    async def follow(store: AsyncMetadataStore, seen: list[int]) -> None:
        async for event in store.watch("/a/", from_revision=2):
            seen.append(event.revision)  # noqa: PERF401 -- what was seen before an error counts too

    async def work() -> None:
        seen: list[int] = []
        store = AsyncMetadataStore(node.endpoint)
        tasks = [asyncio.create_task(follow(store, seen)) for _ in range(3)]
        await until(node, lambda: len(node.streams) == 3)
        await store.aclose()
        assert await asyncio.gather(*tasks) == [None] * 3
        assert not seen
        await until(node, lambda: len(node.of("watch_cancel")) == 3)

    asyncio.run(work())


def test_a_watch_closed_before_it_began_asks_for_nothing(node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint) as store:
            watch = store.watch("/a/")
            await watch.aclose()
            await watch.aclose()
            assert [event async for event in watch] == []
            assert await watch.changes() == []
            assert not watch.connected
        assert not node.requests

    asyncio.run(work())


def test_changes_of_the_leader_are_followed(node: FakeNode) -> None:
    async def work() -> list[Leadership]:
        seen: list[Leadership] = []
        async with AsyncMetadataStore(node.endpoint) as store, store.leadership() as handle:
            while not handle.is_leader:
                await handle.wait(1_000)
            steps = [(0, 2), (7, 2), (NODE_ID, 4)]
            async for state in handle.changes():
                seen.append(state)
                if not steps:
                    await handle.aclose()
                else:
                    await asyncio.to_thread(node.leads, *steps.pop(0))
            assert await handle.wait() is None
        return seen

    seen = asyncio.run(asyncio.wait_for(work(), LIMIT_S))
    assert [(state.is_leader, state.current_leader, state.term) for state in seen] == [
        (True, NODE_ID, 1), (False, None, 2), (False, 7, 2), (True, NODE_ID, 4)
    ]  # fmt: skip


def test_a_handle_wants_a_running_loop(node: FakeNode) -> None:
    store = AsyncMetadataStore(node.endpoint)
    with pytest.raises(RuntimeError, match="no running event loop"):
        store.leadership()
    asyncio.run(store.aclose())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer helps a watch: what happens must be noticed when it happens."""
    monkeypatch.setattr(stream, "SILENCE_MS", 600_000)
    monkeypatch.setattr(stream, "PROBE_MS", 600_000)


@pytest.mark.usefixtures("patient")
def test_a_waiting_task_notices_an_event_and_the_loss_of_its_connection(node: FakeNode) -> None:
    async def following(watch: AsyncWatch, revision: int) -> None:
        task = asyncio.create_task(anext(watch))
        await until(node, lambda: node.streams)
        # It surely waits: nothing else happens in this loop.
        assert await asyncio.wait([task], timeout=0.1) == (set(), {task})
        event = put_event("/a/1", b"1", revision)
        await asyncio.to_thread(node.frame, wire.FRAME_EVENTS, (event,), revision, False)
        assert (await asyncio.wait_for(task, LIMIT_S)).revision == revision

    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint) as store, store.watch("/a/", from_revision=2) as watch:
            await following(watch, 2)
            task = asyncio.create_task(anext(watch))
            await asyncio.wait([task], timeout=0.1)
            await asyncio.to_thread(node.down)
            await asyncio.to_thread(node.up)
            await until(node, lambda: len(node.of("watch")) == 2)
            task.cancel()
            await ended(task)
            await following(watch, 3)

    asyncio.run(work())


def test_a_watch_that_is_closed_while_it_begins_never_subscribes(node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint) as store:
            node.script.append(HOLD)
            watch = store.watch("/a/")
            task = asyncio.create_task(watch.changes())
            await until(node, lambda: node.of("get"))
            end = asyncio.create_task(watch.aclose())
            await asyncio.wait([end], timeout=0.02)
            await asyncio.to_thread(node.release)
            assert await asyncio.wait_for(task, LIMIT_S) == []
            await asyncio.wait_for(end, LIMIT_S)
            assert watch._subscription is not None
            assert watch._subscription.closed
        assert not node.of("watch")

    asyncio.run(work())


def test_an_end_that_is_cancelled_while_a_watch_waits_leaves_no_socket_open(node: FakeNode) -> None:
    async def work() -> None:
        store = AsyncMetadataStore(node.endpoint)
        watch = store.watch("/a/", from_revision=2)
        task = asyncio.create_task(anext(watch))
        await until(node, lambda: node.streams)
        end = asyncio.create_task(store.aclose())
        # After its first step, in which it wakes the task inside the watch and begins to wait for it.
        asyncio.get_running_loop().call_soon(end.cancel)
        assert isinstance(await ended(end), asyncio.CancelledError)
        assert isinstance(await ended(task), StopAsyncIteration)
        await asyncio.wait_for(store.aclose(), LIMIT_S)
        assert store._channel.context.closed

    asyncio.run(work())


def test_a_store_forgets_what_has_ended(node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncMetadataStore(node.endpoint) as store:
            async with store.watch("/a/"), store.leadership():
                assert len(store._open) == 2
            assert not store._open

    asyncio.run(work())


# ---------------------------------------------------------------- the other end, and this one


def test_rubbish_disturbs_nothing_else_in_the_loop(node: FakeNode) -> None:
    node.script += [lambda _: b"\xc1\xc1", lambda _: b"\x93\x01\x02\x03"]
    troubles: list[Any] = []

    async def work() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, trouble: troubles.append(trouble))
        async with AsyncMetadataStore(node.endpoint) as store:
            assert (await store.put("/a", 1)).version == 1

    asyncio.run(work())
    assert troubles == []


def test_a_write_that_was_sent_stays_uncertain_when_there_is_no_room_for_another_socket(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.script += [LOST] * 9

    def refuse(context: Any, endpoint: str) -> Any:
        if endpoint == NOWHERE:
            raise errors.Overloaded("no socket")
        return connect(context, endpoint)

    monkeypatch.setattr(async_channel, "connect", refuse)

    async def work() -> None:
        async with AsyncMetadataStore([node.endpoint, NOWHERE]) as store:
            with pytest.raises(errors.Uncertain):
                await store.put("/a", 1)
            with pytest.raises(errors.Overloaded, match="no socket"):
                await store.get("/a")
            assert nothing_left(store)

    asyncio.run(work())
