"""Events of a run as a person reads them: who said what to whom, with the numbers that matter and without the bytes.

Only lines that are shown are made, so the run pays for none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from danube_raft.wire import codec
from danube_raft.wire.entry import Entry

BYTES_SHOWN = 24
ITEMS_SHOWN = 14


def describe_event(time: int, what: tuple[Any, ...], seen: Any) -> str:
    """One line. `time`: virtual microseconds; `what`: the kind and what was traced; `seen`: what it was about."""
    kind, *rest = what
    make = _LINES.get(kind)
    return f"{time / 1_000_000:12.6f} " + (make(rest, seen) if make else " ".join(map(str, what)))


def describe(value: Any) -> str:
    """A value of a message, short."""
    if isinstance(value, Entry):
        return f"{value.index}@{value.term}"
    if isinstance(value, bytes):
        return repr(value) if len(value) <= BYTES_SHOWN else f"<{len(value)} bytes>"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields = zip(value._fields, value, strict=True)
        return f"{type(value).__name__}({', '.join(f'{name} {describe(each)}' for name, each in fields)})"
    if isinstance(value, tuple | list):
        if value and all(isinstance(each, Entry) for each in value):
            terms = sorted({each.term for each in value})
            return f"{value[0].index}..{value[-1].index}@{','.join(map(str, terms))}"
        shown = ", ".join(describe(each) for each in value[:ITEMS_SHOWN])
        return f"[{shown}{', …' if len(value) > ITEMS_SHOWN else ''}]"
    return str(value)


def _peer(rest: list[Any], seen: Any) -> str:
    sender, receiver, _, _, taken = rest
    header, message = seen
    refused = "" if taken else "  (refused by the link)"
    return f"node {sender} -> node {receiver}  term {header.term}  {describe(message)}{refused}"


def _local(rest: list[Any], seen: Any) -> str:
    node, sender, receiver, _ = rest
    return f"node {node} {sender} -> {receiver}  " + "  ".join(describe(message) for message in seen)


def _role(rest: list[Any], _seen: Any) -> str:
    node, role, term, leader = rest
    return f"node {node} is {role} of term {term}, its leader is {leader or 'not known'}"


def _kill(rest: list[Any], _seen: Any) -> str:
    return f"node {rest[0]}: its {rest[1]} is killed"


def _client(_rest: list[Any], seen: Any) -> str:
    return f"ended: {seen}"


def _request(rest: list[Any], seen: Any) -> str:
    return f"{rest[1]} -> node {rest[0]}  {_body(seen)}"


def _answer(rest: list[Any], seen: Any) -> str:
    return f"node {rest[0]} -> {rest[1]}  {_body(seen)}"


def _body(body: bytes) -> str:
    return "  ".join(describe(message) for message in codec.unpack_stream(body))


def _node(text: str) -> Callable[[list[Any], Any], str]:
    return lambda rest, _seen: text.format(*rest)


_LINES: dict[str, Callable[[list[Any], Any], str]] = {
    "peer": _peer,
    "local": _local,
    "role": _role,
    "kill": _kill,
    "client": _client,
    "request": _request,
    "answer": _answer,
    "boot": _node("node {0} starts, boot {1}"),
    "crash": _node("node {0} crashes"),
    "open": _node("node {0} serves clients"),
    "fault": _node("FAULT {0} {1}"),
    "heal": _node("all faults end"),
    "state": _node("the state of all replicas is {0}"),
}
