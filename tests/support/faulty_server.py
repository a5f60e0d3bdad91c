"""A loopback server that answers as Kaggle does (302, Range, ETag), with faults on request."""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

START = "/api/v1/datasets/download/mateuszbuda/lgg-mri-segmentation"
LOGIN_PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"


class FaultyServer(ThreadingHTTPServer):
    """Serves ``body`` at ``url``; ``fault`` hits the first ``times`` requests of the file, then it behaves.

    Faults: truncate, reset, stall (half of the body, then end, cut, silence until ``stopping`` is set), drip (half of
    the body, then a byte now and then), drip-head (a header that does not end), no-range (as truncate, and Range is
    never heeded), replaced (the file changes after the first request), html, or an HTTP status.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, body: bytes, fault: str | None = None, times: int = 1, headers: dict[str, str] | None = None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body, self.fault, self.left, self.extra = body, fault, times, headers or {}
        self.ranges: list[str | None] = []
        self.stopping = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}{START}"

    def __enter__(self) -> "FaultyServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()

    def next_fault(self) -> str | None:
        self.left -= 1
        return self.fault if self.left >= 0 else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == START:
            self._head(302, {"Location": "/bundle/archive.zip?signature=secret", "Content-Length": "0"})
            return
        self.server.ranges.append(self.headers.get("Range"))
        fault = self.server.next_fault()
        if fault and fault.isdigit():
            self._head(int(fault), {"Content-Length": "0", **self.server.extra})
        elif fault == "drip-head":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            self._drip(memoryview(b"x" * 1500))
        elif fault == "html":
            self._head(200, {"Content-Type": "text/html", "Content-Length": str(len(LOGIN_PAGE))})
            self.wfile.write(LOGIN_PAGE)
        else:
            self._file(fault)

    def _file(self, fault: str | None) -> None:
        etag = f'"{hash(self.server.body)}"'
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        if self.server.fault == "no-range" or self.headers.get("If-Range", etag) != etag:
            start = 0
        body, size = memoryview(self.server.body)[start:], len(self.server.body)
        if start >= size:
            self._head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        span = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
        self._head(206 if start else 200, {"Content-Length": str(len(body)), "ETag": etag, **span, **self.server.extra})
        try:
            self._body(body, fault)
        except OSError:
            self.close_connection = True  # the client was killed or lost patience

    def _body(self, body: memoryview, fault: str | None) -> None:
        if fault in ("truncate", "reset", "stall", "drip", "no-range", "replaced"):
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            if fault == "stall":
                self.server.stopping.wait(30)
            if fault == "drip":
                self._drip(body[len(body) // 2 :])
            if fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            if fault == "replaced":
                self.server.body = self.server.body[::-1]
        else:
            self.wfile.write(body)

    def _drip(self, content: memoryview) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client has lost patience
            for place in range(len(content)):
                if self.server.stopping.wait(0.02):
                    break
                self.wfile.write(content[place : place + 1])

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
