"""A server with the built page and made-up answers: what the page must survive, without a model.

It follows the HTTP interface of ``brainseg serve``. The name of the first file decides the answer:
``empty`` finds nothing, ``slow`` waits until released, ``busy`` is refused once with 503, ``odd`` has a warning,
``colour`` three different channels, ``wide`` more columns than graphics take, ``.pdf`` is refused, ``.png`` is a
lone picture, all else a volume in space.
"""

import base64
import email.parser
import email.policy
import gzip
import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "worker-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
TYPES = {
    **{".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css"},
    **{".svg": "image/svg+xml", ".wasm": "application/wasm"},
}
SPACING = (0.9, 0.9, 5.0)
EXAMPLES = [
    {"id": "phantom-1", "title": "Phantom 1, 20 slices", "kind": "tif"},
    {"id": "phantom-2", "title": "Phantom 2, 20 slices", "kind": "tif"},
]
LESION = (
    *("lesion", "voxels", "volume_ml", "area_mm2", "extent_x_mm", "extent_y_mm", "extent_z_mm", "max_diameter_mm"),
    *("centroid_i", "centroid_j", "centroid_k", "centroid_x_mm", "centroid_y_mm", "centroid_z_mm", "first_slice"),
    *("last_slice", "largest_slice", "mean_probability", "max_probability"),
)
MODEL = {
    "weights_sha256": "ab" * 32,
    "variant": "float32",
    "source": "kaggle",
    "marks": [],
    "rule": {"threshold": 0.55, "min_component": 20, "mirror": True},
    "numbers": {"volume": {"dice": {"mean": 0.847, "median": 0.893, "lo": 0.771, "hi": 0.878}}},
    "protocol": {"source": "kaggle", "unit": "patient", "grid": 256, "patients": {"train": 77, "val": 11, "test": 22}},
    "card_markdown": "# Model card\n\n**Intended use.** Research.\n\n| task | numbers |\n| --- | --- |\n"
    "| outline | 0.847 |\n\n<img src=x onerror=\"document.title='run'\"><script>document.title = 'run'</script>\n",
}


class PageServer(ThreadingHTTPServer):
    """Serves ``folder`` and the interface on a free port of loopback; ``requests`` keeps what was posted."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path, model: dict | None = None, policy: str = POLICY):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.model, self.policy = folder, model or MODEL, policy
        self.requests: list[dict] = []
        self.busy = True
        self.released = threading.Event()
        self.progress: dict | None = None  # of the requests that are in work
        self.working: set[str] = set()
        self.asked: list[float] = []  # when a client asked how far a request is
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def __enter__(self) -> "PageServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PageServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/v1/model":
            self._json(200, self.server.model)
        elif path.startswith("/v1/progress/"):
            self.server.asked.append(time.monotonic())
            known = path.rpartition("/")[2] in self.server.working and self.server.progress
            self._json(200, known) if known else self._json(404, {"error": {"code": 2, "what": "over", "fix": "stop"}})
        elif path == "/v1/examples":
            self._json(200, EXAMPLES)
        elif path.startswith("/v1/examples/"):
            self._send(200, "application/octet-stream", b"II*\0made up")
        else:
            file = self.server.folder / (path.lstrip("/") or "index.html")
            if file.is_file():
                self._send(200, TYPES.get(file.suffix, "text/plain"), file.read_bytes())
            else:
                self._json(404, {"error": {"code": 2, "what": "no such page", "fix": "go to /"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        parts = [(part.get_param("name", header="content-disposition"), part.get_filename() or "")
                 for part in message.iter_parts()]  # fmt: skip
        accept = self.headers["Accept"]
        self.server.requests.append({"path": self.path, "accept": accept, "parts": parts})
        name = parts[0][1]
        query = dict(urllib.parse.parse_qsl(self.path.partition("?")[2]))
        rule = {key: float(query[key]) for key in ("threshold", "min_component") if key in query}
        if name.endswith(".pdf"):
            what = "file: is a PDF, no picture that can be outlined"
            self._json(415, {"error": {"code": 2, "what": what, "fix": "send PNG, TIF, JPEG, NIfTI or DICOM"}})
        elif "busy" in name and self.server.busy:
            self.server.busy = False
            error = {"code": 5, "what": "too many are waiting", "fix": "wait a little"}
            self._json(503, {"error": error}, {"Retry-After": "3"})
        elif accept == "application/x-nifti":
            kind = "probability" if "probability" in query else "mask"
            self._send(200, "application/x-nifti", base64.b64decode(answer(name, **rule)["volumes"][kind]))
        else:
            if "slow" in name:
                self.server.working.add(self.headers["X-Request-ID"])
                self.server.released.wait(30)
                self.server.working.clear()
            self._json(200, answer(name, **rule))

    def _json(self, status: int, value: object, more: dict[str, str] | None = None) -> None:
        self._send(status, "application/json", json.dumps(value).encode(), more)

    def _send(self, status: int, kind: str, body: bytes, more: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        try:
            self.send_response(status)
            for key, value in {**headers, "Content-Security-Policy": self.server.policy, **(more or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def head(slices: int, rows: int = 200, columns: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, mask and probability, uint8 (slices, rows, columns) in radiological display.

    An ellipse with texture and a bright blob at the patient's left and front: right and upper part of the picture.
    """
    noise = np.random.default_rng(7)
    z, y, x = np.mgrid[:slices, :rows, :columns].astype(np.float32)
    up = (z - (slices - 1) / 2) / max(slices / 2, 1)
    shrink = np.sqrt(np.clip(1.15 - up**2, 0.05, None))
    radius = np.hypot((x - columns / 2) / (0.42 * columns), (y - rows / 2) / (0.44 * rows)) / shrink
    image = np.where(radius < 1, 95 + 18 * np.sin(x / 6) * np.cos(y / 7), 0)
    image += np.where((radius > 0.93) & (radius < 1), 60, 0)
    image += np.where(np.hypot((x - columns / 2) / 9, (y - rows / 2) / 22) < 1, -55, 0) * (radius < 1)
    blob = np.hypot((x - 0.66 * columns) / 24, (y - 0.34 * rows) / 30)
    blob = np.hypot(blob, (z - 0.6 * (slices - 1)) / max(0.25 * slices, 1)) + 0.12 * np.sin(x / 5 + y / 6)
    image += 95 * np.clip(1.4 - blob, 0, 1) * (radius < 1)
    image = np.clip(image + noise.normal(0, 4, image.shape) * (radius < 1), 0, 255).astype(np.uint8)
    probability = np.clip(255 / (1 + np.exp(9 * (blob - 1))) * (radius < 1), 0, 255).astype(np.uint8)
    return image, (probability > 140).astype(np.uint8), probability


def packed(voxels: np.ndarray, spacing: tuple[float, float, float] | None) -> str:
    """Base64 of the .nii.gz of (slices, rows, columns[, 3]) in radiological display, x to the left, y to the back."""
    step = spacing or (1.0, 1.0, 1.0)
    array = np.moveaxis(voxels, (0, 1, 2), (2, 1, 0))
    affine = np.diag([-step[0], -step[1], step[2], 1.0])
    affine[:3, 3] = [step[0] * array.shape[0] / 2 + 7, step[1] * array.shape[1] / 2 - 11, -30]
    if array.ndim == 4:
        array = np.ascontiguousarray(array).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    return base64.b64encode(gzip.compress(nib.Nifti1Image(array, affine).to_bytes(), 1)).decode()


def lesions(mask: np.ndarray, probability: np.ndarray, spacing: tuple[float, float, float] | None) -> list[dict]:
    """Two lesions, as if the last slice with tumour were one by itself."""
    (there,) = np.nonzero(mask.any(axis=(1, 2)))
    found = []
    for number, part in enumerate([part for part in (there[:-1], there[-1:]) if len(part)], 1):
        inside = mask[part] > 0
        counts, box = inside.sum(axis=(1, 2)), spacing or (None,) * 3
        area = spacing and spacing[0] * spacing[1]
        known = {"volume_ml": round(counts.sum() * area * spacing[2] / 1000, 3),
                 "area_mm2": round(counts.max() * area, 1), "max_diameter_mm": 60.4} if spacing else {}  # fmt: skip
        row = dict.fromkeys(LESION)
        row |= {"lesion": number, "voxels": int(counts.sum()), "extent_x_mm": box[0], "centroid_i": 3.0,
                "centroid_j": 2.0, "centroid_k": 1.5, "first_slice": int(part[0]) + 1, "last_slice": int(part[-1]) + 1,
                "largest_slice": int(part[counts.argmax()]) + 1, "max_probability": 0.99,
                "mean_probability": round(float(probability[part][inside].mean()) / 255, 3)} | known  # fmt: skip
        found.append(row)
    return found


def answer(name: str, threshold: float = 0.55, min_component: float = 20) -> dict:
    """What the server would say of a file of this name, and of this rule."""
    picture = name.endswith(".png")
    slices = 1 if picture else 20
    image, mask, probability = head(slices)
    mask = (probability > 255 * threshold).astype(np.uint8)
    if "empty" in name:
        mask[:] = 0
    if "colour" in name:
        image = np.stack([image // 2, image, 255 - image], -1)
    if "wide" in name:
        image, mask, probability = (np.pad(each, [(0, 0), (0, 0), (0, 17_000)]) for each in (image, mask, probability))
    spacing = None if picture or name.endswith(".tif") else SPACING
    known = spacing is not None
    area = None if spacing is None else spacing[0] * spacing[1]
    counts = [int(layer.sum()) for layer in mask]
    largest = int(np.argmax(counts)) + 1 if any(counts) else None
    kind = "picture" if picture else "tif" if name.endswith(".tif") else "nifti" if ".nii" in name else "dicom"
    volumes = {key: packed(value, spacing)
               for key, value in (("image", image), ("mask", mask), ("probability", probability))}  # fmt: skip
    warnings = ["does not look like an axial brain slice (no head against a dark background)"] if "odd" in name else []
    own = (threshold, min_component) == (0.55, 20)
    warnings += [] if own else [f"threshold {threshold:g} (the model's: 0.55)"]
    rows = []
    for i, n in enumerate(counts):
        mean = float(probability[i][mask[i] > 0].mean()) / 255 if n else None
        rows.append({"slice": i + 1, "pixels": n, "area_mm2": n * area if area else None, "mean_probability": mean})
    return {
        "disclaimer": "Research use only. Not for clinical use.",
        "model": {"weights_sha256": "ab" * 32, "variant": "float32", "marks": []},
        "input": {
            "kind": kind, "slices": slices, "height": image.shape[1], "width": image.shape[2],
            "spacing_mm": spacing, "orientation": "known" if known else "unknown",
            "channels": ["pre-contrast", "FLAIR", "post-contrast"] if "colour" in name else ["FLAIR"] * 3,
        },
        "warnings": warnings,
        "summary": {
            "tumour_pixels": sum(counts), "slices_with_tumour": sum(n > 0 for n in counts), "largest_slice": largest,
            "area_mm2": max(counts) * area if area else None, "area_pixels": max(counts),
            "volume_ml": sum(counts) * area * spacing[2] / 1000 if area and spacing else None,
            "mean_probability": float(probability[mask > 0].mean()) / 255 if any(counts) else None, "seconds": 0.42,
        },
        "slices": rows,
        "rule": {"threshold": threshold, "min_component": int(min_component), "min_share": 0.0, "of_the_model": own},
        "lesions": lesions(mask, probability, spacing),
        "volumes": volumes,
    }  # fmt: skip
