"""Servers that take what is sent to them, on ports of their own: HTTP, and GELF over UDP and TCP."""

import json
import socket
import struct
import threading
import time
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """What arrived, as (method, path, body); `answer` may sleep, fail, or drip."""

    def __init__(self, answer, bind):
        self.requests = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                receiver.requests.append((self.command, self.path, body))
                answer(self)

            do_GET = do_POST  # noqa: N815 - http.server's names
            do_PUT = do_POST  # noqa: N815

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer((bind, 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.port = self.server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"

    @property
    def documents(self):
        return [json.loads(body) for _, _, body in self.requests]


def fine(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def refuses(handler):
    handler.send_error(500, "out of order")


def hangs(handler):
    """Answers a header line a second, for a minute: no timeout of a single read ends that."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(60):
        try:
            handler.wfile.write(f"X-{number}: still here\r\n".encode())
        except OSError:
            return
        time.sleep(1)


@contextmanager
def http(answer=fine, bind="127.0.0.1"):
    receiver = Receiver(answer, bind)
    thread = threading.Thread(target=receiver.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def receive_gelf_udp(receiver, count, timeout=5):
    """`count` whole messages from a bound UDP socket, their chunks put together in whatever order they come."""
    receiver.settimeout(timeout)
    messages, parts = [], {}
    while len(messages) < count:
        datagram = receiver.recv(65536)
        assert len(datagram) <= 1420
        if datagram[:2] != b"\x1e\x0f":
            messages.append(json.loads(zlib.decompress(datagram)))
            continue
        identity, number, of = struct.unpack("!8sBB", datagram[2:12])
        parts.setdefault(identity, {})[number] = datagram[12:]
        if len(parts[identity]) == of:
            whole = b"".join(part for _, part in sorted(parts.pop(identity).items()))
            messages.append(json.loads(zlib.decompress(whole)))
    return messages


def receive_gelf_tcp(listener):
    """Every message of one connection to its end."""
    listener.settimeout(5)
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(5)
        data = b"".join(iter(lambda: connection.recv(65536), b""))
    *messages, rest = data.split(b"\0")
    assert rest == b""
    return [json.loads(message) for message in messages]
