"""What one seed decides before anything happens: the size of the cluster, its settings, its clients.

Windows and caches are small in many worlds, so that their limits are met within seconds; timings are the product's own
or a faster set of the same proportions.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import NamedTuple

from danube_raft.config import Config

NODES_MAX = 7
SIZES = (1, 2, *9 * (3,), *2 * (4,), *4 * (5,), 6, 7)
"""Sizes of clusters, each as often as it is chosen: with one node or two there is little to find."""


WATCHERS_MAX = 4
SNAPSHOTS_SHARE = 1 / 3
DIGESTS_SHARE = 1 / 4
BARE = 1_000
"""Number of the client without a session."""
WATCHING = 2_000
"""Number of the first client that watches."""


class Options(NamedTuple):
    """One world. `nodes` 0: the seed chooses from 1 to `NODES_MAX`, three most often. `seconds`: virtual time with
    faults; the end, without faults, comes on top. `faults`: the numbers of those to make, of all that the seed plans;
    None: all."""

    seed: int
    nodes: int = 0
    seconds: float = 12.0
    faults: tuple[int, ...] | None = None


class Settings(NamedTuple):
    """What was chosen."""

    nodes: int
    config: Config
    clients: int
    keys: int
    rate: float
    padding_bytes: int
    drift_ppm: int
    """How much too fast or too slow a node's clock may be."""
    watchers: int
    snapshots: bool
    """Whether nodes make snapshots and forget their logs all the time, and not only when a log has 64 MiB."""

    @property
    def client_numbers(self) -> tuple[int, ...]:
        """Of all clients that there are while there are faults."""
        return (*range(self.clients), BARE, *range(WATCHING, WATCHING + self.watchers))


def choose(options: Options) -> Settings:
    """The world of this seed."""
    source = random.Random(f"{options.seed}/settings")  # noqa: S311 -- a seed has to repeat
    nodes = options.nodes or source.choice(SIZES)
    # Nobody reads the log lines of a world that is a test.
    config = Config(slow_request_ms=0, space_check_ms=500)
    if source.random() < 0.5:
        config = replace(
            config,
            heartbeat_ms=50,
            election_min_ms=300,
            election_max_ms=600,
            retry_min_ms=20,
            retry_max_ms=100,
        )
    if source.random() < 0.5:
        config = replace(
            config,
            append_max_bytes=source.choice((300, 2_000)),
            log_cache_bytes=source.choice((600, 20_000)),
            read_log_max_bytes=source.choice((400, 5_000)),
            unapplied_max_bytes=source.choice((1_200, 20_000)),
            unacked_write_max_bytes=source.choice((1_000, 20_000)),
            inflight_max_messages=source.choice((1, 3, 64)),
            uncommitted_max_bytes=source.choice((3_000, 1_000_000)),
            waiting_max_commands=source.choice((2, 4, 10_000)),
        )
    chosen = Settings(
        nodes,
        config,
        clients=source.randint(2, 6),
        keys=source.randint(1, 4),
        rate=source.choice((5.0, 20.0, 40.0, 100.0)),
        padding_bytes=source.choice((0, 0, 200, 3_000)),
        drift_ppm=source.choice((0, 0, 200, 20_000)),
        watchers=source.randint(0, WATCHERS_MAX),
        snapshots=False,
    )
    chosen = _with_snapshots(options.seed, chosen._replace(config=_for_watches(source, config)))
    return _with_digests(options.seed, chosen)


def _with_digests(seed: int, settings: Settings) -> Settings:
    """In a quarter of all worlds, with snapshots or without: the states are compared all the time."""
    source = random.Random(f"{seed}/digests")  # noqa: S311 -- a seed has to repeat
    if source.random() >= DIGESTS_SHARE:
        return settings
    return settings._replace(config=replace(settings.config, digest_ms=source.choice((200, 1_000, 4_000))))


def _with_snapshots(seed: int, settings: Settings) -> Settings:
    """In a third of all worlds: snapshots after a few entries, with hardly any log before them, sent in many pieces."""
    source = random.Random(f"{seed}/snapshots")  # noqa: S311 -- a seed has to repeat
    if source.random() >= SNAPSHOTS_SHARE:
        return settings
    config = replace(
        settings.config,
        snapshot_log_bytes=source.choice((200, 1_000, 5_000)),
        snapshot_rest_max_ms=source.choice((10, 100, 700)),
        snapshot_max_ms=source.choice((1_000, 5_000)),
        snapshot_tail_entries=source.choice((0, 2, 20)),
        snapshot_tail_bytes=source.choice((0, 300, 10_000)),
        # Some dozen messages for what the state comes to be.
        snapshot_piece_bytes=source.choice((200, 1_000, 10_000)) * (1 + settings.padding_bytes // 300),
        snapshot_window_pieces=source.choice((1, 2, 8)),
        snapshot_pin_ms=source.choice((1_000, 3_000, 60_000)),
        snapshot_pin_bytes=source.choice((1_024, 50_000)),
    )
    return settings._replace(config=config, snapshots=True)


def _for_watches(source: random.Random, config: Config) -> Config:
    """Limits that watches meet: a history that is soon compacted, frames that split a revision, a short queue."""
    if source.random() < 0.4:
        config = replace(config, history_max_events=source.choice((10, 40, 200)))
    if source.random() < 0.5:
        config = replace(
            config,
            watch_frame_max_bytes=source.choice((200, 1_000)),
            watch_progress_ms=source.choice((200, 2_000)),
            watch_keep_alive_ms=source.choice((6_000, 30_000)),
            client_queue_max_messages=source.choice((3, 10, 1_000)),
        )
    return config
