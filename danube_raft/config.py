"""Every setting of a node, declared once.

Sources, the later ones win: the defaults here, a YAML file, `DANUBE_RAFT_…` variables, command-line flags. `load`
checks them all and raises `ConfigInvalid` with one line per bad value. The result is a plain frozen dataclass, so
that a node's processes rebuild it from JSON without importing the machinery that reads files.

What changes how an entry is applied is not here but in `kv/limits.py`: replicas must agree on it, whatever their files say.

Units are in the names: `_ms`, `_bytes`, `_entries`. Addresses are `host:port`.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from danube_raft.errors import ConfigInvalid

ENV_PREFIX = "DANUBE_RAFT_"

MIB = 1 << 20

FRAME_ROOM_BYTES = 64 << 10
"""What a message between nodes has beside its entries."""

SEEDS_MAX = 7
"""As many voters as a cluster may have."""


def _setting(default: Any, doc: str, low: int | None = None, high: int | None = None) -> Any:
    return field(default=default, metadata={"doc": doc, "low": low, "high": high})


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one node."""

    data_dir: str = _setting("./danube-data", "directory of everything the node keeps")
    raft_listen: str = _setting("127.0.0.1:7650", "address for peers")
    client_listen: str = _setting("127.0.0.1:7750", "address for clients")
    raft_advertise: str = _setting("", "address that peers use for this node; default: raft_listen")
    client_advertise: str = _setting("", "address that clients use for this node; default: client_listen")
    seed_nodes: tuple[str, ...] = _setting(
        (),
        "raft addresses of all nodes that form a cluster together, this one included; none: a cluster of its own",
    )
    insecure: bool = _setting(False, "allow other than loopback addresses without keys")
    health_listen: str = _setting(
        "127.0.0.1:7850", "address of /health, /ready and /metrics over HTTP; empty: none"
    )
    log_level: str = _setting("info", "debug, info, warning or error")
    log_format: str = _setting("text", "text, or json: one object per log line")
    slow_request_ms: int = _setting(
        1_000, "a request that takes longer is logged with the reason; 0: none", 0, 3_600_000
    )

    heartbeat_ms: int = _setting(100, "time between heartbeats of a leader", 10, 10_000)
    election_min_ms: int = _setting(1_000, "shortest election timeout", 50, 60_000)
    election_max_ms: int = _setting(2_000, "longest election timeout", 60, 120_000)
    retry_min_ms: int = _setting(50, "shortest pause after a lost or split election", 1, 10_000)
    retry_max_ms: int = _setting(300, "longest pause after a lost or split election", 2, 20_000)
    request_timeout_ms: int = _setting(5_000, "deadline of a request that names none", 10, 600_000)
    request_timeout_max_ms: int = _setting(60_000, "longest deadline that a request may name", 10, 3_600_000)
    propose_retry_ms: int = _setting(500, "silence after which a batch is proposed again", 10, 60_000)
    expiry_check_ms: int = _setting(100, "time between checks for due leases", 10, 60_000)
    lease_checkpoint_ms: int = _setting(
        2_000, "idle time after which cluster time is written down", 100, 60_000
    )
    mark_interval_ms: int = _setting(
        50, "time in which the durable mark follows the log; a loss that is younger goes unnoticed", 1, 10_000
    )
    progress_ms: int = _setting(1_000, "time between a process's signs of progress", 50, 1_500)
    consensus_stuck_ms: int = _setting(
        5_000, "consensus without progress for this long is killed", 500, 600_000
    )
    kv_stuck_ms: int = _setting(10_000, "kv-server without progress for this long is killed", 500, 600_000)
    log_stuck_ms: int = _setting(15_000, "log-writer without progress for this long is killed", 500, 600_000)
    space_check_ms: int = _setting(5_000, "time between looks at the room on the disk", 50, 60_000)
    disk_stable_ms: int = _setting(
        300_000, "a disk that fails again sooner than this keeps the node down", 0, 86_400_000
    )
    stop_timeout_ms: int = _setting(2_000, "time that the processes get to end in order", 100, 60_000)
    watch_progress_ms: int = _setting(10_000, "time between progress marks of a watch", 100, 600_000)
    watch_keep_alive_ms: int = _setting(30_000, "silence after which a watch is dropped", 500, 3_600_000)

    low_space_bytes: int = _setting(
        512 * MIB,
        "room on the disk, below which (or below twice the last snapshot) growing writes are refused",
        0,
    )
    ballast_bytes: int = _setting(32 * MIB, "file that is given up when the disk is full; 0: none", 0)
    request_max_bytes: int = _setting(1_572_864, "largest request", 1_024, 64 * MIB)
    client_frame_max_bytes: int = _setting(2 * MIB, "largest frame on the client port", 2_048, 128 * MIB)
    body_max_requests: int = _setting(10_000, "requests in one body; what follows is refused", 1, 1_000_000)
    peer_frame_max_bytes: int = _setting(4 * MIB, "largest frame on the peer port", 2_048, 256 * MIB)
    client_queue_max_messages: int = _setting(
        1_000, "answers that one connection has not taken yet", 10, 1_000_000
    )
    batch_max_bytes: int = _setting(MIB, "a batch is closed before it is larger than this", 1_024, 64 * MIB)
    append_max_bytes: int = _setting(
        MIB, "most entries in one AppendEntries, unless one entry is larger", 1_024
    )
    inflight_max_messages: int = _setting(64, "unanswered AppendEntries per peer", 1, 10_000)
    inflight_max_bytes: int = _setting(16 * MIB, "unanswered AppendEntries per peer", 1_024)
    uncommitted_max_bytes: int = _setting(256 * MIB, "log not committed yet; more is refused", MIB)
    waiting_max_commands: int = _setting(10_000, "commands of clients that wait for an answer", 1)
    waiting_max_bytes: int = _setting(64 * MIB, "commands of clients that wait for an answer", MIB)
    unacked_write_max_bytes: int = _setting(64 * MIB, "writes that the log-writer has not confirmed", MIB)
    unapplied_max_bytes: int = _setting(64 * MIB, "committed entries that are not applied yet", MIB)
    log_cache_bytes: int = _setting(32 * MIB, "payloads of the newest entries kept in memory", MIB)
    read_log_max_bytes: int = _setting(MIB, "entries read back from the log at a time", 1_024)
    drain_max_messages: int = _setting(1_000, "messages taken from one socket in one turn", 1, 100_000)
    drain_max_ms: int = _setting(
        100, "time after which a turn takes no more messages from a socket", 1, 1_000
    )
    turn_reply_max_bytes: int = _setting(64 * MIB, "values read in one turn; more is refused", MIB)
    snapshot_log_bytes: int = _setting(
        64 * MIB, "log since the last snapshot, or the size of that if larger, that makes another due", 100
    )
    snapshot_rest_max_ms: int = _setting(
        30_000,
        "longest rest between two snapshots, which goes by what one takes, and the pause after one that failed",
        10,
        3_600_000,
    )
    snapshot_max_ms: int = _setting(
        600_000, "a snapshot that is not finished after this time is given up", 1_000, 86_400_000
    )
    digest_ms: int = _setting(600_000, "time between two digests of all nodes' states; 0: never", 0, 1 << 40)
    snapshot_tail_entries: int = _setting(
        1_000, "log kept before the newest snapshot, for followers that lag a little", 0
    )
    snapshot_tail_bytes: int = _setting(
        16 * MIB, "log kept before the newest snapshot is no more than about this", 0
    )
    snapshot_piece_bytes: int = _setting(MIB, "piece of a snapshot that is sent to another node", 16)
    snapshot_window_pieces: int = _setting(2, "pieces of a snapshot under way to one node", 1, 64)
    snapshot_pin_ms: int = _setting(
        600_000, "log behind a snapshot that is being sent is kept for so long", 1_000, 86_400_000
    )
    snapshot_pin_bytes: int = _setting(
        1_024 * MIB, "log behind a snapshot that is being sent is kept up to this", 1_024
    )
    page_max_bytes: int = _setting(MIB, "records in one answer", 1_024, 16 * MIB)
    page_max_records: int = _setting(5_000, "records in one answer", 1, 100_000)
    history_max_events: int = _setting(100_000, "events kept for watches and reads in the past", 10)
    history_max_bytes: int = _setting(128 * MIB, "events kept for watches and reads in the past", 1_024)
    expire_max_leases: int = _setting(1_000, "leases in one expiry command", 1, 1_000)
    watches_per_connection_max: int = _setting(1_000, "watches on one connection", 1)
    watch_frame_max_bytes: int = _setting(MIB, "events in one frame of a watch", 1_024, 16 * MIB)
    watch_credit_max_bytes: int = _setting(16 * MIB, "most credit that a watch may hold", MIB)

    @property
    def raft_address(self) -> str:
        """What peers connect to."""
        return self.raft_advertise or self.raft_listen

    @property
    def client_address(self) -> str:
        """What clients connect to."""
        return self.client_advertise or self.client_listen

    def to_json(self) -> str:
        """For a child process."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Config:
        """Reverse of `to_json`."""
        values: dict[str, Any] = json.loads(text)
        # JSON knows no tuples.
        values["seed_nodes"] = tuple(values["seed_nodes"])
        return Config(**values)


def documentation() -> dict[str, str]:
    """Line of documentation by setting."""
    return {f.name: str(f.metadata["doc"]) for f in fields(Config)}


def load(
    file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """Settings from all sources, checked. `flags` with the value None count as not given; `defaults` are defaults of
    this caller in place of the declared ones.

    Raises ConfigInvalid, with one line that names the setting, its value and what is allowed.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    values = _read(Path(file) if file is not None else None, given, defaults or {})
    config = Config(**values)
    _check_together(config)
    return config


def _read(file: Path | None, flags: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    # Imported here: it takes longer than all the rest of a child process's start.
    from pydantic import BeforeValidator, Field, ValidationError, create_model  # noqa: PLC0415
    from pydantic_settings import (  # noqa: PLC0415
        BaseSettings,
        NoDecode,
        PydanticBaseSettingsSource,
        SettingsConfigDict,
        YamlConfigSettingsSource,
    )

    if file is not None:
        _check_file(file)

    class Sources(BaseSettings):
        model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", yaml_file=file)

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)

    # A list may also be one string with commas, which is all that a variable can hold.
    listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]
    kinds = {"str": str, "int": int, "bool": bool, "tuple[str, ...]": listed}
    declared: dict[str, Any] = {
        f.name: (
            kinds[str(f.type)],
            Field(defaults.get(f.name, f.default), ge=f.metadata["low"], le=f.metadata["high"]),
        )
        for f in fields(Config)
    }
    try:
        model = create_model("Settings", __base__=Sources, **declared)
        values: dict[str, Any] = model(**flags).model_dump()
    except ValidationError as error:
        raise ConfigInvalid(_explain(error.errors(), file)) from None
    return values


def _split_list(value: Any) -> Any:
    """The items of a comma-separated string; anything else is left for the check of types."""
    if not isinstance(value, str):
        return value
    return tuple([item.strip() for item in value.split(",")]) if value.strip() else ()


def _check_file(file: Path) -> None:
    """A mapping from names to values, in YAML; whether these are settings is checked later."""
    import yaml  # noqa: PLC0415 -- only the supervisor reads files

    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigInvalid(f"configuration file {file} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigInvalid(
            f"configuration file {file} is not valid YAML: {' '.join(str(error).split())}"
        ) from None
    if content is not None and not (
        isinstance(content, dict) and all(isinstance(name, str) for name in content)
    ):
        raise ConfigInvalid(f"configuration file {file} must hold lines of the form `setting: value`")


def _explain(problems: list[Any], file: Path | None) -> str:
    known = documentation()
    lines = []
    for problem in problems:
        # What follows the name is a place inside a list.
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if name not in known:
            lines.append(f"unknown setting {name!r}" + (f" in {file}" if file else ""))
        else:
            said = str(problem["msg"])[:1].lower() + str(problem["msg"])[1:]
            lines.append(f"{name} = {problem['input']!r}: {said} ({known[name]})")
    return "; ".join(lines)


WILDCARDS = ("0.0.0.0", "*", "[::]")  # noqa: S104 -- recognised in order to be refused


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_address(address: str) -> bool:
    """Whether others can be told to connect there."""
    try:
        return split_address("", address)[0] not in WILDCARDS
    except ConfigInvalid:
        return False


def split_address(name: str, address: str) -> tuple[str, int]:
    """(host, port) of `host:port`; raises ConfigInvalid."""
    host, colon, port = address.rpartition(":")
    odd = not host.isascii() or any(mark in host for mark in "/, @") or (":" in host and host[0] != "[")
    if not colon or not host or odd or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= 65535:
        raise ConfigInvalid(f"{name} = {address!r}: expected host:port with a port from 1 to 65535")
    return host, int(port)


def _check_seeds(seeds: tuple[str, ...]) -> None:
    for seed in seeds:
        host, _ = split_address("seed_nodes", seed)
        if host in WILDCARDS:
            raise ConfigInvalid(
                f"seed_nodes = {seed!r} is a wildcard: name the address that others connect to"
            )
    twice = [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]
    if twice:
        raise ConfigInvalid(f"seed_nodes names {twice[0]!r} more than once")
    if len(seeds) > SEEDS_MAX:
        raise ConfigInvalid(f"seed_nodes names {len(seeds)} nodes: at most {SEEDS_MAX} form a cluster")


def _check_together(config: Config) -> None:
    _check_seeds(config.seed_nodes)
    for name in ("raft", "client"):
        listen, advertise = getattr(config, f"{name}_listen"), getattr(config, f"{name}_advertise")
        host, _ = split_address(f"{name}_listen", listen)
        if advertise:
            if split_address(f"{name}_advertise", advertise)[0] in WILDCARDS:
                raise ConfigInvalid(
                    f"{name}_advertise = {advertise!r} is a wildcard: it must say where others reach this node"
                )
        elif host in WILDCARDS:
            raise ConfigInvalid(
                f"{name}_listen = {listen!r} is a wildcard: {name}_advertise must say where others reach this node"
            )
        if not config.insecure and not _is_loopback(host):
            raise ConfigInvalid(
                f"{name}_listen = {listen!r} is not a loopback address; without keys that needs insecure: true"
            )
    if config.raft_listen == config.client_listen:
        raise ConfigInvalid(f"raft_listen and client_listen are both {config.raft_listen}")
    _check_health(config)
    if not config.election_min_ms < config.election_max_ms:
        raise ConfigInvalid(
            f"election_min_ms = {config.election_min_ms} must be below election_max_ms = {config.election_max_ms}"
        )
    if not config.retry_min_ms < config.retry_max_ms:
        raise ConfigInvalid(
            f"retry_min_ms = {config.retry_min_ms} must be below retry_max_ms = {config.retry_max_ms}"
        )
    if config.heartbeat_ms * 3 > config.election_min_ms:
        raise ConfigInvalid(
            f"heartbeat_ms = {config.heartbeat_ms} must be at most a third of election_min_ms = {config.election_min_ms}"
        )
    for name in ("consensus", "kv", "log"):
        stuck_ms = getattr(config, f"{name}_stuck_ms")
        if stuck_ms < 3 * config.progress_ms:
            raise ConfigInvalid(
                f"{name}_stuck_ms = {stuck_ms} must be at least three times progress_ms = {config.progress_ms}"
            )
    _check_sizes(config)
    _check_logs(config)
    if not config.data_dir:
        raise ConfigInvalid("data_dir must not be empty")


def _check_health(config: Config) -> None:
    if not config.health_listen:
        return
    host, _ = split_address("health_listen", config.health_listen)
    if not config.insecure and not _is_loopback(host):
        raise ConfigInvalid(
            f"health_listen = {config.health_listen!r} is not a loopback address; without keys that needs insecure: true"
        )
    for name in ("raft_listen", "client_listen"):
        if config.health_listen == getattr(config, name):
            raise ConfigInvalid(f"health_listen and {name} are both {config.health_listen}")


def _check_logs(config: Config) -> None:
    if config.log_level not in ("debug", "info", "warning", "error"):
        raise ConfigInvalid(f"log_level = {config.log_level!r}: expected debug, info, warning or error")
    if config.log_format not in ("text", "json"):
        raise ConfigInvalid(f"log_format = {config.log_format!r}: expected text or json")


def _check_sizes(config: Config) -> None:
    for name in ("append_max_bytes", "batch_max_bytes", "request_max_bytes", "snapshot_piece_bytes"):
        size = getattr(config, name)
        if size + FRAME_ROOM_BYTES > config.peer_frame_max_bytes:
            raise ConfigInvalid(
                f"{name} = {size} does not fit into peer_frame_max_bytes = {config.peer_frame_max_bytes}"
            )
