"""Examples to try: test patients if LGG has been preprocessed in this folder, else the phantoms in the package.

A patient's slices are found by row numbers, so the data are used only as the stages made them.
"""

import csv
import hashlib
import io
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from brainseg.data import inputs
from brainseg.errors import BrainsegError, IntegrityError, guard, printable, redact
from brainseg.server.refusals import Refusal

IMAGES, SLICES, SPLIT = "data/processed/images.npy", "data/processed/slices.csv", "data/splits/split.csv"
USED = (IMAGES, SLICES, SPLIT)
REMEDY = "run: dvc repro"
PHANTOMS = Path(__file__).parent / "phantoms"
PHANTOM_PREFIX = "PHANTOM_"  # prefix of the names of drawn patients
MAX_PATIENTS = 6  # patients that are offered
TIF = "image/tiff"


def changed_data() -> Refusal:
    return Refusal(503, "the examples' data have changed since the server started", "restart the server")


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
        self._of = _stamps(root)  # before the files are checked and read, so that a later change is noticed
        patients = [each for each in _find_sound_patients(root) if each.is_phantom or not phantoms_alone]
        self._known = {example.id: example for example in patients or _find_phantoms(packaged)}
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
            raise changed_data()
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
        images = np.load(self._root / IMAGES, mmap_mode="r", allow_pickle=False)
        first, *others = [Image.fromarray(np.ascontiguousarray(images[row])) for row in example.rows]
        buffer = io.BytesIO()
        first.save(buffer, "TIFF", save_all=True, append_images=others, compression="tiff_adobe_deflate")
        return buffer.getvalue()


def _stamps(root: Path) -> list[tuple[int, int]]:
    """Dates and sizes of the files that ``rows`` come from."""
    stamps = []
    for path in USED:
        with suppress(OSError):
            found = (root / path).stat()
            stamps.append((found.st_mtime_ns, found.st_size))
    return stamps


def _find_sound_patients(root: Path) -> list[Example]:
    """``_find_patients``; none, and a warning, if the data are damaged: the server answers without them."""
    try:
        with guard(root / "data", REMEDY, IntegrityError):
            return _find_patients(root)
    except BrainsegError as error:
        for each in error.problems:
            what = f"{printable(each.what)}; the examples are the packaged phantoms"
            print(f"WARNING {printable(each.path)}: {what}. Fix: {redact(each.fix)}", file=sys.stderr, flush=True)
        return []


def _find_patients(root: Path) -> list[Example]:
    """Up to MAX_PATIENTS test patients, evenly spaced in their list; none if the data are missing.

    Raises:
        IntegrityError: the data are damaged, not what the stages made, or do not belong together.
    """
    if not all((root / path).is_file() for path in USED):
        return []
    inputs.verify(USED, root)
    slices, split = _read_table(root / SLICES, "row", "patient", "slice"), _read_table(root / SPLIT, "row", "subset")
    _check_rows(root, slices, split)
    rows: dict[str, list[dict[str, str]]] = {}
    for row, part in zip(slices, split, strict=True):
        if part["subset"] == "test":
            rows.setdefault(row["patient"], []).append(row)
    names = sorted(rows)
    chosen = names[:: max(1, len(names) // MAX_PATIENTS)][:MAX_PATIENTS]
    return [_make_patient(number, name, rows[name]) for number, name in enumerate(chosen, 1)]


def _check_rows(root: Path, *tables: list[dict[str, str]]) -> None:
    """Refuse images that cannot be shown, and tables that do not have one row for each, in their order."""
    with guard(root / IMAGES, REMEDY, IntegrityError):
        images = np.load(root / IMAGES, mmap_mode="r", allow_pickle=False)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise IntegrityError(root / IMAGES, f"holds {images.dtype} values of shape {images.shape}", REMEDY)
    numbers = [str(number) for number in range(len(images))]
    for path, table in zip((SLICES, SPLIT), tables, strict=True):
        if [row["row"] for row in table] != numbers:
            raise IntegrityError(root / path, f"its rows are not those of the {len(images):,} images", REMEDY)


def _make_patient(number: int, name: str, rows: list[dict[str, str]]) -> Example:
    is_phantom = name.startswith(PHANTOM_PREFIX)
    ordered = sorted(rows, key=lambda row: int(row["slice"]))
    shown = name.removeprefix(PHANTOM_PREFIX).removeprefix("TCGA_")
    title = f"{'Phantom' if is_phantom else 'Test patient'} {shown}, {len(rows)} slices"
    return Example(f"patient-{number}", title, is_phantom, tuple(int(row["row"]) for row in ordered))


def _find_phantoms(folder: Path) -> list[Example]:
    paths = sorted(folder.glob("*.tif"))
    return [Example(path.stem, f"Phantom {number}, drawn", True, file=path) for number, path in enumerate(paths, 1)]


def _read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    with guard(path, REMEDY, IntegrityError), path.open(encoding="utf-8", newline="") as file:
        return [{name: row[name] for name in columns} for row in csv.DictReader(file)]
