"""The language of tests/raft/scripts: commands, `----`, and what the cores said to them.

A block is some command lines, a line `----`, the expected output, and an empty line. Lines that begin with `#` are
comment. Every command that touches a core takes its output at once and prints it, one line per fact, so that a
script reads as a conversation. Nodes draw the shortest random time plus 10 ms times their id.

    nodes 1 2 3 [setting=value…]       fresh nodes, not in any cluster yet
    log N term… · term N term · suspect N · purged N index
                                       what N's disk holds (terms from index 1 on), before `restart`
    bootstrap N… · allow N… · restart N…
    propose N text [count] · read N counter · applied N index · unreachable N peer
    transfer N peer                    hand leadership over (0: to whoever fits best)
    ack N [count] · chunk N            the disk syncs / answers ReadLogs
    time ms · timer N…                 the clock moves / runs what is due
    deliver|drop|duplicate [A->B] [Kind]     messages in flight; `*` is any node; all of them if nothing is named
    settle                             deliver, ack, read, apply until nothing moves; prints roles and commits only
    flight · status N… · entries N… · clock N · progress N
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from danube_raft.config import Config
from danube_raft.raft.output import Output
from danube_raft.wire import peer
from danube_raft.wire.entry import (
    KIND_BATCH,
    KIND_CONFIGURATION,
    KIND_NOOP,
    NO_ORIGIN,
    Entry,
    HardState,
    pack_configuration,
)

from .world import Node, World, voters

KIND_NAMES = {KIND_NOOP: "no-op", KIND_BATCH: "batch", KIND_CONFIGURATION: "configuration"}


class Drawn:
    """The shortest time, plus 10 ms times the node's id: no two nodes draw the same."""

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id

    def randrange(self, start: int, stop: int) -> int:
        return min(start + 10 * self._node_id, stop - 1)


def run(path: Path) -> str:
    """The script at `path` with what the cores really say in place of the expected output."""
    script = Script()
    result: list[str] = []
    commands: list[str] = []
    skipping = False
    for line in path.read_text().splitlines():
        if skipping:
            skipping = line != ""
            if not skipping:
                result.append("")
        elif line == "----":
            result.append(line)
            for command in commands:
                result += script.command(command)
            commands, skipping = [], True
        else:
            result.append(line)
            if line and not line.startswith("#"):
                commands.append(line)
    assert not commands, f"{path.name}: commands at the end without ----"
    return "\n".join(result).rstrip("\n") + "\n"


class Script:
    """One world and the commands on it."""

    def __init__(self) -> None:
        self.world = World()
        self.quiet = False
        self.lines: list[str] = []

    def command(self, line: str) -> list[str]:
        """Run one command and return what it printed."""
        self.lines = []
        name, *words = line.split()
        method: Callable[[list[str]], None] = getattr(self, f"do_{name}")
        method(words)
        return self.lines

    # ---------------------------------------------------------------- nodes

    def do_nodes(self, words: list[str]) -> None:
        settings: dict[str, Any] = {
            key: int(value) for key, _, value in (word.partition("=") for word in words if "=" in word)
        }
        config = replace(Config(), **settings)
        for word in words:
            if "=" not in word:
                node_id = int(word)
                self.world.nodes[node_id] = Node(self.world, node_id, config, Drawn(node_id))

    def do_log(self, words: list[str]) -> None:
        """The disk of node N holds entries of these terms, the first one being the configuration."""
        node, terms = self._node(words[0]), [int(word) for word in words[1:]]
        payload = pack_configuration(voters(self.world.nodes))
        for index, term in enumerate(terms, 1):
            kind = KIND_CONFIGURATION if index == 1 else KIND_BATCH
            node.disk.log[index] = Entry(
                index, term, kind, 0, 0, NO_ORIGIN, payload if index == 1 else b"%d" % term
            )
        node.disk.hard_state = HardState(terms[-1], 0)

    def do_term(self, words: list[str]) -> None:
        self._node(words[0]).disk.hard_state = HardState(int(words[1]), 0)

    def do_purged(self, words: list[str]) -> None:
        node, index = self._node(words[0]), int(words[1])
        node.disk.snapshot_configuration = ((1, node.disk.log[1].payload),)
        node.disk.purged = (index, node.disk.log[index].term)
        for old in range(1, index + 1):
            del node.disk.log[old]

    def do_suspect(self, words: list[str]) -> None:
        self._node(words[0]).disk.suspect = "the log ends before the durable mark"

    def do_restart(self, words: list[str]) -> None:
        for node in self._nodes(words):
            node.start()
            self._show(node)

    def do_bootstrap(self, words: list[str]) -> None:
        for node in self._nodes(words):
            node.core.bootstrap(voters(self.world.nodes), 0, self.world.now)
            self._show(node)

    def do_allow(self, words: list[str]) -> None:
        for node in self._nodes(words):
            node.load()
            self._show(node)

    # ---------------------------------------------------------------- inputs

    def do_propose(self, words: list[str]) -> None:
        node, text = self._node(words[0]), words[1]
        payload = b"x" * int(text.removeprefix("bytes=")) if text.startswith("bytes=") else text.encode()
        for _ in range(int(words[2]) if len(words) > 2 else 1):
            refusal = node.core.propose((node.node_id, node.boot, 1), payload, 0, self.world.now)
            if refusal is not None:
                self._say(f"{node.node_id}: refused {refusal.reason}, hint {refusal.hint}")
        self._show(node)

    def do_read(self, words: list[str]) -> None:
        node = self._node(words[0])
        node.core.read_index((node.node_id, node.boot, int(words[1])), self.world.now)
        self._show(node)

    def do_applied(self, words: list[str]) -> None:
        node = self._node(words[0])
        node.core.applied(int(words[1]))
        self._show(node)

    def do_unreachable(self, words: list[str]) -> None:
        node = self._node(words[0])
        node.core.unreachable(int(words[1]), self.world.now)
        self._show(node)

    def do_transfer(self, words: list[str]) -> None:
        node = self._node(words[0])
        refusal = node.core.transfer(int(words[1]), self.world.now)
        if refusal is not None:
            self._say(f"{node.node_id}: refused {refusal.reason}, hint {refusal.hint}")
        self._show(node)

    def do_ack(self, words: list[str]) -> None:
        node = self._node(words[0])
        for _ in range(int(words[1]) if len(words) > 1 else len(node.disk.pending)):
            node.sync()
        self._show(node)

    def do_chunk(self, words: list[str]) -> None:
        node = self._node(words[0])
        for _ in range(len(node.reads)):
            node.answer_read()
        self._show(node)

    def do_time(self, words: list[str]) -> None:
        self.world.now += int(words[0])
        self._say(f"time {self.world.now}")

    def do_timer(self, words: list[str]) -> None:
        for node in self._nodes(words):
            node.core.timer(self.world.now)
            self._show(node)
            self._say(f"{node.node_id}: next timer {node.core.next_timer()}")

    # ---------------------------------------------------------------- network

    def do_deliver(self, words: list[str]) -> None:
        for header, message in self._take(words):
            node = self.world.deliver(header, message)
            if node is not None:
                self._show(node)

    def do_drop(self, words: list[str]) -> None:
        self._take(words)

    def do_duplicate(self, words: list[str]) -> None:
        taken = self._take(words)
        self.world.flight += taken + taken

    def do_flight(self, words: list[str]) -> None:
        for header, message in self.world.flight:
            self._say(
                f"{header.sender}->{header.receiver} term {header.term} {self._describe_message(message)}"
            )

    def do_settle(self, words: list[str]) -> None:
        self.quiet = True
        for _ in range(10_000):
            if not self._move():
                break
        else:
            raise AssertionError("the cluster does not come to rest")
        self.quiet = False

    def _move(self) -> bool:
        moved = bool(self.world.flight)
        self.do_deliver([])
        for node in self.world.nodes.values():
            while node.disk.pending or node.reads:
                moved = True
                if node.disk.pending:
                    node.sync()
                else:
                    node.answer_read()
                self._show(node)
            if node.handed and node.core.applied_index < node.handed[-1].index:
                moved = True
                node.core.applied(node.handed[-1].index)
                self._show(node)
        return moved

    def _take(self, words: list[str]) -> list[tuple[peer.Header, peer.Message]]:
        route = next((word for word in words if "->" in word), "*->*")
        kinds = {word for word in words if "->" not in word}
        sender, receiver = route.split("->")
        taken: list[tuple[peer.Header, peer.Message]] = []
        left: list[tuple[peer.Header, peer.Message]] = []
        for header, message in self.world.flight:
            fits = (
                sender in ("*", str(header.sender))
                and receiver in ("*", str(header.receiver))
                and (not kinds or type(message).__name__ in kinds)
            )
            (taken if fits else left).append((header, message))
        self.world.flight[:] = left
        return taken

    # ---------------------------------------------------------------- what can be seen

    def do_status(self, words: list[str]) -> None:
        for node in self._nodes(words):
            core = node.core
            suspect = ", SUSPECT" if core.suspect else ""
            self._say(
                f"{node.node_id}: {core.role}, term {core.term}, vote {core.vote}, leader {core.leader_id}, "
                f"last {core.last_index}, durable {core.durable_index}, commit {core.commit_index}, "
                f"applied {core.applied_index}, held {core.held_messages}{suspect}"
            )

    def do_entries(self, words: list[str]) -> None:
        for node in self._nodes(words):
            log = node.core._state.log
            terms = " ".join(str(log.term(i)) for i in range(log.purged_index + 1, log.last_index + 1))
            self._say(f"{node.node_id}: terms {terms}")

    def do_clock(self, words: list[str]) -> None:
        node = self._node(words[0])
        self._say(f"{node.node_id}: cluster time {node.core.cluster_time(self.world.now)}")

    def do_progress(self, words: list[str]) -> None:
        lead = self._node(words[0]).core._state.lead
        assert lead is not None
        for to, p in lead.peers.items():
            self._say(
                f"{to}: {p.state}, match {p.match_index}, next {p.next_index}, in flight {len(p.inflight)}"
                f" ({p.inflight_bytes} bytes){', paused' if p.paused else ''}"
            )

    def _show(self, node: Node) -> None:
        output = node.absorb()
        for line in self._describe(node, output):
            self._say(f"{node.node_id}: {line}")

    def _describe(self, node: Node, output: Output) -> list[str]:
        lines = []
        if output.role is not None:
            role = output.role
            lines.append(f"now {role.role}, term {role.term}, leader {role.leader_id}")
        if output.write is not None and not self.quiet:
            write = output.write
            parts = [f"write {write.seq}:"]
            if write.truncate_from:
                parts.append(f"truncate from {write.truncate_from}")
            parts.append(_entries(write.entries))
            if write.hard_state is not None:
                parts.append(f"term {write.hard_state.term} vote {write.hard_state.vote}")
            lines.append(" ".join(part for part in parts if part))
        if not self.quiet:
            lines += [
                f"-> {send.to} term {send.term} {self._describe_message(send.message)}"
                for send in output.messages
            ]
            lines += [f"read log {r.first} to {r.last}" for r in output.read_log]
        if output.committed:
            lines.append(f"committed {_entries(output.committed)}")
        lines += [f"read {read[2]} answered with {index}" for read, index in output.read_answers]
        return lines

    def _describe_message(self, message: peer.Message) -> str:
        name = type(message).__name__
        fields = message._asdict()
        entries = fields.pop("entries", None)
        # What is hardly ever so is said only when it is.
        if not fields.get("low_space"):
            fields.pop("low_space", None)
        text = " ".join(f"{key}={value}" for key, value in fields.items())
        return f"{name} {text}" + ("" if entries is None else f" {_entries(entries) or '(empty)'}")

    # ---------------------------------------------------------------- words

    def _say(self, line: str) -> None:
        self.lines.append(line)

    def _node(self, word: str) -> Node:
        return self.world.nodes[int(word)]

    def _nodes(self, words: list[str]) -> list[Node]:
        return [self._node(word) for word in words] or list(self.world.nodes.values())


def _entries(entries: tuple[Entry, ...]) -> str:
    """A few entries in full, many as a range: index/term and what is in it."""
    if len(entries) > 4:
        return f"{entries[0].index}/{entries[0].term} … {entries[-1].index}/{entries[-1].term}"
    return " ".join(f"{entry.index}/{entry.term}({_content(entry)})" for entry in entries)


def _content(entry: Entry) -> str:
    if entry.kind != KIND_BATCH:
        return KIND_NAMES[entry.kind]
    return entry.payload.decode() if len(entry.payload) <= 20 else f"{len(entry.payload)} bytes"
