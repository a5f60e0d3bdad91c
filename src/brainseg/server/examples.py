"""Examples to try: test patients if LGG has been preprocessed in this folder, else the phantoms in the package."""

import csv
import hashlib
import io
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from brainseg.server.refusals import Refusal

PROCESSED, SPLIT = Path("data/processed"), Path("data/splits/split.csv")
PHANTOMS = Path(__file__).parent / "phantoms"
PHANTOM_PREFIX = "PHANTOM_"  # prefix of the names of drawn patients
MAX_PATIENTS = 6  # patients that are offered
TIF = "image/tiff"


class Example(NamedTuple):
    """Either ``rows`` of the preprocessed images, or a ``file``."""

    id: str
    title: str
    is_phantom: bool
    rows: tuple[int, ...] = ()
    file: Path | None = None


class Examples:
    """The list is made once. A patient's slices are packed into a TIF with several pages on request."""

    def __init__(self, root: Path = Path(), packaged: Path = PHANTOMS, phantoms_alone: bool = False):
        """``phantoms_alone``: offer phantoms only, for a model that was trained on them."""
        self._root = root
        found = [each for each in _find_patients(root) if each.is_phantom or not phantoms_alone] or _find_phantoms(
            packaged
        )
        self._known = {example.id: example for example in found}
        self._of = _stamps(root)
        self._packed = lru_cache(maxsize=2)(self._pack)

    def list_all(self) -> list[dict[str, str]]:
        return [{"id": each.id, "title": each.title, "kind": "tif"} for each in self._known.values()]

    def content(self, identity: str) -> bytes | None:
        """The bytes of a TIF; None if there is no such example.

        Raises:
            Refusal: the data have changed, so the rows may belong to another patient.
        """
        if identity not in self._known:
            return None
        if self._known[identity].rows and _stamps(self._root) != self._of:
            raise Refusal(503, "the examples' data have changed since the server started", "restart the server")
        return self._packed(identity)

    def phantoms(self) -> set[str]:
        """SHA-256 of every example that is a phantom."""
        return {
            hashlib.sha256(self._pack(each.id)).hexdigest() for each in self._known.values() if each.is_phantom
        }  # fmt: skip

    def _pack(self, identity: str) -> bytes:
        example = self._known[identity]
        if example.file:
            return example.file.read_bytes()
        images = np.load(self._root / PROCESSED / "images.npy", mmap_mode="r", allow_pickle=False)
        first, *others = [Image.fromarray(np.ascontiguousarray(images[row])) for row in example.rows]
        buffer = io.BytesIO()
        first.save(buffer, "TIFF", save_all=True, append_images=others, compression="tiff_adobe_deflate")
        return buffer.getvalue()


def _stamps(root: Path) -> list[tuple[int, int]]:
    """Dates and sizes of the files that ``rows`` refer to."""
    paths = [root / PROCESSED / name for name in ("images.npy", "slices.csv")]
    return [(path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.exists()]


def _find_patients(root: Path) -> list[Example]:
    """Up to MAX_PATIENTS test patients, evenly spaced in their list; none if the data are missing."""
    slices, split = root / PROCESSED / "slices.csv", root / SPLIT
    if not (slices.is_file() and split.is_file() and (root / PROCESSED / "images.npy").is_file()):
        return []
    test = {row["row"] for row in _read_table(split) if row["subset"] == "test"}
    rows: dict[str, list[dict[str, str]]] = {}
    for row in _read_table(slices):
        if row["row"] in test:
            rows.setdefault(row["patient"], []).append(row)
    names = sorted(rows)
    chosen = names[:: max(1, len(names) // MAX_PATIENTS)][:MAX_PATIENTS]
    return [_make_patient(number, name, rows[name]) for number, name in enumerate(chosen, 1)]


def _make_patient(number: int, name: str, rows: list[dict[str, str]]) -> Example:
    is_phantom = name.startswith(PHANTOM_PREFIX)
    ordered = sorted(rows, key=lambda row: int(row["slice"]))
    shown = name.removeprefix(PHANTOM_PREFIX).removeprefix("TCGA_")
    title = f"{'Phantom' if is_phantom else 'Test patient'} {shown}, {len(rows)} slices"
    return Example(f"patient-{number}", title, is_phantom, tuple(int(row["row"]) for row in ordered))


def _find_phantoms(folder: Path) -> list[Example]:
    paths = sorted(folder.glob("*.tif"))
    return [Example(path.stem, f"Phantom {number}, drawn", True, file=path) for number, path in enumerate(paths, 1)]


def _read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
