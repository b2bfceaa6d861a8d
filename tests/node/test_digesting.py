"""The kv-server and digests: what it hashes and says, when, and what it does once its state is known to be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kv_snapshots import whole
from stepped_kv import SteppedKv, batch, chain, members, planted, puts

from danube_raft.config import Config
from danube_raft.errors import DiskFailed, DiskFull, NoLeader, Overloaded, StateReplaced, Uncertain
from danube_raft.kv.digests import KEPT
from danube_raft.kv.machine import Machine
from danube_raft.kv.snapshot import FORMAT
from danube_raft.node.digest_jobs import SlicedDigest
from danube_raft.node.oddness import MARK_MS
from danube_raft.node.snapshot_jobs import Failed, SlicedSnapshot
from danube_raft.storage.snapshots import Snapshots
from danube_raft.wire import client, codec, local
from danube_raft.wire.client import ARGS, OP, STATUS_OK, pack_request
from danube_raft.wire.entry import Entry

CONFIG = replace(Config(), digest_ms=0, snapshot_log_bytes=1 << 30)
LEADER = local.Role("leader", 1, 1, 0, 0, 0)
RIGHT, WRONG = bytes(32), bytes(31) + b"\1"


def digest(index: int) -> Entry:
    return batch(index, pack_request("digest", 1))


def report(index: int, node_id: int, sha256: bytes, of: int, version: int = FORMAT) -> Entry:
    """Node 1 is the one under test, which has made one batch in each of these tests."""
    seq = 1 if node_id == 1 else index
    return batch(index, pack_request("digest_report", 1, of, version, sha256), (node_id, 1, seq))


def state(*entries: Entry) -> Machine:
    machine = Machine()
    for entry in entries:
        machine.apply(entry)
    return machine


def sha(machine: Machine) -> bytes:
    return hashlib.sha256(whole(machine)).digest()


def proposed(node: SteppedKv) -> list[tuple[Any, ...]]:
    """(operation, arguments…) of what it has proposed of its own accord, taken."""
    requests = [
        client.check(raw) for each in node.take(local.Propose) for raw in codec.unpack_stream(each.payload)
    ]
    return [(request[OP], *request[ARGS:]) for request in requests]


def serving(directory: Path, config: Config = CONFIG, voters: tuple[int, ...] = (1, 2, 3)) -> SteppedKv:
    """It has caught up, and applied entry 1: who belongs to the cluster."""
    node = SteppedKv(directory, config)
    node.serve()
    node.commit(members(1, *voters))
    return node


def status(node: SteppedKv) -> dict[str, Any]:
    return node.kv.report(node.now)


def odd(directory: Path, config: Config = CONFIG) -> SteppedKv:
    """The digest of index 12 has shown that its state is wrong."""
    node = serving(directory, config)
    node.commit(*puts(2, 11))
    node.make()
    node.commit(digest(12))
    node.advance(20)
    node.commit(report(13, 2, RIGHT, 12), report(14, 3, RIGHT, 12))
    return node


# ---------------------------------------------------------------- hashing


def test_the_hash_is_of_the_state_behind_the_whole_entry_that_asks(tmp_path: Path) -> None:
    """What the same entry has behind the digest is in it, and what the next one brings is not, however soon it comes."""
    node = serving(tmp_path)
    asks = batch(
        6, pack_request("put", 1, "/a", b"1") + pack_request("digest", 2) + pack_request("put", 3, "/b", b"2")
    )
    node.commit(*puts(2, 5), asks, *puts(7, 9))
    node.advance(20)
    assert proposed(node) == [
        ("digest_report", 6, FORMAT, sha(state(members(1, 1, 2, 3), *puts(2, 5), asks)))
    ]
    assert status(node)["digests_made"] == 1


def test_a_node_that_has_not_caught_up_leaves_it_out(tmp_path: Path) -> None:
    """What it replays may be of long ago."""
    node = SteppedKv(tmp_path, CONFIG)
    node.hear(local.LoadSnapshot(0, 0))
    node.commit(members(1, 1, 2, 3), digest(2))
    node.advance(20)
    assert proposed(node) == []
    node.commit(report(3, 2, RIGHT, 2), report(4, 3, RIGHT, 2))
    assert status(node)["odd"] == ""


def test_one_at_a_time(tmp_path: Path) -> None:
    node = serving(tmp_path)
    node.commit(digest(2), digest(3))
    node.advance(20)
    assert [index for _, index, *_ in proposed(node)] == [2]
    node.commit(digest(4))
    node.advance(20)
    assert [index for _, index, *_ in proposed(node)] == [4]


def test_who_asks_for_one_while_one_is_made_is_refused(tmp_path: Path) -> None:
    """So many would be asked for that each index is forgotten before anybody has hashed it."""
    node = serving(tmp_path)
    node.commit(digest(2))
    node.ask("digest", 8)
    ((code, _, message, *_),) = node.replies(8)
    assert code == Overloaded.code
    assert "the digest of index 2 is still being made" in message
    node.advance(20)
    proposed(node)
    node.commit(batch(3, b"", (1, 1, 1)))
    node.ask("digest", 9)
    assert proposed(node) == [("digest",)]


def test_a_hash_of_an_index_that_is_forgotten_is_told_to_people_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = serving(tmp_path)
    node.commit(*[digest(2 + more) for more in range(KEPT + 1)])
    node.advance(20)
    assert proposed(node) == []
    assert "the digest of index 2 is compared with nobody's" in caplog.text
    assert 2 not in node.kv._digesting._own


def test_a_hash_that_fails_is_told_and_not_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(SlicedDigest):
        def poll(self) -> Failed:
            return Failed("no process can be started")

    node = serving(tmp_path)
    node.kv._digesting._begin = Failing
    node.commit(digest(2))
    node.advance(20)
    assert proposed(node) == []
    assert "no digest of index 2: no process can be started" in caplog.text
    assert status(node)["digests_failed"] == 1


def test_one_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    class Endless(SlicedDigest):
        def poll(self) -> Any:
            return self._over

    node = serving(tmp_path, replace(CONFIG, snapshot_max_ms=5_000))
    node.kv._digesting._begin = Endless
    node.commit(digest(2))
    node.advance(4_990)
    assert status(node)["digests_failed"] == 0
    node.advance(20)
    assert status(node)["digests_failed"] == 1


def test_the_hash_of_a_state_that_was_replaced_says_nothing(tmp_path: Path) -> None:
    node = serving(tmp_path)
    node.commit(digest(2))
    machine = state(members(1, 1, 2, 3), *puts(2, 9))
    planted(tmp_path, machine, whole(machine))
    node.hear(local.InstallSnapshot(9, 1))
    node.advance(20)
    assert proposed(node) == []
    node.commit(report(10, 2, RIGHT, 2), report(11, 3, RIGHT, 2))
    assert status(node)["odd"] == ""


# ---------------------------------------------------------------- asking


def test_the_leader_asks_so_often_and_once(tmp_path: Path) -> None:
    node = serving(tmp_path, replace(CONFIG, digest_ms=10_000))
    node.advance(15_000)
    assert proposed(node) == [], "it does not lead"
    node.hear(LEADER)
    assert proposed(node) == [("digest",)]
    node.advance(400)
    assert proposed(node) == [], "one is in flight"
    node.commit(batch(2, pack_request("digest", 0), (1, 1, 1)))
    node.advance(20)
    assert [op for op, *_ in proposed(node)] == ["digest_report"]
    node.commit(batch(3, b"", (1, 1, 2)))
    node.advance(9_900)
    assert proposed(node) == []
    node.advance(200)
    assert proposed(node) == [("digest",)]


def test_one_that_an_operator_asked_for_counts(tmp_path: Path) -> None:
    node = serving(tmp_path, replace(CONFIG, digest_ms=10_000))
    node.hear(LEADER)
    node.advance(9_000)
    node.commit(digest(2))
    node.advance(400)
    proposed(node)
    node.commit(batch(3, b"", (1, 1, 1)))
    node.advance(9_000)
    assert proposed(node) == []


def test_never_is_a_time_too(tmp_path: Path) -> None:
    node = serving(tmp_path)
    node.hear(LEADER)
    node.advance(10_000_000)
    assert proposed(node) == []


# ---------------------------------------------------------------- comparing


def test_all_alike_is_nothing_to_speak_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = serving(tmp_path)
    node.commit(digest(2))
    node.advance(20)
    right = sha(state(members(1, 1, 2, 3), digest(2)))
    node.commit(report(3, 2, right, 2), report(4, 3, right, 2), report(5, 1, right, 2))
    assert (status(node)["odd"], status(node)["digest_difference"]) == ("", "")
    assert status(node)["digest_index"] == 2
    assert "differ" not in caplog.text
    node.ask("digest_reports", 9)
    (reply,) = node.replies(9)
    assert reply[0] == STATUS_OK
    assert reply[2:] == (2, tuple((node_id, FORMAT, right) for node_id in (1, 2, 3)))


def test_another_node_that_is_odd_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = serving(tmp_path)
    node.commit(digest(2))
    node.advance(20)
    right = sha(state(members(1, 1, 2, 3), digest(2)))
    node.commit(report(3, 3, WRONG, 2))
    assert status(node)["digest_difference"] == "", "a majority may still come"
    node.commit(report(4, 2, right, 2))
    assert "node 3 is not as the majority" in status(node)["digest_difference"]
    assert caplog.text.count("node 3 is not as the majority") == 1
    node.ask("members", 8)
    (asked,) = node.take(local.StatusRequest)
    rows = [{"node_id": node_id} for node_id in (1, 2, 3)]
    node.hear(local.StatusReply(asked.id, {"members": rows}))
    ((_, _, told),) = node.replies(8)
    assert [row["odd"] for row in told] == [False, False, True]
    node.commit(digest(5))
    node.advance(20)
    right = sha(node.machine)
    node.commit(report(6, 3, right, 5), report(7, 2, right, 5))
    assert status(node)["digest_difference"] == ""


def test_without_a_majority_everybody_warns_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = serving(tmp_path, voters=(1, 2))
    node.commit(digest(2))
    node.advance(20)
    node.commit(report(3, 2, WRONG, 2))
    assert "no majority of the voters agrees" in status(node)["digest_difference"]
    assert "no majority of the voters agrees" in caplog.text
    assert status(node)["odd"] == ""
    node.ask("get", 9, "/a")
    assert node.replies(9)[0][0] == STATUS_OK


def test_a_difference_with_one_that_is_down_is_told_at_the_next_digest(tmp_path: Path) -> None:
    node = serving(tmp_path)
    node.commit(digest(2))
    node.advance(20)
    node.commit(report(3, 2, WRONG, 2))
    assert status(node)["digest_difference"] == ""
    node.commit(digest(4))
    assert "no majority" in status(node)["digest_difference"]


def test_the_most_are_no_majority(tmp_path: Path) -> None:
    """Two of five may be the wrong ones."""
    node = serving(tmp_path, voters=(1, 2, 3, 4, 5))
    node.commit(digest(2))
    node.advance(20)
    node.commit(report(3, 2, RIGHT, 2), report(4, 3, RIGHT, 2))
    assert status(node)["odd"] == ""


def test_a_late_hash_is_compared_although_others_have_gone_on(tmp_path: Path) -> None:
    """Who hashes for longer than the time between two digests leaves every other one out."""
    node = serving(tmp_path)
    node.commit(digest(2), digest(3))
    node.commit(*(report(4 + place, 2 + place % 2, RIGHT, 2 + place // 2) for place in range(4)))
    assert status(node)["odd"] == ""
    node.advance(20)
    assert "at index 2" in status(node)["odd"]


# ---------------------------------------------------------------- odd


def test_the_odd_one_keeps_a_mark_first_and_tells_consensus_and_people(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = odd(tmp_path)
    assert node.store.odd() is not None
    assert node.take(local.Odd) == [local.Odd(12, True)]
    assert "at index 12" in status(node)["odd"]
    assert [record.levelname for record in caplog.records if "is wrong" in record.message] == ["ERROR"]
    node.commit(report(15, 1, WRONG, 12))
    assert node.take(local.Odd) == []


def refused(node: SteppedKv, number: int) -> bool:
    ((code, _, message, *_),) = node.replies(number)
    return code == NoLeader.code and "the state of this node is wrong" in message


ASKS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("get", ("/k2",), {"consistency": "stale"}),
    ("get", ("/k2",), {"consistency": 100_000}),
    ("get", ("/k2",), {}),
    ("get", ("/k2",), {"consistency": "linearizable"}),
    ("range", ("/",), {"consistency": "stale"}),
    ("watch", ("/",), {}),
    ("watch_poll", ("/", 0), {}),
    ("put", ("/k2", b""), {}),
    ("digest", (), {}),
    ("snapshot_take", (), {}),
    ("snapshot_piece", (11, 1, 0), {}),
]


@pytest.mark.parametrize(("op", "args", "header"), ASKS, ids=lambda value: str(value)[:30])
def test_the_odd_one_answers_nothing_from_its_state_whatever_it_is_asked(
    tmp_path: Path, op: str, args: tuple[Any, ...], header: dict[str, Any]
) -> None:
    """Nor does the next start."""
    node = odd(tmp_path)
    node.ask(op, 9, *args, **header)
    assert refused(node, 9)
    again = SteppedKv(tmp_path, CONFIG, boot_epoch=2)
    assert [type(message) for _, message in again.sent] == [local.Odd, local.SnapshotsFound]
    again.serve(11, 1)
    again.ask(op, 9, *args, **header)
    assert refused(again, 9)


def test_what_waited_before_hears_that_another_node_is_to_be_asked(tmp_path: Path) -> None:
    node = serving(tmp_path)
    node.ask("watch", 5, "/")
    node.ask("watch_poll", 6, "/", 0, 60_000)
    node.ask("get", 7, "/a", consistency="linearizable")
    node.ask("put", 8, "/a", b"x")
    (write,) = node.take(local.Propose)
    (read,) = node.take(local.ReadIndex)
    node.commit(digest(2))
    node.advance(20)
    node.commit(report(3, 2, RIGHT, 2), report(4, 3, RIGHT, 2))
    assert node.replies(5)[-1][0] == node.replies(6)[-1][0] == Overloaded.code
    node.commit(batch(5, write.payload, (1, 1, write.seq)))
    assert node.replies(8)[-1][0] == Uncertain.code
    node.hear(local.ReadReady(read.id, 5))
    assert refused(node, 7)
    assert status(node)["watches"] == 0


def test_what_is_no_state_of_it_is_told_all_the_same(tmp_path: Path) -> None:
    """Without a revision, which clients would keep and ask other nodes for."""
    node = odd(tmp_path)
    assert node.machine.revision > 0
    node.ask("leadership_poll", 9)
    assert node.replies(9)[0][:2] == (STATUS_OK, 0)
    node.ask("digest_reports", 10)
    assert [node_id for node_id, *_ in node.replies(10)[0][3]] == [2, 3]
    assert node.replies(10)[0][:2] == (STATUS_OK, 0)
    for number, op in ((11, "status"), (12, "members")):
        node.ask(op, number)
        (asked,) = node.take(local.StatusRequest)
        node.hear(local.StatusReply(asked.id, {"members": [], "pids": {}, "counters": {}}))
        assert node.replies(number)[0][:2] == (STATUS_OK, 0)
    node.ask("get", 13, "/k2")
    assert node.replies(13)[0][:2] == (NoLeader.code, 0)


def test_the_odd_one_proposes_no_compaction_of_its_own(tmp_path: Path) -> None:
    """Its history may be longer or shorter than that of the others, who would take the revision as it is."""
    node = serving(tmp_path, replace(CONFIG, history_max_events=4))
    node.commit(digest(2))
    node.advance(20)
    node.commit(report(3, 2, RIGHT, 2), report(4, 3, RIGHT, 2))
    node.hear(LEADER)
    node.commit(report(5, 1, WRONG, 2))
    node.take(local.Propose)
    node.commit(*puts(6, 40))
    node.advance(1_000)
    assert proposed(node) == []
    node.kv._oddness._odd = None
    node.turn()
    assert [op for op, *_ in proposed(node)] == ["compact"], "it would have to"


def test_the_odd_one_makes_no_snapshot(tmp_path: Path) -> None:
    node = odd(tmp_path, replace(CONFIG, snapshot_log_bytes=1_000, snapshot_rest_max_ms=10))
    node.take(local.AskPoint)
    node.commit(*puts(15, 60))
    node.advance(60_000)
    node.hear(local.WantSnapshot(20))
    assert node.take(local.AskPoint) == []


def test_consensus_hears_at_once_and_again_when_no_snapshot_of_the_wrong_state_can_come_any_more(
    tmp_path: Path,
) -> None:
    """It might take the name of the leader's. The process that makes it needs a while to end."""

    class Lingering(SlicedSnapshot):
        ended = False

        def poll(self) -> Any:
            return super().poll() if self.ended else None

    node = serving(tmp_path)
    node.kv._taking._begin = Lingering
    node.commit(*puts(2, 11), digest(12))
    node.advance(20)
    node.kv._taking.request(node.now)
    node.turn()
    (asked,) = node.take(local.AskPoint)
    node.commit(report(13, 2, RIGHT, 12), report(14, 3, RIGHT, 12))
    assert node.take(local.Odd) == [local.Odd(12, False)]
    node.hear(local.PointRead(asked.index, 1, chain(asked.index)))
    node.advance(100)
    assert node.take(local.Odd) == []
    Lingering.ended = True
    node.now = node.kv._taking.next_timer() or 0
    node.turn()
    assert node.kv._taking.next_timer() is None, "nothing wakes it again for this"
    assert node.take(local.Odd) == [local.Odd(12, True)]
    assert node.take(local.SnapshotDone) == []
    assert node.held() == []


def test_the_leader_makes_one_that_a_follower_needs(tmp_path: Path) -> None:
    node = serving(tmp_path)
    node.commit(*puts(2, 11))
    node.make()
    node.hear(local.WantSnapshot(11))
    assert node.take(local.AskPoint) == [], "there is one"
    node.hear(local.WantSnapshot(13))
    assert node.take(local.AskPoint) == [], "nor can there be one yet"
    node.commit(*puts(12, 13))
    node.hear(local.WantSnapshot(13))
    assert node.take(local.AskPoint) == [local.AskPoint(13)]


# ---------------------------------------------------------------- replaced


def replacement(directory: Path, last: int = 14) -> tuple[local.ReplaceState, bytes]:
    """The leader's snapshot, of a right state, as the log-writer has put it there."""
    right = state(members(1, 1, 2, 3), *puts(2, last))
    meta = planted(directory, right, whole(right))
    return local.ReplaceState(meta.index, meta.term, meta.sha256), whole(right)


@pytest.mark.parametrize("last", [14, 11], ids=["newer", "of the entry of one of its own"])
def test_only_the_leader_s_is_left_and_the_node_starts_again_with_it(tmp_path: Path, last: int) -> None:
    node = odd(tmp_path)
    replace_state, right = replacement(tmp_path, last)
    with pytest.raises(StateReplaced, match=f"snapshot of index {last}"):
        node.hear(replace_state)
    again = SteppedKv(tmp_path, CONFIG, boot_epoch=2)
    assert [type(message) for _, message in again.sent] == [local.SnapshotsFound]
    assert again.held() == [(last, 1)]
    again.serve(last, 1)
    assert whole(again.machine) == right
    again.ask("get", 9, "/k2", consistency="stale")
    assert again.replies(9)[0][0] == STATUS_OK


def test_an_installed_one_does_it_as_well(tmp_path: Path) -> None:
    node = odd(tmp_path)
    replace_state, _ = replacement(tmp_path, 20)
    with pytest.raises(StateReplaced):
        node.hear(local.InstallSnapshot(*replace_state[:2]))
    assert node.held() == [(20, 1)]
    assert node.store.odd() is None


def fail(
    name: str, store: Snapshots, monkeypatch: pytest.MonkeyPatch, error: type[DiskFailed] = DiskFailed
) -> None:
    def refuse(*_: Any) -> None:
        raise error("it ends here")

    monkeypatch.setattr(store, name, refuse)


@pytest.mark.parametrize(("at", "left"), [("keep_only", [(14, 1), (11, 1)]), ("clear_odd", [(14, 1)])])
def test_whoever_ends_on_the_way_is_odd_still(
    tmp_path: Path, at: str, left: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = odd(tmp_path)
    replace_state, _ = replacement(tmp_path)
    fail(at, node.store, monkeypatch)
    with pytest.raises(DiskFailed):
        node.hear(replace_state)
    again = SteppedKv(tmp_path, CONFIG, boot_epoch=2)
    assert again.held() == left
    assert again.take(local.Odd) == [local.Odd(12, True)]
    again.serve(14, 1)
    again.ask("get", 9, "/k2", consistency="stale")
    assert refused(again, 9)
    with pytest.raises(StateReplaced):
        again.hear(replace_state)


def test_one_that_is_not_the_leader_s_after_all_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = odd(tmp_path)
    node.hear(local.ReplaceState(11, 1, bytes(32)))
    assert "cannot be read any more" in caplog.text
    assert node.store.odd() is not None
    assert node.held() == [(11, 1)]


def test_a_disk_that_refuses_the_mark_is_asked_again_and_nothing_is_served_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ended of it would begin again without the mark, and serve."""
    node = serving(tmp_path)
    node.commit(digest(2))
    node.advance(20)
    with monkeypatch.context() as full:
        fail("mark_odd", node.store, full, DiskFull)
        node.commit(report(3, 2, RIGHT, 2), report(4, 3, RIGHT, 2))
        assert node.take(local.Odd) == [local.Odd(2, False)], "consensus stops what can be stopped"
        node.advance(5 * MARK_MS)
        node.ask("get", 9, "/a", consistency="stale")
        assert refused(node, 9)
        assert node.take(local.Odd) == [], "whoever ends now would not know it"
        assert (node.kv.next_timer() or 0) <= node.now + MARK_MS
    assert node.store.odd() is None
    node.advance(MARK_MS)
    assert node.take(local.Odd) == [local.Odd(2, True)]
    assert node.store.odd() is not None


# ---------------------------------------------------------------- reports of before


def test_what_an_earlier_start_of_this_node_has_reported_accuses_nobody(tmp_path: Path) -> None:
    """It was odd at 2, and begins with the leader's snapshot of 3: the reports follow in the log."""
    machine = state(members(1, 1, 2, 3), digest(2), *puts(3, 3))
    planted(tmp_path, machine, whole(machine))
    node = SteppedKv(tmp_path, CONFIG, boot_epoch=2)
    node.hear(local.LoadSnapshot(3, 1))
    node.commit(report(4, 1, WRONG, 2), report(5, 2, RIGHT, 2), report(6, 3, RIGHT, 2))
    assert status(node)["odd"] == ""


def check_sliced(make: Callable[[Machine], SlicedDigest]) -> bytes:
    machine = state(*puts(1, 50))
    job = make(machine)
    for entry in puts(51, 60):
        machine.apply(entry)
    while (found := job.poll()) is None:
        pass
    assert isinstance(found, bytes)
    return found


def test_slices_hash_what_was_there_when_they_began() -> None:
    assert check_sliced(SlicedDigest) == sha(state(*puts(1, 50)))
