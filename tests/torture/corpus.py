"""Small whole inputs, made by code: what :mod:`mutations` damages. The largest is some kilobytes."""

import gzip
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from brainseg.data import archive
from brainseg.predict import output
from tests.support import bombs, dicom_series, nifti_files, run_files

ROOT = Path(__file__).parents[2]
GREY = np.random.default_rng(0).integers(0, 255, (12, 10), np.uint8)
COLOUR = np.stack([GREY, GREY // 2, GREY // 3], -1)
VOLUME = np.arange(12 * 4 * 10, dtype=np.int16).reshape(12, 4, 10)  # rows, slices, columns, see nifti_files.AFFINE
ANSWERED = ("a", "b/c")  # the cases of the journals


def pictures() -> Iterator[bytes]:
    kinds = (GREY, COLOUR, GREY > 100, GREY.astype(np.uint16) * 200, GREY.astype(np.float32))
    for array in kinds:
        yield _saved(array, "TIFF")
        yield _saved(array, "TIFF", compression="tiff_adobe_deflate")
    yield _saved(COLOUR, "TIFF", compression="tiff_lzw")
    yield _saved(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(GREY + 1)])
    for array in kinds[:4]:
        yield _saved(array, "PNG")
    yield _saved(np.dstack([COLOUR, np.full_like(GREY, 255)]), "PNG")
    palette = io.BytesIO()
    Image.fromarray(COLOUR).quantize(8).save(palette, "PNG")
    yield palette.getvalue()
    yield _saved(COLOUR, "JPEG")
    yield _saved(GREY, "JPEG", progressive=True)
    buffer = io.BytesIO()
    np.save(buffer, GREY)
    yield buffer.getvalue()


def _saved(array: np.ndarray, form: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **settings)
    return buffer.getvalue()


def nifti() -> Iterator[bytes]:
    for kind in (np.uint8, np.int16, np.uint16, np.float32, np.float64, np.int32):
        yield nifti_files.encode(VOLUME.astype(kind))
    yield nifti_files.encode(VOLUME, kind=nifti_files.nibabel.Nifti2Image)
    yield nifti_files.encode(VOLUME, slope=("<f", 2.0), inter=("<f", 1.0))
    yield nifti_files.encode(np.stack([VOLUME] * 3, -1))
    yield nifti_files.encode((VOLUME > 9).astype(np.uint8), sform=("<h", 0))
    yield gzip.compress(nifti_files.encode(VOLUME), mtime=0)


def dicom() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        for path in dicom_series.save(Path(folder), dicom_series.series()):
            yield path.read_bytes()
        for syntax in (dicom_series.uid.ImplicitVRLittleEndian, dicom_series.uid.DeflatedExplicitVRLittleEndian):
            (path,) = dicom_series.save(Path(folder), [dicom_series.one(0)], syntax)
            yield path.read_bytes()
    yield bombs.dicom(RescaleSlope=2, RescaleIntercept=-5, Rows=9, Columns=10, PixelData=bytes(180))


def zips() -> Iterator[bytes]:
    members = ("a/1.png", next(pictures())), ("a/2.dcm", next(dicom())), ("b/3.nii", next(nifti()))
    yield bombs.zipped(*members)
    yield bombs.zipped(*members, compression=zipfile.ZIP_STORED)
    yield bombs.zipped(("folder/", b""), ("folder/ä.tif", next(pictures())))


def archives() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "slices.zip")
        image, mask = _saved(COLOUR, "TIFF"), _saved((GREY > 100).astype(np.uint8) * 255, "TIFF")
        archive.write(path, [archive.Pair("A", "X", n, f"A_{n}.tif", f"A_{n}_mask.tif", image, mask) for n in (1, 2)])
        yield path.read_bytes()


def of_json(make: Callable[[], dict]) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([json.dumps(make(), indent=1).encode()])


def parameters() -> Iterator[bytes]:
    """params.yaml without its comments; each of its blocks, which are quicker to read; all that YAML has."""
    lines = [line.split(" #")[0] for line in (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()]
    text = "\n".join(line.rstrip() for line in lines if not line.startswith("#"))
    yield text.encode()
    yield from (block.encode() for block in text.split("\n\n"))
    yield b"train: {epochs: 3, loss: 'a b'}\nlist: [1, 1e-05, null]\nanchor: &a {b: 1}\nagain: *a\n"


def write_answers(folder: Path) -> None:
    """The files that the journals name."""
    for name in ANSWERED:
        (path := folder / f"masks/{name}.png").parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def journals() -> Iterator[bytes]:
    """What ``brainseg predict`` wrote, by its own code."""
    with tempfile.TemporaryDirectory() as folder:
        with output.open_folder(Path(folder)) as opened:
            write_answers(Path(folder))
            for name in ANSWERED:
                row = dict.fromkeys(output.COLUMNS, "1") | dict.fromkeys(output.NUMBERS, 1) | {"case": name}
                facts = (f"flair: file /x/{name}", "model", "0" * 64, [f"masks/{name}.png"], row)
                opened.add(output.Record(name, *facts))
        yield Path(folder, output.JOURNAL).read_bytes()


def tables() -> Iterator[bytes]:
    yield b"row,patient,institution,slice,tumour_pixels,source,spacing\n" + b"".join(
        b"%d,P%d,X,%d,%d,a.tif,1 x 1 x 5\n" % (n, n // 2, n % 2, n) for n in range(8)
    )


def splits() -> Iterator[bytes]:
    subsets = (b"train", b"train", b"val", b"val", b"test", b"test", b"train", b"train")
    yield b"row,patient,fold,subset\n" + b"".join(b"%d,P%d,0,%s\n" % (n, n // 2, s) for n, s in enumerate(subsets))


def scores() -> Iterator[bytes]:
    yield (ROOT / "metrics/per_patient.csv").read_bytes()


MANIFEST = of_json(run_files.manifest)
EVALUATION = of_json(run_files.evaluation)
SUMMARY = of_json(run_files.summary)
CROSS_VALIDATION = of_json(run_files.cross_validation)
