"""The asynchronous store: `MetadataStore` for tasks, with the same methods, arguments, results and errors.

All tasks share one connection per endpoint and one session: requests that are made together leave together, and
answers come in any order (`async_channel.py`). At most 256 writes are in flight, more wait for their turn. A task
that is cancelled gives its request up: a write may then be applied or not, as with Uncertain.

A store belongs to the event loop that first used it; in another loop it raises Rejected. What is asked and how an
answer is read, when to repeat what where, and what a watch remembers is shared with the synchronous store
(`store.py` names the files); nothing is decided here. Times are milliseconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from danube_raft.client import operation
from danube_raft.client.async_channel import AsyncChannel
from danube_raft.client.async_leadership import AsyncLeadershipHandle
from danube_raft.client.async_watch import AsyncWatch
from danube_raft.client.call import REQUEST_MS, Call
from danube_raft.client.channel import now_ms
from danube_raft.client.operation import Ask, NodeDigest, Page, Range, SavedMeta
from danube_raft.client.record import Listing, MetaOptions, Record, Swapped, Versioned, Written
from danube_raft.client.stream import Options
from danube_raft.client.subscription import Subscription
from danube_raft.client.terms import Consistency, Terms
from danube_raft.client.value import JSON, Codec
from danube_raft.wire.client import SESSION, kind_of
from danube_raft.wire.operations import WRITE

T = TypeVar("T")


class AsyncMetadataStore:
    """A store of keys and values, reached through any of its nodes, for the tasks of one event loop.

    `endpoints` is `host:port,host:port` or a sequence of `host:port`. `timeout_ms` is the deadline of a request with all its attempts.
    `consistency` is the level of reads that name none. Values are JSON unless a `codec` or `raw=True` (bytes) is
    given. Opening connects to nothing yet.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        timeout_ms: int = REQUEST_MS,
        consistency: str | int = SESSION,
        codec: Codec = JSON,
        raw: bool = False,
    ) -> None:
        self._terms = Terms(endpoints, timeout_ms, consistency, codec, raw)
        self._codec = self._terms.codec
        self._open: set[AsyncWatch | AsyncLeadershipHandle] = set()
        self._channel = AsyncChannel()

    # ---------------------------------------------------------------- reads

    @overload
    async def get(
        self,
        key: str,
        option: Literal[MetaOptions.NONE, MetaOptions.WITH_PREV_KEY] = ...,
        *,
        revision: int | None = ...,
        consistency: Consistency = ...,
    ) -> Record | None: ...

    @overload
    async def get(
        self,
        key: str,
        option: Literal[MetaOptions.WITH_PREFIX],
        *,
        revision: int | None = ...,
        consistency: Consistency = ...,
    ) -> list[Record]: ...

    async def get(
        self,
        key: str,
        option: MetaOptions = MetaOptions.NONE,
        *,
        revision: int | None = None,
        consistency: Consistency = None,
    ) -> Record | list[Record] | None:
        """The record, or None; with WITH_PREFIX every record below the key. `revision` reads the past."""
        operation.check_option(option)
        if option is MetaOptions.WITH_PREFIX:
            return await self.get_prefix(key, revision=revision, consistency=consistency)
        return await self._ask(operation.get(self._codec, key, revision), consistency)

    async def get_prefix(
        self,
        prefix: str,
        *,
        limit: int | None = None,
        revision: int | None = None,
        keys_only: bool = False,
        reverse: bool = False,
        consistency: Consistency = None,
    ) -> list[Record]:
        """All records whose key begins with the prefix, in order, as of one revision; at most `limit`."""
        what = Range(prefix, limit=limit, revision=revision, keys_only=keys_only, reverse=reverse)
        return await self._listed(what, consistency)

    async def range(
        self,
        start: str,
        end: str,
        *,
        limit: int | None = None,
        revision: int | None = None,
        keys_only: bool = False,
        reverse: bool = False,
        consistency: Consistency = None,
    ) -> list[Record]:
        """All records with start ≤ key < end, as of one revision; at most `limit`."""
        what = Range("", start, end, limit, revision, keys_only, reverse)
        return await self._listed(what, consistency)

    async def pages(
        self,
        prefix: str,
        *,
        page_size: int | None = None,
        revision: int | None = None,
        keys_only: bool = False,
        reverse: bool = False,
        consistency: Consistency = None,
    ) -> AsyncIterator[list[Record]]:
        """As `get_prefix`, page by page, for what should not be in memory at once. All pages show one revision;
        a reader so slow that it is compacted meanwhile gets Compacted."""
        what = Range(prefix, limit=page_size, revision=revision, keys_only=keys_only, reverse=reverse)
        async for page in self._pages(operation.records(self._codec, what), consistency):
            yield page.items

    async def keys(
        self, prefix: str = "", *, revision: int | None = None, consistency: Consistency = None
    ) -> list[str]:
        """The keys that begin with the prefix."""
        found = await self.get_prefix(prefix, revision=revision, keys_only=True, consistency=consistency)
        return [record.key for record in found]

    async def count(
        self, prefix: str = "", *, revision: int | None = None, consistency: Consistency = None
    ) -> int:
        """How many keys begin with the prefix."""
        ask = operation.count(Range(prefix, revision=revision))
        return sum([sum(page.items) async for page in self._pages(ask, consistency)])

    async def get_children(
        self, path: str, *, revision: int | None = None, consistency: Consistency = None
    ) -> list[str]:
        """The keys under a path, with `/` as the boundary: `/a` does not list `/ab`."""
        ask = operation.children(path, revision)
        return [key async for page in self._pages(ask, consistency) for key in page.items]

    async def get_childrens(self, path: str) -> list[str]:
        """`get_children` as the Rust danube-raft spells it."""
        return await self.get_children(path)

    async def get_bulk(
        self, prefix: str, *, revision: int | None = None, consistency: Consistency = None
    ) -> list[Versioned]:
        """(key, value bytes, version) of every match."""
        ask = operation.bulk(prefix, revision)
        return [match async for page in self._pages(ask, consistency) for match in page.items]

    # ---------------------------------------------------------------- writes

    async def put(
        self, key: str, value: Any, option: MetaOptions = MetaOptions.NONE, *, prev: bool = False
    ) -> Written:
        """Store a value; a TTL that the key had is cleared. `prev` (or WITH_PREV_KEY) returns the old record."""
        return await self._ask(operation.put(self._codec, key, value, option, prev))

    async def put_with_ttl(self, key: str, value: Any, ttl_ms: int, *, prev: bool = False) -> Written:
        """Store a value that is deleted after `ttl_ms` unless it is put again; the same value only renews."""
        return await self._ask(operation.put_with_ttl(self._codec, key, value, ttl_ms, prev))

    async def delete(self, key: str) -> int:
        """Remove a key; returns how many were removed, 0 or 1."""
        return await self._ask(operation.delete(key))

    async def delete_prefix(self, prefix: str) -> int:
        """Remove all keys that begin with the prefix, in one revision; returns how many."""
        return await self._ask(operation.delete_prefix(prefix))

    async def compare_and_swap(
        self, key: str, expected: Any, new: Any, *, ttl_ms: int | None = None
    ) -> Swapped:
        """Store `new` if the key is as expected: a value, `Revision(n)` or `ABSENT`. The answer is true or false."""
        return await self._ask(operation.compare_and_swap(self._codec, key, expected, new, ttl_ms))

    async def allocate_monotonic_id(self, counter: str, count: int = 1) -> int:
        """The first of `count` ids that were never handed out before."""
        return await self._ask(operation.allocate_id(counter, count))

    async def compact(self, revision: int) -> int:
        """Forget the history below a revision; returns the compaction revision."""
        return await self._ask(operation.compact(revision))

    # ---------------------------------------------------------------- watches

    def watch(
        self,
        prefixes: str | Sequence[str],
        *,
        from_revision: int | None = None,
        prev: bool = False,
        keys_only: bool = False,
        puts: bool = True,
        deletes: bool = True,
    ) -> AsyncWatch:
        """All changes below one prefix or several, from `from_revision` on; by default those after the watch was
        first awaited, entered or iterated."""
        options = Options.of(prefixes, from_revision, prev, keys_only, puts, deletes)

        async def begin() -> Subscription:
            self._channel.check_usable()
            first = from_revision
            if first is None:
                # The revision of the start is fixed here, so that a connection lost before the first event costs none.
                first = (await self._call(operation.present(), None, None)).revision + 1
            stream = self._terms.stream(options, first, now_ms())
            return Subscription(self._channel.context, stream, self._terms.endpoints)

        self._channel.owner.check_usable()
        watch = AsyncWatch(begin, from_revision, self._open.discard)
        self._open.add(watch)
        return watch

    async def list_and_watch(
        self, prefix: str, *, prev: bool = False, keys_only: bool = False
    ) -> Listing[AsyncWatch]:
        """The records below a prefix and a watch of all that happens after, with nothing between."""
        ask = operation.records(self._codec, Range(prefix, keys_only=keys_only))
        pages = [page async for page in self._pages(ask, None)]
        revision = pages[0].revision
        watch = await self.watch(prefix, from_revision=revision + 1, prev=prev, keys_only=keys_only)
        return Listing([record for page in pages for record in page.items], revision, watch)

    # ---------------------------------------------------------------- nodes

    async def status(self, endpoint: str | None = None) -> dict[str, Any]:
        """What a node says of itself: that endpoint, or any."""
        return await self._ask(operation.status(), None, endpoint)

    async def snapshot_take(self, index: int = 0) -> tuple[int, SavedMeta | None]:
        """Have a snapshot made that reaches an index of the log (0: what the node that answers has applied): that index,
        and the snapshot once there is one. Ask again with the index until there is."""
        return await self._ask(operation.snapshot_take(index))

    async def snapshot_piece(self, meta: SavedMeta, offset: int) -> bytes | None:
        """Up to 1 MiB of that snapshot's file; empty behind its end, None if it was replaced by a newer one. All pieces
        come from one node: open a store with one endpoint for them."""
        return await self._ask(operation.snapshot_piece(meta, offset))

    async def digest(self) -> int:
        """Have every node hash its state at one index of the log, which is returned; compare what `digest_reports` says."""
        return await self._ask(operation.digest())

    async def digest_reports(
        self, index: int = 0, endpoint: str | None = None
    ) -> tuple[int, list[NodeDigest]]:
        """The hashes at an index (0: at that of the newest digest), as far as a node has heard of them: that endpoint's, or
        any. The index, and a row for each node that has reported."""
        return await self._ask(operation.digest_reports(index), None, endpoint)

    async def members(self) -> list[dict[str, Any]]:
        """The members of the cluster, as the node that answers knows them."""
        return await self._ask(operation.members())

    def leadership(self, endpoint: str | None = None) -> AsyncLeadershipHandle:
        """Who leads, as the node at that endpoint (by default the first) sees it: pushed, never asked for again."""
        handle = AsyncLeadershipHandle(
            self._terms.attached_endpoint(endpoint), self._channel, self._open.discard
        )
        self._open.add(handle)
        return handle

    # ---------------------------------------------------------------- end

    async def aclose(self) -> None:
        """End all watches and handles; refuse new requests. Returns when those under way have their answers."""
        self._channel.close()
        for each in list(self._open):
            await each.aclose()
        await self._channel.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # ---------------------------------------------------------------- inside

    async def _ask(self, ask: Ask[T], consistency: Consistency = None, endpoint: str | None = None) -> T:
        result = (await self._call(ask, consistency, endpoint)).result
        assert result is not None
        return ask.read(result)

    async def _call(self, ask: Ask[Any], consistency: Consistency, endpoint: str | None) -> Call:
        def make(now: float) -> Call:
            return self._terms.call(ask, consistency, endpoint, now)

        return await self._channel.run(kind_of(ask.op) == WRITE, self._terms.timeout_ms, make)

    async def _pages(self, ask: Ask[Page[T]], consistency: Consistency) -> AsyncIterator[Page[T]]:
        following: Ask[Page[T]] | None = ask
        while following is not None:
            page = await self._ask(following, consistency)
            yield page
            following = page.following
            # The revision of the first page is one that this client has seen: a node that is behind waits for it.
            consistency = SESSION

    async def _listed(self, what: Range, consistency: Consistency) -> list[Record]:
        ask = operation.records(self._codec, what, what.limit)
        return [record async for page in self._pages(ask, consistency) for record in page.items]
