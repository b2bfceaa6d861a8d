"""Replicas agree, byte for byte: whoever made the batch, whatever the hash seed of the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "tests" / "support" / "kv_replica.py"


def test_replicas_agree_whatever_their_hash_seed_and_whoever_made_the_batch() -> None:
    """Pitfall 41: the order of a set, or a result that differs between the origin and the others, splits the store."""
    programs = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), role],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        for role, seed in (("origin", "0"), ("other", "1"), ("other", "4711"))
    ]
    digests = {program.communicate(timeout=60)[0] for program in programs}
    assert all(program.returncode == 0 for program in programs)
    assert len(digests) == 1
    assert len(digests.pop()) == 64
