"""The host bridge: asks the host's systemd to start, stop and restart stacks, and the host for facts about itself.

One connection a request, one line in (`VERB` or `VERB UNIT`), lines out, the last of which begins with `ok` or `error`.
The other side is host-units/bridge; docs/host-units.md has the protocol.
"""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stackward.core.errors import StackwardError
from stackward.core.exposure import Listener
from stackward.core.model import display

if TYPE_CHECKING:
    from pathlib import Path

SOCKET = "host.sock"
# What host-units/install writes into its record, below the directory of settings.
_RECORD = "host-units/record"
_ROTATES = "the host rotates the logs"
# The units' own limits are 5 minutes for a stop and 15 for a start; the bridge gives up after 30.
ACT_SECONDS = 31 * 60.0
ASK_SECONDS = 30.0
FACTS_SECONDS = 120.0
_ANSWER_BYTES = 8 << 20
_CHUNK = 1 << 16
_PROTOCOL = "stackward-host 1"
_LISTENER = re.compile(
    r"(?P<protocol>\w+)\s+\S+\s+\d+\s+\d+\s+(?P<address>\S+):(?P<port>\d+)\s+\S+(?:\s+(?P<users>.*))?"
)
_PROGRAM = re.compile(r'\("((?:[^"\\]|\\.)*)",pid=\d+')


class BridgeUnavailableError(StackwardError):
    """Nobody answers at the socket, and nothing was asked of the host: `docker compose` may be used instead."""


class BridgeError(StackwardError):
    """The host was asked and did not do it; `lines` are its reasons, such as the last of the unit's journal."""

    def __init__(self, message: str, *, lines: tuple[str, ...] = (), hint: str = "") -> None:
        self.lines = lines
        super().__init__(message, hint=hint)


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is what stands behind `ok` in the last line, `lines` are those before it."""

    text: str
    lines: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, str]:
        """The lines of the form NAME=VALUE."""
        return dict(line.split("=", 1) for line in self.lines if "=" in line)


@dataclass(frozen=True, slots=True)
class HostInfo:
    """What the bridge says of itself. `compose` is the version of the host's own Compose, "" where there is none."""

    docker_root: str
    compose: str


@dataclass(frozen=True, slots=True)
class UnitState:
    """A unit as systemd has it; the words are systemd's. `changed_at` is when it became so."""

    name: str
    load: str
    active: str
    sub: str
    enabled: str
    result: str
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What only the host itself can see.

    `disks` is the tree that lsblk prints as JSON, `smart` what smartctl says of each disk by its path. `missing` names
    the programs that the host lacks to tell more.
    """

    failed_units: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    disks: tuple[dict[str, Any], ...] = ()
    smart: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bridge:
    """The bridge whose socket lies in `directory`. `act_seconds` is how long a start or stop may take."""

    directory: Path
    act_seconds: float = ACT_SECONDS
    ask_seconds: float = ASK_SECONDS

    def ping(self) -> HostInfo:
        """Raises BridgeUnavailableError also where something else answers, or nothing in time."""
        try:
            answer = self._request("ping", self.ask_seconds)
        except BridgeError as error:
            raise BridgeUnavailableError(f"the host bridge does not work: {error.message}", hint=error.hint) from error
        if answer.text != _PROTOCOL:
            raise BridgeUnavailableError(
                f"the host bridge speaks another language: {answer.text or 'nothing'}",
                hint="run host-units/install of this version on the host",
            )
        return HostInfo(answer.values.get("docker-root", ""), answer.values.get("compose", "").removeprefix("v"))

    def show(self, unit: str) -> UnitState:
        answer = self._request(f"show {unit}", self.ask_seconds)
        said = answer.values
        stamp = said.get("StateChangeTimestamp", "").removeprefix("@")
        return UnitState(
            unit,
            said.get("LoadState", ""),
            said.get("ActiveState", ""),
            said.get("SubState", ""),
            said.get("UnitFileState", ""),
            said.get("Result", ""),
            datetime.fromtimestamp(int(stamp), UTC) if stamp.isdecimal() else None,
        )

    def start(self, unit: str) -> Answer:
        """Bring the stack up as its compose file has it now; also one that counts as started already.

        Raises:
            BridgeError: it failed; the lines have the last of its journal.
            BridgeUnavailableError: nobody was asked.
        """
        return self._request(f"start {unit}", self.act_seconds)

    def stop(self, unit: str) -> Answer:
        """Raises as `start`. An answer `queued` means that it is the appliance's own stack, which goes down now."""
        return self._request(f"stop {unit}", self.act_seconds)

    def restart(self, unit: str) -> Answer:
        """Raises and answers as `stop`."""
        return self._request(f"restart {unit}", self.act_seconds)

    def reset_failed(self, unit: str) -> Answer:
        return self._request(f"reset-failed {unit}", self.ask_seconds)

    def facts(self) -> HostFacts:
        """Raises as `start`. What the host could not tell is empty."""
        return _facts(self._request("facts", FACTS_SECONDS).lines)

    def _request(self, line: str, limit_seconds: float) -> Answer:
        deadline = time.monotonic() + limit_seconds
        with _connected(self.directory / SOCKET) as connection:
            try:
                connection.settimeout(_left(deadline))
                connection.sendall(line.encode() + b"\n")
                received = _receive(connection, deadline)
            except TimeoutError as error:
                raise BridgeError(
                    f"{line}: the host did not answer within {limit_seconds:.0f} s",
                    hint="on the host, `systemctl list-jobs` shows what it is waiting for",
                ) from error
            except OSError as error:
                raise BridgeError(f"{line}: the bridge hung up: {error.strerror}", hint=_LOOK) from error
        return _answer(line, received)


def host_rotates_logs(config_dir: Path) -> bool:
    """Whether host-units/install gave the log files to the host's own logrotate: then nobody else may rotate them."""
    try:
        return _ROTATES in (config_dir / _RECORD).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False


_LOOK = "on the host, `journalctl -t stackward-host` says why"


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(5)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        absent = isinstance(error, FileNotFoundError)
        why = "it is not installed" if absent else error.strerror or str(error)
        hint = (
            "run host-units/install on the host" if absent else "on the host: systemctl restart stackward-host.socket"
        )
        raise BridgeUnavailableError(f"the host bridge does not answer at {display(path)}: {why}", hint=hint) from error
    return connection


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _receive(connection: socket.socket, deadline: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while size < _ANSWER_BYTES:
        connection.settimeout(_left(deadline))
        if not (chunk := connection.recv(_CHUNK)):
            break
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


def _answer(line: str, received: bytes) -> Answer:
    """Only the last line counts: a journal may hold lines that look like an answer."""
    *lines, last = received.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n")
    word, _, text = last.partition(" ")
    if not received.endswith(b"\n") or word not in ("ok", "error"):
        raise BridgeError(f"{line}: the bridge ended without an answer", lines=(*lines, last), hint=_LOOK)
    if word == "error":
        raise BridgeError(text, lines=tuple(lines))
    return Answer(text, tuple(lines))


def _facts(lines: tuple[str, ...]) -> HostFacts:
    found: dict[str, list[str]] = {}
    for line in lines:
        kind, _, rest = line.partition(" ")
        found.setdefault(kind, []).append(rest.strip())
    smart = (said.partition(" ") for said in found.get("smart", []))
    disks = [_document(text).get("blockdevices", []) for text in found.get("disks", [])]
    return HostFacts(
        failed_units=tuple(found.get("failed", [])),
        listeners=tuple(listener for text in found.get("listener", []) if (listener := _listener(text))),
        disks=tuple(disk for tree in disks for disk in tree),
        smart={path: document for path, _, text in smart if (document := _document(text))},
        missing=tuple(dict.fromkeys(found.get("missing", []))),
    )


def _listener(text: str) -> Listener | None:
    """A line of `ss -H -l -n -t -u -p`."""
    match = _LISTENER.fullmatch(text)
    if match is None:
        return None
    programs = tuple(dict.fromkeys(_PROGRAM.findall(match["users"] or "")))
    return Listener(match["protocol"], match["address"].strip("[]"), int(match["port"]), programs)


def _document(text: str) -> dict[str, Any]:
    try:
        loaded = json.loads(text)
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
