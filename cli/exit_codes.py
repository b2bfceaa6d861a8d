"""The exit codes of `danube-raft`: each is declared here and nowhere else.

0 fine, 1 failed, 2 wrong usage, 3 not found, 4 no connection or no leader, 5 uncertain (a write that may be applied),
130 ended by Ctrl-C. A `watch` is ended by Ctrl-C in the ordinary way, so that is 0; `node start` stops its node and
returns 0 too. An error of the kind Fatal brings its own code, from 10 on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from danube_raft.errors import DanubeRaftError

FINE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
NO_CONNECTION = 4
UNCERTAIN = 5
INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""


def exit_code(error: DanubeRaftError) -> int:
    """The exit code of an error."""
    from danube_raft import errors

    if isinstance(error, errors.Fatal):
        return error.exit_code
    if isinstance(error, errors.NoConnection | errors.NoLeader | errors.NotLeader):
        return NO_CONNECTION
    if isinstance(error, errors.InvalidArgument | errors.KeyEmpty):
        return USAGE
    return UNCERTAIN if isinstance(error, errors.Uncertain) else FAILED
