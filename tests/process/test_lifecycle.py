"""A real node from its start to its end: the ready line, `ps`, signals, orphans, and what keeps it from starting."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from real_node import PROCESSES, WAIT_S, RealNode, runs, until
from records import the

pytestmark = pytest.mark.process


def refused(node: RealNode) -> tuple[int, str]:
    """Exit code and standard error of a node that does not start."""
    process = node.spawn()
    try:
        code = process.wait(WAIT_S)
    finally:
        assert process.stdout is not None
        process.stdout.close()
    text = node.log_path.read_text()
    assert "Traceback" not in text
    return code, text.strip().splitlines()[-1]


def socket_files(node: RealNode) -> list[Path]:
    return [path for path in node.data_dir.rglob("*") if path.is_socket()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_quick_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with RealNode(tmp_path / "data") as node:
        with node.store() as store:
            store.put("/a", 1)
        assert len(socket_files(node)) == 5
        code, took = node.stop(number)
        assert (code, node.survivors(), socket_files(node)) == (0, [], [])
        assert took < 3


@pytest.mark.parametrize("delay_s", [0.02, 0.2, 0.3, 0.4, 0.5, 0.6])
def test_a_stop_during_the_start_is_as_orderly_as_any(tmp_path: Path, delay_s: float) -> None:
    node = RealNode(tmp_path / "data")
    process = node.spawn()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(delay_s)
    code, took = node.stop()
    assert process.stdout is not None
    process.stdout.close()
    # Before the interpreter has come to install its handlers the signal itself is the end.
    assert code in (0, -signal.SIGTERM)
    assert took < 3
    assert "Traceback" not in node.log_path.read_text()
    assert (node.survivors(), node.data_dir.exists() and socket_files(node)) in (([], []), ([], False))


def test_a_stop_of_the_whole_group_at_once_is_as_orderly_as_any(tmp_path: Path) -> None:
    """As systemd does it."""
    with RealNode(tmp_path / "data") as node:
        for child in node.family()[1:]:
            child.terminate()
        code, took = node.stop()
        assert (code, node.survivors(), socket_files(node)) == (0, [], [])
        assert took < 3
        assert not node.logged("Traceback")


def started_with_ignored(node: RealNode, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        node.start()
    finally:
        signal.signal(number, before)


def test_nohup_is_heeded(tmp_path: Path) -> None:
    node = RealNode(tmp_path / "data")
    started_with_ignored(node, signal.SIGHUP)
    with node.store() as store:
        assert node.process is not None
        node.process.send_signal(signal.SIGHUP)
        store.put("/a", 1)
        assert node.process.poll() is None
        assert node.stop()[0] == 0
    assert node.process.stdout is not None
    node.process.stdout.close()


def test_an_interrupt_stops_a_node_that_a_script_started_in_the_background(tmp_path: Path) -> None:
    """Shells start such jobs with SIGINT ignored."""
    node = RealNode(tmp_path / "data")
    started_with_ignored(node, signal.SIGINT)
    assert node.stop(signal.SIGINT)[0] == 0
    assert node.process is not None
    assert node.process.stdout is not None
    node.process.stdout.close()


def test_the_processes_are_told_apart_by_name(tmp_path: Path) -> None:
    with RealNode(tmp_path / "data") as node:
        names = {process.name() for process in node.family()[1:]}
        assert names == {f"dr-{name}" for name in PROCESSES}
        with node.store() as store:
            status = store.status()
        pids = {name: node.child(name) for name in PROCESSES}
        assert status["pids"] == {name: process.pid for name, process in pids.items() if process is not None}
        assert status["role"] == "leader"
        assert status["leader_id"] == status["node_id"]


def test_a_fresh_node_takes_its_first_put_soon(tmp_path: Path) -> None:
    """1.5 s is the promise on an idle machine; a loaded one gets twice that here."""
    with RealNode(tmp_path / "data") as node, node.store() as store:
        store.put("/first", 1)
        assert time.monotonic() - node.started_at < 3


def test_children_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    with RealNode(tmp_path / "data") as node:
        assert node.process is not None
        children = node.family()[1:]
        node.process.kill()
        node.process.wait(WAIT_S)
        assert len(children) == 3
        until(lambda: not any(map(runs, children)), "the children to end", wait_s=2)


def test_a_node_starts_again_at_once_after_its_supervisor_was_killed(tmp_path: Path) -> None:
    with RealNode(tmp_path / "data") as node, node.store() as store:
        store.put("/a", 1)
        assert node.process is not None
        node.process.kill()
        node.process.wait(WAIT_S)
        assert node.process.stdout is not None
        node.process.stdout.close()
        node.start()
        assert the(store.get("/a")).value == 1


def test_one_killed_process_takes_the_others_along_and_all_come_back(tmp_path: Path) -> None:
    with RealNode(tmp_path / "data") as node, node.store(timeout_ms=20_000) as store:
        for round_, name in enumerate(PROCESSES, 1):
            before = {child: node.child(child) for child in PROCESSES}
            node.kill_child(name)
            store.put("/round", round_)
            after = {child: node.child(child) for child in PROCESSES}
            assert all(after[child] != before[child] for child in PROCESSES)
            assert the(store.get("/round")).version == round_
        assert node.logged("restarting all three") == len(PROCESSES)


def test_a_process_that_makes_no_progress_is_replaced(tmp_path: Path) -> None:
    with (
        RealNode(tmp_path / "data", kv_stuck_ms=3_000, progress_ms=50) as node,
        node.store(timeout_ms=20_000) as store,
    ):
        store.put("/a", 1)
        stuck = until(lambda: node.child("kv-server"), "a kv-server")
        stuck.send_signal(signal.SIGSTOP)
        store.put("/a", 2)
        assert the(store.get("/a")).version == 2
        assert node.logged("made no progress") == 1


def test_a_second_node_on_the_directory_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with RealNode(tmp_path / "data") as node:
        assert node.process is not None
        other = RealNode(tmp_path / "data")
        other.log_path = tmp_path / "other.log"
        code, line = refused(other)
        assert code == 10
        assert f"process {node.process.pid}" in line


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    node = RealNode(tmp_path / "data")
    host, port = node.endpoint.split(":")
    with socket.socket() as taken:
        taken.bind((host, int(port)))
        taken.listen()
        code, line = refused(node)
    assert code == 15
    assert line.startswith("error: cannot listen on")
    assert node.endpoint in line


def test_newer_or_damaged_data_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with RealNode(tmp_path / "data") as node:
        node.stop()
    identity = node.data_dir / "identity.json"
    good = identity.read_bytes()
    identity.write_bytes(good.replace(b'"node_id": ', b'"node_id": 1'))
    code, line = refused(node)
    assert (code, "checksum" in line) == (11, True)
    identity.write_bytes(good)
    layout = node.data_dir / "format.json"
    fields = json.loads(layout.read_text())
    from zlib import crc32

    newer = {"format": fields["format"] + 1}
    newer["crc32"] = crc32(json.dumps({"format": newer["format"]}, sort_keys=True).encode())
    layout.write_text(json.dumps(newer))
    code, line = refused(node)
    assert (code, "format" in line) == (14, True)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"heartbeat_ms": "soon"}, "heartbeat_ms"),
        ({"heartbeat_ms": 900}, "election_min_ms"),
        ({"log_level": "loud"}, "log_level"),
        ({"client_advertise": "nowhere"}, "client_advertise"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(
    tmp_path: Path, settings: dict[str, object], named: str
) -> None:
    code, line = refused(RealNode(tmp_path / "data", **settings))
    assert code == 2
    assert named in line
    assert not (tmp_path / "data").exists()


def test_a_directory_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    code, line = refused(RealNode(tmp_path / "data"))
    assert code == 2
    assert str(tmp_path / "data") in line


def test_a_configuration_file_is_read_and_flags_win(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("expiry_check_ms: 50\ndata_dir: /nowhere/at/all\n")
    node = RealNode(tmp_path / "data")
    run = subprocess.run(
        node.command("node", "start", "--config", str(tmp_path / "missing.yaml")),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env=node.environment,
        check=False,
    )
    assert (run.returncode, "missing.yaml" in run.stderr) == (2, True)
    node.environment["DANUBE_RAFT_CONFIG"] = str(file)
    with node, node.store() as store:
        store.put_with_ttl("/short", 1, ttl_ms=200)
        until(lambda: store.get("/short") is None, "the key to expire")
