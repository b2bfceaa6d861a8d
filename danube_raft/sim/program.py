"""A program that uses the store: one session for all that it does at the same time, and the newest revision that it was
shown.

- What it was shown is counted here, from answers and from what its watches handed out, and never taken from the token of
  the session: one that fails to take notice of something would else be measured by itself. (There is one cluster in a
  world, so revisions can be compared.)
- In most worlds each client is a program of its own. In the others two to four clients are one, as threads that share a
  store, with the watches of their machines: several writes of a session are under way at a time, are retried and get
  into the log in any order, and what a watch has shown binds the reads beside it. Which worlds these are is drawn from a
  source of its own: the others are as they were without it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from danube_raft.client.call import Session
from danube_raft.sim.settings import WATCHING, Settings

SHARED_SHARE = 0.25
"""In so many worlds clients share a session."""
SIZES = (2, 3, 4)
"""How many clients are one program; the last one gets those that are left."""


class Program:
    """One of them; `source` is for its session."""

    def __init__(self, source: random.Random) -> None:
        self.session = Session(source=source)
        self.seen = 0
        """The highest revision that it was shown."""
        self.writes = 0
        """How many it has under way."""
        self.side_by_side = 0
        """How often it began a write while another was under way."""

    def saw(self, revision: int) -> None:
        """It was shown the store at this revision."""
        self.seen = max(self.seen, revision)

    def write_begun(self) -> None:
        """One more is under way."""
        self.side_by_side += self.writes > 0
        self.writes += 1

    def write_ended(self) -> None:
        """One less."""
        self.writes -= 1


class Programs:
    """All of a world; `source_of` makes a source of random numbers of its own for each name."""

    def __init__(self, settings: Settings, source_of: Callable[[str], random.Random]) -> None:
        self._source_of = source_of
        self._shared = _plan(source_of("programs"), settings.clients, settings.watchers)
        self._by_number: dict[int, Program] = {}

    def of(self, client: int) -> Program:
        """The program that this client belongs to."""
        number = self._shared.get(client, client)
        if number not in self._by_number:
            self._by_number[number] = Program(self._source_of(f"client {number}"))
        return self._by_number[number]

    @property
    def side_by_side(self) -> int:
        """How often a program began a write while it had another under way."""
        return sum(program.side_by_side for program in self._by_number.values())


def _plan(source: random.Random, clients: int, watchers: int) -> dict[int, int]:
    """The first client of the program that each belongs to. None in most worlds: each client is its own."""
    if source.random() >= SHARED_SHARE:
        return {}
    firsts: list[int] = []
    while len(firsts) < clients:
        firsts += [len(firsts)] * source.choice(SIZES)
    firsts = firsts[:clients]
    return {
        **dict(enumerate(firsts)),
        **{WATCHING + place: firsts[place % clients] for place in range(watchers)},
    }
