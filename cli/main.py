"""The entry point: the command tree, and how what goes wrong becomes one line and an exit code.

Exit codes are in `exit_codes.py`. Errors are one line on stderr that begins with `error:`; a traceback is a bug. Only
typer is imported to show help; what a command needs is imported by the command.

The command tree is invoked without typer's own shell around it, which has other ideas of exit codes (a closed pipe is
1) and prints errors in several lines.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.main import get_command

from . import bench, cluster, digest, kv, members, node, snapshot, watch
from .exit_codes import FAILED, FINE, INTERRUPTED, USAGE, exit_code
from .options import EndpointsOption, Given, OutputOption, TimeoutOption, help_without_command
from .output import printable

NAME = "danube-raft"

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "DANUBE_RAFT"}

# The base of everything that is wrong usage; typer has it, with or without its own copy of click, but not by name.
_USAGE_ERROR: type[Any] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name=NAME,
    help="Replicated metadata store for messaging clusters. Values are JSON.",
    context_settings=CONTEXT,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(node.app, name="node")
app.add_typer(cluster.app, name="cluster")
app.add_typer(snapshot.app, name="snapshot")
app.command("members")(members.members)
app.command("digest")(digest.digest)
app.command("get")(kv.get)
app.command("put")(kv.put)
app.command("delete")(kv.delete)
app.command("cas")(kv.cas)
app.command("next-id")(kv.next_id)
app.command("watch")(watch.watch)
app.command("bench")(bench.bench)


def _version(wanted: bool) -> None:
    if wanted:
        from danube_raft import __version__

        print(f"danube-raft {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    endpoints: EndpointsOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            allow_from_autoenv=False,  # images often set DANUBE_RAFT_VERSION
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Replicated metadata store for messaging clusters. Values are JSON."""
    del version  # done by its callback
    variable = os.environ.get
    ctx.obj = Given(
        endpoints or variable("DANUBE_RAFT_ENDPOINTS") or None,
        output or variable("DANUBE_RAFT_OUTPUT") or None,
        timeout or variable("DANUBE_RAFT_TIMEOUT") or None,
    )
    help_without_command(ctx)


def complain(text: str) -> None:
    """One line on stderr, if anybody listens there."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print("error: " + printable(" ".join(text.split())), file=sys.stderr, flush=True)


def _explain(error: Any) -> str:
    """A usage error, and where to read on."""
    # The library's checks of choices say it like this.
    error.message = error.message.removeprefix("Value error, ")
    text = error.format_message()
    option = getattr(error, "option_name", "")
    if option.startswith("-") and not option.startswith("--"):
        text += f" (if {option} is a value, write `--` before the arguments)"
    command = error.ctx.command_path if error.ctx is not None else NAME
    return f"{text.removesuffix('.')}; see {command} --help"


def _run(arguments: list[str]) -> int:
    from danube_raft.errors import DanubeRaftError

    if sys.stdout is None:
        complain("standard output is closed")
        return FAILED
    try:
        with get_command(app).make_context(NAME, arguments) as context:
            context.command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as end:
        return end.exit_code
    except _USAGE_ERROR as error:
        complain(_explain(error))
        return USAGE
    except DanubeRaftError as error:
        complain(f"{type(error).__name__}: {error.message}" if error.message else type(error).__name__)
        return exit_code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return FINE


def _finish(code: int) -> int:
    """The exit code once everything is printed. Python would flush once more at exit, and complain if it cannot."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
    except BrokenPipeError:
        code = FINE  # the reader of the pipe has left; that is its right
    except OSError as error:
        complain(str(error))
        code = FAILED
    raise SystemExit(_finish(code))
