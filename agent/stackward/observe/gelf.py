"""Outcomes as GELF 1.1, for Graylog and whoever else speaks it: UDP (compressed, in chunks) or TCP (ended by NUL).

https://go2docs.graylog.org/current/getting_in_log_data/gelf.html
"""

from __future__ import annotations

import json
import os
import socket
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from stackward.core.model import Counts, JobResult, Outcome, display

CHUNK_BYTES = 1420  # of one datagram; fits whatever lies between us and the server
CHUNKS = 128  # GELF's limit
TIMEOUT_SECONDS = 10.0
_MAGIC = b"\x1e\x0f"
_HEADER_BYTES = len(_MAGIC) + 8 + 2
_LEVELS = {Outcome.FAILED: 3, Outcome.WARN: 4}  # syslog's error and warning; 6, informational, for the others

Record = dict[str, Any]


def records(steps: Sequence[tuple[str, JobResult]], *, host: str, at: datetime, trigger: str) -> Iterator[Record]:
    """A record for each job, and one for each stack's part in it."""
    for job, result in steps:
        base = {"version": "1.1", "host": host, "timestamp": round(at.timestamp(), 3), "_job": job, "_trigger": trigger}
        yield {**base, **_outcome(job, result.outcome, result.reasons, result.counts), "_exit_code": result.exit_code}
        for part in result.stacks:
            if not part.stack:
                continue
            name = display(part.stack)
            fields = {"_stack": name, "_artifact": part.artifact, "_standstill_seconds": part.standstill_seconds}
            record = {**base, **_outcome(f"{job} of {name}", part.outcome, part.reasons, part.counts), **fields}
            yield {key: value for key, value in record.items() if value not in (None, "")}


def _outcome(what: str, outcome: Outcome, reasons: Sequence[str], counts: Counts) -> Record:
    first = f": {reasons[0]}" if reasons else ""
    record: Record = {
        "short_message": f"{what} ended {outcome.value}{first}",
        "level": _LEVELS.get(outcome, 6),
        "_outcome": outcome.value,
        "_files": counts.files,
        "_bytes": counts.bytes,
    }
    return {**record, "full_message": "\n".join(reasons)} if len(reasons) > 1 else record


def send(url: str, messages: Sequence[Record]) -> None:
    """Send to `udp://HOST:PORT` or `tcp://HOST:PORT`; raises OSError. Over UDP nobody learns whether it arrived."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    if parts.scheme == "tcp":
        with socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_SECONDS) as connection:
            for message in messages:
                connection.sendall(_json(message) + b"\0")
            connection.shutdown(socket.SHUT_WR)
        return
    family, _, _, _, address = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.settimeout(TIMEOUT_SECONDS)
        for message in messages:
            for datagram in datagrams(message, os.urandom(8)):
                sender.sendto(datagram, address)


def datagrams(message: Record, message_id: bytes) -> list[bytes]:
    """The compressed message, in chunks where it does not fit into one datagram.

    What does not even fit into 128 chunks loses the end of its `full_message`.
    """
    payload = _fitted(message)
    if len(payload) <= CHUNK_BYTES:
        return [payload]
    room = CHUNK_BYTES - _HEADER_BYTES
    parts = [payload[start : start + room] for start in range(0, len(payload), room)]
    return [_MAGIC + message_id + bytes((number, len(parts))) + part for number, part in enumerate(parts)]


def _fitted(message: Record) -> bytes:
    limit = CHUNKS * (CHUNK_BYTES - _HEADER_BYTES)
    payload = zlib.compress(_json(message))
    text = str(message.get("full_message", ""))
    while len(payload) > limit and text:
        text = text[: len(text) // 2]
        payload = zlib.compress(_json({**message, "full_message": f"{text}\n… (left out)"}))
    return payload


def _json(message: Record) -> bytes:
    """ASCII: names that are not UTF-8 are escaped, a NUL too."""
    return json.dumps(message).encode("ascii")
