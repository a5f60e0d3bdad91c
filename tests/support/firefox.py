"""Firefox by its own remote protocol, Marionette: Playwright drives builds of its own alone, not a distribution's.

Without a screen Firefox has no WebGL, which draws the images; so it is given one by Xvfb.
"""

import json
import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FIREFOX = next(filter(None, map(shutil.which, ("firefox", "firefox-esr"))), None)
XVFB = shutil.which("Xvfb")
START_SECONDS = 60.0
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of a reference to an element in WebDriver
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "MOZ_HEADLESS", "MOZ_ENABLE_WAYLAND")  # variables by which a screen is chosen
PREFERENCES = {
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.disable-localhost-when-offline": True,
    "browser.download.folderList": 2,  # the folder that is named
    "browser.download.always_ask_before_handling_new_types": False,
    "browser.download.alwaysOpenPanel": False,
}


@contextmanager
def open_browser(folder: Path) -> Iterator["Firefox"]:
    """A Firefox with a new profile in ``folder``, on a screen that nobody sees."""
    downloads = folder / "downloads"
    downloads.mkdir()
    port = write_preferences(folder, downloads)
    command = [str(FIREFOX), "--marionette", "--remote-allow-system-access", "--no-remote", "--profile", str(folder)]
    with open_screen() as display:
        variables = {name: value for name, value in os.environ.items() if name not in SCREENS} | {"DISPLAY": display}
        with running(command, env=variables) as process, connect(port, process) as connection:
            browser = Firefox(connection, downloads)
            browser("WebDriver:NewSession", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
            yield browser


class Firefox:
    """What is said to a Firefox that runs."""

    def __init__(self, connection: socket.socket, downloads: Path):
        self.downloads = downloads
        self._socket, self._last = connection, 0
        self._read()  # its greeting

    def __call__(self, command: str, **parameters: Any) -> Any:
        """Run a command of WebDriver and return its value."""
        self._last += 1
        body = json.dumps([0, self._last, command, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(body), body))
        _, _, error, result = self._read()
        if error:
            raise RuntimeError(f"{command}: {error['message']}")
        return result["value"] if isinstance(result, dict) and set(result) == {"value"} else result

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a function's body returns in the page."""
        return self("WebDriver:ExecuteScript", script=script, args=list(arguments))

    def cut_network(self) -> None:
        """Let nothing be fetched any more, from this machine either."""
        self("Marionette:SetContext", value="chrome")
        self.run("Services.io.manageOfflineStatus = false; Services.io.offline = true")
        self("Marionette:SetContext", value="content")

    def answers(self, path: str) -> bool:
        """Whether a fetch of a path beside the page is answered at all."""
        script = "const [path, done] = arguments; fetch(path).then(() => done(true), () => done(false))"
        return self("WebDriver:ExecuteAsyncScript", script=script, args=[path])

    def choose(self, selector: str, *paths: Path) -> None:
        """Put files into a field."""
        found = self("WebDriver:FindElement", using="css selector", value=selector)
        self("WebDriver:ElementSendKeys", id=found[ELEMENT], text="\n".join(map(str, paths)))

    def click(self, selector: str) -> None:
        found = self("WebDriver:FindElement", using="css selector", value=selector)
        self("WebDriver:ElementClick", id=found[ELEMENT])

    def drag(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place of the window, in CSS pixels, and let go of it at the last."""
        moves = [{"type": "pointerMove", "x": round(x), "y": round(y), "duration": 50} for x, y in places]
        steps = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        self("WebDriver:PerformActions", actions=[mouse])

    def press(self, *keys: str) -> None:
        """Press keys together, as WebDriver writes them, and let go of them in the opposite order."""
        steps = [{"type": "keyDown", "value": key} for key in keys]
        steps += [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self("WebDriver:PerformActions", actions=[{"type": "key", "id": "keys", "actions": steps}])

    def save(self, selector: str, seconds: float) -> Path:
        """Click a button that saves a file, and return the file when it is whole."""
        before, due = set(self.downloads.iterdir()), time.monotonic() + seconds
        self.click(selector)
        while True:
            found = set(self.downloads.iterdir()) - before
            if len(found) == 1 and (path := found.pop()).suffix != ".part" and path.stat().st_size:
                return path
            assert time.monotonic() < due, f"{selector} saved nothing"
            time.sleep(0.2)

    def wait(self, condition: str, seconds: float) -> None:
        """Until an expression is true in the page."""
        due = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < due, f"{condition}: {self.run('return document.body.innerText')[:2000]}"
            time.sleep(0.2)

    def _read(self) -> Any:
        head = b""
        while not head.endswith(b":"):
            head += self._receive(1)
        body = b""
        while len(body) < int(head[:-1]):
            body += self._receive(int(head[:-1]) - len(body))
        return json.loads(body)

    def _receive(self, most: int) -> bytes:
        found = self._socket.recv(most)
        if not found:
            raise ConnectionError("Firefox has ended")
        return found


def write_preferences(folder: Path, downloads: Path) -> int:
    """Write those of a new profile; return the port that Firefox is to listen on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = PREFERENCES | {"marionette.port": port, "browser.download.dir": str(downloads)}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in told.items()]
    (folder / "user.js").write_text("".join(lines), encoding="utf-8")
    return port


@contextmanager
def open_screen() -> Iterator[str]:
    """Xvfb on a display of its own choice, and its name."""
    read, write = os.pipe()
    command = [str(XVFB), "-displayfd", str(write), "-screen", "0", "1400x900x24", "-nolisten", "tcp"]
    with os.fdopen(read) as told, running(command, pass_fds=[write]):
        os.close(write)
        ready, _, _ = select.select([told], [], [], START_SECONDS)
        number = told.readline().strip() if ready else ""
        assert number.isdigit(), "Xvfb has not started"
        yield f":{number}"


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen]:
    """A silent program that is ended with the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def connect(port: int, process: subprocess.Popen) -> socket.socket:
    """Wait until Firefox listens. Raises OSError: it has ended, or does not listen within START_SECONDS."""
    due = time.monotonic() + START_SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
        except OSError:
            if time.monotonic() > due or process.poll() is not None:
                raise
            time.sleep(0.2)
