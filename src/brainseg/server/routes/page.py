"""The page: files that were built into the package, compressed, and kept by browsers as long as they stay right."""

import asyncio
import gzip
import mimetypes
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Receive, Scope, Send

from brainseg.server.layers.head import is_head
from brainseg.server.layers.proxies import route_path
from brainseg.server.pieces import SharedBytes

NO_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>brainseg</title><h1>brainseg</h1>"
    "<p>The server runs, but its page has not been built: <code>make serve</code> builds it.</p>"
    "<p>Research use only. Not for clinical use. <a href=docs>The API</a> is there.</p></html>"
)
HASHED = "/assets/"  # Vite puts a digest of its content into the name of each file there
KEPT_FOR_GOOD = "public, max-age=31536000, immutable"
PACKED = (".css", ".html", ".js", ".json", ".md", ".mjs", ".svg", ".txt", ".wasm", ".webmanifest")
LEVEL = 6  # of gzip: half the time of 9 for a hundredth more bytes; the first visitor waits while 14 MB are packed
_SMALLEST = 1024  # bytes, below which compression saves nothing

mimetypes.add_type("text/javascript", ".mjs")  # Python 3.11 takes it from the system, where it may be missing


def add(app: FastAPI, folder: Path) -> None:
    """Serve the page wherever no route is, so that the methods of routes are told apart from what is not there."""
    if (folder / "index.html").is_file():
        app.router.default = PageFiles(folder)
    else:
        app.get("/", include_in_schema=False)(lambda: HTMLResponse(NO_PAGE))


class PageFiles(StaticFiles):
    """Starlette's files with gzip, each packed once, when the first client takes it, and with Cache-Control."""

    def __init__(self, folder: Path):
        super().__init__(directory=folder, html=True)
        self._packed: dict[str, tuple[tuple[int, int], bytes]] = {}  # by path: what the file was, and its gzip
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__({**scope, "method": "HEAD"} if is_head(scope) else scope, receive, send)

    async def get_response(self, path: str, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            await super().get_response(path, {**scope, "method": "GET"})  # raises 404 where there is no file
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        response = await super().get_response(path, scope)
        if isinstance(response, PackedFile) and scope["method"] == "GET":
            response.fill(await self._read_packed(response.path, response.stamp))
        return response

    def file_response(
        self, full_path: Any, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        asked = Headers(scope=scope)
        kept = KEPT_FOR_GOOD if route_path(scope).startswith(HASHED) else "no-cache"
        plain = FileResponse(full_path, status_code, {"Cache-Control": kept}, stat_result=stat_result)
        response: Response = plain
        if _is_packed(full_path, stat_result):
            plain.headers["Vary"] = "Accept-Encoding"
            if "gzip" in asked.get("accept-encoding", "") and "range" not in asked:
                response = PackedFile(plain, stat_result)
        if self.is_not_modified(response.headers, asked):
            return NotModifiedResponse(response.headers)
        return response

    async def _read_packed(self, path: str, stamp: tuple[int, int]) -> bytes:
        """The gzip of a file. Of many first visitors one has it made in a thread, and the others wait for that.

        ``stamp``: a file that was built again is packed again.
        """
        async with self._locks[path]:
            if path not in self._packed or self._packed[path][0] != stamp:
                self._packed[path] = stamp, await run_in_threadpool(_pack, path)
            return self._packed[path][1]


class PackedFile(SharedBytes):
    """A file with gzip, which is another representation and so has another ETag. It has no body until ``fill``."""

    def __init__(self, plain: FileResponse, found: os.stat_result):
        same = {name: plain.headers[name] for name in ("cache-control", "vary", "last-modified")}
        headers = same | {"Content-Encoding": "gzip", "ETag": f'{plain.headers["etag"][:-1]}-gzip"'}
        super().__init__(b"", plain.status_code, headers, plain.media_type)
        del self.headers["content-length"]  # of HEAD it is not known
        self.path, self.stamp = str(plain.path), (found.st_mtime_ns, found.st_size)

    def fill(self, content: bytes) -> None:
        self.body = content
        self.headers["content-length"] = str(len(content))


def _is_packed(path: str, found: os.stat_result) -> bool:
    return found.st_size >= _SMALLEST and path.lower().endswith(PACKED)


def _pack(path: str) -> bytes:
    """The time within is 0, so that the bytes are the same after each start."""
    return gzip.compress(Path(path).read_bytes(), LEVEL, mtime=0)
