"""The command line in this process, against a fake node."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from danube_raft_cli.main import main
from fake_node import FakeNode


class Done(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output as one JSON value."""
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def sigint() -> Iterator[None]:
    """A shell's background job ignores SIGINT, and so would every process that a test starts there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """A fake node."""
    with FakeNode() as node:
        yield node


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs one command line and captures all of it."""
    monkeypatch.delenv("DANUBE_RAFT_ENDPOINTS", raising=False)

    def call(*arguments: str) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)

    return call


@pytest.fixture
def ask(run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run`, with the fake node as the default endpoint."""
    monkeypatch.setenv("DANUBE_RAFT_ENDPOINTS", node.endpoint)
    return run
