"""A program that uses the store: one session for all that it asks for, and the newest revision that it was shown.

What it was shown is counted here, from answers and from what its watches handed out, and never taken from the token of
the session: one that fails to take notice of something would else be measured by itself. (There is one cluster in a
world, so revisions can be compared.)
"""

from __future__ import annotations

import random

from danube_raft.client.call import Session


class Program:
    """One of them; `source` is for its session."""

    def __init__(self, source: random.Random) -> None:
        self.session = Session(source=source)
        self.seen = 0
        """The highest revision that it was shown."""

    def saw(self, revision: int) -> None:
        """It was shown the store at this revision."""
        self.seen = max(self.seen, revision)
