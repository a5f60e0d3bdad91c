"""Firefox by its own remote protocol, Marionette: Playwright drives builds of its own alone, not a distribution's."""

import json
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FIREFOX = next(filter(None, map(shutil.which, ("firefox", "firefox-esr"))), None)
START_SECONDS = 60.0
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of a reference to an element in WebDriver
PREFERENCES = {
    "webgl.force-enabled": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


class Firefox:
    """A headless Firefox with a new profile in ``folder``."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        told = PREFERENCES | {"marionette.port": port}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in told.items()]
        (folder / "user.js").write_text("".join(lines), encoding="utf-8")
        command = [str(FIREFOX), "--marionette", "--headless", "--no-remote", "--profile", str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._last = 0
        self._socket = self._connect(port)
        self._read()  # its greeting
        self("WebDriver:NewSession", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})

    def __enter__(self) -> "Firefox":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()

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
