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
    LASTED_MS,
    RESTART_PAUSE_MAX_MS,
    RESTART_PAUSE_MS,
    SHORT_LIVES_MAX,
    UNREADY_MAX,
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
    pauses = [restarts.after(ending(1_000 * n)) for n in range(1, UNREADY_MAX + 1)]
    assert pauses[:4] == [0, 50, 100, 200]
    assert pauses == sorted(pauses)
    assert pauses[-1] == RESTART_PAUSE_MAX_MS
    assert sum(pauses) < 20_000
    with pytest.raises(
        CrashLoop, match=r"killed by SIGKILL.*11 times in a row before it was ready, giving up"
    ) as caught:
        restarts.after(ending(12_000))
    assert caught.value.exit_code == 13


class Loop:
    """A node that dies, is ready again `start_ms` after the pause that follows, and dies after `life_ms` more."""

    def __init__(self, life_ms: int, start_ms: int = 1_000) -> None:
        self._restarts = Restarts(Config())
        self._life_ms = life_ms
        self._start_ms = start_ms
        self.now = 0

    def pauses(self, deaths: int) -> list[int]:
        """That follow so many deaths."""
        found = []
        for _ in range(deaths):
            began = self.now
            ready = began + self._start_ms
            self.now = ready + self._life_ms
            found.append(self._restarts.after(ending(self.now, began=began, ready=ready)))
            self.now += found[-1]
        return found


@pytest.mark.parametrize("life_ms", [1, 2_000, 20_000, LASTED_MS])
@pytest.mark.parametrize("start_ms", [1_000, 2 * LASTED_MS])
def test_a_node_that_dies_soon_after_it_was_ready_is_a_crash_loop_too(life_ms: int, start_ms: int) -> None:
    """However long it took to be ready: what is loaded each time says nothing of how well the node is."""
    loop = Loop(life_ms, start_ms)
    pauses = loop.pauses(SHORT_LIVES_MAX)
    assert pauses[:4] == [0, 50, 100, 200]
    assert pauses[-1] == RESTART_PAUSE_MAX_MS
    with pytest.raises(CrashLoop, match="51 times in a row and was never ready for 60 s, giving up"):
        loop.pauses(1)


def test_a_node_that_dies_every_two_seconds_gives_up_within_minutes() -> None:
    loop = Loop(2_000)
    with pytest.raises(CrashLoop):
        loop.pauses(SHORT_LIVES_MAX + 1)
    assert loop.now < 400_000


def test_forty_kills_as_soon_as_the_node_is_back_are_no_crash_loop() -> None:
    """`scripts/chaos` does that, and worse; the node is back soon each time."""
    assert max(Loop(500).pauses(40)) == RESTART_PAUSE_MAX_MS


def test_kills_minutes_apart_are_answered_at_once_for_ever() -> None:
    assert Loop(LASTED_MS + 1).pauses(SHORT_LIVES_MAX * 4) == [0] * (SHORT_LIVES_MAX * 4)


def test_a_boot_that_was_ready_ends_the_succession_of_those_that_were_not() -> None:
    """And not the row: it goes on to be a crash loop."""
    restarts = Restarts(Config())
    for n in range(1, SHORT_LIVES_MAX + 1):
        restarts.after(ending(1_000 * n, ready=1_000 * n - 1 if n % UNREADY_MAX == 0 else 0))
    with pytest.raises(CrashLoop, match="51 times"):
        restarts.after(ending(60_000))


@pytest.mark.parametrize(
    "lasting",
    [ending(500_000, ready=500_000 - LASTED_MS - 1), ending(500_000, began=500_000 - LASTED_MS - 1)],
    ids=["ready", "never ready"],
)
def test_a_boot_that_lasted_begins_a_new_row(lasting: Ending) -> None:
    restarts = Restarts(Config())
    for n in range(1, UNREADY_MAX + 1):
        restarts.after(ending(1_000 * n))
    assert restarts.after(lasting) == 0
    assert restarts.failures == 1
    for n in range(1, UNREADY_MAX):
        restarts.after(ending(500_000 + 1_000 * n))


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
    for number in range(UNREADY_MAX * 2):
        assert restarts.after(ending(10_000 + number, StateReplaced("the leader's"))) == 0
    assert restarts.failures == 0


def test_how_long_a_disk_has_to_be_sound_is_a_setting() -> None:
    restarts = Restarts(replace(Config(), disk_stable_ms=100))
    restarts.after(ending(10_000, DiskFailed("EIO")))
    assert restarts.after(ending(10_100, DiskFailed("EIO"), ready=1)) == RESTART_PAUSE_MS


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
