"""What a disk may hold after the power went out, made from what `crash_shim.c` wrote down.

A name is durable when its directory was synced after it was given, the content of a file up to its own last sync; what
is behind that may be there, be lost, be there in part, or be something else. With the name of a directory goes all that
is below it, synced or not. TAILS are these outcomes for a whole directory:

- kept: as the processes left it, as after a mere kill;
- lost: only what is durable;
- halved: names as they were left; of every file what is durable and half of what came after;
- garbage: the same, with other bytes in place of what came after.

A place that was synced and then written over is torn or garbled in the same way: what differs from the synced content.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from random import Random

KEPT, LOST, HALVED, GARBAGE = TAILS = ("kept", "lost", "halved", "garbage")

_File = tuple[int, int]
"""Inode, and how often its number was used before."""


class Durable:
    """What was durable: content by file, names of files and of directories by directory."""

    def __init__(self, shadow: Path) -> None:
        self.content: dict[_File, bytes] = {}
        self.names: dict[str, dict[str, _File]] = {}
        self.directories: dict[str, set[str]] = {}
        uses: Counter[int] = Counter()
        events = shadow / "events"
        for line in events.read_text().splitlines() if events.exists() else []:
            kind, rest = line.split(" ", 1)
            if kind == "G":
                uses[int(rest)] += 1
            elif kind == "S":
                number, inode, _ = rest.split(" ", 2)
                file = (int(inode), uses[int(inode)])
                self.content[file] = (shadow / f"{number}.img").read_bytes()
            else:
                path, *names = rest.split("|")
                found = [name.rsplit(":", 1) for name in names]
                self.directories[path] = {name[:-1] for name, _ in found if name.endswith("/")}
                self.names[path] = {
                    name: (int(inode), uses[int(inode)]) for name, inode in found if not name.endswith("/")
                }
        self._uses = uses

    def of(self, path: Path) -> bytes:
        """The synced content of a file that still has its name; empty if it never was synced."""
        inode = path.stat().st_ino
        return self.content.get((inode, self._uses[inode]), b"")

    def leads_to(self, directory: Path, root: Path) -> bool:
        """Whether the way from `root`, which was always there, to `directory` is durable, name by name."""
        way = [directory, *directory.parents]
        below = way[: way.index(root)]
        return all(each.name in self.directories.get(str(each.parent), ()) for each in below)


def compose(tail: str, root: Path, durable: Durable, target: Path, seed: int) -> None:
    """Lay out below `target` what a start finds after such a crash of `root`."""
    if tail == KEPT:
        shutil.copytree(root, target)
        return
    random = Random(seed)
    for directory in sorted((root, *(path for path in root.rglob("*") if path.is_dir()))):
        if tail == LOST and not durable.leads_to(directory, root):
            continue
        there = target / directory.relative_to(root)
        there.mkdir(parents=True)
        if tail == LOST:
            for name, file in durable.names.get(str(directory), {}).items():
                (there / name).write_bytes(durable.content.get(file, b""))
            continue
        for path in sorted(directory.iterdir()):
            if path.is_file():
                left, safe = path.read_bytes(), durable.of(path)
                (there / path.name).write_bytes(_torn(tail, left, safe, random))


def _torn(tail: str, left: bytes, safe: bytes, random: Random) -> bytes:
    """`left` is what was written, `safe` what of it, or of what was there before, is surely there."""
    if left == safe:
        return left
    same = next((at for at, pair in enumerate(zip(left, safe, strict=False)) if pair[0] != pair[1]), None)
    first = min(len(left), len(safe)) if same is None else same
    if tail == HALVED:
        middle = first + (max(len(left), len(safe)) - first) // 2
        return left[:middle] + safe[middle:]
    # Where both have bytes beyond the difference they may agree again: only what was written last is in doubt.
    last = len(left)
    while last > first and last <= len(safe) and left[last - 1 : last] == safe[last - 1 : last]:
        last -= 1
    return left[:first] + random.randbytes(last - first) + left[last:]
