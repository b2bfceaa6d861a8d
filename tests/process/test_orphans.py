"""Two nets keep the processes of a node from outliving their supervisor. Each has to hold alone: the kernel's signal
is missed when the parent died too early, and the pipe may be held open by somebody else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from real_node import WAIT_S, RealNode, runs, until

pytestmark = pytest.mark.process

PIPE_ONLY = "process.die_with_parent = lambda parent: None"
SIGNAL_ONLY = """
die_with_parent = process.die_with_parent
def with_a_pipe_that_stays_open(parent):
    os.dup2(os.pipe()[0], 0)
    die_with_parent(parent)
process.die_with_parent = with_a_pipe_that_stays_open
"""
NEITHER = SIGNAL_ONLY.replace("    die_with_parent(parent)\n", "")

CHILD = """
import os, sys
from danube_raft.node import process
{}
sys.exit(process.main())
"""

NODE = """
import subprocess, sys
from danube_raft.node import supervisor
from danube_raft_cli.main import main

popen = subprocess.Popen

def child(command, **how):
    assert command[1:4] == ["-P", "-m", "danube_raft.node.process"], command
    return popen([command[0], "-P", "-c", {!r}, *command[4:]], **how)

supervisor.subprocess.Popen = child
sys.argv[0] = "danube-raft"
main()
"""


class NodeWith(RealNode):
    """A node whose processes have only these nets."""

    nets = ""

    def command(self, *arguments: str) -> list[str]:
        """As always, with the processes changed."""
        return [sys.executable, "-c", NODE.format(CHILD.format(self.nets)), *arguments]


@pytest.mark.parametrize("nets", [PIPE_ONLY, SIGNAL_ONLY], ids=["pipe", "signal"])
def test_each_net_alone_ends_the_children_of_a_killed_supervisor(tmp_path: Path, nets: str) -> None:
    node = NodeWith(tmp_path / "data")
    node.nets = nets
    with node:
        assert node.process is not None
        children = node.family()[1:]
        assert len(children) == 3
        node.process.kill()
        node.process.wait(WAIT_S)
        until(lambda: not any(map(runs, children)), "the children to end", wait_s=5)


def test_without_both_nets_they_would_live_on(tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    node = NodeWith(tmp_path / "data")
    node.nets = NEITHER
    with node:
        assert node.process is not None
        children = node.family()[1:]
        node.process.kill()
        node.process.wait(WAIT_S)
        with pytest.raises(AssertionError, match="waited"):
            until(lambda: not any(map(runs, children)), "the children to end", wait_s=1)
