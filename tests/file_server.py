"""A server on this machine that serves files in good and bad ways, and remembers what it was asked for."""

from __future__ import annotations

import gzip
import http.server
import io
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


def zipped(text: str) -> bytes:
    """A zip with `text` stored in it many times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("text", text * 100)
    return buffer.getvalue()


class Asked(NamedTuple):
    """A request: `/way/name`, and the first byte that was asked for."""

    way: str
    name: str
    first: int


class Site:
    """Files by name, each at `url(way, name)` for every way of serving that `Handler` has a method for."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self.content = content
        self.asked: list[Asked] = []
        self.sent: dict[str, int] = {}
        self.limit = 0  # bytes that a `cut` answer sends
        self.gate = threading.Event()
        self.port = 0

    def url(self, way: str, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{way}/{name}"

    @property
    def names(self) -> list[str]:
        return [asked.name for asked in self.asked]


@contextmanager
def serving(content: dict[str, bytes]) -> Iterator[Site]:
    """A running server."""
    site = Site(content)
    handler = type("Handler", (Handler,), {"site": site})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        site.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            site.gate.set()
            server.shutdown()
            thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    """Each method that begins with `_` is a way of serving."""

    site: Site

    def do_GET(self) -> None:
        way, name = self.path.strip("/").split("/")
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        self.site.asked.append(Asked(way, name, first))
        getattr(self, f"_{way}")(self.site.content.get(name, b""), first)

    def log_message(self, *arguments: object) -> None:
        """Say nothing: requests would mix with the output of the tests."""

    def _head(self, code: int, length: int | None, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, data: bytes) -> None:
        name = self.path.strip("/").split("/")[1]
        self.site.sent[name] = self.site.sent.get(name, 0) + len(data)
        self.wfile.write(data)

    def _good(self, data: bytes, first: int) -> None:
        """As a server should: a part where one is asked for."""
        if not first:
            self._head(200, len(data))
        elif first >= len(data):
            self._head(416, 0, Content_Range=f"bytes */{len(data)}")
            return
        else:
            self._head(206, len(data) - first, Content_Range=f"bytes {first}-{len(data) - 1}/{len(data)}")
        self._send(data[first:])

    def _whole(self, data: bytes, first: int) -> None:
        """Without parts: always everything."""
        self._head(200, len(data))
        self._send(data)

    def _cut(self, data: bytes, first: int) -> None:
        """The connection breaks off after `limit` bytes, every time."""
        code, more = (206, {"Content_Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}) if first else (200, {})
        self._head(code, len(data) - first, **more)
        self._send(data[first : first + self.site.limit])
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def _short(self, data: bytes, first: int) -> None:
        """Never the last ten bytes, and no parts."""
        self._head(200, len(data))
        self._send(data[:-10])

    def _altered(self, data: bytes, first: int) -> None:
        self._good(b"x" * len(data), first)

    def _longer(self, data: bytes, first: int) -> None:
        self._good(data + b"more", first)

    def _endless(self, data: bytes, first: int) -> None:
        """Without saying how much will come."""
        self._head(200, None)
        self._send(data + b"more")

    def _elsewhere(self, data: bytes, first: int) -> None:
        """Another piece than was asked for."""
        if first:
            self._head(206, len(data) - 1, Content_Range=f"bytes 1-{len(data) - 1}/{len(data)}")
            self._send(data[1:])
        else:
            self._good(data, first)

    def _absent(self, data: bytes, first: int) -> None:
        self.send_error(404)

    def _busy(self, data: bytes, first: int) -> None:
        self.send_error(503)

    def _labelled(self, data: bytes, first: int) -> None:
        """A .gz that is called encoded, as many servers do."""
        assert self.headers["Accept-Encoding"] == "identity"
        self._head(200, len(data), Content_Encoding="gzip")
        self._send(data)

    def _moved(self, data: bytes, first: int) -> None:
        self._head(302, 0, Location=self.path.replace("moved", "good"))

    def _ftp(self, data: bytes, first: int) -> None:
        self._head(302, 0, Location="ftp://127.0.0.1/file")

    def _file(self, data: bytes, first: int) -> None:
        self._head(302, 0, Location="file:///etc/hostname")

    def _circle(self, data: bytes, first: int) -> None:
        self._head(302, 0, Location=self.path)

    def _silent(self, data: bytes, first: int) -> None:
        self.site.gate.wait(20)

    def _slow(self, data: bytes, first: int) -> None:
        """Half of it, and the rest when the gate opens."""
        self._head(200, len(data))
        self._send(data[: len(data) // 2])
        self.wfile.flush()
        self.site.gate.wait(20)
        self._send(data[len(data) // 2 :])


def gzipped(text: str) -> bytes:
    """`text`, compressed."""
    return gzip.compress(text.encode(), mtime=0)
