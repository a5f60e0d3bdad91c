"""Draw what a command prints in a terminal: ``python tools/terminal_picture.py [--width 100] x.svg COMMAND...``."""

import argparse
import io
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

from rich.console import Console
from rich.text import Text

LINES = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path, help="the SVG to write")
    parser.add_argument("--width", type=int, default=100, help="of the terminal, in characters")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    code, printed = run(arguments.command, arguments.width)
    draw(printed, shlex.join(arguments.command), arguments.width, arguments.picture)
    return code


def run(command: list[str], width: int) -> tuple[int, str]:
    """Run a command in a terminal of that width, since many draw no colour and no table into a file."""
    own, its = pty.openpty()
    ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, width, 0, 0))
    variables = os.environ | {"COLUMNS": str(width), "TERM": "xterm-256color", "PAGER": "cat", "DVC_PAGER": "cat"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=its, stderr=subprocess.STDOUT, env=variables
    ) as process:
        os.close(its)
        printed = io.BytesIO()
        while block := read(own):
            printed.write(block)
    os.close(own)
    return process.returncode, printed.getvalue().decode(errors="replace")


def read(terminal: int) -> bytes:
    """The next block; none when the other end is closed, which Linux reports as an error."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def draw(printed: str, command: str, width: int, picture: Path) -> None:
    lines = [
        line.rpartition("\r")[2] for line in printed.replace("\r\n", "\n").splitlines()
    ]  # \r: progress, overwritten
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(line.rstrip() for line in lines).strip("\n")))
    picture.write_text(console.export_svg(title=command), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
