"""Examples to try. For a model of LGG those of the release, which ``make pull`` fetches (``tools/make_examples.py``);
else test patients, if data have been preprocessed in this folder; else the phantoms in the package.

A patient's slices are found by row numbers, so the data are used only as the stages made them.
"""

import csv
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from brainseg.data import inputs
from brainseg.errors import BrainsegError, IntegrityError, guard, printable, redact
from brainseg.server.refusals import Refusal

IMAGES, SLICES, SPLIT = "data/processed/images.npy", "data/processed/slices.csv", "data/splits/split.csv"
USED = (IMAGES, SLICES, SPLIT)
REMEDY = "run: dvc repro"
RELEASED = "examples/patients.zip"
PULL = "run: make pull"
LEVELS = {"easy": "Easy", "median": "Median", "hard": "Hard", "fails": "It fails"}
PHANTOMS = Path(__file__).parent / "phantoms"
PHANTOM_PREFIX = "PHANTOM_"  # prefix of the names of drawn patients
MAX_PATIENTS = 6  # patients that are offered
TIF, ZIP = "image/tiff", "application/zip"


def changed_data() -> Refusal:
    return Refusal(503, "the examples' data have changed since the server started", "restart the server")


class Example(NamedTuple):
    """Either ``rows`` of the preprocessed images, or what ``read`` gives; ``told``: what else is said of it."""

    id: str
    title: str
    is_phantom: bool
    rows: tuple[int, ...] = ()
    read: Callable[[], bytes] | None = None
    kind: str = "tif"
    told: Mapping[str, str] = MappingProxyType({})


class Examples:
    """The list is made once. A patient's slices are packed into a TIF with several pages on request."""

    def __init__(
        self, root: Path = Path(), packaged: Path = PHANTOMS, phantoms_alone: bool = False, weights: str | None = None
    ):
        """``phantoms_alone``: for a model that was trained on them. ``weights``: the digest of a model's of LGG."""
        self._root = root
        self._of = _stamps(root)  # before the files are checked and read, so that a later change is noticed
        released = _find_sound(RELEASED, root, partial(read_released, root / RELEASED, weights)) if weights else []
        patients = released or _find_sound("data", root, partial(_find_patients, root))
        wanted = [each for each in patients if each.is_phantom or not phantoms_alone]
        self._known = {example.id: example for example in wanted or find_phantoms(packaged)}
        self._packed = lru_cache(maxsize=2)(self._pack)

    def list_all(self) -> list[dict[str, str]]:
        return [describe(each) for each in self._known.values()]

    def media_type(self, identity: str) -> str:
        return ZIP if self._known[identity].kind == "slices" else TIF

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
        if example.read:
            return example.read()
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


def _find_sound(name: str, root: Path, find: Callable[[], list[Example]]) -> list[Example]:
    """What ``find`` gives; nothing, and a warning, if the files are damaged: the server answers without them."""
    try:
        with guard(root / name, PULL if name == RELEASED else REMEDY, IntegrityError):
            return find()
    except BrainsegError as error:
        for each in error.problems:
            instead = "there are other examples" if name == RELEASED else "the examples are the packaged phantoms"
            what = f"{printable(each.what)}; {instead}"
            print(f"WARNING {printable(each.path)}: {what}. Fix: {redact(each.fix)}", file=sys.stderr, flush=True)
        return []


def describe(example: Example) -> dict[str, str]:
    """As /v1/examples tells it."""
    return {"id": example.id, "title": example.title, "kind": example.kind, **example.told}


def read_released(path: Path, weights: str | None = None) -> list[Example]:
    """The patients of the release; none if they are not here. ``weights``: of the model that will outline them.

    Raises:
        Exception: of any kind, if the file is damaged; each of its bytes is read.
    """
    if not path.is_file():
        return []
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise IntegrityError(path, f"{damaged} in it is damaged", PULL)
        listed = json.loads(archive.read("list.json"))
    is_theirs = listed["weights_sha256"] == weights
    licence = {name: listed[name] for name in ("attribution", "licence")}
    return [_make_released(path, each, is_theirs, licence) for each in listed["examples"]]


def _make_released(path: Path, told: dict[str, Any], is_theirs: bool, licence: dict[str, str]) -> Example:
    """``is_theirs``: the scores are of the model that will outline it."""
    patient = " ".join(told["patient"].split("_")[1:3])
    title = f"{LEVELS[told['id']]}: patient {patient}" if is_theirs else f"Patient {patient}"
    note = f"{told['slices']} slices; {_describe_score(told) if is_theirs else 'this model may have learned from it'}"
    return Example(told["id"], title, False, (), partial(_read_member, path, f"{told['id']}.zip"), "slices",
                   {"note": note, **licence})  # fmt: skip


def _describe_score(told: dict[str, Any]) -> str:
    """The lower one of precision and recall says what is wrong, where much is."""
    score = f"Dice {told['dice']:.2f} against the readers' outline"
    if told["id"] != "fails":
        return score
    if told["recall"] <= told["precision"]:
        return f"{score}: {100 * told['recall']:.0f} % of the tumour is found"
    return f"{score}: {100 * told['precision']:.0f} % of what is outlined is tumour"


def _read_member(path: Path, name: str) -> bytes:
    """A file of the release, whose checksum is compared again."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except Exception as error:  # a zip that changed raises anything
        raise changed_data() from error


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


def find_phantoms(folder: Path = PHANTOMS) -> list[Example]:
    paths = sorted(folder.glob("*.tif"))
    return [
        Example(path.stem, f"Phantom {number}, drawn", True, read=path.read_bytes)
        for number, path in enumerate(paths, 1)
    ]


def _read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    with guard(path, REMEDY, IntegrityError), path.open(encoding="utf-8", newline="") as file:
        return [{name: row[name] for name in columns} for row in csv.DictReader(file)]
