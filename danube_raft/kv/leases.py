"""Leases: keys that go away when nobody renews them.

A lease has a deadline in cluster time and a generation that grows with every renewal. Nothing expires by itself: the
leader's kv-server asks `due` and proposes what it gets, and apply compares generation and deadline again, so that a
renewal that was committed first wins over an expiry that was proposed before it.

A *private* lease belongs to one key, is made by its put_with_ttl and ends with it. Leases that are granted by
themselves and hold many keys use the same class.

Replicated: leases and the next id. The heap is an index made from them; an entry is stale unless it equals the
deadline that its lease is `indexed_ms` at, and a lease's real deadline is never before that. So a renewal costs
nothing here: its entry is moved when it comes to the top.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush


class Lease:
    """One lease. `keys` is a dict for its order; its values mean nothing."""

    __slots__ = ("deadline_ms", "generation", "id", "indexed_ms", "keys", "private", "ttl_ms")

    def __init__(
        self, lease_id: int, ttl_ms: int, deadline_ms: int, private: bool, generation: int = 0
    ) -> None:
        self.id = lease_id
        self.ttl_ms = ttl_ms
        self.deadline_ms = deadline_ms
        self.generation = generation
        self.private = private
        self.keys: dict[str, None] = {}
        self.indexed_ms = deadline_ms


class Leases:
    """All leases, and which of them are due."""

    __slots__ = ("_by_id", "_heap", "next_id")

    def __init__(self) -> None:
        self.next_id = 1
        self._by_id: dict[int, Lease] = {}
        self._heap: list[tuple[int, int]] = []

    @classmethod
    def restore(cls, next_id: int, leases: list[Lease]) -> Leases:
        """The leases of a snapshot: different ids below `next_id`."""
        restored = cls()
        restored.next_id = next_id
        restored._by_id = {lease.id: lease for lease in leases}
        restored._heap = [(lease.indexed_ms, lease.id) for lease in leases]
        heapify(restored._heap)
        return restored

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, lease_id: int) -> Lease | None:
        """The lease of that id."""
        return self._by_id.get(lease_id)

    def all(self) -> list[Lease]:
        """Every lease, in the order of their ids."""
        return [lease for _, lease in sorted(self._by_id.items())]

    def hold(self, key: str, lease_id: int, ttl_ms: int, now_ms: int) -> int:
        """Give `key` a private lease until `ttl_ms` from now; returns its id.

        `lease_id` is the lease that the key has (0: none). A private one is renewed and stays.
        """
        lease = self._by_id.get(lease_id)
        if lease is not None and lease.private:
            self.renew(lease, ttl_ms, now_ms)
            return lease_id
        if lease_id:
            self.detach(lease_id, key)
        lease = Lease(self.next_id, ttl_ms, now_ms + ttl_ms, private=True)
        lease.keys[key] = None
        self.next_id += 1
        self._by_id[lease.id] = lease
        self._index(lease)
        return lease.id

    def renew(self, lease: Lease, ttl_ms: int, now_ms: int) -> None:
        """Move the deadline to `ttl_ms` from now; an expiry proposed before no longer fits."""
        lease.ttl_ms = ttl_ms
        lease.deadline_ms = now_ms + ttl_ms
        lease.generation += 1
        if lease.deadline_ms < lease.indexed_ms:
            self._index(lease)

    def detach(self, lease_id: int, key: str) -> None:
        """`key` no longer belongs to the lease; a private one ends with that."""
        lease = self._by_id[lease_id]
        del lease.keys[key]
        if lease.private:
            del self._by_id[lease_id]

    def drop(self, lease: Lease) -> None:
        """End a lease whose keys are gone."""
        del self._by_id[lease.id]

    # ---------------------------------------------------------------- the index

    def due(self, now_ms: int, limit: int) -> list[tuple[int, int]]:
        """(lease, generation) of at most `limit` leases whose deadline has come, the longest due first."""
        # A lease that was moved may have two equal entries: of such only one is put back.
        found: dict[int, Lease] = {}
        deadline = self.next_deadline()
        while deadline is not None and deadline <= now_ms and len(found) < limit:
            lease_id = heappop(self._heap)[1]
            found[lease_id] = self._by_id[lease_id]
            deadline = self.next_deadline()
        for lease in found.values():
            heappush(self._heap, (lease.indexed_ms, lease.id))
        return [(lease.id, lease.generation) for lease in found.values()]

    def next_deadline(self) -> int | None:
        """Cluster time at which the next lease is due, None when there is no lease."""
        heap = self._heap
        while heap:
            indexed_ms, lease_id = heap[0]
            lease = self._by_id.get(lease_id)
            if lease is None or lease.indexed_ms != indexed_ms:
                heappop(heap)
            elif lease.deadline_ms == indexed_ms:
                return indexed_ms
            else:
                assert lease.deadline_ms > indexed_ms
                heappop(heap)
                lease.indexed_ms = lease.deadline_ms
                heappush(heap, (lease.indexed_ms, lease_id))
        return None

    def _index(self, lease: Lease) -> None:
        lease.indexed_ms = lease.deadline_ms
        heappush(self._heap, (lease.indexed_ms, lease.id))
        # Leases that ended early leave entries behind; made anew, the heap has one for each.
        if len(self._heap) > 2 * len(self._by_id) + 1024:
            self._heap = [(each.indexed_ms, each.id) for each in self._by_id.values()]
            heapify(self._heap)
