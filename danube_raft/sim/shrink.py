"""Which of a failing world's faults it takes to make it fail: fewer is easier to understand.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002): leave out half of the
faults, a quarter, and so on; whatever still fails in the same way is gone on with. The result is a world that fails,
though not always the smallest one. A world that hung is left as it is: to run it again is to wait again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from danube_raft.sim.endless import Hung
from danube_raft.sim.run import Failure, Report, attempt
from danube_raft.sim.settings import Options

BUDGET_S = 60.0
"""How long it may take."""


def shrink(
    failure: Failure,
    run: Callable[[Options], Report | Failure] = attempt,
    clock: Callable[[], float] = time.monotonic,
) -> Failure:
    """The same failure with as few faults as are found in `BUDGET_S`."""
    end = clock() + BUDGET_S
    # Those that had not begun when it failed had no part in it.
    numbers = [told.fault.number for told in failure.faults]
    best, parts = failure, 1
    while parts <= len(numbers) or (parts == 1 and best is failure):
        size = max(1, len(numbers) // parts)
        for start in range(0, max(len(numbers), 1), size):
            kept = numbers[:start] + numbers[start + size :]
            if clock() >= end:
                return best
            found = run(failure.options._replace(faults=tuple(kept)))
            if isinstance(found, Failure) and found.signature == failure.signature:
                best, numbers, parts = found, kept, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(2 * parts, len(numbers))
    return best


def tell(failure: Failure) -> str:
    """All that is to be known of a failure; it is shrunk first, unless its faults were chosen by hand or it hung."""
    as_it_is = failure.options.faults is not None or isinstance(failure.error, Hung)
    shrunk = failure if as_it_is else shrink(failure)
    return (
        f"seed {failure.options.seed} FAILED: {failure.signature}\n{type(failure.error).__name__}: {failure.error}\n"
        f"shrunk from {len(failure.faults)} to {len(shrunk.faults)} faults, where it says: {shrunk.error}\n{shrunk}"
    )
