"""Log lines, as text and as JSON: one line per event, whatever is in it."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from danube_raft.config import Config
from danube_raft.node import logs

log = logging.getLogger("danube_raft.test")


def _fail() -> None:
    raise AssertionError("durable ≤ last")


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger("danube_raft")
    kept = root.handlers[:], root.propagate, root.level
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    yield
    root.handlers[:], root.propagate, root.level = kept


def test_text_is_time_level_process_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(Config(), "kv-server", 7)
    log.info("role=%s", "leader", extra={"fields": {"role": "leader"}})
    line = capsys.readouterr().err
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    kv-server role=leader\n", line)


def test_json_is_one_object_per_line_with_the_same_message(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(Config(log_format="json"), "kv-server", 7)
    fields = {"role": "leader", "level": "never over the line's own", "pids": {"a": 1}, "odd": b"x"}
    log.warning("role=%s\nsecond \u00fc line", "leader", extra={"fields": fields})
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "warning", "process": "kv-server", "node_id": 7, "message": "role=leader\nsecond \u00fc line",
        "role": "leader", "pids": {"a": 1}, "odd": "b'x'",
    }  # fmt: skip


def test_a_traceback_is_part_of_its_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A process that dies of a bug says so where whoever collects the lines will find it."""
    logs.set_up(Config(log_format="json"), "consensus", 7)
    with pytest.raises(AssertionError) as caught:
        _fail()
    sys.excepthook(caught.type, caught.value, caught.tb)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    found = json.loads(line)
    assert (found["level"], found["message"]) == ("critical", "ended by AssertionError: durable ≤ last")
    assert "test_logs.py" in found["traceback"]


def test_the_level_counts_in_both_formats(capsys: pytest.CaptureFixture[str]) -> None:
    for log_format in ("text", "json"):
        logs.set_up(Config(log_level="warning", log_format=log_format), "kv-server")
        log.info("quiet")
        log.warning("loud")
        said = capsys.readouterr().err
        assert "quiet" not in said
        assert said.count("loud") == 1
