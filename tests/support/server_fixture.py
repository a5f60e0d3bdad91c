"""A server that listens on a port, with a fake model that needs no file: bright pixels are tumour."""

import io
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from brainseg.errors import RunError
from brainseg.inference.outlining import Segmentation
from brainseg.inference.plausibility import Verdict
from brainseg.server import app, serve

FACTS = {
    "format": 1,
    "variant": "float32",
    "marks": ["20 of 110 patients"],
    "model": {"weights_sha256": "ab" * 32, "protocol": {"source": "kaggle", "unit": "patient", "marks": []}},
    "rule": {"threshold": 0.5, "min_component": 20, "mirror": False},
    "evaluation": {"test": {"volume": {"dice": {"mean": 0.84, "median": 0.89, "lo": 0.77, "hi": 0.88}}}},
}
TUMOUR = 200  # grey value from which a pixel is tumour


class Model:
    """As ``predictor.Predictor``. ``segment`` takes ``seconds``, and waits as long as ``hold`` is cleared.

    ``numbers`` and ``voxels`` are those that it was given last.
    """

    def __init__(self, facts=FACTS):
        self.facts, self.seconds = facts, 0.0
        self.hold = threading.Event()
        self.hold.set()
        self.begun = self.cancelled = 0

    def prepared(self, voxels, pixel):
        return np.zeros((len(voxels), 16, 16, 3), np.uint8)

    def segment(
        self, voxels, pixel=(1, 1), *, numbers=(), name="array", progress=lambda *_: None, cancelled=lambda: False
    ):
        self.begun += 1
        self.numbers, self.voxels = tuple(numbers), voxels
        progress(len(voxels) // 2, len(voxels))
        ends = time.monotonic() + self.seconds
        while not self.hold.is_set() or time.monotonic() < ends:
            if cancelled():
                self.cancelled += 1
                raise RunError("prediction", "was cancelled", "ask again")
            time.sleep(0.005)
        flair = voxels[..., 1] if voxels.ndim == 4 else voxels
        probability = (flair >= TUMOUR) * np.uint8(204)
        mask = (probability > 255 * self.facts["rule"]["threshold"]).astype(np.uint8)
        return Segmentation(mask, probability)


class Served:
    """A running server: its address, its model, and a client."""

    def __init__(self, port: int, model: Model):
        self.port, self.model = port, model
        self.url = f"http://127.0.0.1:{port}"
        self.session = requests.Session()

    def get(self, path, **settings):
        return self.session.get(self.url + path, timeout=30, allow_redirects=False, **settings)

    def segment(self, *files, query="", **settings):
        """Send ``files``: bytes, for a part named file; (name, bytes); or (name, bytes, file name)."""
        parts = [file if isinstance(file, tuple) else ("file", file) for file in files]
        form = [(name, (own[0] if own else "a", data)) for name, data, *own in parts]
        return self.session.post(f"{self.url}/v1/segment{query}", files=form, timeout=60, **settings)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@contextmanager
def serving(model=None, judge=lambda _: Verdict(False, []), settings=None) -> Iterator[Served]:
    model = model or Model()
    listening = serve.listen("127.0.0.1", 0)
    settings = settings or app.Settings()
    if settings.root == Path():  # tests must not see data that were preprocessed in this folder
        settings = settings._replace(root=Path(__file__).parent / "nowhere")
    running = serve.server_of(app.create_app(model, judge, settings))
    thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running.started
    try:
        yield Served(listening.getsockname()[1], model)
    finally:
        if isinstance(model, Model):
            model.hold.set()
        running.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def log_of_everything() -> Iterator[io.StringIO]:
    """Everything that is logged within the block, at any level."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    names = [logging.getLogger(name) for name in ("brainseg.server", "uvicorn", "uvicorn.error", "asyncio")]
    before = [(logger, logger.level) for logger in (root, *names)]
    for logger, _ in before:
        logger.setLevel(logging.DEBUG)
    root.addHandler(handler)
    try:
        yield text
    finally:
        root.removeHandler(handler)
        for logger, level in before:
            logger.setLevel(level)


def head(size: int = 64, tumour: bool = True) -> np.ndarray:
    """(size, size) uint8: an oval and in it a bright square, a quarter of the image wide."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    pixels = np.where((x / 0.35) ** 2 + (y / 0.45) ** 2 < 1, 90, 0).astype(np.uint8)
    if tumour:
        pixels[size // 2 : size // 2 + size // 4, size // 2 : size // 2 + size // 4] = 220
    return pixels


def encoded(*pages: np.ndarray, kind: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    first, *others = [Image.fromarray(page) for page in pages]
    more = {"save_all": True, "append_images": others} if others else {}
    first.save(buffer, kind, **more, **settings)
    return buffer.getvalue()


def status_of(answer: bytes) -> int:
    """The status of a raw HTTP answer; 0 if there is none."""
    found = re.match(rb"HTTP/1.1 (\d+)", answer)
    return int(found[1]) if found else 0


def soon(condition, seconds: float = 10) -> bool:
    """Whether the condition holds within so many seconds."""
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.02)
    return condition()
