"""The shape of the tree, checked: who imports whom, how long files and functions are, and what may not be named.

Without this the folders' one-way rule and the size limits would erode one exception at a time.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("danube_raft/**/*.py"), *ROOT.glob("cli/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))

FILE_LINES_MAX = 400
TEST_FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
BANNED_FILE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

BASE = {"errors", "config", "wire", "__init__"}
MAY_IMPORT = {
    "errors": set(),
    "config": {"errors"},
    "wire": {"errors", "wire"},
    "raft": BASE | {"raft"},
    "kv": BASE | {"kv"},
    "storage": BASE | {"storage"},
    "client": {"wire", "errors", "client", "__init__"},
    "node": BASE | {"raft", "kv", "storage", "node"},
    "sim": BASE | {"raft", "kv", "storage", "node", "client", "sim"},
    "__init__": {"node", "client", "errors", "config", "wire"},
    "cli": BASE | {"raft", "kv", "storage", "node", "client", "cli"},
}
PURE = {"raft", "kv"}
IMPURE_MODULES = {
    "time", "random", "os", "socket", "zmq", "rocksdict", "threading", "datetime", "secrets", "uuid", "subprocess",
    "pathlib", "tempfile", "logging", "asyncio", "psutil",
}  # fmt: skip
SOCKET_FILES = {"node/endpoints.py", "node/loop.py", "node/assembly.py", "node/process.py", "node/supervisor.py",
                "node/threads.py", "node/questions.py", "node/links.py"}  # fmt: skip


def _area(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    if parts[0] == "cli":
        return "cli"
    return parts[1].removesuffix(".py")


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "danube_raft":
                for alias in node.names:
                    yield node.lineno, f"danube_raft.{alias.name}"
            else:
                yield node.lineno, node.module


def _own_area(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "danube_raft_cli":
        return "cli"
    if parts[0] != "danube_raft":
        return None
    known = set(MAY_IMPORT) | {"web"}
    return parts[1] if len(parts) > 1 and parts[1] in known else "__init__"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    area = _area(path)
    for line, module in _imports(ast.parse(path.read_text())):
        target = _own_area(module)
        assert target is None or target in MAY_IMPORT[area], f"{path}:{line} {area} may not import {module}"
        if area in PURE:
            assert module.split(".")[0] not in IMPURE_MODULES, f"{path}:{line} the pure core imports {module}"
        if module.split(".")[0] == "zmq" and area == "node":
            name = str(path.relative_to(ROOT / "danube_raft"))
            assert name in SOCKET_FILES, f"{path}:{line} sockets belong to the loop and its endpoints"
        assert module.split(".")[0] != "pickle", f"{path}:{line} nothing is ever unpickled"


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    test = path in TESTS
    limit = TEST_FILE_LINES_MAX if test else FILE_LINES_MAX
    assert text.count("\n") <= limit, f"{path} has {text.count(chr(10))} lines: it wants to be two ideas"
    assert path.stem not in BANNED_FILE_NAMES, f"{path}: name the noun"
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.end_lineno is not None
            and not test
        ):
            size = node.end_lineno - node.lineno + 1
            assert size <= FUNCTION_LINES_MAX, f"{path}:{node.lineno} {node.name} has {size} lines"


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_say_what_they_are_and_leave_nothing_unfinished(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    if text.strip():
        assert ast.get_docstring(tree), f"{path} has no docstring"
    unfinished = re.search(
        r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK|NotImplemented" + r"Error)\b", text
    )
    assert not unfinished, f"{path} has {unfinished and unfinished[0]}"


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_tests_wait_for_conditions_and_never_sleep(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep":
            pytest.fail(f"{path}:{node.lineno} sleeps")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_things_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name} has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_bare_or_broad_except(path: Path) -> None:
    """A bug is an AssertionError and is never caught; rocksdict alone raises a bare Exception, mapped in one place."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno} bare except"
            names = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
            broad = names & {"BaseException", "AssertionError"}
            assert not broad, f"{path}:{node.lineno} catches {broad}"


def test_the_tree_is_seen_at_all() -> None:
    """A glob that finds nothing would make every test above pass."""
    assert len(SOURCES) > 20
    assert {_area(path) for path in SOURCES} >= {"wire", "raft", "kv", "storage", "node", "client", "cli"}
