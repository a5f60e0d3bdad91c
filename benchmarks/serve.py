"""The server under load, on this machine: requests a second, latency, refusals, memory.

    python benchmarks/serve.py [--model models/unet.onnx] [--seconds 60] [--quick]

The server is a process of its own; the clients are in this one. First 8 clients at once, then 64, send 256 x 256
slices, each client one after the other, and wait as long as Retry-After says. Meanwhile /health is asked five times a
second. Then 64 clients come at the same moment and send one slice each, until each has its answer: a class of students.
Then 1,000 requests follow in a row. It prints one JSON object in each line. ``serve_rps`` and ``serve_p99_ms`` of the
results are those of 8 clients.
"""

import argparse
import asyncio
import io
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import results
from PIL import Image

from brainseg.server.examples import PHANTOMS

HEADERS = "POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"


def main() -> None:
    arguments = parse_arguments()
    quick = arguments.quick or os.environ.get("QUICK", "0") not in ("", "0")
    seconds = 5 if quick else arguments.seconds
    with start_server(arguments.model) as process:
        port = port_of(process)
        sent = requests()
        asyncio.run(load(port, sent, 2, 3))  # a warm-up
        print(json.dumps({"memory_mb_idle": memory(process)}), flush=True)
        for clients in (8, 64):
            measured = asyncio.run(load(port, sent, clients, seconds))
            row = {"clients": clients, "seconds": seconds} | measured | {"memory_mb": memory(process)}
            print(json.dumps(row), flush=True)
            if clients == 8:
                rows = [
                    results.absolute("serve_rps", [row["per_second"]], "requests/s", higher_is_better=True),
                    results.absolute("serve_p99_ms", [row["p99_ms"] or math.inf], "ms", higher_is_better=False),
                ]
        print(json.dumps({"clients_at_once": 64} | asyncio.run(rush(port, sent, 64))), flush=True)
        count, before = 100 if quick else 1000, memory(process)
        asyncio.run(load(port, sent, 2, math.inf, count))
        print(json.dumps({"requests": count, "memory_mb_before": before, "memory_mb_after": memory(process)}))
    results.show(rows)
    if not quick:
        results.save(rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The server under load.")
    parser.add_argument("--model", type=Path, default=Path("models/unet.onnx"))
    parser.add_argument("--seconds", type=float, default=60, help="for each number of clients")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, not recorded; like QUICK=1")
    return parser.parse_args()


def start_server(model: Path) -> "subprocess.Popen[str]":
    code = "from brainseg.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--port", "0", "--model", str(model)]
    return Server(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


class Server(subprocess.Popen):
    """A process that is terminated at the end of the block."""

    def __exit__(self, *details: object) -> None:
        self.terminate()
        super().__exit__(*details)


def port_of(process: "subprocess.Popen[str]") -> int:
    """Wait until the server answers, and return its port."""
    line = process.stdout.readline() if process.stdout else ""
    if "http" not in line:
        sys.exit("the server did not start: brainseg serve says why")
    port = int(line.rsplit(":", 1)[1].split("/")[0])
    while True:
        try:
            if asyncio.run(once(port, b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n"))[0] == 200:
                return port
        except OSError:
            time.sleep(0.1)


def requests() -> list[bytes]:
    """Whole requests, each with a slice of the phantoms as PNG."""
    found = []
    for path in sorted(PHANTOMS.glob("*.tif")):
        with Image.open(path) as image:
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                buffer = io.BytesIO()
                image.save(buffer, "PNG")
                part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + buffer.getvalue()
                body = part + b"\r\n--x--\r\n"
                found.append(f"{HEADERS}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return found


async def load(port: int, sent: list[bytes], clients: int, seconds: float, count: float = math.inf) -> dict:
    """Send requests from ``clients`` clients at once, for ``seconds`` or until ``count`` are sent; return rates."""
    statuses: Counter[int] = Counter()
    taken: list[float] = []
    health: list[float] = []
    ends, left = time.perf_counter() + seconds, [count]

    async def client(number: int) -> None:
        turn = number
        while time.perf_counter() < ends and left[0] > 0:
            left[0] -= 1
            turn += 1
            start = time.perf_counter()
            try:
                status, wait = await once(port, sent[turn % len(sent)])
            except (OSError, asyncio.IncompleteReadError):
                status, wait = 0, 0
            statuses[status] += 1
            if status == 200:
                taken.append(time.perf_counter() - start)
            await asyncio.sleep(wait)

    async def watch() -> None:
        while time.perf_counter() < ends and left[0] > 0:
            start = time.perf_counter()
            await once(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            health.append(time.perf_counter() - start)
            await asyncio.sleep(0.2)

    start = time.perf_counter()
    await asyncio.gather(watch(), *(client(number) for number in range(clients)))
    return {
        "per_second": round(statuses[200] / (time.perf_counter() - start), 1),
        "p50_ms": percentile(taken, 50),
        "p99_ms": percentile(taken, 99),
        "health_p99_ms": percentile(health, 99),
        "statuses": dict(sorted(statuses.items())),
    }


async def rush(port: int, sent: list[bytes], clients: int) -> dict:
    """Send one request from each of ``clients`` at the same moment; return how long it takes until all are answered."""
    statuses: Counter[int] = Counter()

    async def client(number: int) -> None:
        status = 0
        while status != 200:
            status, wait = await once(port, sent[number % len(sent)])
            statuses[status] += 1
            await asyncio.sleep(wait)

    start = time.perf_counter()
    await asyncio.gather(*map(client, range(clients)))
    seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 1), "per_second": round(clients / seconds, 1), "statuses": dict(statuses)}


async def once(port: int, request: bytes) -> tuple[int, float]:
    """Send a request in a connection of its own, as a browser does; return status and seconds of Retry-After."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        await reader.readexactly(int(fields.get(b"content-length", b"0")))
        return int(head.split(b" ", 2)[1]), float(fields.get(b"retry-after", b"0"))
    finally:
        writer.close()


def percentile(seconds: list[float], share: float) -> float | None:
    return round(1000 * float(np.percentile(seconds, share)), 1) if seconds else None


def memory(process: "subprocess.Popen[str]") -> float:
    """Resident megabytes of the server and its workers."""
    own = psutil.Process(process.pid)
    return round(sum(each.memory_info().rss for each in [own, *own.children(recursive=True)]) / 1e6, 1)


if __name__ == "__main__":
    main()
