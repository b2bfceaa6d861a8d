"""get, put, delete, cas, next-id: what is stored, what is printed, and with which exit code it ends."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
from fake_node import FakeNode

from danube_raft.wire import client as wire

Run = Callable[..., Any]


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """What stands on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def assert_wrong_usage(done: Any, text: str) -> None:
    """Exit code 2, and one line that says so."""
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert text in done.err


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("5", b"5"),
        ("hello", b'"hello"'),
        ('"5"', b'"5"'),
        ('{"b": 1, "a": [2]}', b'{"a":[2],"b":1}'),
        ("null", b"null"),
        ("NaN", b'"NaN"'),
        ("{broken", b'"{broken"'),
        ("", b'""'),
        ("zwölf", '"zwölf"'.encode()),
    ],
)
def test_a_value_is_json_or_else_a_json_string(ask: Run, node: FakeNode, text: str, stored: bytes) -> None:
    assert ask("put", "/k", text) == (0, "OK\n", "")
    assert node.records["/k"][1] == stored


def test_a_dash_reads_the_value_from_stdin(ask: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, b'{"a": 1}\n')
    assert ask("put", "/k", "-").code == 0
    assert node.records["/k"][1] == b'{"a":1}'
    feed(monkeypatch, b"\xff")
    assert_wrong_usage(ask("put", "/k", "-"), "not UTF-8")
    monkeypatch.setattr(sys, "stdin", None)
    assert_wrong_usage(ask("put", "/k", "-"), "standard input is closed")


def test_raw_stores_bytes_as_they_are(ask: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("put", "/k", "--raw", "bad\udcff") == (0, "OK\n", "")
    assert node.records["/k"][1] == b"bad\xff"
    feed(monkeypatch, b"\x00\xff\n")
    assert ask("put", "/k", "--raw", "-").code == 0
    assert node.records["/k"][1] == b"\x00\xff\n"
    ask("put", "/k", "--raw", "5 ")
    assert ask("get", "/k", "--raw").out == "5 "


@pytest.mark.parametrize(
    "value", ["1e999", '{"a": [-1e999]}', "9" * 5000, "[" * 100_000, "bad\udcff", '"\\ud800"']
)
def test_a_value_that_cannot_be_written_as_json_is_wrong_usage(ask: Run, node: FakeNode, value: str) -> None:
    assert_wrong_usage(ask("put", "/k", "--", value), "")
    assert not node.requests
    assert "out of range is refused" in " ".join(ask("put", "--help").out.split())


def test_a_key_that_is_not_unicode_is_wrong_usage(ask: Run, node: FakeNode) -> None:
    for command in (["put", "bad\udcff", "v"], ["get", "bad\udcff"], ["watch", "bad\udcff"]):
        assert_wrong_usage(ask(*command), "Unicode")
    assert not node.requests


def test_a_value_with_a_dash_needs_two_more(ask: Run, node: FakeNode) -> None:
    assert_wrong_usage(ask("put", "/k", "-5"), "`--`")
    assert ask("put", "--", "/k", "-5").code == 0
    assert node.records["/k"][1] == b"-5"


def test_control_characters_are_escaped_for_people_alone(ask: Run, node: FakeNode) -> None:
    key, value = "/k\n\t\x1b[2J", "a\r\nb\tc\x1b\x9b\u2028"
    node.records[key] = (key, value.encode(), 1, 1, 1, 0, 0)
    shown_key, shown_value = r"/k\n\t\x1b[2J", r"a\r\nb\tc\x1b\x9b\u2028"
    assert ask("get", key).out == f"{shown_value}\n"
    assert ask("get", key, "--keys-only").out == f"{shown_key}\n"
    assert ask("get", "/", "--prefix").out == f"{shown_key}\t{shown_value}\n"
    assert ask("get", key, "-o", "table").out.splitlines()[1].split("  ")[:2] == [shown_key, shown_value]
    assert ask("get", key, "-o", "json").json["value"] == value
    assert ask("get", key, "--raw").out == value


def test_half_a_surrogate_pair_that_somebody_stored_can_be_shown(ask: Run, node: FakeNode) -> None:
    node.records["/k"] = ("/k", b'"\\ud800"', 1, 1, 1, 0, 0)
    assert ask("get", "/k", "-o", "json").json["value"] == "\ud800"


def test_a_limit_without_a_prefix_is_wrong_usage(ask: Run) -> None:
    assert_wrong_usage(ask("get", "/k", "--limit", "3"), "--prefix")


def test_every_answer_has_a_table(ask: Run) -> None:
    def table(*arguments: str) -> list[list[str]]:
        return [row.split() for row in ask(*arguments, "-o", "table").out.splitlines()]

    ask("put", "/k", "1")
    assert table("put", "/k", "2", "--prev") == [
        ["KEY", "REVISION", "VERSION", "PREVIOUS"],
        ["/k", "3", "2", "1"],
    ]
    header = ["KEY", "SWAPPED", "REVISION", "VERSION", "CURRENT"]
    assert table("cas", "/k", "2", "3") == [header, ["/k", "true", "4", "3"]]
    assert table("cas", "/k", "2", "3") == [header, ["/k", "false", "3"]]
    assert table("delete", "/k") == [["REMOVED"], ["1"]]
    assert table("next-id", "ids", "--count", "5") == [["COUNTER", "FIRST", "COUNT"], ["ids", "1", "5"]]


@pytest.mark.parametrize(("text", "ms"), [("500ms", 500), ("32s", 32_000), ("5m", 300_000), ("1.5", 1_500)])
def test_a_ttl_names_its_unit(ask: Run, node: FakeNode, text: str, ms: int) -> None:
    assert ask("put", "/k", "1", "--ttl", text).code == 0
    assert node.of("put_with_ttl")[0][wire.ARGS + 2] == ms


def test_put_in_json_tells_revision_version_and_what_was_there(ask: Run) -> None:
    assert ask("put", "/k", "1", "-o", "json").json == {"key": "/k", "revision": 2, "version": 1}
    shown = ask("put", "/k", "2", "--prev", "-o", "json").json
    assert (shown["version"], shown["previous"]["value"]) == (2, 1)


def test_get_prints_what_is_stored(ask: Run) -> None:
    ask("put", "/k", '{"a": 1}')
    assert ask("get", "/k") == (0, '{"a":1}\n', "")
    assert ask("get", "/k", "--raw").out == '{"a":1}'
    assert ask("get", "/k", "--keys-only").out == "/k\n"
    assert ask("get", "/k", "--output", "json").json == {
        "key": "/k",
        "value": {"a": 1},
        "create_revision": 2,
        "mod_revision": 2,
        "version": 1,
        "lease": 0,
        "created_at_ms": 1_700_000_000_000,
    }
    assert ask("get", "/k", "--output", "table").out.splitlines()[0].split() == [
        "KEY",
        "VALUE",
        "VERSION",
        "REVISION",
        "LEASE",
    ]


def test_a_missing_key_is_exit_code_3(ask: Run) -> None:
    assert ask("get", "/k") == (3, "", "error: key '/k' does not exist\n")


def test_a_prefix_lists_in_order_over_all_pages(ask: Run) -> None:
    for number in range(7):
        ask("put", f"/t/{number}", str(number))
    assert ask("get", "/t/", "--prefix").out == "".join(f"/t/{n}\t{n}\n" for n in range(7))
    assert [record["value"] for record in ask("get", "/t/", "--prefix", "-o", "json").json] == list(range(7))
    assert ask("get", "/t/", "--prefix", "--keys-only", "--limit", "2").out == "/t/0\n/t/1\n"
    assert ask("get", "/none/", "--prefix", "-o", "json") == (0, "[]\n", "")


def test_level_and_revision_go_to_the_node(ask: Run, node: FakeNode) -> None:
    ask("get", "/k", "--consistency", "linearizable")
    ask("get", "/k", "--consistency", "250", "--revision", "7")
    first, second = node.of("get")
    assert first[wire.CONSISTENCY] == "linearizable"
    assert (second[wire.CONSISTENCY], second[wire.ARGS + 1]) == (250, 7)


def test_bytes_that_are_no_json_are_shown_all_the_same(ask: Run, node: FakeNode) -> None:
    node.records["/text"] = ("/text", b"hi\nthere", 1, 1, 1, 0, 0)
    node.records["/bytes"] = ("/bytes", b"\xff\x00", 1, 1, 1, 0, 0)
    assert ask("get", "/text").out == "hi\\nthere\n"
    assert ask("get", "/text", "-o", "json").json["value"] == "hi\nthere"
    assert ask("get", "/bytes").out == "base64:/wA=\n"
    assert ask("get", "/bytes", "-o", "json").json["value"] == {"base64": "/wA="}


def test_delete_prints_how_many_and_a_missing_key_is_fine(ask: Run) -> None:
    for key in ("/t/1", "/t/2", "/k"):
        ask("put", key, "1")
    assert ask("delete", "/k") == (0, "1\n", "")
    assert ask("delete", "/k") == (0, "0\n", "")
    assert ask("delete", "/t/", "--prefix", "-o", "json").json == {"removed": 2}


def test_cas_swaps_on_a_value_on_absence_and_on_a_revision(ask: Run) -> None:
    assert ask("cas", "/k", "--absent", "1") == (0, "swapped\n", "")
    assert ask("cas", "/k", "1", "2").code == 0
    assert ask("cas", "/k", "--revision", "3", "3", "-o", "json").json == {
        "key": "/k", "swapped": True, "revision": 4, "version": 3
    }  # fmt: skip
    failed = ask("cas", "/k", "1", "9", "-o", "json")
    assert (failed.code, failed.json["swapped"], failed.json["current"]["value"]) == (1, False, 3)
    assert ask("cas", "/k", "--absent", "9") == (1, "not swapped: 3\n", "")
    assert ask("cas", "/none", "1", "2") == (1, "not swapped: absent\n", "")


@pytest.mark.parametrize(
    "arguments",
    [("1",), ("1", "2", "3"), ("--absent", "1", "2"), ("--absent", "--revision", "3", "1"), ("-", "-")],
)
def test_cas_with_the_wrong_number_of_values_is_wrong_usage(
    ask: Run, node: FakeNode, arguments: tuple[str, ...]
) -> None:
    done = ask("cas", "/k", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert not node.requests


def test_next_id_prints_the_first_of_its_block(ask: Run) -> None:
    assert ask("next-id", "topics").out == "1\n"
    assert ask("next-id", "topics", "--count", "10", "-o", "json").json == {
        "counter": "topics",
        "first": 2,
        "count": 10,
    }
    assert ask("next-id", "topics").out == "12\n"
