"""Firefox by its own remote protocol, Marionette: Playwright drives builds of its own alone, not a distribution's.

Without a screen Firefox has no WebGL, which draws the images; so it is given one by Xvfb.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FIREFOX = next(filter(None, map(shutil.which, ("firefox", "firefox-esr"))), None)
XVFB = shutil.which("Xvfb")
START_SECONDS = 60.0
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of a reference to an element in WebDriver
PREFERENCES = {
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "browser.download.folderList": 2,  # the folder that is named
    "browser.download.always_ask_before_handling_new_types": False,
    "browser.download.alwaysOpenPanel": False,
}


class Firefox:
    """A Firefox with a new profile in ``folder``, on a screen that nobody sees."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        told = PREFERENCES | {"marionette.port": port, "browser.download.dir": str(self.downloads)}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in told.items()]
        (folder / "user.js").write_text("".join(lines), encoding="utf-8")
        command = [
            str(FIREFOX),
            "--marionette",
            "--remote-allow-system-access",
            "--no-remote",
            "--profile",
            str(folder),
        ]
        self._screen, display = _start_screen()
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"DISPLAY": display}
        )
        self._last = 0
        self._socket = self._connect(port)
        self._read()  # its greeting
        self("WebDriver:NewSession", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})

    def __enter__(self) -> "Firefox":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.close()
        for process in (self._process, self._screen):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

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

    def _connect(self, port: int) -> socket.socket:
        due = time.monotonic() + START_SECONDS
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
            except OSError:
                if time.monotonic() > due or self._process.poll() is not None:
                    raise
                time.sleep(0.2)

    def _read(self) -> Any:
        head = b""
        while not head.endswith(b":"):
            head += self._socket.recv(1)
        body = b""
        while len(body) < int(head[:-1]):
            body += self._socket.recv(int(head[:-1]) - len(body))
        return json.loads(body)


def _start_screen() -> tuple[subprocess.Popen, str]:
    """Xvfb on a display of its own choice, and its name."""
    read, write = os.pipe()
    command = [str(XVFB), "-displayfd", str(write), "-screen", "0", "1400x900x24", "-nolisten", "tcp"]
    screen = subprocess.Popen(command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as told:
        return screen, f":{told.readline().strip()}"
