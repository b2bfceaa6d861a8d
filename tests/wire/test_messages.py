"""Messages between processes and between nodes: their exact bytes, and what garbage does to the decoders.

A format that changes by accident would make nodes of two versions, or two halves of one node, misread each other; so
the bytes are written down. A kind without a line here fails the test that counts them.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from danube_raft.wire import local, peer
from danube_raft.wire.codec import Malformed, pack, unpack, unpack_stream
from danube_raft.wire.entry import (
    KIND_BATCH,
    LEARNER,
    VOTER,
    Configuration,
    Entry,
    HardState,
    Member,
    pack_configuration,
    unpack_configuration,
)

ENTRY = Entry(9, 3, KIND_BATCH, 1_000, 1_700_000_000_000, (7, 2, 5), b"abc")
HEADER = peer.Header(77, 1, 2, 3, 4)
CONFIGURATION = Configuration((Member(1, VOTER, "a:1", "a:2"), Member(2, LEARNER, "b:1", "b:2")), (3,), (4,))

LOCAL: list[tuple[local.Message, str]] = [
    (local.Propose(1, b"x"), "94000501c40178"),
    (local.ReadIndex(4), "93010504"),
    (local.Applied(9), "93020509"),
    (local.SnapshotDone(9, 3, b"c", 100, b"s", 70, b"k", True), "9a03050903c4016364c4017346c4016bc3"),
    (local.MembershipRequest(1, "add", 2, "a:1", "a:2"), "97040501a361646402a3613a31a3613a32"),
    (local.StatusRequest(6), "93050506"),
    (local.Committed((ENTRY,), 900), "9406059197090301cd03e8cf0000018bcfe5680093070205c403616263cd0384"),
    (local.ProposeRejected(1, "no-leader", 0, True), "96070501a96e6f2d6c656164657200c3"),
    (local.ReadReady(4, -1), "94080504ff"),
    (local.Role("leader", 3, 1, 10, 20, 8), "980905a66c656164657203010a1408"),
    (local.InstallSnapshot(9, 3), "940a050903"),
    (local.Removed(9), "930b0509"),
    (local.MembershipReply(1, 0, ""), "950c050100a0"),
    (local.StatusReply(6, {"role": "leader"}), "940d050681a4726f6c65a66c6561646572"),
    (local.Write(1, 0, (ENTRY,), HardState(3, 1)),
     "960e0501009197090301cd03e8cf0000018bcfe5680093070205c403616263920301"),
    (local.ReadLog(1, 9, 100), "950f05010964"),
    (local.Purge(9, 70, b"k"), "9510050946c4016b"),
    (local.InstallPoint(2, 9, 3, b"c", 70, b"k"), "981105020903c4016346c4016b"),
    (local.Recovered(HardState(3, 1), 0, 0, 9, 1_000, ((1, 3),), ((1, b"c"),), "", 44),
     "9c1205920301000009cd03e891920103919201c40163a02cc2"),
    (local.Durable(2), "93130502"),
    (local.LogChunk(1, ()), "9414050190"),
    (local.Ready("kv", 44), "941505a26b762c"),
    (local.Progress(8), "93160508"),
    (local.Status({}), "93170580"),
    (local.Failed(151, "bad"), "941805cc97a3626164"),
    (local.Stop(), "921905"),
    (local.AskFresh(4), "931a0504"),
    (local.FreshAnswer(4, 900, 7), "951b0504cd038407"),
    (local.ConfirmRead(), "921c05"),
    (local.ReadConfirmed(900, 7, 6), "951d05cd03840706"),
    (local.SnapshotsFound(((9, 3), (4, 2)), "v2", "x"), "951e0592920903920402a27632a178"),
    (local.AskPoint(9), "931f0509"),
    (local.LoadSnapshot(9, 3), "9420050903"),
    (local.ReadPoint(9), "93210509"),
    (local.ReadPiece(9, 3, 4, 100), "96220509030464"),
    (local.StagePiece(9, 3, b"c", 100, b"s", 4, b"data"), "9923050903c4016364c4017304c40464617461"),
    (local.PointRead(9, 3, b"c"), "9524050903c40163"),
    (local.Piece(9, 3, 4, b"data"), "962505090304c40464617461"),
    (local.Staged(9, 3, 8, False), "962605090308c2"),
    (local.LeftSuspect(), "922705"),
    (local.Space(True, 9), "942805c309"),
    (local.FreeSpace(9), "93290509"),
    (local.Odd(9, True), "942a0509c3"),
    (local.WantSnapshot(9, instead=True), "942b0509c3"),
    (local.ReplaceState(9, 3, b"s"), "952c050903c40173"),
]  # fmt: skip

PEER: list[tuple[peer.Message, str]] = [
    (peer.RequestPreVote(4, 9, 3), "9a01004d01020304040903"),
    (peer.PreVoteReply(4, True), "9901014d0102030404c3"),
    (peer.RequestVote(9, 3, False), "9a01024d010203040903c2"),
    (peer.VoteReply(True), "9801034d01020304c3"),
    (peer.AppendEntries(8, 3, 7, 1_000, (ENTRY,)),
     "9c01044d01020304080307cd03e89197090301cd03e8cf0000018bcfe5680093070205c403616263"),
    (peer.AppendReply(True, 9, 0, 0, True), "9c01054d01020304c3090000c3"),
    (peer.Heartbeat(5, 7, 1_000, True), "9b01064d010203040507cd03e8c3"),
    (peer.HeartbeatReply(5, 9, 4, True, True), "9c01074d01020304050904c3c3"),
    (peer.InstallSnapshot(9, 3, b"c", 4, b"s", 70, b"k", 0, b"data"), "dc001001084d010203040903c4016304c4017346c4016b00c40464617461"),
    (peer.InstallSnapshotReply(9, 3, 4, True), "9b01094d01020304090304c3"),
    (peer.TimeoutNow(), "97010a4d01020304"),
    (peer.ForwardBatch((7, 2, 5), b"abc"), "99010b4d0102030493070205c403616263"),
    (peer.ForwardRejected((7, 2, 5), "overloaded", 0), "9a010c4d0102030493070205aa6f7665726c6f6164656400"),
    (peer.ForwardReadIndex((7, 2, 5)), "98010d4d0102030493070205"),
    (peer.ForwardReadReply((7, 2, 5), -1), "99010e4d0102030493070205ff"),
    (peer.GetNodeInfo(9), "98010f4d0102030409"),
    (peer.NodeInfo(1, 77, "a:1", "a:2", ("b:1",), True, 1, 9),
     "9f01104d01020304014da3613a31a3613a3291a3623a31c30109"),
    (peer.PrepareInit(77, b"c", 1_000), "9a01114d010203044dc40163cd03e8"),
    (peer.PrepareInitReply(False, "no", 77), "9a01124d01020304c2a26e6f4d"),
    (peer.AskSnapshot(9), "9801134d0102030409"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "golden"), LOCAL, ids=lambda v: type(v).__name__)
def test_local_messages_keep_their_bytes(message: local.Message, golden: str) -> None:
    assert local.pack(5, message).hex() == golden
    assert local.unpack(bytes.fromhex(golden)) == [(5, message)]


@pytest.mark.parametrize(("message", "golden"), PEER, ids=lambda v: type(v).__name__)
def test_peer_messages_keep_their_bytes(message: peer.Message, golden: str) -> None:
    assert peer.pack(HEADER, message).hex() == golden
    assert peer.unpack(bytes.fromhex(golden)) == (HEADER, message)


def test_every_kind_has_its_bytes_written_down() -> None:
    assert [type(m) for m, _ in LOCAL] == list(local.KINDS)
    assert [type(m) for m, _ in PEER] == list(peer.KINDS)


def test_a_local_frame_holds_one_message_or_several() -> None:
    assert local.pack_frame(5, [local.Durable(1)]) == local.pack(5, local.Durable(1))
    frame = local.pack_frame(5, [local.Durable(1), local.Stop()])
    assert frame.hex() == "92931305019219" + "05"
    assert local.unpack(frame) == [(5, local.Durable(1)), (5, local.Stop())]


def test_a_configuration_comes_back_as_it_was() -> None:
    packed = pack_configuration(CONFIGURATION)
    assert packed.hex() == "93929401a5766f746572a3613a31a3613a329402a76c6561726e6572a3623a31a3623a3291039104"
    assert unpack_configuration(packed) == CONFIGURATION
    assert CONFIGURATION.voters == (1,)
    assert CONFIGURATION.learners == (2,)
    for wrong in (b"", b"\x90", pack([[[1, "king", "a", "b"]], [], []]), pack([[], ["x"], []]), pack(7)):
        with pytest.raises(Malformed):
            unpack_configuration(wrong)


@pytest.mark.parametrize(
    "fields",
    [
        (2, 0, 77, 1, 2, 3, 4, 4, 9, 3),
        (1, 0, 77, 1, 2, 3, 4, 4, 9),
        (1, 0, 77, 1, 2, 3, 4, 4, 9, "3"),
        (1, 0, 77, 1, 2, 3, -4, 4, 9, 3),
        (1, 99, 77, 1, 2, 3, 4),
        (1, -1, 77, 1, 2, 3, 4),
        (1, 4, 77, 1, 2, 3, 4, 8, 3, 7, 1_000, [[9, 3, 1, 1, 1, [7, 2, 5], "text"]]),
        (1, 4, 77, 1, 2, 3, 4, 8, 3, 7, 1_000, [[9, 3, 1, 1, 1, [7, 2], b""]]),
        (1, 4, 77, 1, 2, 3, 4, 8, 3, 7, 1_000, [[10, 3, 1, 1, 1, [7, 2, 5], b""]]),
        (1, 4, 77, 1, 2, 3, 4, 8, 3, 7, 1_000, [[9, 2, 1, 1, 1, [7, 2, 5], b""]]),
        (1, 4, 77, 1, 2, 3, 4, 8, 3, 7, 1_000, [[9, 4, 1, 1, 1, [7, 2, 5], b""]]),
        (1, 4, 77, 1, 2, 3, 4, -8, 3, 7, 1_000, []),
        (1, 4, 77, 1, 2, 3, 4, 8, 3, 7, 1_000, [[9, 3, 2, 1, 1, [7, 2, 5], b"x"]]),
        (1, 6, 77, 1, 2, 1 << 53, 4, 9, 8, 7),
        (1, 3, 77, 1, 2, 3, 4, 1),
        ("1", 0),
        7,
    ],
)
def test_peer_messages_of_another_shape_are_refused(fields: Any) -> None:
    with pytest.raises(Malformed):
        peer.unpack(pack(fields))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x01", b"\x01\x01", b"\xa2\xff\xff", b"\x91" * 3_000 + b"\x01",
                                  b"\xd4\x05\x00", b"\xd6\xff\x00\x00\x00\x00", b"\x81\x91\x01\x01"])  # fmt: skip
def test_what_is_not_one_plain_object_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        unpack(data)
    if data not in (b"", b"\x01\x01"):
        with pytest.raises(Malformed):
            list(unpack_stream(data))


def test_random_and_damaged_frames_never_do_anything_but_refuse() -> None:
    """10^5 inputs: pure noise, and well-formed frames with a few bytes changed or cut."""
    chance = random.Random(20261123)
    frames = [local.pack(5, m) for m, _ in LOCAL] + [peer.pack(HEADER, m) for m, _ in PEER]
    refused = 0
    for number in range(100_000):
        if number % 4 == 0:
            data = chance.randbytes(chance.randrange(40))
        else:
            damaged = bytearray(chance.choice(frames))
            for _ in range(chance.randrange(1, 4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            data = bytes(damaged[: chance.randrange(1, len(damaged) + 1)])
        try:
            peer.unpack(data)
        except Malformed:
            refused += 1
    assert refused > 50_000
