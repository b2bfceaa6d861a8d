"""Checks of single arguments of a client's request.

A check takes the argument's name and value, returns nothing, and raises InvalidArgument, KeyEmpty or RequestTooLarge.
They are pure and the same on every replica, and their texts never quote what a client sent: it may be as large, as
deep or as odd as its sender likes, and its text could differ between versions of Python.
"""

from __future__ import annotations

from typing import Any

from danube_raft.errors import InvalidArgument, KeyEmpty, RequestTooLarge

MAX_KEY_BYTES = 4096
MAX_INTEGER = 2**53
"""What every language's numbers hold exactly."""
SHA256_BYTES = 32
COUNTERS = "/counters/"
"""Keys below this prefix are written by `allocate_id` only."""


def key(name: str, value: Any) -> None:
    """A key to read."""
    prefix(name, value)
    if not value:
        raise KeyEmpty(f"{name} must not be empty")


def own_key(name: str, value: Any) -> None:
    """A key that clients may write."""
    key(name, value)
    if value.startswith(COUNTERS):
        raise InvalidArgument(f"{name} is below {COUNTERS}, which only allocate_id writes")


def prefix(name: str, value: Any) -> None:
    """A prefix; empty for everything."""
    if type(value) is not str:
        raise InvalidArgument(f"{name} must be a string")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        # Half of a surrogate pair: Python makes it of undecodable bytes of a command line. It cannot be packed.
        raise InvalidArgument(f"{name} is not valid Unicode, so it has no UTF-8") from None
    if size > MAX_KEY_BYTES:
        raise RequestTooLarge(f"{name} is longer than {MAX_KEY_BYTES} bytes")


def optional_prefix(name: str, value: Any) -> None:
    """A prefix or nil."""
    if value is not None:
        prefix(name, value)


def prefixes(name: str, value: Any) -> None:
    """One prefix, or 1 to 64 of them."""
    if type(value) is tuple:
        if not 1 <= len(value) <= 64:
            raise InvalidArgument(f"{name} must list 1 to 64 prefixes")
        for item in value:
            prefix(name, item)
    else:
        prefix(name, value)


def binary(name: str, value: Any) -> None:
    """A value."""
    if type(value) is not bytes:
        raise InvalidArgument(f"{name} must be bytes (MessagePack bin)")


def flag(name: str, value: Any) -> None:
    """True or false."""
    if type(value) is not bool:
        raise InvalidArgument(f"{name} must be true or false")


def natural(name: str, value: Any) -> None:
    """An integer from 0 to 2^53."""
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise InvalidArgument(f"{name} must be an integer from 0 to 2^53")


def positive(name: str, value: Any) -> None:
    """An integer from 1 to 2^53."""
    if type(value) is not int or not 1 <= value <= MAX_INTEGER:
        raise InvalidArgument(f"{name} must be an integer from 1 to 2^53")


def block(name: str, value: Any) -> None:
    """How many ids to take at once."""
    if type(value) is not int or not 1 <= value <= 1_000_000:
        raise InvalidArgument(f"{name} must be an integer from 1 to 1000000")


def optional_positive(name: str, value: Any) -> None:
    """An integer from 1 to 2^53, or nil."""
    if value is not None:
        positive(name, value)


def expected(name: str, value: Any) -> None:
    """What a swap expects: nil absent, an integer a mod_revision, bytes a value."""
    if value is not None and type(value) is not bytes:
        positive(name, value)


def token(name: str, value: Any) -> None:
    """A continue token, or nil."""
    if value is not None and type(value) is not bytes:
        raise InvalidArgument(f"{name} must be a continue token from an earlier page")


def sha256(name: str, value: Any) -> None:
    """A SHA-256."""
    if type(value) is not bytes or len(value) != SHA256_BYTES:
        raise InvalidArgument(f"{name} must be the {SHA256_BYTES} bytes of a SHA-256")


def pairs(name: str, value: Any) -> None:
    """(lease, generation) pairs."""
    if type(value) is not tuple or len(value) > 1000:
        raise InvalidArgument(f"{name} must be a list of at most 1000 (lease, generation) pairs")
    for pair in value:
        if type(pair) is not tuple or len(pair) != 2:
            raise InvalidArgument(f"{name} must be a list of (lease, generation) pairs")
        positive(name, pair[0])
        natural(name, pair[1])
