"""`python -m stackward.tools.proxy LISTEN:HOST:PORT …`: lets connections into a network that has no other way in.

It runs in a container of its own beside a staging instance. A name is looked up at each connection, since what has it may
start later and get another address. Without a way it only waits: then it is a place to probe from.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress

_CHUNK = 1 << 16
_CONNECT_SECONDS = 10.0


async def serve(ways: Sequence[tuple[int, str, int]], ready: asyncio.Event | None = None) -> None:
    """Hand on connections until cancelled. `ready` is set when every port listens."""
    servers = [await asyncio.start_server(_Way(host, port), port=listen) for listen, host, port in ways]
    try:
        if ready is not None:
            ready.set()
        await asyncio.get_running_loop().create_future()
    finally:
        for server in servers:
            server.close()


def parse(word: str) -> tuple[int, str, int]:
    """`20000:web:80`. Raises ValueError."""
    listen, host, port = word.split(":")
    return int(listen), host, int(port)


class _Way:
    """Where connections to one port are handed on to."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            connecting = asyncio.open_connection(self._host, self._port)
            far_reader, far_writer = await asyncio.wait_for(connecting, _CONNECT_SECONDS)
        except (OSError, TimeoutError):
            writer.close()
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        for one in (writer, far_writer):
            one.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until its sender has said all; the other goes on."""
    with suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


def main() -> int:
    with suppress(KeyboardInterrupt):
        asyncio.run(serve([parse(word) for word in sys.argv[1:]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
