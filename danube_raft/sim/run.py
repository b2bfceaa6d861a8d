"""Runs one seed and says what came of it; says how to repeat it when it fails.

A run that proves nothing is a failure of the simulator, not a pass: no leader, no fault. Whether each kind of fault had
an effect shows over many seeds, see `check_coverage`.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from danube_raft.sim.endless import Endless, at_most
from danube_raft.sim.faults import FAIL_READ, LOSSES, MEND, Told, kinds_for
from danube_raft.sim.history import OK, REJECTED, UNCERTAIN
from danube_raft.sim.settings import NODES_MAX, Options
from danube_raft.sim.snapshot_faults import RECEIVING
from danube_raft.sim.snapshot_steps import STEPS
from danube_raft.sim.world import World
from danube_raft.storage.memory_snapshots import COMMIT, READ, WRITE

SIGNATURE_CHARS = 80
WORLD_S = 60.0
"""Computing time after which a world is taken to hang; a virtual second more may take another one."""


class Idle(AssertionError):
    """The run was too quiet to show anything."""


class Report(NamedTuple):
    """What happened in one world. `effects` counts faults begun and what they did."""

    seed: int
    nodes: int
    virtual_s: float
    operations: int
    succeeded: int
    elections: int
    faults: int
    effects: Counter[str]
    trace: str


class Failure(NamedTuple):
    """A world that ended with an error. `signature`: what kind of error, raised where, saying what (without its
    numbers); it tells failures apart. Where a world that does not end was stopped is chance, and left out."""

    options: Options
    error: Exception
    signature: str
    faults: tuple[Told, ...]
    story: str

    def __str__(self) -> str:
        faults = "\n".join(map(str, self.faults)) or "   none"
        return f"faults:\n{faults}\nthe last events:\n{self.story}\nrepeat with: {command(self.options)}"


def command(options: Options) -> str:
    """What repeats this world."""
    nodes = f" --nodes {options.nodes}" if options.nodes else ""
    seconds = f" --seconds {options.seconds:g}" if options.seconds != Options(0).seconds else ""
    faults = f" --faults {','.join(map(str, options.faults)) or 'none'}" if options.faults is not None else ""
    return f"scripts/simulate --seed {options.seed}{nodes}{seconds}{faults} --trace"


def attempt(options: Options, echo: Callable[[str], None] | None = None) -> Report | Failure:
    """Run one world and say what came of it."""
    world = World(options, echo)
    try:
        with at_most(WORLD_S + options.seconds):
            world.run()
            report = _report(world)
            _check_activity(report, world)
    except Exception as error:  # noqa: BLE001 -- whatever the product raises is a finding
        signature = _signature(error)
        story = f"{world.trace.last()}\n{world.schedule.now / 1e6:12.6f} {type(error).__name__}: {error}"
        return Failure(options, error, signature, tuple(world.nemesis.told), story)
    return report


def _signature(error: Exception) -> str:
    words = re.sub(r"\d+", "N", str(error).partition(":")[0])[:SIGNATURE_CHARS]
    if isinstance(error, Endless):
        return f"{type(error).__name__}: {words}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(where.filename).stem}.{where.name}: {words}"


def simulate(options: Options, echo: Callable[[str], None] | None = None) -> Report:
    """Run one world. What is raised carries the faults, the last events and the command that repeats it."""
    result = attempt(options, echo)
    if isinstance(result, Failure):
        result.error.add_note(f"seed {options.seed}, {result}")
        raise result.error
    return result


def _report(world: World) -> Report:
    operations = world.operations
    effects = world.nemesis.done + world.network.counts
    for node in world.nodes.values():
        effects += node.counts
    effects["boots"] = sum(node.boots for node in world.nodes.values()) - len(world.nodes)
    effects["clocks_apart"] = sum(node.clock_error_ms > 0 for node in world.nodes.values())
    for node in world.nodes.values():
        effects += node.disk.counts
        broken = node.disk.folder.broken
        effects["snapshots_broken"] += broken[WRITE] + broken[COMMIT]
        effects["snapshot_reads_broken"] += broken[READ]
    effects["slow_syncs"] = sum(node.disk.slow_syncs for node in world.nodes.values())
    effects["leases_seen_gone"] = world.checks.ttl.seen_gone
    effects["leases_seen_alive"] = world.checks.ttl.seen_alive
    effects["leases_ended"] = world.expiries
    effects["leases_seen_cleared"] = world.checks.ttl.seen_cleared
    effects["stopped_receiving"] = sum(effects[f"stopped at {step}"] for step in RECEIVING)
    effects["snapshots_sent_needlessly"] = world.checks.snapshots.needless
    effects["digests_reported"] = world.checks.digests.reported
    effects["digests_compared"] = world.checks.digests.compared
    effects["watch_frames_split"] = world.checks.frames.split
    effects["watches_early"] = world.checks.frames.early
    effects["writes_side_by_side"] = world.programs.side_by_side
    effects["session_reads"] = world.checks.sessions.reads
    effects["bounded_reads"] = len(world.checks.bounded.demands)
    effects["bounded_reads_heard"] = world.checks.bounded.heard
    effects["bounded_reads_in_time"] = world.in_time
    effects["recalled"] = world.recalled
    effects += world.connections.counts
    for watcher in world.watchers.values():
        effects += watcher.counts
    effects["uncertain"] = sum(operation.outcome == UNCERTAIN for operation in operations)
    effects["rejected"] = sum(operation.outcome == REJECTED for operation in operations)
    effects["refused_for_space"] = sum(operation.error.startswith("NoSpace") for operation in operations)
    effects["reads_compacted"] = sum(operation.error.startswith("Compacted") for operation in operations)
    effects["overloaded"] = sum(client.overloaded for client in world.clients)
    effects["swapped"] = sum(
        o.kind == "compare_and_swap" and o.outcome == OK and o.result[0] for o in operations
    )
    done = [operation for operation in operations if operation.outcome == OK]
    effects["prefixes_deleted"] = sum(o.kind == "delete_prefix" and o.result[0] > 1 for o in done)
    effects["past_reads"] = sum(o.past is not None and o.args[2:3] in ((), (None,)) for o in done)
    effects["leases_swapped"] = sum(
        o.kind == "compare_and_swap" and o.key.startswith("/ttl/") and o.result[0] for o in done
    )
    effects["pages_after_the_first"] = sum(o.kind == "range" and o.args[2] is not None for o in done)
    return Report(
        world.options.seed,
        world.settings.nodes,
        world.schedule.now / 1e6,
        len(operations),
        sum(operation.outcome == OK for operation in operations),
        world.checks.completeness.elections,
        world.nemesis.faults,
        effects,
        world.trace.digest(),
    )


def _check_activity(report: Report, world: World) -> None:
    if not report.elections:
        raise Idle("nobody ever led")
    if world.options.faults is not None:
        return
    # What a disk loses is lost only when something is committed, which in a short world may be too late.
    planned = [fault for fault in world.nemesis.planned if fault.kind != MEND]
    if not report.faults and not (planned and all(fault.kind in LOSSES for fault in planned)):
        raise Idle("nothing was disturbed")
    if report.faults >= FAULTS_MIN and not any(report.effects[name] for name in EFFECTS):
        raise Idle("no fault had an effect")


# What handlers tell their operators is of no use here, and Python would print warnings that nobody takes.
logging.getLogger("danube_raft").addHandler(logging.NullHandler())

EFFECTS = (
    "crashed", "boots", "killed log-writer", "killed consensus", "killed kv-server", "held log-writer", "held consensus",
    "held kv-server", "frozen", "syncs_slowed", "syncs_hung", "writes_failed", "torn_apart", "misdated",
    "client_messages_cut", "lost", "dropped", "delayed", "repeated", "overtaken", "refused", "clogged", "suspect",
    "low_on_space", "handed_over", "refused_for_room", "snapshots_broken",
    "snapshot_reads_broken",
)  # fmt: skip
"""What faults did, counted where it happens: a fault that is only told would else count as made. A world in which none
of this happened shows nothing."""
FAULTS_MIN = 8
"""With fewer faults in a world, chance may leave all of them without effect."""
NEEDED = (
    *EFFECTS, "crash", "blackout", "slow_disk", "unsynced_kept", "unsynced_lost", "unsynced_torn", "mark_torn", "fill_disk", "forget", "damage_mark",
    "suspect_again", "suspect_no_more", "promises_lost", "terms_forgotten", "clocks_apart",
    "isolate", "depose", "divide", "ring", "bridge", "one_way", "mend", "slow_syncs", "leases_seen_gone", "leases_ended", "leases_swapped", "past_reads",
    "leases_seen_alive", "session_reads", "writes_side_by_side", "bounded_reads", "bounded_reads_heard", "uncertain", "rejected", "overloaded",
    "swapped", "truncations", "log_chunks", "reads_confirmed", "reads_refused", "watch_events", "watch_marks", "watch_pauses",
    "watches_reopened", "watches_resumed_elsewhere", "watches_compacted", "watches_silent", "watchers_told_gone",
    "hand_over", "told_to_campaign", "campaigns_when_told", "refused_for_space",
    "stop_at_step", "leave_behind", "spoil", "fail_snapshot", FAIL_READ, "stopped at start", "stopped_receiving",
    "snapshots_taken", "logs_purged", "snapshots_sent", "snapshots_installed", "takes_interrupted",
    "restarts_from_snapshot", "loads_of_the_older",
    "no_room", "started_read_only", "room_again", "passive_commits",
    "watchers_told_slow", "watch_frames_held_up", "watch_frames_split", "watches_early",
    "prefixes_deleted", "pages_after_the_first", "leases_seen_cleared",
    "digests_reported", "digests_compared", "bounded_reads_in_time", "recalled", "reads_compacted",
)  # fmt: skip
"""What must have happened in some of many worlds."""
RARE = (*(f"stopped at {step}" for step in STEPS), "installs_interrupted", "transfers_resumed")
RARE_WORLDS = 2_000
"""From so many worlds on, these must have happened too."""


FROM_TWO = {
    "bounded_reads_heard", "watches_resumed_elsewhere", "watches_early", "handed_over", "told_to_campaign", "campaigns_when_told",
    "lost", "dropped", "delayed", "repeated", "overtaken", "refused", "clogged", "digests_compared",
}  # fmt: skip
"""Of `NEEDED`, what takes two nodes, beside the faults that do."""
FROM_THREE = {
    "truncations", "suspect", "suspect_again", "suspect_no_more", "promises_lost", "terms_forgotten", "leave_behind", "snapshots_sent",
    "snapshots_installed", "stopped_receiving", "stopped at send", *(f"stopped at {step}" for step in RECEIVING),
    "installs_interrupted", "transfers_resumed",
}  # fmt: skip
"""Two nodes elect none that lacks anything that one of them has, may lose nothing, and leave nobody behind."""


def needed_from(name: str) -> int:
    """The smallest cluster in which this can happen."""
    if name in FROM_TWO:
        return 2
    if name in FROM_THREE:
        return 3
    sizes = range(1, NODES_MAX + 1)
    kinds = [size for size in sizes if name in kinds_for(size)]
    return min(kinds, default=1)


def check_coverage(reports: Iterable[Report]) -> None:
    """Over a good number of seeds every kind of fault that there is for clusters of their sizes was made and had its
    effect. Raises Idle."""
    reports = list(reports)
    found: Counter[str] = Counter()
    changes = largest = 0
    for report in reports:
        found += report.effects
        changes += report.elections > 1
        largest = max(largest, report.nodes)
    needed = NEEDED + (RARE if len(reports) >= RARE_WORLDS else ())
    missing = [name for name in needed if not found[name] and largest >= needed_from(name)]
    if missing:
        raise Idle(f"in no world: {', '.join(missing)}")
    if not changes:
        raise Idle("no leader was ever followed by another")
