"""After the end of the three processes: another start, how soon, or staying down with the right exit code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from danube_raft.config import Config
from danube_raft.errors import (
    ConfigInvalid,
    Corrupt,
    CrashLoop,
    DanubeRaftError,
    DiskFailed,
    DiskFull,
    Fatal,
    NewerFormat,
    PortInUse,
    StateReplaced,
)
from danube_raft.node.restarts import (
    CRASHES_MAX,
    LASTED_MS,
    RESTART_PAUSE_MAX_MS,
    STABLE_MS,
    Ending,
    Restarts,
)

KILLED = "kv-server (pid 7) ended: killed by SIGKILL"
STABLE = Config().disk_stable_ms


def ending(
    at: int,
    error: DanubeRaftError | None = None,
    began: int | None = None,
    ready: int = 0,
    served: bool = True,
) -> Ending:
    return Ending(KILLED, error, at - 10 if began is None else began, ready, at, served)


@pytest.mark.parametrize("error", [Corrupt("bad"), NewerFormat("new"), ConfigInvalid("odd")])
def test_what_no_restart_can_mend_ends_the_node_at_once(error: Fatal) -> None:
    with pytest.raises(type(error)) as caught:
        Restarts(Config()).after(ending(1_000, error))
    assert caught.value is error


def test_a_taken_port_ends_only_a_node_that_never_served() -> None:
    """At a restart the kernel may hold the old socket for a moment."""
    with pytest.raises(PortInUse):
        Restarts(Config()).after(ending(1_000, PortInUse("taken"), served=False))
    assert Restarts(Config()).after(ending(1_000, PortInUse("taken"))) == 0


def test_pauses_grow_up_to_a_limit_and_the_row_of_failures_has_an_end() -> None:
    restarts = Restarts(Config())
    pauses = [restarts.after(ending(1_000 * n)) for n in range(1, CRASHES_MAX + 1)]
    assert pauses[:4] == [0, 50, 100, 200]
    assert pauses == sorted(pauses)
    assert pauses[-1] == RESTART_PAUSE_MAX_MS
    with pytest.raises(CrashLoop, match=r"killed by SIGKILL.*11 times in a row") as caught:
        restarts.after(ending(1_000_000))
    assert caught.value.exit_code == 13


@pytest.mark.parametrize(
    "stable",
    [ending(500_000, ready=500_000 - STABLE_MS - 1), ending(500_000, began=500_000 - LASTED_MS - 1)],
    ids=["served", "lasted"],
)
def test_a_boot_that_served_or_lasted_begins_a_new_row(stable: Ending) -> None:
    restarts = Restarts(Config())
    for n in range(1, CRASHES_MAX + 1):
        restarts.after(ending(1_000 * n))
    assert restarts.after(stable) == 0
    assert restarts.failures == 1


def test_a_disk_that_failed_gets_one_more_chance() -> None:
    """Verified once more at the next open; when it fails again soon, going on would only lose more."""
    restarts = Restarts(Config())
    assert restarts.after(ending(10_000, DiskFailed("EIO"))) == 0
    with pytest.raises(
        DiskFailed, match="EIO; the disk had failed 250 s before, so the node stays down"
    ) as caught:
        restarts.after(ending(260_000, DiskFailed("EIO"), ready=11_000))
    assert caught.value.exit_code == 12


def test_a_disk_that_was_sound_for_long_gets_its_chance_again() -> None:
    restarts = Restarts(Config())
    restarts.after(ending(10_000, DiskFailed("EIO")))
    assert restarts.after(ending(10_000 + STABLE, DiskFailed("EIO"), ready=11_000)) == 0
    with pytest.raises(DiskFailed):
        restarts.after(ending(10_000 + 2 * STABLE - 1, DiskFailed("EIO"), ready=11_000))


def test_other_failures_in_between_do_not_make_a_disk_sound() -> None:
    restarts = Restarts(Config())
    restarts.after(ending(10_000, DiskFailed("EIO")))
    restarts.after(ending(20_000))
    with pytest.raises(DiskFailed):
        restarts.after(ending(30_000, DiskFailed("EIO")))


def test_a_state_that_was_replaced_is_no_failure() -> None:
    """However soon after the start, and how often: what was wrong is mended each time."""
    restarts = Restarts(Config())
    for number in range(CRASHES_MAX * 2):
        assert restarts.after(ending(10_000 + number, StateReplaced("the leader's"))) == 0
    assert restarts.failures == 0


def test_how_long_a_disk_has_to_be_sound_is_a_setting() -> None:
    restarts = Restarts(replace(Config(), disk_stable_ms=100))
    restarts.after(ending(10_000, DiskFailed("EIO")))
    assert restarts.after(ending(10_100, DiskFailed("EIO"), ready=1)) == 0


def test_every_reason_to_stay_down_has_an_exit_code_of_its_own() -> None:
    codes = [kind.exit_code for kind in Fatal.__subclasses__()]
    assert len(set(codes)) == len(codes)


def test_a_full_disk_that_fails_again_read_only_stays_down_as_a_disk_does() -> None:
    """Its text tells which of the two it was."""
    restarts = Restarts(Config())
    assert restarts.after(ending(10_000, DiskFull("no room"))) == 0
    with pytest.raises(DiskFull, match="no room") as caught:
        restarts.after(ending(11_000, DiskFull("no room")))
    assert caught.value.exit_code == 12
