"""The calls of `os` that change a disk: written down, and made to fail at any one of them."""

from __future__ import annotations

import os
from typing import Any

import pytest


class Calls:
    """Every call of `os` that changes a disk, by name; the n-th fails as told, a write after half of it."""

    NAMES = ("open", "write", "fsync", "fdatasync", "close", "replace", "unlink", "ftruncate")

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, failing: int = -1, error: Exception | None = None
    ) -> None:
        self.made: list[str] = []
        for name in self.NAMES:
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name), failing, error))

    def _wrap(self, name: str, call: Any, failing: int, error: Exception | None) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.made.append(name)
            if len(self.made) - 1 == failing and error is not None:
                if name == "write":
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise error
            return call(*args, **kwargs)

        return wrapped
