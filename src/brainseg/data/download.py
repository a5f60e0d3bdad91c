"""One file over HTTP: resumed where it stopped, retried for a limited time, limited in size and slowness.

The part that has arrived lies in ``.brainseg/downloads/`` beside the ETag it belongs to, so that the next run,
even after a kill, continues from there. The caller must verify the bytes.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from filelock import FileLock, Timeout
from tqdm import tqdm

from brainseg import errors, files
from brainseg.data import archive
from brainseg.errors import IntegrityError, MachineError
from brainseg.io import untrusted_zip

BY_HAND = "check the network, or get the archive another way and run: BRAINSEG_MIRROR=/path/to/archive.zip dvc repro"
_CHUNK_BYTES = 2**18
_LONGEST_PAUSE_S = 10.0


class RetryLimits(NamedTuple):
    """How long to try; ``silence_s`` limits the time since the last byte of the file, over all tries and pauses.

    A try may be slower than ``slowest`` for ``slow_s``: a slower body uses them up, a faster one restores them.
    """

    tries: int = 5
    connect_s: float = 3.0
    idle_s: float = 10.0  # without a byte on an open connection
    pause_s: float = 0.5  # before the second try; each further pause is twice as long
    silence_s: float = 50.0
    slowest: int = 8 * 2**10  # bytes a second
    slow_s: float = 60.0


RETRY_LIMITS = RetryLimits()


class _RetryError(Exception):
    def __init__(self, what: str, pause_s: float = 0.0):
        super().__init__(what)
        self.pause_s = min(pause_s, _LONGEST_PAUSE_S)


class _Deadline:
    """How much longer to wait for a byte; every byte restarts the time."""

    def __init__(self, limits: RetryLimits):
        self.limits = limits
        self.restart()

    def restart(self) -> None:
        self._end = time.monotonic() + self.limits.silence_s

    def left_s(self) -> float:
        return max(self._end - time.monotonic(), 0.1)

    def timeouts_s(self) -> tuple[float, float]:
        """For connecting, and for each wait for bytes."""
        return min(self.limits.connect_s, self.left_s()), min(self.limits.idle_s, self.left_s())


class _Pace:
    """Ends a try whose bytes come in time, but too few of them."""

    def __init__(self, limits: RetryLimits):
        self._slowest, self._patience = limits.slowest, limits.slow_s
        self._left, self._last = limits.slow_s, time.monotonic()

    def add(self, size: int) -> None:
        """Count the bytes that have arrived. Raises _RetryError if they are too few for the time."""
        now = time.monotonic()
        earned = size / self._slowest  # a fast start allows no more slowness than slow_s
        self._left, self._last = min(self._patience, self._left - (now - self._last) + earned), now
        if self._left <= 0:
            raise _RetryError(f"less than {self._slowest / 2**10:g} KiB a second arrive")


def fetch(url: str, limits: RetryLimits = RETRY_LIMITS) -> Path:
    """Download ``url``; if an earlier run left the whole file, it is used as it is.

    Returns:
        The file, in ``.brainseg/downloads/``. Call :func:`discard` or :func:`quarantine` when done.

    Raises:
        MachineError: no connection, refused by the server, the disk is full, or another process is downloading it.
        IntegrityError: larger than ``untrusted_zip.MAX_TOTAL_BYTES``.
    """
    with archive.guard_space(files.project_root()):
        whole = find_place(url)
        whole.parent.mkdir(exist_ok=True)
        try:
            with FileLock(whole.with_suffix(".lock"), timeout=0):  # the kernel frees it when the process is killed
                if not whole.exists():
                    _fetch_with_retries(url, whole.with_suffix(".part"), limits)
                    os.replace(whole.with_suffix(".part"), whole)
        except Timeout:
            raise MachineError(
                _redact(url), "another run is fetching it", "wait for that run, then try again"
            ) from None
    return whole


def find_place(url: str) -> Path:
    """Where the file of an address lies when all of it has arrived; until then it ends in ``.part``."""
    return files.state_dir() / "downloads" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.zip"


def ask_size(url: str, seconds: float) -> int:
    """The bytes of a file on its server, which is asked once; 0 if it does not say.

    Raises:
        MachineError: refused.
        TimeoutError: no connection, no answer in time, or one that may be another soon.
    """
    get = partial(requests.get, url, headers={"Accept-Encoding": "identity"}, stream=True, timeout=seconds)
    try:
        with errors.limit(seconds, get) as response:
            _check_status(response)
            return int(response.headers.get("Content-Length", 0))
    except (_RetryError, requests.Timeout, requests.ConnectionError) as error:
        raise TimeoutError(_explain(error)) from None
    except requests.RequestException as error:
        raise MachineError(_redact(url), f"cannot be fetched: {_explain(error)}", BY_HAND) from None


def discard(path: Path) -> None:
    """Remove a fetched file that is no longer needed, and what was kept to resume it."""
    for suffix in (".zip", ".etag", ".lock"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def quarantine(path: Path) -> Path:
    """Move a fetched file that was found bad into ``.brainseg/quarantine/``; returns its new path."""
    place = files.state_dir() / "quarantine" / path.name
    place.parent.mkdir(exist_ok=True)
    os.replace(path, place)
    discard(path)
    return place


def _fetch_with_retries(url: str, part: Path, limits: RetryLimits) -> None:
    deadline = _Deadline(limits)
    for attempt in range(1, limits.tries + 1):
        try:
            return _request(url, part, deadline)
        except (_RetryError, requests.RequestException) as error:
            pause_s = max(limits.pause_s * 2 ** (attempt - 1), getattr(error, "pause_s", 0))
            if attempt == limits.tries or pause_s >= deadline.left_s():
                what = f"cannot be fetched: {_explain(error)}; {attempt} tries"
                raise MachineError(_redact(url), what, BY_HAND) from None
            tqdm.write(f"{_redact(url)}: {_explain(error)}, next try in {pause_s:g} s", file=sys.stderr)
            time.sleep(pause_s)


def _request(url: str, part: Path, deadline: _Deadline) -> None:
    have, etag = _read_kept(part)
    headers = {"Accept-Encoding": "identity"}  # a compressed transfer cannot be resumed at a byte of the file
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    with _ask(url, headers, deadline) as response:
        _check_status(response)
        span = response.headers.get("Content-Range", "")
        if response.status_code == 416 and span == f"bytes */{have}":
            return  # the earlier run stopped after the last byte, before the file got its final name
        resumes = span.startswith(f"bytes {have}-") and response.headers.get("ETag", etag) == etag
        if response.status_code != 200 and not resumes:
            part.unlink(missing_ok=True)
            raise _RetryError("the file on the server has changed")
        start = have if response.status_code == 206 else 0
        if not start:
            part.write_bytes(b"")
            part.with_suffix(".etag").write_text(response.headers.get("ETag", ""))
        _save(response, part, start, deadline)


def _ask(url: str, headers: dict[str, str], deadline: _Deadline) -> requests.Response:
    """The head of the answer. It is limited in all: its bytes may come in time, but never end."""
    get = partial(requests.get, url, headers=headers, stream=True, timeout=deadline.timeouts_s())
    try:
        return errors.limit(deadline.left_s(), get)
    except TimeoutError:
        raise _RetryError("no answer in time") from None


def _read_kept(part: Path) -> tuple[int, str]:
    """Bytes on the disk and the ETag they belong to; 0 without a strong ETag, since only that promises equal bytes."""
    try:
        etag = part.with_suffix(".etag").read_text()
        return (part.stat().st_size, etag) if etag.startswith('"') else (0, "")
    except FileNotFoundError:
        return 0, ""


def _check_status(response: requests.Response) -> None:
    what = f"HTTP {response.status_code} {response.reason}"
    if response.status_code == 429 or response.status_code >= 500:
        wait = response.headers.get("Retry-After", "")
        raise _RetryError(what, float(wait) if wait.isdigit() else 0.0)
    if response.status_code not in (200, 206, 416):
        raise MachineError(_redact(response.url), f"the server answered {what}", BY_HAND)


def _save(response: requests.Response, part: Path, start: int, deadline: _Deadline) -> None:
    length = int(response.headers.get("Content-Length", 0))
    size, total = start, start + length
    try:
        _check_size(response.url, total)
        bar = _create_bar(start, total if length else None)
        with bar, archive.guard_space(part.parent, length), open(part, "ab") as handle:
            pace = _Pace(deadline.limits)
            for chunk in _iterate_arrived(response):
                deadline.restart()
                size += handle.write(chunk)
                handle.flush()  # so that a kill loses nothing that has arrived
                _check_size(response.url, size)
                bar.update(len(chunk))
                pace.add(len(chunk))
    except (MachineError, IntegrityError):
        part.unlink()
        raise
    if length and size != total:
        raise _RetryError(f"the body ended at {size:,} of {total:,} bytes")


def _iterate_arrived(response: requests.Response) -> Iterator[bytes]:
    """The body as it arrives. ``iter_content`` would wait for a whole chunk, for weeks if each byte comes in time."""
    try:
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from None


def _create_bar(start: int, total: int | None) -> tqdm:
    name = "resume" if start else "download"
    return tqdm(desc=name, total=total, initial=start, unit="B", unit_scale=True, mininterval=0.5, disable=None)


def _check_size(url: str, size: int) -> None:
    if size > untrusted_zip.MAX_TOTAL_BYTES:
        limit = f"{untrusted_zip.MAX_TOTAL_BYTES:,} bytes"
        raise IntegrityError(_redact(url), f"is larger than the {limit} that are accepted", "check BRAINSEG_MIRROR")


def _redact(url: str) -> str:
    """The address without passwords or signatures."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _explain(error: Exception) -> str:
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return "the connection broke" if isinstance(error, requests.RequestException) else str(error)
