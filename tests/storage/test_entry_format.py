"""The stored form of an entry: what it is, byte for byte, and that nothing else is taken for one.

The golden bytes guard data that lies on disks already: when this test fails, the format number must rise.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danube_raft.errors import Corrupt, NewerFormat
from danube_raft.storage.entry_format import (
    CHAIN_BYTES,
    MIN_BYTES,
    ZERO_CHAIN,
    chain_after,
    chain_of,
    decode,
    encode,
)
from danube_raft.wire.entry import KIND_BATCH, KINDS, NO_ORIGIN, Entry

ENTRY = Entry(7, 3, KIND_BATCH, 1_000, 1_700_000_000_000, (11, 2, 5), b"payload")
GOLDEN = (
    "01000000000000000301"
    "00000000000003e80000018bcfe56800"
    "000000000000000b00000000000000020000000000000005"
    "000102030405060708090a0b0c0d0e0f"
    "7061796c6f6164"
    "d473ec90"
)
GOLDEN_CHAIN = "027974d0d49117e41a15fe1c5a2edc40"

U63 = st.integers(0, 2**63 - 1)
ENTRIES = st.builds(
    Entry,
    index=st.integers(1, 2**63 - 1),
    term=U63,
    kind=st.sampled_from(KINDS),
    stamp_ms=U63,
    wall_ms=U63,
    origin=st.tuples(U63, U63, U63),
    payload=st.binary(max_size=200),
)
CHAINS = st.binary(min_size=CHAIN_BYTES, max_size=CHAIN_BYTES)
BOUNDED = settings(max_examples=300, derandomize=True, deadline=None, database=None)


def test_the_bytes_on_disk_do_not_change() -> None:
    data = encode(ENTRY, bytes(range(16)))
    assert data.hex() == GOLDEN
    assert chain_of(data).hex() == GOLDEN_CHAIN
    assert decode(7, data) == (ENTRY, bytes(range(16)))


@given(ENTRIES, CHAINS)
@BOUNDED
def test_every_entry_comes_back_as_it_was(entry: Entry, chain: bytes) -> None:
    data = encode(entry, chain)
    assert decode(entry.index, data) == (entry, chain)
    assert len(data) == MIN_BYTES + len(entry.payload)
    assert chain_after(entry, chain) == chain_of(data)


@given(ENTRIES, CHAINS, st.data())
@BOUNDED
def test_one_flipped_bit_anywhere_is_refused(entry: Entry, chain: bytes, draw: st.DataObject) -> None:
    data = bytearray(encode(entry, chain))
    bit = draw.draw(st.integers(0, len(data) * 8 - 1))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Corrupt, NewerFormat)):
        decode(entry.index, bytes(data))


@given(st.binary(max_size=300), st.integers(1, 2**63 - 1))
@BOUNDED
def test_garbage_is_refused_and_nothing_else_happens(garbage: bytes, index: int) -> None:
    for data in (garbage, b"\x01" + garbage):
        with pytest.raises((Corrupt, NewerFormat)):
            decode(index, data)


def test_every_shortened_entry_is_refused() -> None:
    data = encode(ENTRY, ZERO_CHAIN)
    for size in range(len(data)):
        with pytest.raises(Corrupt):
            decode(7, data[:size])


def test_an_entry_under_another_index_is_refused() -> None:
    with pytest.raises(Corrupt, match="log entry 8 "):
        decode(8, encode(ENTRY, ZERO_CHAIN))


def test_a_later_format_is_named_as_such() -> None:
    data = b"\x02" + encode(ENTRY, ZERO_CHAIN)[1:]
    with pytest.raises(NewerFormat, match="log entry 7 has format 2"):
        decode(7, data)


def test_a_kind_of_entry_from_the_future_is_named_as_such() -> None:
    with pytest.raises(NewerFormat, match="log entry 7 is of a kind"):
        decode(7, encode(ENTRY._replace(kind=9), ZERO_CHAIN))


def test_messages_name_the_index_and_the_way_out() -> None:
    with pytest.raises(Corrupt, match=r"log entry 7 .*move log/ out of it and start the node again"):
        decode(7, encode(ENTRY, ZERO_CHAIN)[:-1] + b"\x00")


def test_the_chain_depends_on_every_entry_before() -> None:
    first = ENTRY._replace(index=1, origin=NO_ORIGIN)
    other = first._replace(wall_ms=first.wall_ms + 1)
    second = ENTRY._replace(index=2)
    assert chain_after(second, chain_after(first, ZERO_CHAIN)) != chain_after(
        second, chain_after(other, ZERO_CHAIN)
    )
