"""The entry point: the command tree, and how what goes wrong becomes one line and an exit code.

Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 not found, 4 no connection or no leader, 5 uncertain (a write that may
be applied). Errors are one line on stderr that begins with `error:`; a traceback is a bug. Only typer is imported to
show help; what a command needs is imported by the command.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import bench, kv, node, watch
from .options import EndpointsOption, Given, OutputOption, TimeoutOption

if TYPE_CHECKING:
    from danube_raft.errors import DanubeRaftError

FAILED, USAGE, NO_CONNECTION, UNCERTAIN = 1, 2, 4, 5

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "DANUBE_RAFT"}

# The base of everything that is wrong usage; typer has it, with or without its own copy of click, but not by name.
_USAGE_ERROR: type[Any] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="danube-raft",
    help="Replicated metadata store for messaging clusters. Values are JSON.",
    context_settings=CONTEXT,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(node.app, name="node")
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


@app.callback()
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


def exit_code(error: DanubeRaftError) -> int:
    """The exit code of an error."""
    from danube_raft import errors

    if isinstance(error, errors.Fatal):
        return error.exit_code
    if isinstance(error, errors.NoConnection | errors.NoLeader | errors.NotLeader):
        return NO_CONNECTION
    if isinstance(error, errors.InvalidArgument | errors.KeyEmpty):
        return USAGE
    return UNCERTAIN if isinstance(error, errors.Uncertain) else FAILED


def complain(text: str) -> None:
    """One line on stderr."""
    print("error: " + " ".join(text.split()), file=sys.stderr, flush=True)


def _run(arguments: list[str] | None) -> int:
    from danube_raft.errors import DanubeRaftError

    try:
        code = app(arguments, standalone_mode=False)
    except _USAGE_ERROR as error:
        # Without a message it is the help itself that was shown, because there was no command.
        if error.format_message():
            complain(error.format_message())
        return int(error.exit_code)
    except DanubeRaftError as error:
        complain(f"{type(error).__name__}: {error.message}" if error.message else type(error).__name__)
        return exit_code(error)
    except (typer.Abort, KeyboardInterrupt):
        return FAILED
    except BrokenPipeError:
        # The reader of a pipe has left; that is its right. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        complain(str(error))
        return FAILED
    return code if isinstance(code, int) else 0


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    raise SystemExit(_run(arguments))
