"""The page: files that were built into the package, compressed, and kept by browsers as long as they stay right."""

import gzip
import mimetypes
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from brainseg.server.layers.proxies import route_path

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
        app.router.default = PageFiles(directory=folder, html=True)
    else:
        app.get("/", include_in_schema=False)(lambda: HTMLResponse(NO_PAGE))


class PageFiles(StaticFiles):
    """Starlette's files with gzip, each packed once, and with Cache-Control."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            await super().get_response(path, {**scope, "method": "GET"})  # raises 404 where there is no file
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        return await super().get_response(path, scope)

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Starlette calls this in a thread, so it is where a file is packed."""
        full_path, found = super().lookup_path(path)
        if found and _is_packed(full_path, found):
            _pack(full_path, found.st_mtime_ns, found.st_size)
        return full_path, found

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
                response = _make_packed(plain, _pack(full_path, stat_result.st_mtime_ns, stat_result.st_size))
        if self.is_not_modified(response.headers, asked):
            return NotModifiedResponse(response.headers)
        return response


def _make_packed(plain: FileResponse, content: bytes) -> Response:
    """The same with gzip, which is another representation and so has another ETag."""
    same = {name: plain.headers[name] for name in ("cache-control", "vary", "last-modified")}
    headers = same | {"Content-Encoding": "gzip", "ETag": f'{plain.headers["etag"][:-1]}-gzip"'}
    return Response(content, plain.status_code, headers, plain.media_type)


def _is_packed(path: str, found: os.stat_result) -> bool:
    return found.st_size >= _SMALLEST and path.lower().endswith(PACKED)


@lru_cache(maxsize=64)
def _pack(path: str, mtime: int, size: int) -> bytes:
    """``mtime`` and ``size``: a file that was built again is packed again."""
    return gzip.compress(Path(path).read_bytes(), LEVEL, mtime=0)
