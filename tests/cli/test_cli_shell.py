"""Help, version, options on both sides of a command, exit codes, and errors that take one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_node import LOST, FakeNode

from danube_raft import __version__, errors
from danube_raft.config import Config, documentation

Run = Callable[..., Any]
COMMANDS = ["get", "put", "delete", "cas", "next-id", "watch", "bench", "node", "snapshot"]
NOWHERE = ("--endpoints", "127.0.0.1:1", "--timeout", "300ms")


def shell(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """`danube-raft` as a process of its own."""
    command = [sys.executable, "-m", "danube_raft_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, **settings)


def started(*arguments: str) -> subprocess.Popen[bytes]:
    """The same, running."""
    command = [sys.executable, "-m", "danube_raft_cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_help_names_every_command_and_comes_at_once() -> None:
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        done = shell("--help")
        times.append(time.perf_counter() - begun)
        assert done.returncode == 0
        assert all(f"  {command}" in done.stdout for command in COMMANDS)
    # Half a second is the promise; a machine with more to do than processors is given its share.
    assert min(times) < 0.5 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), times


def test_help_loads_neither_sockets_nor_storage() -> None:
    code = "import sys, danube_raft_cli.main; print([m for m in ('zmq', 'rocksdict', 'pydantic', 'rich') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [[command] for command in COMMANDS]
    + [
        ["node", "start"],
        ["node", "status"],
        ["node", "verify"],
        ["snapshot", "status"],
        ["snapshot", "restore"],
        ["snapshot", "save"],
    ],
)
def test_every_command_has_help_under_both_names(run: Run, command: list[str]) -> None:
    for flag in ("-h", "--help"):
        done = run(*command, flag)
        assert (done.code, done.err) == (0, "")
        assert "Usage: " in done.out


def test_version(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANUBE_RAFT_VERSION", "1")
    assert run("--version").out == f"danube-raft {__version__}\n"
    assert "danube-raft" not in run("get", "/k", *NOWHERE).out


@pytest.mark.parametrize(
    ("arguments", "command"), [((), "get"), (("node",), "start"), (("-o", "json"), "get")]
)
def test_no_command_shows_the_help_and_is_wrong_usage(
    run: Run, arguments: tuple[str, ...], command: str
) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "error:" not in done.err
    lines = done.err.splitlines()
    assert lines[0].startswith("Usage: danube-raft")
    assert any(line.startswith(f"  {command} ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "error: No such command 'nonsense'; see danube-raft --help\n"),
        (("get",), "error: Missing argument 'key'; see danube-raft get --help\n"),
        (
            ("bench", "foo"),
            "error: Invalid value for 'mode': 'foo' is not one of 'put', 'get', 'watch'; see danube-raft bench --help\n",
        ),
    ],
)
def test_usage_errors_name_the_help(run: Run, arguments: tuple[str, ...], said: str) -> None:
    assert run(*arguments) == (2, "", said)


def test_options_may_stand_on_both_sides_and_the_later_one_wins(
    ask: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("put", "/k", "1")
    assert ask("--output", "json", "get", "/k").json["value"] == 1
    assert ask("get", "/k", "--output", "json").json["value"] == 1
    assert ask("--output", "json", "get", "/k", "-o", "simple").out == "1\n"
    monkeypatch.setenv("DANUBE_RAFT_OUTPUT", "json")
    assert ask("get", "/k").json["value"] == 1
    assert ask("--output", "simple", "get", "/k").out == "1\n"


def test_options_of_a_command_are_variables_too(ask: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ask("put", "/k", "1")
    monkeypatch.setenv("DANUBE_RAFT_GET_KEYS_ONLY", "1")
    assert ask("get", "/k").out == "/k\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("get",),
        ("get", "/k", "--nonsense"),
        ("get", "/k", "--output", "xml"),
        ("get", "/k", "--timeout", "soon"),
        ("get", "/k", "--consistency", "sometimes"),
        ("get", "/k", "--revision", "0"),
        ("get", "/k", "--raw", "--prefix"),
        ("get", "/k", "--endpoints", "nowhere"),
        ("get", ""),
        ("put", "/k", "1", "--ttl", "-3s"),
        ("put", "/counters/x", "1"),
        ("watch", "/k", "--count", "0"),
        ("bench", "nothing"),
        ("bench", "put", "--endpoints", "nowhere"),
        ("node", "status", "--endpoints", ","),
        ("bench", "put", "--clients", "10", "--total", "5"),
        ("node", "start", "--log-level", "loud"),
        ("node", "start", "--client-listen", "here"),
        ("node", "start", "--config", "/does/not/exist.yaml"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_line(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


def test_no_connection_is_exit_code_4(run: Run) -> None:
    for command in (["get", "/k"], ["put", "/k", "1"], ["watch", "/k"], ["bench", "put"], ["node", "status"]):
        done = run(*command, *NOWHERE)
        assert done.code == 4, command
        assert done.err.count("\n") <= 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NoLeader("nobody leads"), 4),
        (errors.NoSpace("full"), 1),
        (errors.Compacted("gone", 5), 1),
        (errors.Corrupt("the odd replica"), 11),
        (errors.PermissionDenied("not you"), 1),
        (errors.InvalidArgument("not so"), 2),
    ],
)
def test_refusals_have_their_exit_codes(
    ask: Run, node: FakeNode, error: errors.DanubeRaftError, code: int
) -> None:
    node.script += [error] * 99
    done = ask("get", "/k", "--timeout", "300ms")
    assert (done.code, done.out) == (code, "")
    assert done.err == f"error: {type(error).__name__}: {error.message}\n"


def test_a_write_without_an_answer_is_exit_code_5(ask: Run, node: FakeNode) -> None:
    node.script += [LOST] * 9
    done = ask("put", "/k", "1", "--timeout", "200ms")
    assert done.code == 5
    assert done.err.startswith("error: Uncertain: ")


def test_a_message_of_several_lines_stays_one(ask: Run, node: FakeNode) -> None:
    node.script.append(errors.NoSpace("full\nreally\nfull"))
    assert ask("put", "/k", "1").err == "error: NoSpace: full really full\n"


def test_status_has_one_entry_per_endpoint_dead_or_alive(run: Run, node: FakeNode) -> None:
    done = run(
        "node", "status", "-o", "json", "--endpoints", f"{node.endpoint},127.0.0.1:1", "--timeout", "300ms"
    )
    alive, dead = done.json
    assert done.code == 0
    assert (alive["endpoint"], alive["node_id"], alive["role"]) == (node.endpoint, 3, "leader")
    assert set(dead) == {"endpoint", "error"}
    assert run("node", "status", "-o", "json", "--endpoints", node.endpoint).json == [alive]


def test_status_is_a_table_for_people(run: Run, node: FakeNode) -> None:
    header, row = run("node", "status", "--endpoints", node.endpoint).out.splitlines()
    assert header.split()[:3] == ["ENDPOINT", "NODE", "ID"]
    assert row.split()[:3] == [node.endpoint, "3", "leader"]
    both = run("node", "status", "--endpoints", f"{node.endpoint},127.0.0.1:1", "--timeout", "300ms").out
    assert "NoConnection" in both.splitlines()[2]


def test_a_node_is_started_with_file_variables_and_flags(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Config] = []

    def start(config: Config) -> int:
        started.append(config)
        return 7

    monkeypatch.setattr("danube_raft.node.supervisor.run", start)
    file = tmp_path / "node.yaml"
    file.write_text("data_dir: from-file\nclient_listen: 127.0.0.1:1111\nlog_level: debug\n")
    monkeypatch.setenv("DANUBE_RAFT_CLIENT_LISTEN", "127.0.0.1:2222")
    monkeypatch.setenv("DANUBE_RAFT_LOG_LEVEL", "warning")
    assert run("node", "start", "--config", str(file), "--log-level", "error").code == 7
    (config,) = started
    assert (config.data_dir, config.client_listen, config.log_level) == (
        "from-file",
        "127.0.0.1:2222",
        "error",
    )


def test_seed_nodes_are_one_flag_each(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Config] = []

    def start(config: Config) -> int:
        started.append(config)
        return 0

    monkeypatch.setattr("danube_raft.node.supervisor.run", start)
    monkeypatch.setenv("DANUBE_RAFT_SEED_NODES", "c:1,d:1")
    assert run("node", "start").code == 0
    assert run("node", "start", "--seed-node", "a:1", "--seed-node", "b:2").code == 0
    assert [config.seed_nodes for config in started] == [("c:1", "d:1"), ("a:1", "b:2")]
    done = run("node", "start", "--seed-node", "a:1", "--seed-node", "a:1")
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1)
    assert "seed_nodes names 'a:1' more than once" in done.err


def test_the_help_of_a_node_names_the_variables_that_count(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = " ".join(run("node", "start", "--help").out.split())
    named = set(re.findall(r"DANUBE_RAFT_[A-Z_]+", shown.split("Options:")[1]))
    settings = {f"DANUBE_RAFT_{name.upper()}" for name in documentation()}
    assert named - settings == {"DANUBE_RAFT_CONFIG"}
    assert len(named) == shown.count("env var:")
    monkeypatch.setenv("DANUBE_RAFT_CONFIG", str(tmp_path / "none.yaml"))
    done = run("node", "start")
    assert done.code == 2
    assert "none.yaml" in done.err


def test_a_reader_that_leaves_a_pipe_is_no_error(node: FakeNode) -> None:
    for number in range(3):
        node.records[f"/t/{number}"] = (f"/t/{number}", b"1" * 100_000, 1, 1, 1, 0, 0)
    for arguments in (["get", "/t/", "--prefix"], ["get", "/t/1", "--raw"], ["get", "/t/1", "-o", "json"]):
        process = started(*arguments, "--endpoints", node.endpoint)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        assert (process.stderr.read(), process.wait(30)) == (b"", 0)
        process.stderr.close()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["node", "--help"]])
def test_a_pipe_without_a_reader_is_no_error(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        command = [sys.executable, "-m", "danube_raft_cli", *arguments]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, timeout=30, check=False)
    assert (done.stderr, done.returncode) == (b"", 0)


def test_a_closed_or_full_standard_output_is_one_clear_line(node: FakeNode) -> None:
    node.records["/k"] = ("/k", b"1", 1, 1, 1, 0, 0)
    command = f"{sys.executable} -m danube_raft_cli get /k --endpoints {node.endpoint}"
    for where, said in ((">&-", "standard output is closed"), (">/dev/full", "No space left on device")):
        done = subprocess.run(
            ["bash", "-c", f"{command} {where}"], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert said in done.stderr
    done = subprocess.run(
        ["bash", "-c", f"{command} >&- 2>&-"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "op"), [(["get", "/k"], "get"), (["put", "/k", "1"], "put"), (["node", "status"], "status"),
                          (["bench", "put"], "put")]
)  # fmt: skip
def test_ctrl_c_ends_a_command_at_once(node: FakeNode, arguments: list[str], op: str) -> None:
    node.script += [LOST] * 999
    process = started(*arguments, "--endpoints", node.endpoint, "--timeout", "1h")
    try:
        node.until(lambda: node.of(op), op)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=5)
    finally:
        process.kill()
        process.wait()
    assert (out, err, process.returncode) == (b"", b"", 130)
