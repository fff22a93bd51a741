"""A proxy in front of a store on loopback, which loses answers, or does worse."""

from __future__ import annotations

import http.client
import http.server
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple


class Request(NamedTuple):
    """What was asked.

    Attributes:
        method: "PUT", for instance.
        path: with the query.
        is_conditional: whether it is to be done only if nothing is there.
        is_copy: whether it is of what the service has already.
        nbytes: of its body.
    """

    method: str
    path: str
    is_conditional: bool
    is_copy: bool
    nbytes: int


class Proxy:
    """Hands requests on, one connection each.

    Attributes:
        port: it listens at, on loopback.
        requests: all that came, in order.
        loses: of a request's place in that list, and itself, whether its answer gets lost.
        refuses: the same, with what status it is refused; 0: it is handed on.
        strips_conditions: whether conditional requests are made unconditional, as bad stores do.
    """

    def __init__(self, port: int) -> None:
        """In front of what listens at that port."""
        self.requests: list[Request] = []
        self.loses: Callable[[int, Request], bool] = lambda _at, _request: False
        self.refuses: Callable[[int, Request], int] = lambda _at, _request: 0
        self.strips_conditions = False
        self._behind = port
        self._mutex = threading.Lock()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                proxy._answer(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        headers = {
            name: value
            for name, value in handler.headers.items()
            if not (self.strips_conditions and name.lower() == "if-none-match")
        }
        names = {name.lower() for name in handler.headers}
        is_conditional, is_copy = "if-none-match" in names, "x-amz-copy-source" in names
        request = Request(handler.command, handler.path, is_conditional, is_copy, len(body))
        with self._mutex:
            at = len(self.requests)
            self.requests.append(request)
        if status := self.refuses(at, request):
            _reply(handler, status, {}, b"")
            return
        connection = http.client.HTTPConnection("127.0.0.1", self._behind)
        try:
            connection.request(handler.command, handler.path, body, headers)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if self.loses(at, request):
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        length = response.getheader("content-length") if handler.command == "HEAD" else None
        _reply(handler, response.status, dict(response.getheaders()), data, length)


def _reply(
    handler: http.server.BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str],
    data: bytes,
    length: str | None = None,
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
            handler.send_header(name, value)
    handler.send_header("content-length", length or str(len(data)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data)
