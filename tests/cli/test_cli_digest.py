"""`danube-raft digest`: one line for each member, and an exit code that says whether all agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import pytest
from danube_raft_cli import digest
from danube_raft_cli.options import Settings

from danube_raft.client.operation import NodeDigest

Run = Callable[..., Any]
SAME, OTHER = b"s" * 32, b"o" * 32
ADDRESS = "h:1"


class Store:
    """A cluster of so many voters, whose reports come one at a time."""

    def __init__(self, *hashes: bytes | None, formats: tuple[int, ...] = ()) -> None:
        self.rows = [
            {"node_id": number, "client_addr": ADDRESS, "kind": "voter"}
            for number in range(1, len(hashes) + 1)
        ]
        self.reports = [
            NodeDigest(number, (formats or (1,) * len(hashes))[number - 1], found)
            for number, found in enumerate(hashes, 1)
            if found is not None
        ]
        self.asked = 0
        self.forgets = False

    def digest(self) -> int:
        """At entry 9."""
        return 9

    def members(self) -> list[dict[str, Any]]:
        """All of them."""
        return self.rows

    def digest_reports(self, index: int) -> tuple[int, list[NodeDigest]]:
        """One more each time."""
        self.asked += 1
        return index, self.reports[self.asked - 1 if self.forgets else 0 : self.asked]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


@pytest.fixture
def asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(digest, "ASK_AGAIN_S", 0)

    def call(store: Store, *arguments: str) -> Any:
        monkeypatch.setattr(Settings, "store", lambda _: store)
        return run("digest", *arguments)

    return call


def test_all_that_agree_are_shown_and_it_is_fine(asked: Run) -> None:
    store = Store(SAME, SAME, SAME)
    done = asked(store)
    assert done.code == 0
    assert done.out.splitlines() == [
        *(f"{number} {ADDRESS} {SAME.hex()} agrees" for number in (1, 2, 3)),
        "index 9: all states agree",
    ]
    assert store.asked == 3, "it waits for all, and no longer"


def test_one_that_differs_is_named_and_it_has_failed(asked: Run) -> None:
    done = asked(Store(SAME, OTHER, SAME))
    assert done.code == 1
    assert done.out.splitlines()[1] == f"2 {ADDRESS} {OTHER.hex()} DIFFERS from the majority"
    assert done.out.splitlines()[3] == "index 9: the states are not proven to agree"


@pytest.mark.parametrize("hashes", [(SAME, OTHER), (SAME, OTHER, SAME, OTHER)])
def test_without_a_majority_nobody_is_named(asked: Run, hashes: tuple[bytes, ...]) -> None:
    done = asked(Store(*hashes))
    assert done.code == 1
    assert "DIFFERS" not in done.out
    assert done.out.count("no majority") == len(hashes)


def test_one_that_does_not_report_is_waited_for_so_long_and_no_longer(asked: Run) -> None:
    done = asked(Store(SAME, SAME, None), "--wait", "50ms")
    assert done.code == 1
    assert done.out.splitlines()[2] == f"3 {ADDRESS} no hash"


def test_what_one_has_told_is_kept_though_the_next_does_not_know_it(asked: Run) -> None:
    store = Store(SAME, SAME, SAME)
    store.forgets = True
    assert asked(store, "--wait", "5s").code == 0
    assert store.asked == 3


def test_json_and_table_have_it_too(asked: Run) -> None:
    found = asked(Store(SAME, OTHER, SAME), "--output", "json")
    assert found.code == 1
    assert found.json["index"] == 9
    assert found.json["agree"] is False
    assert [row["verdict"] for row in found.json["nodes"]] == [
        "agrees",
        "DIFFERS from the majority",
        "agrees",
    ]
    table = asked(Store(SAME, SAME), "--output", "table").out.splitlines()
    assert table[0].split() == ["NODE", "ID", "CLIENT", "ADDR", "SHA256", "VERDICT"]


def test_a_wrong_time_is_wrong_usage(asked: Run) -> None:
    assert asked(Store(SAME), "--wait", "soon").code == 2
