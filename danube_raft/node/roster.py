"""Who the other nodes are, as this node sees it: whom it talks to, whom it listens to, who was heard lately.

- The members of the newest configuration in the log count; before there is one, those of the founding promise. What
  comes from anybody else, or is for another cluster or node, is refused (PITFALLS 24).
- `addresses` changes with the configuration, and then the links have to be told.
- A leader knows of each member how far its log is; the others know of the leader that they hear it. `members` says
  what is known here, and None for what is not.
"""

from __future__ import annotations

from typing import Any

from danube_raft.config import Config
from danube_raft.node.endpoints import Peers
from danube_raft.node.identity import Identity
from danube_raft.raft.core import Core
from danube_raft.wire import peer
from danube_raft.wire.entry import Configuration, Founding, unpack_configuration


class Roster:
    """The members of the cluster but for what Raft itself needs of them."""

    def __init__(self, config: Config, identity: Identity, founding: Founding | None) -> None:
        self._config = config
        self._me = identity
        self._founders = Configuration() if founding is None else unpack_configuration(founding.configuration)
        self._configuration: Configuration | None = None
        self._addresses: dict[int, str] = {}
        self._heard: dict[int, int] = {}

    def update(self, configuration: Configuration) -> Peers | None:
        """The active configuration; what the links have to know if it is another one than before."""
        if configuration is self._configuration:
            return None
        self._configuration = configuration
        members = configuration.members or self._founders.members
        addresses = {member.node_id: member.raft_addr for member in members}
        addresses.pop(self._me.node_id, None)
        if addresses == self._addresses:
            return None
        self._addresses = addresses
        return Peers(tuple(addresses.items()))

    def accepts(self, header: peer.Header, now: int) -> bool:
        """Whether a message is for this node and from a member, which was heard then."""
        me = self._me
        if (
            header.cluster_id != me.cluster_id
            or header.receiver != me.node_id
            or header.sender not in self._addresses
        ):
            return False
        self._heard[header.sender] = now
        return True

    def missing(self, now: int) -> str:
        """Who has not been heard for an election timeout, for people to read; empty if everybody has."""
        silent = [
            f"node {node_id} at {address}"
            for node_id, address in self._addresses.items()
            if now - self._heard.get(node_id, -self._config.election_max_ms) >= self._config.election_max_ms
        ]
        return " and ".join(silent)

    def members(self, core: Core, now: int) -> list[dict[str, Any]]:
        """The members with their roles, for `status` and `members`."""
        followers, suspects = core.followers, core.suspects
        rows = []
        for member in core.configuration.members:
            node_id = member.node_id
            mine = node_id == self._me.node_id
            match_index = core.durable_index if mine else followers.get(node_id)
            rows.append(
                {
                    "node_id": node_id,
                    "raft_addr": member.raft_addr,
                    "client_addr": member.client_addr,
                    "kind": member.kind,
                    "is_leader": node_id == core.leader_id,
                    "reachable": True if mine else self._reachable(core, node_id, now),
                    "match_index": match_index,
                    "progress": core.progress.get(node_id),
                    "lag_entries": None if match_index is None else max(core.last_index - match_index, 0),
                    "suspect": bool(core.suspect) if mine else node_id in suspects if followers else None,
                }
            )
        return rows

    def _reachable(self, core: Core, node_id: int, now: int) -> bool | None:
        if core.role != "leader" and node_id != core.leader_id:
            return None  # nothing is sent between followers
        heard = self._heard.get(node_id)
        return heard is not None and now - heard <= self._config.election_min_ms
