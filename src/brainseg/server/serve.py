"""``brainseg serve``: the model, the port, the token, the address, and uvicorn with our limits."""

import errno
import ipaddress
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import uvicorn

from brainseg import files
from brainseg.errors import DataError, MachineError
from brainseg.inference import plausibility
from brainseg.inference.predictor import Predictor
from brainseg.reporting import model_card
from brainseg.server.app import OnnxFile, Settings, create_app
from brainseg.server.layers.guard import LOCAL_HOSTS
from brainseg.server.layers.proxies import LOOPBACK, is_prefix, is_trustable
from brainseg.server.layers.records import JsonLines
from brainseg.server.layers.slow_clients import TimeoutProtocol
from brainseg.server.limits import DRAIN_SECONDS

HOSTS, TOKEN, PROXIES = "BRAINSEG_ALLOWED_HOSTS", "BRAINSEG_TOKEN", "BRAINSEG_TRUSTED_PROXIES"
ALL_ADDRESSES = ("0.0.0.0", "::")  # every address of this machine
IDLE_SECONDS = 5  # that a connection stays open for the next request


LogFormat = Literal["text", "json"]


def run(host: str, port: int, model: Path, root_path: str = "", log_format: LogFormat = "text") -> None:
    """Serve until the process is told to stop.

    Args:
        root_path: the path that a proxy gives the server, where the proxy does not tell it.

    Raises:
        MachineError: the port is not available. DataError: ``root_path``, or what the environment says, is not usable.
        IntegrityError: the model is missing or damaged.
    """
    if not is_prefix(root_path):
        raise DataError(f"--root-path {root_path}", "is not the path of a folder", "write it as /brainseg")
    with listen(host, port) as listening:
        predictor = Predictor(model, spin=False)  # decoding needs the same cores
        no_scalp = plausibility.describe_no_scalp(predictor.facts)
        settings = Settings(
            hosts={*LOCAL_HOSTS, *named_hosts(host)},
            token=choose_token(host),
            proxies=choose_proxies(),
            prefix=root_path,
            file=OnnxFile(predictor.session.content, predictor.session.digest),
            card=model_card.render_markdown(model_card.parse_facts(predictor.facts, model)),
            sound=make_unchanged_check(model, predictor.session.digest),
        )
        app = create_app(predictor, partial(plausibility.assess, no_scalp=no_scalp), settings)
        _start_logging(log_format)
        print(f"brainseg: {address(host, listening.getsockname()[1], settings.token, root_path)}", flush=True)
        server_of(app).run([listening])


def _start_logging(log_format: LogFormat) -> None:
    """Log our own lines and uvicorn's warnings. Other libraries stay silent, because they may quote an upload."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.CRITICAL, handlers=[handler])
    logging.getLogger("brainseg.server").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def server_of(app: Callable) -> uvicorn.Server:
    """uvicorn with our limits and without its access log."""
    config = uvicorn.Config(
        app, http=TimeoutProtocol, ws="none", lifespan="on", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=IDLE_SECONDS, timeout_graceful_shutdown=DRAIN_SECONDS,
    )  # fmt: skip
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host`` and ``port``. Raises MachineError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = f"stop the program that uses it, or use another port: brainseg serve --port {port + 1}"
            raise MachineError(f"port {port}", "is taken", fix) from None
        if error.errno == errno.EACCES:
            raise MachineError(f"port {port}", "needs administrator rights", "brainseg serve --port 5000") from None
        what = f"is not an address of this machine ({error.strerror})"
        raise MachineError(host, what, "brainseg serve --host 127.0.0.1, or 0.0.0.0 for all addresses") from None


def is_local(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def named_hosts(host: str) -> set[str]:
    """More names for the Host header: the address the server listens on, and those in the environment."""
    named = {name.strip().lower() for name in os.environ.get(HOSTS, "").split(",")}
    return {name for name in (*named, host) if name and name not in ALL_ADDRESSES}


def choose_token(host: str) -> str | None:
    """The token in the environment; else a new one, or None if only this machine can reach ``host``.

    A local server behind a proxy needs the one in the environment.

    Raises:
        DataError: it has characters that a header cannot carry.
    """
    given = os.environ.get(TOKEN, "")
    if not all("!" <= character <= "~" for character in given):
        raise DataError(
            TOKEN, "has spaces or characters that are not ASCII", "use letters and digits: openssl rand -hex 24"
        )
    return given or (None if is_local(host) else secrets.token_urlsafe(24))


def choose_proxies() -> str:
    """The addresses and networks whose X-Forwarded headers are believed: those in the environment, else this machine.

    Raises:
        DataError: they are not addresses.
    """
    given = os.environ.get(PROXIES, "") or LOOPBACK
    if not is_trustable(given):
        fix = "write addresses or networks, separated by commas: 10.0.0.7,172.16.0.0/12"
        raise DataError(PROXIES, "holds something that is not an address", fix)
    return given


def address(host: str, port: int, token: str | None, prefix: str = "") -> str:
    """The address to open. The page moves the token, if any, into a cookie, which holds below ``prefix`` alone.

    The token stands behind #, which browsers keep to themselves: it gets into no log on the way.
    """
    name = f"[{host}]" if ":" in host else host
    shown = "localhost" if host in ("", *ALL_ADDRESSES, *LOCAL_HOSTS) else name
    return f"http://{shown}:{port}{prefix.rstrip('/')}/" + (f"#token={quote(token, safe='')}" if token else "")


def make_unchanged_check(path: Path, digest: str) -> Callable[[], bool]:
    """A function that tells whether the file at ``path`` has this digest, that of the bytes that were loaded.

    It reads the file the first time, and again if date or size differ.
    """
    known: tuple[int, ...] | None = None

    def check() -> bool:
        nonlocal known
        now = _stamp(path)
        if now != known and now is not None and _digest(path) == digest:
            known = now
        return now is not None and now == known

    return check


def _digest(path: Path) -> str:
    """Empty if the file cannot be read."""
    try:
        return files.sha256(path)
    except OSError:
        return ""


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
