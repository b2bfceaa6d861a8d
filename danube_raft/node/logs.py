"""Log lines of a node: one per event on standard error, with time (UTC), level, process.

As text for people, or as one JSON object per line for programs: time, level, process, node_id (0: not known yet),
message, and whatever `fields` the event was logged with (`extra={"fields": {…}}`), which say in parts what the message
says as a sentence. A traceback is part of its line in JSON and follows it in text.

The stacks that a stuck process is asked for are written by `faulthandler` as they are: it works where nothing else does.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from types import TracebackType
from typing import Any

from danube_raft.config import Config

_TIME = "%Y-%m-%dT%H:%M:%S"

log = logging.getLogger("danube_raft.logs")


class JsonLines(logging.Formatter):
    """One JSON object per record."""

    def __init__(self, process: str, node_id: int) -> None:
        super().__init__()
        self._process = process
        self._node_id = node_id

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        seconds = time.strftime(_TIME, time.gmtime(record.created))
        fields: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "node_id": self._node_id,
            "message": record.getMessage(),
        }
        for name, value in getattr(record, "fields", {}).items():
            fields.setdefault(name, value)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def _text_lines(process: str) -> logging.Formatter:
    formatter = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {process} %(message)s", _TIME)
    formatter.converter = time.gmtime
    return formatter


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("ended by %s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def set_up(config: Config, process: str, node_id: int = 0) -> None:
    """Log from `log_level` on, in `log_format`, in the name of `process`. May be called again when more is known."""
    as_json = config.log_format == "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process, node_id) if as_json else _text_lines(process))
    root = logging.getLogger("danube_raft")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(config.log_level.upper())
    if as_json:
        sys.excepthook = _log_uncaught
