"""One node, whole, stepped by hand: what clients see of writes, reads, time, power losses and bad input."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from stepped import CLUSTER_ID, ENVELOPE, NODE_ID, SteppedNode

from danube_raft import errors
from danube_raft.config import Config
from danube_raft.node.endpoints import ClientGone, FromClient, FromPeer
from danube_raft.node.handler import CLIENTS, CONSENSUS, KV, LOG
from danube_raft.node.streams import TELL_EVERY_MS
from danube_raft.wire import local, peer
from danube_raft.wire.client import pack_request
from danube_raft.wire.codec import pack

DAY_MS = 86_400_000


def test_the_single_node_leads_and_says_so() -> None:
    node = SteppedNode()
    status = node.ask("status")[2]
    assert node.open
    assert (status["role"], status["leader_id"], status["node_id"]) == ("leader", NODE_ID, NODE_ID)
    assert (
        status["applied_index"]
        == status["commit_index"]
        == status["durable_index"]
        == status["last_index"]
        == 2
    )
    (member,) = node.ask("members")[2]
    assert (member["node_id"], member["kind"], member["is_leader"]) == (NODE_ID, "voter", True)


def test_a_put_is_answered_after_its_sync_and_not_before() -> None:
    node = SteppedNode()
    number = node.send("put", "/a", b"1")
    node.paused = {LOG}
    node.settle()
    assert node.take(number) == []
    node.paused = set()
    node.settle()
    assert len(node.take(number)) == 1


def test_the_port_opens_when_the_log_is_replayed() -> None:
    node = SteppedNode(replace(Config(), read_log_max_bytes=1_024, log_cache_bytes=1 << 20))
    for number in range(50):
        node.ask("put", f"/k{number}", b"v" * 300)
    node.power_loss()
    assert node.open
    assert node.ask("range", "/k", None, None, None, False, True)[5] == 50


# ---------------------------------------------------------------- writes happen once


def test_a_session_gets_its_first_result_again() -> None:
    node = SteppedNode()
    session = {"client_id": 9, "serial": 1, "low_water": 1}
    first = node.ask("put", "/a", b"1", **session)
    node.ask("put", "/a", b"2")
    assert (
        node.ask("put", "/a", b"1", **session)[:1] + node.ask("put", "/a", b"1", **session)[2:]
        == first[:1] + first[2:]
    )
    assert node.ask("get", "/a")[2][1] == b"2"
    node.power_loss()
    assert node.ask("put", "/a", b"1", **session)[2:] == first[2:], "sessions are part of the log"


def test_a_batch_that_is_proposed_twice_is_applied_once() -> None:
    node = SteppedNode()
    number = node.send("put", "/a", b"1")
    node.paused = {LOG}
    node.settle()
    node.advance(2 * node.config.propose_retry_ms)
    assert node.sent[local.Propose] >= 2
    node.paused = set()
    node.settle()
    ((*_, version, _),) = node.take(number)
    assert version == 1
    assert node.ask("get", "/a")[2][4] == 1
    assert node.sent[local.Write] <= 4, "what is in the log of this leadership is not appended again"


def test_a_write_is_uncertain_at_its_deadline_when_it_has_left() -> None:
    node = SteppedNode()
    number = node.send("put", "/a", b"1", timeout_ms=300)
    node.paused = {LOG}
    node.settle()
    node.advance(400)
    ((_, _, status, *_),) = node.take(number)
    assert status == errors.Uncertain.code
    node.paused = set()
    node.settle()
    assert node.take(number) == [], "answered once"
    assert node.ask("get", "/a")[2][1] == b"1"


def test_a_dead_disk_costs_the_leadership_and_requests_say_no_leader() -> None:
    node = SteppedNode()
    node.send("put", "/a", b"1", timeout_ms=60_000)
    node.paused = {LOG}
    node.settle()
    node.advance(node.config.election_max_ms + 2 * node.config.heartbeat_ms)
    assert node.consensus.status(node.now)["role"] != "leader"
    number = node.send("put", "/b", b"1", timeout_ms=100)
    node.settle()
    node.advance(200)
    ((_, _, status, *_),) = node.take(number)
    assert status == errors.NoLeader.code
    read = node.send("get", "/a", consistency="linearizable", timeout_ms=100)
    node.settle()
    node.advance(400)
    ((_, _, status, *_),) = node.take(read)
    assert status == errors.NoLeader.code
    node.paused = set()
    node.advance(1_000)
    assert node.consensus.status(node.now)["role"] == "leader"
    assert node.ask("get", "/a")[2][1] == b"1"
    assert node.ask("get", "/b")[2] is None


@pytest.mark.parametrize("seed", range(30))
def test_power_losses_lose_no_acknowledged_write(seed: int) -> None:
    """The machine stops between any two turns; of what was not synced a random part survives."""
    chance = random.Random(seed)
    node = SteppedNode(seed=seed)
    acknowledged: dict[str, int] = {}
    sent: dict[int, tuple[str, int]] = {}
    for value in range(120):
        key = f"/k{chance.randrange(5)}"
        sent[node.send("put", key, b"%d" % value)] = (key, value)
        for _ in range(chance.randrange(6)):
            node.step(chance.choice([LOG, CONSENSUS, KV]))
        for number in list(sent):
            for reply in node.take(number):
                assert reply[2] == 0
                written, this = sent.pop(number)
                acknowledged[written] = max(acknowledged.get(written, -1), this)
        if chance.random() < 0.1:
            sent.clear()
            node.power_loss(chance.randrange(3))
            for written, this in acknowledged.items():
                assert int(node.ask("get", written)[2][1]) >= this
    assert len(acknowledged) == 5


def test_a_failed_write_ends_the_log_writer_and_is_never_acknowledged() -> None:
    node = SteppedNode()
    node.disk.fail_next_write()
    number = node.send("put", "/a", b"1")
    with pytest.raises(errors.DiskFailed):
        node.settle()
    assert node.take(number) == []


# ---------------------------------------------------------------- time


def test_a_key_with_a_ttl_goes_by_itself_with_one_event_and_not_early() -> None:
    node = SteppedNode()
    watch = node.send("watch", "/broker")
    node.ask("put_with_ttl", "/broker/1", b"x", 1_000)
    node.advance(999)
    assert node.ask("get", "/broker/1")[2] is not None
    node.advance(2 + node.config.expiry_check_ms)
    assert node.ask("get", "/broker/1")[2] is None
    assert [(kind, key) for kind, key, _ in node.events(watch)] == [(0, "/broker/1"), (1, "/broker/1")]


def test_renewal_keeps_a_key_without_a_new_version() -> None:
    node = SteppedNode()
    for _ in range(5):
        assert node.ask("put_with_ttl", "/broker/1", b"x", 1_000)[0] == 0
        node.advance(700)
    assert node.ask("get", "/broker/1")[2][4] == 1
    node.advance(1_000)
    assert node.ask("get", "/broker/1")[2] is None


@pytest.mark.parametrize("jump_ms", [DAY_MS, -DAY_MS])
def test_a_jump_of_the_wall_clock_changes_nothing(jump_ms: int) -> None:
    node = SteppedNode()
    node.ask("put_with_ttl", "/t", b"x", 1_000)
    node.wall_ms += jump_ms
    node.ask("put", "/other", b"y")
    node.advance(900)
    assert node.ask("get", "/t")[2] is not None
    node.advance(300)
    assert node.ask("get", "/t")[2] is None


def test_a_pause_of_the_whole_node_expires_nothing() -> None:
    """Time that the leader did not live through does not count against anybody's lease."""
    node = SteppedNode()
    node.ask("put_with_ttl", "/t", b"x", 2_000)
    node.now += 60_000
    node.settle()
    node.advance(500)
    assert node.ask("get", "/t")[2] is not None
    node.advance(3_000)
    assert node.ask("get", "/t")[2] is None


def test_leases_survive_a_power_loss_with_what_was_left_of_them() -> None:
    node = SteppedNode()
    node.ask("put_with_ttl", "/t", b"x", 2_000)
    node.advance(1_500)
    node.ask("put", "/mark", b"y")
    node.power_loss()
    node.advance(400)
    assert node.ask("get", "/t")[2] is not None
    node.advance(300)
    assert node.ask("get", "/t")[2] is None


def test_an_idle_leader_writes_the_time_down_so_that_a_restart_gives_no_lease_its_time_back() -> None:
    node = SteppedNode()
    node.ask("put_with_ttl", "/t", b"x", 10_000)
    node.advance(9_000)
    node.power_loss()
    node.advance(1_000 + node.config.lease_checkpoint_ms + 2 * node.config.expiry_check_ms)
    assert node.ask("get", "/t")[2] is None
    written = node.sent[local.Write]
    node.advance(60_000)
    assert node.sent[local.Write] == written, "without leases an idle leader writes nothing"


def test_an_exception_while_applying_names_the_entry_and_stops_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = SteppedNode()

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(node.kv._machine, "apply", fail)
    node.send("put", "/a", b"1")
    with pytest.raises(RuntimeError, match="a bug") as caught:
        node.settle()
    assert "entry 3 of term 2" in caught.value.__notes__[0]


# ---------------------------------------------------------------- watches


def test_a_stream_needs_credit_and_goes_on_with_it() -> None:
    node = SteppedNode()
    watch = node.send("watch", "/a", None, 1)
    for value in range(3):
        node.ask("put", "/a", b"%d" % value)
    assert [revision for *_, revision in node.events(watch)] == [2]
    node.send("watch_credit", watch, 1_000)
    node.settle()
    assert [revision for *_, revision in node.events(watch)] == [3, 4]


def test_a_stream_begins_with_a_progress_frame_even_when_there_is_history_to_send() -> None:
    node = SteppedNode()
    node.ask("put", "/a", b"1")
    watch = node.send("watch", "/a", 2)
    node.settle()
    assert [reply[7] for reply in node.take(watch)] == [1, 0]


def test_a_silent_stream_is_closed_and_told() -> None:
    node = SteppedNode()
    watch = node.send("watch", "/a")
    node.settle()
    node.take(watch)
    node.advance(node.config.watch_keep_alive_ms + node.config.watch_progress_ms + 1)
    replies = node.take(watch)
    assert replies[-1][2] == errors.Timeout.code
    assert node.ask("status")[2]["watches"] == 0


def test_a_stream_gets_progress_marks_when_other_keys_move() -> None:
    node = SteppedNode()
    watch = node.send("watch", "/a")
    node.settle()
    assert [reply[7:] for reply in node.take(watch)] == [(1, 1)]
    node.ask("put", "/b", b"1")
    node.advance(node.config.watch_progress_ms + 1)
    assert [reply[7:] for reply in node.take(watch)] == [(1, 2)]
    node.send("watch_progress", watch)
    node.settle()
    assert [reply[7:] for reply in node.take(watch)] == [(1, 2)]


def test_a_connection_that_is_gone_takes_its_streams_along() -> None:
    node = SteppedNode()
    node.send("watch", "/a")
    node.settle()
    node.kv.receive(CLIENTS, ClientGone(ENVELOPE[0]), node.now)
    assert node.ask("status")[2]["watches"] == 0
    # The time of their next progress mark woke the process without end.
    node.advance(node.config.watch_progress_ms + 1)


def test_a_full_connection_ends_its_streams_and_they_are_told_until_they_know() -> None:
    node = SteppedNode()
    watch = node.send("watch", "/a")
    node.settle()
    node.take(watch)
    node.full = {ENVELOPE[0]}
    other: tuple[bytes, bytes] = (b"other", b"")
    node.send("put", "/a", b"1", envelope=other)
    node.settle()
    node.advance(5 * TELL_EVERY_MS)
    node.full = set()
    node.send("put", "/a", b"2", envelope=other)
    node.settle()
    assert node.take(watch) == [], "nothing follows the lost frame"
    node.advance(TELL_EVERY_MS)
    assert [reply[2] for reply in node.take(watch)] == [errors.Overloaded.code]
    node.advance(10 * TELL_EVERY_MS)
    assert node.take(watch) == []
    again = node.send("watch", "/a", 2)
    node.settle()
    assert [revision for *_, revision in node.events(again)] == [2, 3]


def test_a_watch_resumes_after_a_power_loss_without_a_gap() -> None:
    node = SteppedNode()
    for value in range(5):
        node.ask("put", "/a", b"%d" % value)
    node.power_loss()
    watch = node.send("watch", "/a", 4)
    node.settle()
    assert [revision for *_, revision in node.events(watch)] == [4, 5, 6]


def test_history_is_compacted_by_the_leader_and_old_watches_are_told() -> None:
    node = SteppedNode(replace(Config(), history_max_events=20))
    for value in range(60):
        node.ask("put", "/a", b"%d" % value)
    status = node.ask("status")[2]
    assert status["compaction_revision"] > 0
    assert status["history_events"] <= 26
    code, _, message, revision = node.ask("watch", "/a", 2)
    assert (code, revision) == (errors.Compacted.code, status["compaction_revision"])
    assert "compacted" in message


def test_a_long_poll_waits_for_an_event_or_its_time() -> None:
    node = SteppedNode()
    empty = node.send("watch_poll", "/a", 1, 500)
    node.settle()
    assert node.take(empty) == []
    node.advance(501)
    ((*_, events, after, more),) = node.take(empty)
    assert (events, after, more) == ((), 1, False)
    number = node.send("watch_poll", "/a", 1, 500)
    node.settle()
    node.ask("put", "/b", b"0")
    assert node.take(number) == []
    node.ask("put", "/a", b"1")
    ((*_, events, after, more),) = node.take(number)
    assert [(kind, record[0], record[3]) for kind, record, _ in events] == [(0, "/a", 3)]
    assert (after, more) == (3, False)


# ---------------------------------------------------------------- bad input


def test_garbage_is_refused_counted_and_harmless() -> None:
    node = SteppedNode()
    chance = random.Random(1)
    good = pack_request("put", 1, "/a", b"1")
    for _ in range(2_000):
        damaged = bytearray(good)
        damaged[chance.randrange(len(good))] = chance.randrange(256)
        node.kv.receive(CLIENTS, FromClient((b"noise", b""), bytes(damaged)), node.now)
        node.kv.receive(
            CLIENTS, FromClient((b"noise", b""), chance.randbytes(chance.randrange(60))), node.now
        )
    node.settle()
    counters = node.ask("status")[2]["counters"]
    assert counters["client_bodies_malformed"] > 500
    assert counters["client_requests_refused"] > 500
    assert node.ask("put", "/fine", b"1")[0] == 0


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"\xc1", errors.InvalidArgument),
        (b"", errors.InvalidArgument),
        (pack([2, "get", 7, None]), errors.ProtocolVersion),
        (pack([1, "fly", 7]), errors.ProtocolVersion),
        (pack([1, "get", 7]), errors.InvalidArgument),
        (pack([1, "get", "id", None, None, None, None, None, None, "/a"]), errors.InvalidArgument),
        (pack_request("put", 7, "/a", "text"), errors.InvalidArgument),
        (pack_request("put", 7, "", b""), errors.KeyEmpty),
        (pack_request("put", 7, "/counters/x", b""), errors.InvalidArgument),
        (pack_request("put", 7, "k" * 5_000, b""), errors.RequestTooLarge),
        (pack_request("put", 7, "/a", b"v" * 1_600_000), errors.RequestTooLarge),
        (pack_request("expire", 7, [[1, 1]]), errors.ProtocolVersion),
        (pack_request("put_with_ttl", 7, "/a", b"", 0), errors.InvalidArgument),
        (pack_request("watch", 7, "/a", 0), errors.InvalidArgument),
        (pack_request("get", 7, "/a", min_revision=(CLUSTER_ID + 1, 5)), errors.ClusterIdMismatch),
    ],
)
def test_each_kind_of_bad_request_gets_its_error(body: bytes, error: type[errors.DanubeRaftError]) -> None:
    node = SteppedNode()
    node.kv.receive(CLIENTS, FromClient(ENVELOPE, body), node.now)
    node.settle()
    codes = [reply[2] for reply in node.replies.get(ENVELOPE, [])]
    assert codes == [error.code]
    assert node.ask("put", "/fine", b"1")[0] == 0


@pytest.mark.parametrize("item", [b"\x01", b"\xc0", b"\x90", b"\x93\x01\xa0\xa0"])
def test_a_body_full_of_things_that_are_no_requests_costs_one_answer(item: bytes) -> None:
    """Each used to be refused by itself: two million answers to one message, and no progress meanwhile."""
    node = SteppedNode()
    node.kv.receive(CLIENTS, FromClient(ENVELOPE, item * (1_000_000 // len(item))), node.now)
    node.settle()
    assert [reply[1:3] for reply in node.replies.pop(ENVELOPE)] == [(0, errors.InvalidArgument.code)]
    assert node.ask("status")[2]["counters"]["client_bodies_malformed"] == 1


def test_a_bug_while_serving_is_not_taken_for_a_bad_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding raises ValueError for bad bytes; the same from our own code has to stop the node."""
    node = SteppedNode()

    def fail(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(node.kv._reads, "serve", fail)
    node.send("get", "/a")
    with pytest.raises(ValueError, match="a bug"):
        node.settle()


def test_a_body_holds_so_many_requests_and_no_more() -> None:
    node = SteppedNode(replace(Config(), body_max_requests=3))
    node.kv.receive(CLIENTS, FromClient(ENVELOPE, pack_request("get", 5, "/a") * 3), node.now)
    node.settle()
    assert [reply[1:3] for reply in node.replies.pop(ENVELOPE)] == [(5, 0)] * 3
    node.kv.receive(CLIENTS, FromClient(ENVELOPE, pack_request("get", 5, "/a") * 4), node.now)
    node.settle()
    assert [reply[1:3] for reply in node.replies.pop(ENVELOPE)] == [(5, 0)] * 3 + [
        (0, errors.InvalidArgument.code)
    ]
    assert node.ask("get", "/a")[0] == 0


def test_reading_much_at_once_is_refused_before_it_costs_memory() -> None:
    node = SteppedNode(replace(Config(), turn_reply_max_bytes=1 << 20))
    node.ask("put", "/large", b"v" * 300_000)
    node.kv.receive(CLIENTS, FromClient(ENVELOPE, pack_request("get", 5, "/large") * 50), node.now)
    node.settle()
    codes = [reply[2] for reply in node.replies.pop(ENVELOPE)]
    assert codes == [0] * 4 + [errors.Overloaded.code] * 46
    assert node.ask("get", "/large")[0] == 0


def test_one_body_holds_many_requests_and_a_bad_one_spoils_only_what_follows() -> None:
    node = SteppedNode()
    body = (
        pack_request("put", 1, "/a", b"1")
        + pack_request("get", 2, "/a")
        + b"\xc1"
        + pack_request("get", 3, "/a")
    )
    node.kv.receive(CLIENTS, FromClient(ENVELOPE, body), node.now)
    node.settle()
    assert sorted((reply[1], reply[2]) for reply in node.replies[ENVELOPE]) == [(0, 2), (1, 0), (2, 0)]


def test_peers_that_are_none_are_refused_and_counted() -> None:
    node = SteppedNode()
    for header in (peer.Header(5, 2, NODE_ID, 9, 1), peer.Header(CLUSTER_ID, 2, NODE_ID, 9, 1),
                   peer.Header(CLUSTER_ID, 2, 3, 9, 1), peer.Header(CLUSTER_ID, NODE_ID, NODE_ID, 9, 1)):  # fmt: skip
        node.peer_message(FromPeer((b"p",), header, peer.RequestVote(99, 9, False)))
    node.settle()
    status = node.ask("status")[2]
    assert status["counters"]["peer_messages_refused"] == 4
    assert (status["role"], status["term"]) == ("leader", 2)


def test_a_node_answers_who_it_is_and_joins_no_other_cluster() -> None:
    node = SteppedNode()
    asking = peer.Header(0, 8, 0, 0, 1)
    node.peer_message(FromPeer((b"p", b""), asking, peer.GetNodeInfo(41)))
    node.peer_message(FromPeer((b"p", b""), asking, peer.PrepareInit(5, b"", 0)))
    node.settle()
    (_, info), (_, promise) = [(envelope, peer.unpack(body)[1]) for envelope, body in node.peer_answers]
    assert isinstance(info, peer.NodeInfo)
    assert (info.node_id, info.cluster_id, info.initialised, info.nonce) == (NODE_ID, CLUSTER_ID, True, 41)
    assert isinstance(promise, peer.PrepareInitReply)
    assert not promise.promised
    assert str(CLUSTER_ID) in promise.reason


def test_too_much_at_once_is_refused_and_what_was_taken_is_done() -> None:
    node = SteppedNode(replace(Config(), waiting_max_commands=10))
    numbers = [node.send("put", f"/k{n}", b"v") for n in range(15)]
    node.settle()
    codes = [node.take(number)[0][2] for number in numbers]
    assert codes == [0] * 10 + [errors.Overloaded.code] * 5
