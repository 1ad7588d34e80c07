"""Servers on this machine for the tests of stores: files by HTTP ranges, and a gate of faults before any server."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable

# What a gate does with a request, by its number from 1, method and path: None lets it pass, a number is the status of
# the answer, a word is a fault of the connection.
Fault = Callable[[int, str, str], "int | str | None"]


class Server(http.server.ThreadingHTTPServer):
    """A server that counts requests, and lets those through that its `fault` does not stop."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.fault: Fault = lambda number, method, path: None
        self.headers_seen: list[dict[str, str]] = []
        self.reset()

    def reset(self) -> None:
        """Forget what was asked."""
        self.lock = threading.Lock()
        self.n_requests = 0
        self.stopped = Counter()
        self.asked = Counter()
        self.released = threading.Event()
        self.second = threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def handle_error(self, request, client_address):
        """Say nothing of connections that a client has left."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Asks the gate first."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args):
        pass

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_GET(self):
        server = self.server
        with server.lock:
            server.n_requests += 1
            number = server.n_requests
            server.asked[self.path.partition("?")[0]] += 1
            server.headers_seen.append(dict(self.headers))
        if number == 2:
            server.second.set()
        fault = server.fault(number, self.command, self.path)
        if fault is None:
            self.answer()
            return
        with server.lock:
            server.stopped[fault] += 1
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault == "silence":
            server.released.wait(60)
            self.close_connection = True
        elif fault == "cut":
            self.answer(cut=True)
            self.close_connection = True
        else:
            body = b""
            if fault == 503 and self.command != "HEAD":
                body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
            self.reply(int(fault), {"Retry-After": "0"}, body)

    do_HEAD = do_GET  # noqa: N815
    do_PUT = do_GET  # noqa: N815
    do_POST = do_GET  # noqa: N815

    def reply(self, status, headers, body=b"", length=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer(self, *, cut=False):
        raise NotImplementedError


def files_handler(files: dict[str, bytes], *, ranges: bool = True, tags: bool = True, part: int = 1 << 20):
    """Return a handler that serves these files; `ranges` off gives whole files only."""

    class Files(Handler):
        def answer(self, *, cut=False):
            content = files.get(self.path.partition("?")[0])
            if content is None:
                self.reply(404, {})
                return
            headers = {"ETag": f'"{hash(content)}"'} if tags else {}
            found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")) if ranges else None
            if found is None:
                self.reply(200, headers, content)
                return
            first = int(found[1]) if found[1] else max(0, len(content) - int(found[2]))
            last = min(len(content), int(found[2]) + 1) if found[1] and found[2] else len(content)
            if first >= last:
                self.reply(416, {"Content-Range": f"bytes */{len(content)}"})
                return
            headers["Content-Range"] = f"bytes {first}-{last - 1}/{len(content)}"
            body = content[first:last]
            self.reply(206, headers, body[: len(body) // 2] if cut else body, len(body))

    return Files


def relay_handler(port: int):
    """Return a handler that passes every request on to a server of this machine."""

    class Relay(Handler):
        def answer(self, *, cut=False):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            to = http.client.HTTPConnection("127.0.0.1", port)
            to.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                to.putheader(name, value)
            to.endheaders(body)
            found = to.getresponse()
            content = found.read()
            headers = {
                name: value
                for name, value in found.getheaders()
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server")
            }
            length = int(found.getheader("Content-Length", len(content)))
            to.close()
            self.reply(found.status, headers, content[: len(content) // 2] if cut else content, length)

    return Relay


@contextlib.contextmanager
def serving(handler):
    """Run a server for as long as the context lasts."""
    server = Server(handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
