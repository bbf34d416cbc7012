"""HTTP for a few readers: GET only, nothing is stored, whoever is slow is hung up on."""

from __future__ import annotations

import logging
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from stackward.core.errors import StackwardError

if TYPE_CHECKING:
    from stackward.web.pages import Pages

_LOG = logging.getLogger("stackward.web")
_READERS = 16  # more at once are hung up on: a scrape takes milliseconds
_PATIENCE_SECONDS = 10


class Server:
    """Serves `pages` in threads of its own from `with` to its end."""

    def __init__(self, address: tuple[str, int], pages: Pages) -> None:
        """Raises StackwardError where the address cannot be listened on."""
        self._pages = pages
        handler = type("Handler", (_Handler,), {"pages": pages})
        kind = _ServerV6 if ":" in address[0] else _Server
        try:
            self._server = kind(address, handler)
        except OSError as error:
            raise StackwardError(
                f"cannot listen on {address[0]} port {address[1]}: {error.strerror or error}",
                hint="set STACKWARD_LISTEN to a free port of this container",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="web", daemon=True)

    @property
    def address(self) -> str:
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._pages.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._readers = threading.BoundedSemaphore(_READERS)
        super().__init__(*arguments)

    def server_bind(self) -> None:
        """As the parent's parent: a name for the address is not looked up, since that can take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._readers.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._readers.release()

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """A reader that went away is no news; anything else is."""
        _LOG.debug("lost %s", client_address, exc_info=True)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    pages: Pages
    timeout = _PATIENCE_SECONDS
    server_version = "stackward"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        self._answer(page.status, page.content_type, page.body)

    def __getattr__(self, name: str) -> Any:
        """Every other method is one that is not allowed, and not one that is not known."""
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        self.close_connection = True
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", b"GET only\n", ("Allow", "GET"))

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - http.server's name
        _LOG.debug(format, *arguments)
