"""The scripts of tests/raft/scripts: what a reader can follow step by step. `--rewrite` regenerates the output."""

from pathlib import Path

import pytest

from . import script

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path, rewrite: bool) -> None:
    """The cores say what the script expects."""
    said = script.run(path)
    if rewrite:
        path.write_text(said)
    assert said == path.read_text()
