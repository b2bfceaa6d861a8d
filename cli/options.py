"""The options that every command takes, and how a command gets at the store.

They stand before or after the command: `danube-raft --output json get k` and `danube-raft get k --output json` are
the same; the one after it wins, then the one before, then the variable, then the default. So the variables are bound
to the options before the command only, or a variable would beat a flag.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .exit_codes import USAGE
from .output import FORMATS, Format

if TYPE_CHECKING:
    from danube_raft.client.store import MetadataStore

NUMBER_DIGITS_MAX = 15
"""More would be over 2^53, the largest number that is sent."""

ENDPOINTS = "127.0.0.1:7750"
TIMEOUT = "5s"

EndpointsOption = Annotated[
    str | None,
    typer.Option(
        "--endpoints",
        metavar="HOST:PORT,…",
        allow_from_autoenv=False,
        help=f"Nodes to ask, in this order. [env var: DANUBE_RAFT_ENDPOINTS; default: {ENDPOINTS}]",
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="simple|table|json",
        allow_from_autoenv=False,
        help="How to print. [env var: DANUBE_RAFT_OUTPUT; default: what suits the command]",
    ),
]
TimeoutOption = Annotated[
    str | None,
    typer.Option(
        "--timeout",
        metavar="TIME",
        allow_from_autoenv=False,
        help=f"Deadline of each request, as 500ms, 5s, 1m or seconds. [env var: DANUBE_RAFT_TIMEOUT; default: {TIMEOUT}]",
    ),
]
ConsistencyOption = Annotated[
    str | None,
    typer.Option(
        "--consistency",
        metavar="session|linearizable|stale|MS",
        help="Level of the read; a number is stale by at most so many ms. [default: session]",
    ),
]


def node_setting(name: str, what: str, *flags: str, metavar: str | None = None) -> Any:
    """An option for a setting of the node. The configuration reads the variable, as it does for every setting."""
    variable = f"DANUBE_RAFT_{name.upper()}"
    return typer.Option(
        *flags, metavar=metavar, allow_from_autoenv=False, help=f"{what} [env var: {variable}]"
    )


ConfigOption = Annotated[
    str | None, typer.Option(metavar="FILE", envvar="DANUBE_RAFT_CONFIG", help="Settings in YAML.")
]
DataDirOption = Annotated[str | None, node_setting("data_dir", "Everything the node keeps.", metavar="DIR")]
RaftAdvertiseOption = Annotated[
    str | None,
    node_setting("raft_advertise", "Address that peers use for this node.", metavar="HOST:PORT"),
]
ClientAdvertiseOption = Annotated[
    str | None,
    node_setting("client_advertise", "Address that clients use for this node.", metavar="HOST:PORT"),
]

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


@dataclass(frozen=True)
class Given:
    """The options before the command, variables included."""

    endpoints: str | None
    output: str | None
    timeout: str | None


@dataclass(frozen=True)
class Settings:
    """What is in force for one command."""

    endpoints: str
    output: Format | None
    timeout_ms: int

    def format(self, default: Format) -> Format:
        """How to print, if the user did not say."""
        return self.output or default

    def store(self, raw: bool = True) -> MetadataStore:
        """The store; opening it connects to nothing yet. Values are bytes: the command line shows what is stored."""
        from danube_raft.client.store import MetadataStore

        return MetadataStore(self.endpoints, timeout_ms=self.timeout_ms, raw=raw)


def settle(
    ctx: typer.Context, endpoints: str | None = None, output: str | None = None, timeout: str | None = None
) -> Settings:
    """Merge the options on both sides of the command; raises typer.BadParameter."""
    before: Given = ctx.find_root().obj
    chosen = output or before.output
    if chosen is not None and chosen not in FORMATS:
        raise typer.BadParameter(f"--output {chosen!r}: expected simple, table or json")
    from danube_raft.client.call import REQUEST_MAX_MS

    wait = timeout or before.timeout or TIMEOUT
    timeout_ms = duration_ms("--timeout", wait)
    if timeout_ms > REQUEST_MAX_MS:
        raise typer.BadParameter(f"--timeout {wait!r} is longer than {REQUEST_MAX_MS} ms")
    return Settings(
        endpoints or before.endpoints or ENDPOINTS,
        None if chosen is None else FORMATS[chosen],
        timeout_ms,
    )


def duration_ms(name: str, text: str) -> int:
    """Milliseconds of `500ms`, `32s`, `5m`, `1h` or a number of seconds; raises typer.BadParameter."""
    number, unit = text.strip(), "s"
    for suffix in ("ms", "s", "m", "h"):
        if number.endswith(suffix):
            number, unit = number.removesuffix(suffix), suffix
            break
    try:
        value = round(float(number) * UNITS_MS[unit])
    except (ValueError, OverflowError):
        value = 0
    if value < 1:
        raise typer.BadParameter(f"{name} {text!r}: expected a time above zero such as 500ms, 32s, 5m or 10")
    return value


def level(text: str | None) -> str | int | None:
    """The value of --consistency; raises typer.BadParameter."""
    if text is None or text in ("session", "linearizable", "stale"):
        return text
    if text.isdecimal() and len(text) <= NUMBER_DIGITS_MAX:
        return int(text)
    raise typer.BadParameter(
        f"--consistency {text!r}: expected session, linearizable, stale or a number of ms"
    )


def help_without_command(ctx: typer.Context) -> None:
    """Show what commands there are, on stderr, to somebody who named none: that is wrong usage."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help(), file=sys.stderr)
        raise typer.Exit(USAGE)
