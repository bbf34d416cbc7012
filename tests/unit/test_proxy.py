"""The way into a staging instance, and the probe that looks whether a service answers: real sockets."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
from contextlib import contextmanager

import pytest

from stackward.tools.proxy import parse, serve
from stackward.tools.web_probe import probe


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({"/health": 200, "/moved": 302, "/": 404}.get(self.path, 500))
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


@contextmanager
def web():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def exchange(listen: int, target: int, request: bytes) -> bytes:
    ready = asyncio.Event()
    serving = asyncio.create_task(serve([(listen, "127.0.0.1", target)], ready))
    await ready.wait()
    reader, writer = await asyncio.open_connection("127.0.0.1", listen)
    writer.write(request)
    writer.write_eof()
    said = await reader.read()
    writer.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return said


def test_a_connection_is_handed_on_in_both_directions():
    with web() as port:
        said = asyncio.run(exchange(free_port(), port, b"GET /health HTTP/1.0\r\n\r\n"))
    assert said.startswith(b"HTTP/1.0 200")
    assert said.endswith(b"hello")


def test_a_service_that_is_not_there_ends_the_connection():
    assert asyncio.run(exchange(free_port(), free_port(), b"x")) == b""


def test_a_way_is_read_as_it_is_written():
    assert parse("20000:web:80") == (20000, "web", 80)


@pytest.mark.parametrize(
    ("path", "good"), [("/health", True), ("/moved", True), ("/broken", False), ("/", False), ("", True)]
)
def test_what_counts_as_an_answer(path, good):
    with web() as port:
        assert probe("127.0.0.1", port, path)[0] is good


def test_nobody_listening_is_no_answer():
    good, said = probe("127.0.0.1", free_port())
    assert not good
    assert "takes no connection" in said


def test_a_port_without_http_is_well_unless_a_path_is_asked_for():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            for _ in range(2):
                connection, _address = server.accept()
                connection.recv(100)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        port = server.getsockname()[1]
        assert probe("127.0.0.1", port) == (True, f"127.0.0.1:{port} takes connections")
        assert probe("127.0.0.1", port, "/health")[0] is False
        thread.join()
