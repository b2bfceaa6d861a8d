"""What the README says is true: its Python runs, its table of operations is the one in the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from real_node import free_ports

from danube_raft import Node, errors
from danube_raft.config import Config
from danube_raft.wire.operations import INTERNAL, OPERATIONS

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text()


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def run(code: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def operations_table() -> str:
    lines = ["| op | arguments | result |", "|---|---|---|"]
    for name, operation in OPERATIONS.items():
        if operation.kind == INTERNAL:
            continue
        required = operation.required
        arguments = [
            argument.name if place < required else f"{argument.name}={_plain(argument.default)}"
            for place, argument in enumerate(operation.arguments)
        ]
        lines.append(f"| {name} | {', '.join(arguments)} | {operation.result} |")
    return "\n".join(lines)


def _plain(default: object) -> str:
    names = {None: "nil", True: "true", False: "false", "": '""'}
    return names[default] if default is None or isinstance(default, bool | str) else str(default)


def test_the_raw_protocol_example_puts_and_gets(tmp_path: Path) -> None:
    (code,) = [block for block in blocks() if "zmq.REQ" in block]
    client, raft = (f"127.0.0.1:{port}" for port in free_ports(2))
    with Node(data_dir=str(tmp_path / "data"), client_listen=client, raft_listen=raft, threads=True):
        printed = run(code.replace("127.0.0.1:7750", client), tmp_path)
    assert printed.splitlines()[0] == "[2, 1, None]"
    assert "'/greeting', b'\"hello\"', 2, 2, 1, 0" in printed.splitlines()[1]


def test_the_python_example_runs(tmp_path: Path) -> None:
    (code,) = [block for block in blocks() if "Node(" in block]
    for address, port in zip(("127.0.0.1:17750", "127.0.0.1:17650"), free_ports(2), strict=True):
        assert address in code
        code = code.replace(address, f"127.0.0.1:{port}")
    printed = run(code, tmp_path)
    assert printed.splitlines() == ["/cluster/register/b1 {'url': 'b1:6650'} 1", "1"]


def test_the_table_of_operations_is_complete() -> None:
    inside = re.search(r"<!-- operations -->\n(.*?)\n<!-- /operations -->", TEXT, re.DOTALL)
    assert inside
    assert inside[1] == operations_table()


def test_the_table_of_errors_is_complete() -> None:
    for code, kind in errors.BY_CODE.items():
        if 1 < code < 100 and kind is not errors.NoConnection:
            assert re.search(rf"\| {code} \| {kind.__name__}\b", TEXT), f"{code} {kind.__name__} is missing"


def test_the_settings_named_exist() -> None:
    table = TEXT.split("## Configuration")[1].split("##")[0]
    rows = re.findall(r"^\| ([a-z_, ]+) \|", table, re.MULTILINE)[1:]
    assert len(rows) == 14
    for row in rows:
        for setting in row.split(", "):
            assert hasattr(Config(), setting), setting
