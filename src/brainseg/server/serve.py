"""``brainseg serve``: the model, the port, the token and the address, and uvicorn with the limits it needs."""

import errno
import ipaddress
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import uvicorn

from brainseg import files
from brainseg.errors import DataError, MachineError
from brainseg.inference import plausibility
from brainseg.inference.predictor import Predictor
from brainseg.reporting import model_card
from brainseg.server.access import LOCAL
from brainseg.server.app import Settings, create_app
from brainseg.server.limits import DRAIN_SECONDS
from brainseg.server.slow_clients import PatientProtocol

HOSTS, TOKEN = "BRAINSEG_ALLOWED_HOSTS", "BRAINSEG_TOKEN"
ANYWHERE = ("0.0.0.0", "::")  # all addresses of this machine
IDLE_SECONDS = 5  # that a connection stays open for a next request


def run(host: str, port: int, model: Path) -> None:
    """Serve until the process is told to stop.

    Raises:
        MachineError: the port cannot be had. DataError: the environment's token is of no use.
        IntegrityError: there is no such model, or it is not what it says.
    """
    with listen(host, port) as listening:
        predictor = Predictor(model, spin=False)  # requests are decoded on the same cores
        settings = Settings(
            hosts={*LOCAL, *named_hosts(host)},
            token=token_for(host),
            card=model_card.markdown(predictor.facts),
            sound=unchanged(model),
        )
        app = create_app(predictor, plausibility.judge, settings)
        _start_logging()
        print(f"brainseg: {address(host, listening.getsockname()[1], settings.token)}", flush=True)
        server_of(app).run([listening])


def _start_logging() -> None:
    """Our own lines and uvicorn's troubles. Other libraries are silent, for they may quote what was sent."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.CRITICAL, stream=sys.stderr)
    logging.getLogger("brainseg.server").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def server_of(app: Callable) -> uvicorn.Server:
    """uvicorn with our limits, quiet about who asks for what."""
    config = uvicorn.Config(
        app, http=PatientProtocol, ws="none", lifespan="on", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=IDLE_SECONDS, timeout_graceful_shutdown=DRAIN_SECONDS,
    )  # fmt: skip
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises MachineError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = f"stop what listens there, or take another: brainseg serve --port {port + 1}"
            raise MachineError(f"port {port}", "is taken", fix) from None
        if error.errno == errno.EACCES:
            raise MachineError(f"port {port}", "is not for ordinary users", "brainseg serve --port 5000") from None
        what = f"is no address of this machine ({error.strerror})"
        raise MachineError(host, what, "brainseg serve --host 127.0.0.1, or 0.0.0.0 for all of them") from None


def is_local(host: str) -> bool:
    """Whether nobody but this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def named_hosts(host: str) -> set[str]:
    """What else the Host header may be: the address that is listened on, and what the environment names."""
    named = {name.strip().lower() for name in os.environ.get(HOSTS, "").split(",")}
    return {name for name in (*named, host) if name and name not in ANYWHERE}


def token_for(host: str) -> str | None:
    """The one of the environment, which a proxy before a local server may need too; else a new one, if others reach it.

    Raises:
        DataError: one that no header can carry.
    """
    given = os.environ.get(TOKEN, "")
    if not all("!" <= character <= "~" for character in given):
        raise DataError(
            TOKEN, "has spaces or characters that are not ASCII", "take letters and digits: openssl rand -hex 24"
        )
    return given or (None if is_local(host) else secrets.token_urlsafe(24))


def address(host: str, port: int, token: str | None) -> str:
    """What to open, in one click; a token among it goes into a cookie then."""
    name = f"[{host}]" if ":" in host else host
    shown = "localhost" if host in ("", *ANYWHERE, *LOCAL) else name
    return f"http://{shown}:{port}/" + (f"?token={quote(token, safe='')}" if token else "")


def unchanged(path: Path) -> Callable[[], bool]:
    """A check that the file at ``path`` is what it was; it is read again only where its date or size is another."""
    known, digest = _stamp(path), _digest(path)

    def check() -> bool:
        nonlocal known
        now = _stamp(path)
        if now != known and now is not None and _digest(path) == digest != "":
            known = now
        return now is not None and now == known

    return check


def _digest(path: Path) -> str:
    """Empty where it cannot be read."""
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
