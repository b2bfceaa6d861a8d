"""A start under a number that was used before: by an old copy of `boot_epoch.json`, found by `scripts/corruption`.

The batches of such a start would be taken for those of the earlier one and be applied by nobody; before there was this
check the kv-server ended in a failed assertion at its first write, again and again.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kv_snapshots import whole
from stepped_kv import SteppedKv, planted, put

from danube_raft.errors import Corrupt
from danube_raft.kv.machine import Machine
from danube_raft.wire import local

ME, OTHER = 1, 9
WHY = r"boot_epoch\.json is an old copy: it makes this start number 2, and a batch of start {} is applied already"


@pytest.mark.parametrize("start", [3, 2])
def test_an_own_batch_of_a_later_start_or_of_this_one_is_found_in_the_log(tmp_path: Path, start: int) -> None:
    node = SteppedKv(tmp_path, node_id=ME, boot_epoch=2)
    node.hear(local.LoadSnapshot(0, 0))
    with pytest.raises(Corrupt, match=WHY.format(start)):
        node.commit(put(1, "/k", origin=(ME, start, 1)))


def test_it_is_found_in_a_snapshot(tmp_path: Path) -> None:
    machine = Machine()
    machine.apply(put(1, "/k", origin=(ME, 3, 1)))
    planted(tmp_path, machine, whole(machine))
    node = SteppedKv(tmp_path, node_id=ME, boot_epoch=2)
    with pytest.raises(Corrupt, match=WHY.format(3)):
        node.hear(local.LoadSnapshot(1, 1))


def test_earlier_starts_other_nodes_and_own_batches_are_as_they_should_be(tmp_path: Path) -> None:
    node = SteppedKv(tmp_path, node_id=ME, boot_epoch=2)
    node.serve()
    node.commit(put(1, "/k", origin=(ME, 1, 7)), put(2, "/k", origin=(OTHER, 8, 1)))
    node.ask("put", 5, "/k", b"mine")
    (proposed,) = node.take(local.Propose)
    node.commit(put(3, "/k", origin=(ME, 2, proposed.seq)))
    ((status, *_),) = node.replies(5)
    assert status == 0
