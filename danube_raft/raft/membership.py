"""Who belongs to the cluster, by log index.

- A configuration is read from the log and is active as soon as it is appended, committed or not (§6 of the paper).
- It is truncated with the log: then the one before is active again.
- A snapshot brings the configuration at its index, which stands for all before it.
- A node without any configuration belongs to no cluster yet: it votes and appends, and never campaigns.
- A node may campaign if it is a voter in the newest configuration or in an older one that may still be the
  committed one: others may need it exactly because the newest was never committed (cowsql/raft#150).

How a change is proposed does not belong here; this file only knows what the log says.
"""

from __future__ import annotations

from danube_raft.wire.entry import Configuration, unpack_configuration


class Membership:
    """Configurations in the order of their indexes."""

    __slots__ = ("_history", "configuration", "outgoing", "voters")

    def __init__(self, recovered: tuple[tuple[int, bytes], ...]) -> None:
        self._history = [(index, unpack_configuration(payload)) for index, payload in recovered]
        self._activate()

    def append(self, index: int, configuration: Configuration) -> None:
        """`configuration` was appended at `index` and is active from now on."""
        assert not self._history or self._history[-1][0] < index, "configurations are appended in order"
        self._history.append((index, configuration))
        self._activate()

    def truncate(self, first: int) -> None:
        """The log was cut from `first` on."""
        while self._history and self._history[-1][0] >= first:
            self._history.pop()
        self._activate()

    def install(self, index: int, configuration: Configuration) -> None:
        """A snapshot that ends with `index` was installed; what the log has behind it stays."""
        later = [item for item in self._history if item[0] > index]
        self._history = [(index, configuration), *later]
        self._activate()

    def at(self, index: int) -> Configuration:
        """The configuration that is in force behind the entry `index`."""
        return next((known for first, known in reversed(self._history) if first <= index), Configuration())

    def may_campaign(self, node_id: int, commit_index: int) -> bool:
        """Whether `node_id` is a voter in any configuration that is or may yet become the committed one."""
        for index, configuration in reversed(self._history):
            if node_id in configuration.voters or node_id in configuration.outgoing:
                return True
            if index <= commit_index:
                return False
        return False

    def is_sole_voter(self, node_id: int) -> bool:
        """Whether `node_id` alone is a quorum."""
        return self.voters == (node_id,) and not self.outgoing

    def is_alone(self, node_id: int) -> bool:
        """Whether `node_id` is the sole voter of every configuration that is known here."""
        return bool(self._history) and all(
            configuration.voters == (node_id,) and not configuration.outgoing
            for _, configuration in self._history
        )

    def others(self, node_id: int) -> tuple[int, ...]:
        """Everyone but `node_id` who gets entries: members, and voters on their way out."""
        ids = [member.node_id for member in self.configuration.members]
        ids += [voter for voter in self.outgoing if voter not in ids]
        return tuple([member for member in ids if member != node_id])

    def other_voters(self, node_id: int) -> tuple[int, ...]:
        """Everyone but `node_id` whose vote counts."""
        ids = dict.fromkeys((*self.voters, *self.outgoing))
        return tuple([voter for voter in ids if voter != node_id])

    def _activate(self) -> None:
        self.configuration = self._history[-1][1] if self._history else Configuration()
        self.voters = self.configuration.voters
        self.outgoing = self.configuration.outgoing
