"""Two machines that share nothing but a wire: namespaces of Linux for network, processes, mounts and names.

They have this one's system and the environment of the tests. Each has its own temporary files of Ray, its own shared
memory and its own name; ``hidden`` folders are empty there. Needs root.
"""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

RAY = Path("/tmp/ray")  # each machine's own
TOOLS = ("bash", "env", "sh")  # what a node has beside Python; Git is not among them
INSIDE = """\
set -euo pipefail
hostname "$NAME"
mkdir -p /tmp/ray
for folder in /dev/shm /tmp/ray $HIDDEN; do mount -t tmpfs none "$folder"; done
if [ -n "$ALONE" ]; then
  mkdir /tmp/ray/bin
  for tool in $TOOLS; do ln -s "$(command -v "$tool")" "/tmp/ray/bin/$tool"; done
  export PATH="$PYTHON:/tmp/ray/bin"
  cd /
  if python -c 'import brainseg' 2>/dev/null || command -v git; then echo "it has more than it should"; exit 9; fi
fi
"$@"  # not exec: the first process of a machine has to reap others, as bash does
"""


def find_fault() -> str:
    """Why there can be no machines here; empty if there can."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        return "network namespaces need root, ip and unshare"
    name = f"t{uuid.uuid4().hex[:8]}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return made.stderr.strip()


class Wire:
    """Two machines, ``10.77.0.1`` and ``10.77.0.2``; a context manager."""

    def __init__(self) -> None:
        self.names = [f"t{uuid.uuid4().hex[:8]}" for _ in range(2)]

    def __enter__(self) -> "Wire":
        for name in self.names:
            _ip("netns", "add", name)
        first, second = self.names
        _ip("link", "add", "wire", "netns", first, "type", "veth", "peer", "name", "wire", "netns", second)
        for number, name in enumerate(self.names, 1):
            _ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "wire")
            for device in ("wire", "lo"):
                _ip("-n", name, "link", "set", device, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False)

    def start(
        self, number: int, command: Sequence[str], environment: dict[str, str], folder: Path,
        hidden: Sequence[Path] = (), *, alone: bool = False,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """Start a command on a machine, 0 or 1. To kill what is returned is to switch the machine off.

        Args:
            alone: it has no program but Python and a shell, and not this project's package.
        """
        inside = {
            "NAME": f"machine{number}", "HIDDEN": " ".join(map(str, hidden)), "ALONE": "1" if alone else "",
            "TOOLS": " ".join(TOOLS), "PYTHON": os.path.dirname(sys.executable),
        }  # fmt: skip
        own = ["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        entered = ["ip", "netns", "exec", self.names[number], "unshare", *own, "bash", "-c", INSIDE, "bash", *command]
        return subprocess.Popen(
            entered, cwd=folder, env=environment | inside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def cut(self, number: int) -> None:
        """Pull a machine's plug out of the wire."""
        _ip("-n", self.names[number], "link", "set", "wire", "down")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
