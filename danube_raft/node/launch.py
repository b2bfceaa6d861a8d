"""A supervisor that a program starts beside itself: for a node of its own (`embedded.py`) or several (`local_cluster.py`).

The settings go through the supervisor's standard input, which stays open: when it closes, because the program wants it
to or because the program died, the node stops. Its first line on standard output says how the start went.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import IO

from danube_raft import errors
from danube_raft.config import Config

STOP_EXTRA_MS = 1_000
"""What the supervisor itself needs beyond `stop_timeout_ms`."""


class Launched:
    """One running supervisor. `stderr`: where its log lines go; None: where this program's go."""

    def __init__(self, config: Config, stderr: IO[bytes] | None = None) -> None:
        self._config = config
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "danube_raft.node.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            process_group=0,
        )
        assert self._process.stdin is not None, "the settings go through standard input"
        assert self._process.stdout is not None, "the node answers on standard output"
        self._stdin: IO[bytes] = self._process.stdin
        self.stdout: IO[bytes] = self._process.stdout
        # A pipe that is broken already: the supervisor has ended, which reading from it tells.
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(config.to_json().encode() + b"\n")
            self._stdin.flush()

    def answer(self) -> errors.DanubeRaftError | None:
        """Read how the start went, waiting for it: None when the node is ready, else why not."""
        said = self.stdout.readline()
        if said.startswith(b"ready"):
            return None
        if not said:
            return errors.Fatal("the node ended before it served; its log lines say why")
        code, message = json.loads(said)
        return errors.from_wire(code, message)

    def stop(self) -> None:
        """Tell it to end, without waiting."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        # A child that this program forked may hold the pipe open: the signal does not depend on it.
        self._process.terminate()

    def wait(self) -> None:
        """Wait for its end, which comes soon after `stop`."""
        try:
            self._process.wait((self._config.stop_timeout_ms + STOP_EXTRA_MS) / 1000)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.stdout.close()
