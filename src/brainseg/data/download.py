"""One file over HTTP: resumed where it stopped, retried with patience, limited in size.

The part that is here lies in ``.brainseg/downloads/`` beside the ETag it belongs to, so that the next run,
even after a kill, goes on from there. What the bytes are worth is for the caller to verify.
"""

import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from brainseg import files
from brainseg.data import archive
from brainseg.errors import IntegrityError, MachineError
from brainseg.io import untrusted_zip

BY_HAND = "check the network, or get the archive another way and run: BRAINSEG_MIRROR=/path/to/archive.zip dvc repro"
_CHUNK_BYTES = 2**18
_LONGEST_PAUSE_S = 10.0


class Patience(NamedTuple):
    """How long to try; ``silence_s`` bounds all tries and pauses together since the last byte of the file."""

    tries: int = 5
    connect_s: float = 3.0
    idle_s: float = 10.0  # a connection without a byte
    pause_s: float = 0.5  # before the second try, then doubled
    silence_s: float = 50.0


PATIENCE = Patience()


class _TryAgainError(Exception):
    def __init__(self, what: str, pause_s: float = 0.0):
        super().__init__(what)
        self.pause_s = min(pause_s, _LONGEST_PAUSE_S)


class _Silence:
    """The time that may still pass without a byte."""

    def __init__(self, patience: Patience):
        self._patience = patience
        self.broken()

    def broken(self) -> None:
        self._end = time.monotonic() + self._patience.silence_s

    def left_s(self) -> float:
        return max(self._end - time.monotonic(), 0.1)

    def timeouts_s(self) -> tuple[float, float]:
        """For connecting, and for each wait for bytes."""
        return min(self._patience.connect_s, self.left_s()), min(self._patience.idle_s, self.left_s())


def fetch(url: str, patience: Patience = PATIENCE) -> Path:
    """Download ``url``; a whole file that an earlier run has left is taken as it is.

    Returns:
        The file, in ``.brainseg/downloads/``. Call :func:`discard` or :func:`quarantine` when done.

    Raises:
        MachineError: out of reach, refused, no room on the disk, or another process is at it.
        IntegrityError: larger than ``untrusted_zip.MAX_TOTAL_BYTES``.
    """
    with archive.room(files.project_root()):
        folder = files.state_dir() / "downloads"
        folder.mkdir(exist_ok=True)
        whole = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.zip"
        with _alone(whole.with_suffix(".lock"), url):
            if not whole.exists():
                _persist(url, whole.with_suffix(".part"), patience)
                os.replace(whole.with_suffix(".part"), whole)
    return whole


def discard(path: Path) -> None:
    """Remove a fetched file that has served its purpose, and what was kept to resume it."""
    for suffix in (".zip", ".etag", ".lock"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def quarantine(path: Path) -> Path:
    """Move a fetched file that proved bad out of the way; returns where it is now."""
    place = files.state_dir() / "quarantine" / path.name
    place.parent.mkdir(exist_ok=True)
    os.replace(path, place)
    discard(path)
    return place


@contextmanager
def _alone(lock: Path, url: str) -> Iterator[None]:
    with open(lock, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MachineError(_shown(url), "another run is fetching it", "wait for that run, then try again") from None
        yield


def _persist(url: str, part: Path, patience: Patience) -> None:
    silence = _Silence(patience)
    for attempt in range(1, patience.tries + 1):
        try:
            return _attempt(url, part, silence)
        except (_TryAgainError, requests.RequestException) as error:
            pause_s = max(patience.pause_s * 2 ** (attempt - 1), getattr(error, "pause_s", 0))
            if attempt == patience.tries or pause_s >= silence.left_s():
                what = f"cannot be fetched: {_reason(error)}; {attempt} tries"
                raise MachineError(_shown(url), what, BY_HAND) from None
            tqdm.write(f"{_shown(url)}: {_reason(error)}, next try in {pause_s:g} s", file=sys.stderr)
            time.sleep(pause_s)


def _attempt(url: str, part: Path, silence: _Silence) -> None:
    have, etag = _kept(part)
    headers = {"Accept-Encoding": "identity"}  # a packed transfer has no offsets to resume at
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    with requests.get(url, headers=headers, stream=True, timeout=silence.timeouts_s()) as response:
        _check_status(response)
        span = response.headers.get("Content-Range", "")
        if response.status_code == 416 and span == f"bytes */{have}":
            return  # stopped between the last byte and the renaming
        resumes = span.startswith(f"bytes {have}-") and response.headers.get("ETag", etag) == etag
        if response.status_code != 200 and not resumes:
            part.unlink(missing_ok=True)
            raise _TryAgainError("the file on the server is another one now")
        start = have if response.status_code == 206 else 0
        if not start:
            part.write_bytes(b"")
            part.with_suffix(".etag").write_text(response.headers.get("ETag", ""))
        _save(response, part, start, silence)


def _kept(part: Path) -> tuple[int, str]:
    """Bytes here and the ETag they belong to; nothing is kept without one that promises equal bytes."""
    try:
        etag = part.with_suffix(".etag").read_text()
        return (part.stat().st_size, etag) if etag.startswith('"') else (0, "")
    except FileNotFoundError:
        return 0, ""


def _check_status(response: requests.Response) -> None:
    what = f"HTTP {response.status_code} {response.reason}"
    if response.status_code == 429 or response.status_code >= 500:
        wait = response.headers.get("Retry-After", "")
        raise _TryAgainError(what, float(wait) if wait.isdigit() else 0.0)
    if response.status_code not in (200, 206, 416):
        raise MachineError(_shown(response.url), f"the server answered {what}", BY_HAND)


def _save(response: requests.Response, part: Path, start: int, silence: _Silence) -> None:
    length = int(response.headers.get("Content-Length", 0))
    size, total = start, start + length
    try:
        _check_size(response.url, total)
        bar = _bar(start, total if length else None)
        with bar, archive.room(part.parent, length), open(part, "ab") as handle:
            for chunk in response.iter_content(_CHUNK_BYTES):
                silence.broken()
                size += handle.write(chunk)
                _check_size(response.url, size)
                bar.update(len(chunk))
    except (MachineError, IntegrityError):
        part.unlink()
        raise
    if length and size != total:
        raise _TryAgainError(f"the body ended at {size:,} of {total:,} bytes")


def _bar(start: int, total: int | None) -> tqdm:
    name = "resume" if start else "download"
    return tqdm(desc=name, total=total, initial=start, unit="B", unit_scale=True, mininterval=0.5, disable=None)


def _check_size(url: str, size: int) -> None:
    if size > untrusted_zip.MAX_TOTAL_BYTES:
        limit = f"{untrusted_zip.MAX_TOTAL_BYTES:,} bytes"
        raise IntegrityError(_shown(url), f"is larger than the {limit} that are accepted", "check BRAINSEG_MIRROR")


def _shown(url: str) -> str:
    """The address without passwords or signatures."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return "the connection broke" if isinstance(error, requests.RequestException) else str(error)
