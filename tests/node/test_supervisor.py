"""The supervisor where no real process is needed to see it: a child that cannot be started."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from danube_raft.config import Config
from danube_raft.errors import Fatal
from danube_raft.node.bootstrap import belongs, held_data_dir
from danube_raft.node.supervisor import Supervisor
from danube_raft.node.view import NodeView


@pytest.mark.timeout(20)
def test_a_child_that_cannot_be_started_is_one_error_and_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket of the child that never was must not keep the context from ending."""

    def refuse(_supervisor: Any, _name: str) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Supervisor, "_spawn", refuse)
    config = replace(Config(), data_dir=str(tmp_path / "data"))
    with held_data_dir(config, inheritable=False) as data_dir:
        monkeypatch.chdir(config.data_dir)
        assert belongs(config, data_dir, ())
        with closing(NodeView()) as view, pytest.raises(Fatal, match="cannot start the log-writer"):
            Supervisor(config, data_dir, (), view).run()
