"""A server on loopback that misbehaves as told, and archives for it to serve."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Fault = Callable[["Handler", bytes], None]


def tgz(members: Mapping[str, bytes] | None = None, extra: Callable[[tarfile.TarFile], None] | None = None) -> bytes:
    """An archive of these files, and of what `extra` adds; as large as they are, for nothing is compressed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=0) as tar:
        for name, content in (members or {}).items():
            add(tar, name, content)
        if extra is not None:
            extra(tar)
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **attributes: Any) -> None:
    """A member; `attributes` are those of tarfile.TarInfo."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in attributes.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def noise(n_bytes: int, seed: int = 0) -> bytes:
    """Bytes that do not compress."""
    pieces = (hashlib.sha256(f"{seed}/{i}".encode()).digest() for i in range(n_bytes // 32 + 1))
    return b"".join(pieces)[:n_bytes]


def repacked(change: Callable[[bytearray], object], archive: bytes) -> bytes:
    """The archive with its tar altered, in a gzip that is whole."""
    tar = bytearray(gzip.decompress(archive))
    change(tar)
    return gzip.compress(bytes(tar), 1)


@dataclass
class Served:
    """A file of the server: its faults are used up one by one by GET requests, then it is served well."""

    data: bytes
    etag: str | None = '"one"'
    modified: str | None = None
    faults: list[Fault] = field(default_factory=list)
    head_faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None


class Handler(BaseHTTPRequestHandler):
    """Serves ranges and honours If-Range, but for the file's faults."""

    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.noting:
            self.server.asked.append((self.command, self.path, headers))
        file = self.server.files.get(self.path)
        if file is None:
            self.send_error(404)
            return
        faults = file.head_faults if self.command == "HEAD" else file.faults
        if faults:
            faults.pop(0)(self, file.data)
        elif file.always and self.command == "GET":
            file.always(self, file.data)
        else:
            self.whole(file.data)

    def start_of(self, data: bytes) -> int:
        """The first byte that the request wants: 0 if it names a version of the file that is none."""
        file, wanted = self.server.files[self.path], self.headers.get("Range", "bytes=0-")
        version = self.headers.get("If-Range")
        if version is not None and version not in (file.etag, file.modified):
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def whole(self, data: bytes, body: bytes | None = None, length: int | None = None) -> None:
        """A proper answer, but for a body or length of one's own."""
        start = self.start_of(data)
        if start >= len(data) and start:
            self.send_error(416)
            return
        self.begin(206 if start else 200, start, len(data), len(data) - start if length is None else length)
        if self.command == "GET":
            self.wfile.write(data[start:] if body is None else body)

    def begin(self, status: int, start: int, total: int, length: int | None) -> None:
        file = self.server.files[self.path]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if length is not None:
            self.send_header("Content-Length", str(length))
        if file.etag:
            self.send_header("ETag", file.etag)
        if file.modified:
            self.send_header("Last-Modified", file.modified)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    """`asked` are all requests (method, path, headers in small letters); `over` ends stalls."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.over, self.noting = threading.Event(), threading.Lock()
        self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def gets(self, part: str = "") -> list[dict[str, str]]:
        """The headers of all GET requests for paths with this in them."""
        return [headers for method, path, headers in self.asked if method == "GET" and part in path]

    def ycb(self, name: str, part: str, data: bytes, **more: Any) -> Served:
        path = f"/berkeley/{name}/{name}_berkeley_{part}.tgz"
        self.files[path] = Served(data, **more)
        return self.files[path]

    def handle_error(self, *_: object) -> None:
        """A client that leaves early is no news."""


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


def cut(n_bytes: int) -> Fault:
    """The connection ends after so many bytes of the body."""

    def fault(handler: Handler, data: bytes) -> None:
        start = handler.start_of(data)
        handler.whole(data, data[start : start + n_bytes])

    return fault


def stall(n_bytes: int) -> Fault:
    """Nothing more comes after so many bytes."""

    def fault(handler: Handler, data: bytes) -> None:
        cut(n_bytes)(handler, data)
        handler.wfile.flush()
        handler.server.over.wait(20)

    return fault


def drip(handler: Handler, data: bytes) -> None:
    """One byte at a time, so that no single read waits for long."""
    handler.whole(data, b"")
    for index in range(len(data)):
        handler.wfile.write(data[index : index + 1])
        if handler.server.over.wait(0.02):
            return


def status(code: int, **headers: str) -> Fault:
    """An answer with this status and nothing else."""

    def fault(handler: Handler, data: bytes) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def no_ranges(handler: Handler, data: bytes) -> None:
    """All of it, whatever range was asked for."""
    handler.begin(200, 0, len(data), len(data))
    handler.wfile.write(data)


def sent(text: bytes) -> Fault:
    """These very bytes in place of an answer."""

    def fault(handler: Handler, data: bytes) -> None:
        handler.wfile.write(text)

    return fault


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but for the note of what was downloaded."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".downloaded.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
