"""Settings: sources in their order, and one line for whatever is wrong with them."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from danube_raft import Node
from danube_raft.config import Config, documentation, load
from danube_raft.errors import ConfigInvalid


def file(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "node.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_flags_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(tmp_path, "heartbeat_ms: 11\nretry_min_ms: 12\nretry_max_ms: 13\n")
    monkeypatch.setenv("DANUBE_RAFT_RETRY_MAX_MS", "23")
    monkeypatch.setenv("DANUBE_RAFT_RETRY_MIN_MS", "22")
    config = load(path, {"retry_max_ms": 33, "data_dir": None})
    assert (config.heartbeat_ms, config.retry_min_ms, config.retry_max_ms) == (11, 22, 33)
    assert config.data_dir == Config().data_dir


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert load(file(tmp_path, "# nothing\n")) == Config()


def test_a_child_process_gets_the_same_settings() -> None:
    config = Config(heartbeat_ms=50)
    assert Config.from_json(config.to_json()) == config


def test_every_setting_is_documented_and_its_default_is_allowed() -> None:
    assert load() == Config()
    assert set(documentation()) == set(asdict(Config()))
    assert all(documentation().values())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("5", "setting: value"),
        ("hello", "setting: value"),
        ("[1, 2]", "setting: value"),
        ("5: 1", "setting: value"),
        ("a: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        ("heartbeat: 5", "unknown setting 'heartbeat'"),
        ("heartbeat_ms: [1]", "heartbeat_ms"),
        ("data_dir: 5", "data_dir"),
        ("log_stuck_ms: 900", "progress_ms"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load(file(tmp_path, content))
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="directory"):
        load(tmp_path)
    with pytest.raises(ConfigInvalid, match="No such file"):
        load(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    "address",
    ["", "host", ":7650", "host:", "host:0", "host:65536", "host:x", "host:\u0661", "localhost.example.com:7650",
     "10.0.0.1:7650", "0.0.0.0:7650", "[::]:7650", "*:7650"],
)  # fmt: skip
def test_addresses_that_cannot_be_listened_on_safely_are_refused(address: str) -> None:
    with pytest.raises(ConfigInvalid, match="raft_listen"):
        load(None, {"raft_listen": address})


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.8.8:1", "localhost:1", "[::1]:65535"])
def test_loopback_addresses_are_fine(address: str) -> None:
    assert load(None, {"raft_listen": address}).raft_address == address


def test_a_wildcard_needs_an_address_for_others_and_no_keys_need_a_word() -> None:
    settings = {"raft_listen": "0.0.0.0:7650", "raft_advertise": "db1:7650"}
    with pytest.raises(ConfigInvalid, match="insecure"):
        load(None, settings)
    assert load(None, {**settings, "insecure": True}).raft_address == "db1:7650"


@pytest.mark.parametrize(
    "content",
    [
        "seed_nodes: [a:1, b:2]",
        "seed_nodes:\n  - a:1\n  - b:2",
        "seed_nodes: a:1,b:2",
        "seed_nodes: 'a:1, b:2'",
    ],
)
def test_seed_nodes_are_a_list_or_one_string(tmp_path: Path, content: str) -> None:
    assert load(file(tmp_path, content)).seed_nodes == ("a:1", "b:2")


def test_seed_nodes_come_from_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(tmp_path, "seed_nodes: [a:1]")
    assert load().seed_nodes == ()
    monkeypatch.setenv("DANUBE_RAFT_SEED_NODES", "b:1,b:2")
    assert load(path).seed_nodes == ("b:1", "b:2")
    assert load(path, {"seed_nodes": ["c:1", "[::1]:2"]}).seed_nodes == ("c:1", "[::1]:2")
    monkeypatch.setenv("DANUBE_RAFT_SEED_NODES", "")
    assert load().seed_nodes == ()


def test_a_child_process_gets_the_seed_nodes() -> None:
    config = Config(seed_nodes=("a:1", "b:2"))
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (["here"], "seed_nodes = 'here': expected host:port"),
        (["a:1", "b:0"], "seed_nodes = 'b:0': expected host:port"),
        (["tcp://a:1"], "seed_nodes = 'tcp://a:1': expected host:port"),
        (["::1:7650"], "seed_nodes = '::1:7650': expected host:port"),
        (["my host:1"], "seed_nodes = 'my host:1': expected host:port"),
        ("a:1,", "seed_nodes = '': expected host:port"),
        (["a:1", "b:1", "a:1"], "seed_nodes names 'a:1' more than once"),
        (["0.0.0.0:1"], "seed_nodes = '0.0.0.0:1' is a wildcard"),
        ([f"a:{port}" for port in range(1, 9)], "seed_nodes names 8 nodes: at most 7"),
        ([5], "seed_nodes = 5: input should be a valid string"),
        (5, "seed_nodes = 5: input should be a valid tuple"),
    ],
)
def test_bad_seed_nodes_are_one_line(seeds: object, said: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load(None, {"seed_nodes": seeds})
    assert caught.value.message.startswith(said)
    assert "\n" not in caught.value.message


def test_random_settings_are_taken_or_refused_in_one_line() -> None:
    chance = random.Random(20261123)
    values: list[Any] = [0, -1, 1, 1 << 40, "x", "", "7", None, True, 1.5, [], {}, b"x", "\ud800"]
    said: list[str] = []
    for _ in range(300):
        flags = {chance.choice(list(documentation())): chance.choice(values) for _ in range(2)}
        try:
            load(None, flags)
        except ConfigInvalid as error:
            said.append(error.message)
    assert 0 < len(said) < 300
    assert not any("\n" in message for message in said)


@pytest.mark.parametrize("name", ["append_max_bytes", "batch_max_bytes", "request_max_bytes"])
def test_what_nodes_send_to_each_other_has_to_fit_into_their_frames(name: str) -> None:
    """A frame that is too large ends the connection, again and again."""
    with pytest.raises(ConfigInvalid, match=f"{name} = .* does not fit into peer_frame_max_bytes"):
        load(flags={name: 4 << 20})


@pytest.mark.parametrize("name", ["raft_advertise", "client_advertise"])
@pytest.mark.parametrize("address", ["0.0.0.0:7650", "tcp://host1:7650", "h\u00f6st:7650", "a,b:7650"])
def test_what_others_are_told_to_connect_to_has_to_be_an_address(name: str, address: str) -> None:
    """It goes into the configuration of the cluster, where a mistake would stay."""
    with pytest.raises(ConfigInvalid, match=f"{name} = "):
        load(flags={name: address})


@pytest.mark.parametrize("address", ["nowhere", "10.0.0.1:7850", "0.0.0.0:7850", "localhost:0"])
def test_health_is_told_on_a_loopback_address_or_on_purpose(address: str) -> None:
    with pytest.raises(ConfigInvalid, match="health_listen = "):
        load(flags={"health_listen": address})


def test_health_may_be_told_to_others_on_purpose_or_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(flags={"health_listen": "0.0.0.0:7850", "insecure": True}).health_listen == "0.0.0.0:7850"
    monkeypatch.setenv("DANUBE_RAFT_HEALTH_LISTEN", "")
    assert load().health_listen == ""


@pytest.mark.parametrize("name", ["raft_listen", "client_listen"])
def test_health_has_a_port_of_its_own(name: str) -> None:
    with pytest.raises(ConfigInvalid, match=f"health_listen and {name} are both"):
        load(flags={name: "127.0.0.1:7850"})


def test_log_lines_have_one_of_two_formats() -> None:
    assert load(flags={"log_format": "json"}).log_format == "json"
    with pytest.raises(ConfigInvalid, match="log_format = 'xml': expected text or json"):
        load(flags={"log_format": "xml"})


def test_a_caller_may_have_defaults_of_its_own_which_every_source_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = {"health_listen": ""}
    path = file(tmp_path, "health_listen: 127.0.0.1:1111")
    assert load(None, None, defaults).health_listen == ""
    assert load(path, None, defaults).health_listen == "127.0.0.1:1111"
    monkeypatch.setenv("DANUBE_RAFT_HEALTH_LISTEN", "127.0.0.1:2222")
    assert load(path, None, defaults).health_listen == "127.0.0.1:2222"
    assert load(path, {"health_listen": "127.0.0.1:3333"}, defaults).health_listen == "127.0.0.1:3333"


def test_an_embedded_node_listens_for_questions_only_if_it_is_told_to() -> None:
    """Programs start several on one machine."""
    assert Node().config.health_listen == ""
    assert Node(health_listen="127.0.0.1:7850").config.health_listen == "127.0.0.1:7850"
