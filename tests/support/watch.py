"""What Python processes write and whom they call, seen by an audit hook in each of them and in their children."""

import os
import sys
from pathlib import Path

SITE = """\
import os, socket, sys

log = os.open(os.environ["WATCHED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
inside = (os.environ["WATCHED_FOLDER"] + os.sep, "/dev/")

def watch(event, given):
    if event == "open" and isinstance(given[0], str) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        path = os.path.realpath(given[0])
        if not path.startswith(inside):
            os.write(log, f"wrote {path}\\n".encode())
    elif event in ("socket.connect", "socket.sendto") and isinstance(given[1], tuple):
        os.write(log, f"called {given[1][:2]}\\n".encode())
    elif event == "socket.getaddrinfo" and given[0] not in (None, "127.0.0.1", "localhost", "::1"):
        os.write(log, f"asked for {given[0]}\\n".encode())

sys.addaudithook(watch)
"""


class Watched:
    """A clean home, an environment that has it, and what was seen. Everything within ``folder`` may be written."""

    def __init__(self, folder: Path, *paths: Path):
        self.home, self.log, site = folder / "home", folder / "watched.log", folder / "site"
        for each in (self.home, folder / "tmp", site):
            each.mkdir(parents=True)
        (site / "sitecustomize.py").write_text(SITE)
        self.environment = {
            "HOME": str(self.home), "TMPDIR": str(folder / "tmp"), "WATCHED_LOG": str(self.log),
            "WATCHED_FOLDER": os.path.realpath(folder), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(map(str, [site, *paths])),
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
        }  # fmt: skip

    def seen(self) -> list[str]:
        """What was written and who was called, and what lies in the home now."""
        assert self.log.exists(), "nothing was watched"
        left = [f"left {path}" for path in sorted(self.home.rglob("*"))]
        return [*self.log.read_text().splitlines(), *left]
