"""What a caller gets wrong is said at once: InvalidArgument, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import zmq
from blocking_store import Make
from fake_node import LOST, FakeNode

from danube_raft import MetadataStore, MetaOptions, errors
from danube_raft.client import channel
from danube_raft.client.call import Call, Endpoints, Session

SURROGATE = "\udcff"


@pytest.mark.parametrize(
    "settings",
    [
        {"consistency": "bogus"},
        {"consistency": -1},
        {"consistency": 1.5},
        {"timeout_ms": "5"},
        {"timeout_ms": 0},
        {"timeout_ms": 2**53},
        {"timeout_ms": None},
        {"timeout_ms": True},
        {"endpoints": None},
        {"endpoints": 7750},
        {"endpoints": b"127.0.0.1:7750"},
        {"endpoints": []},
        {"endpoints": [None]},
        {"endpoints": ["127.0.0.1:1,127.0.0.1:2"]},
        {"endpoints": "tcp://127.0.0.1:7750"},
        {"endpoints": f"{SURROGATE}:7750"},
        {"endpoints": "127.0.0.1:" + "9" * 5000},
    ],
    ids=lambda settings: str(settings)[:60],
)
def test_a_store_with_wrong_settings_is_refused_at_once(settings: dict[str, Any], make: Make) -> None:
    with pytest.raises(errors.InvalidArgument):
        make(**{"endpoints": "127.0.0.1:1", **settings})


def test_endpoints_may_be_a_sequence(node: FakeNode, make: Make) -> None:
    for endpoints in ([node.endpoint], (node.endpoint, "127.0.0.1:1")):
        with make(endpoints) as store:
            assert store.put("/a", 1)


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.put(SURROGATE, 1),
        lambda store: store.put(SURROGATE * 2000, 1),
        lambda store: store.put("/a", SURROGATE),
        lambda store: store.put_with_ttl(SURROGATE, 1, 1000),
        lambda store: store.compare_and_swap(SURROGATE, 1, 2),
        lambda store: store.get(SURROGATE),
        lambda store: store.get_prefix(SURROGATE),
        lambda store: store.range("/a", SURROGATE),
        lambda store: store.get_children(SURROGATE),
        lambda store: store.get_bulk(SURROGATE),
        lambda store: store.delete(SURROGATE),
        lambda store: store.allocate_monotonic_id(SURROGATE),
        lambda store: store.watch(SURROGATE),
        lambda store: store.watch(["/a", SURROGATE]),
        lambda store: store.watch(None),
        lambda store: store.watch("/a", puts=False, deletes=False),
        lambda store: store.watch("/a", from_revision=0),
        lambda store: store.get("/a", option="with_prefix"),
        lambda store: store.put("/a", 1, "with_prev_key"),
        lambda store: store.status(7750),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(
    node: FakeNode, store: MetadataStore, use: Callable[[MetadataStore], Any]
) -> None:
    with pytest.raises(errors.InvalidArgument):
        use(store)
    assert not node.requests
    store.put("/a", 1, MetaOptions.WITH_PREV_KEY)


def test_silence_from_a_port_that_never_answered_asks_whether_it_is_one_for_clients(
    node: FakeNode, make: Make
) -> None:
    node.script += [LOST] * 99
    with make(node.endpoint, timeout_ms=150) as store:
        with pytest.raises(errors.Timeout, match=r"is this a client port\?$"):
            store.get("/a")
        with pytest.raises(errors.Uncertain, match=r"is this a client port\?$"):
            store.put("/a", 1)
        node.script.clear()
        store.put("/a", 1)
        node.script += [LOST] * 99
        with pytest.raises(errors.Timeout) as caught:
            store.get("/a")
        assert "client port" not in caught.value.message


def test_a_process_without_room_for_a_socket_is_told(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    def refuse(context: zmq.Context[Any], kind: int) -> None:
        raise zmq.ZMQError(24, "Too many open files")

    with make("127.0.0.1:1") as store:
        monkeypatch.setattr(zmq.Context, "socket", refuse)
        with pytest.raises(errors.Overloaded, match="Too many open files"):
            store.put("/a", 1)
        with pytest.raises(errors.Overloaded, match="Too many open files"):
            next(store.watch("/a", from_revision=1))


def test_a_write_that_was_sent_stays_uncertain_when_this_side_cannot_go_on() -> None:
    refused = errors.Overloaded("no room")
    call = Call(Session(), Endpoints.parse("127.0.0.1:1"), "put", ("/a", b"1"), now=0)
    assert call.unable(refused) is refused
    assert call.next(0)
    call.sent(0)
    assert isinstance(call.unable(refused), errors.Uncertain)
    assert channel.no_socket(zmq.ZMQError(24, "Too many open files")).message
