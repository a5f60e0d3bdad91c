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
from brainseg.inference.answers import lesions
from brainseg.io.dicom import seg_writer, series_reader
from brainseg.io.volumes import Volume
from brainseg.predict import output
from tests.support import (
    bombs,
    dicom_compressed,
    dicom_series,
    dicom_study,
    itk_files,
    nifti_files,
    run_files,
    tcia_download,
)

ROOT = Path(__file__).parents[2]
GREY = np.random.default_rng(0).integers(0, 255, (12, 10), np.uint8)
COLOUR = np.stack([GREY, GREY // 2, GREY // 3], -1)
VOLUME = np.arange(12 * 4 * 10, dtype=np.int16).reshape(12, 4, 10)  # rows, slices, columns, see nifti_files.AFFINE
DRAWN = np.random.default_rng(1).random((3, 9, 10)) > 0.7  # a mask of the series that SEGs are drawn on
EIGHT_BITS = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
DETACHED = {".nhdr": "x.raw.gz", ".mhd": "x.zraw"}  # header → its packed voxels
SEQUENCES = ("T1", "T1Gd", "T2", "FLAIR")
ANSWERED = ("a", "b/c")  # the cases of the journals


def pictures() -> Iterator[bytes]:
    kinds = (GREY, COLOUR, GREY > 100, GREY.astype(np.uint16) * 200, GREY.astype(np.float32))
    for array in kinds:
        yield _saved(array, "TIFF")
        yield _saved(array, "TIFF", compression="tiff_adobe_deflate")
    yield _saved(COLOUR, "TIFF", compression="tiff_lzw")
    yield _saved(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(GREY + 1)])
    for axes in ("ImageJ=1.53\nimages=3\nchannels=3\nslices=1", '{"shape": [1, 3, 12, 10], "axes": "ZCYX"}'):
        others = [Image.fromarray(GREY + n) for n in (1, 2)]
        yield _saved(GREY, "TIFF", save_all=True, append_images=others, description=axes)
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


def masks() -> Iterator[bytes]:
    """Of one bit, 8 and 16 bits, with few labels, in one colour, and with a palette."""
    labels = GREY // 100
    for array in (
        labels,
        labels > 0,
        labels.astype(np.uint16) * 300,
        np.dstack([labels * 100, labels * 0, labels * 0]),
    ):
        yield _saved(array, "TIFF")
        yield _saved(array, "PNG")
    for form in ("TIFF", "PNG"):
        picture, buffer = Image.fromarray(labels).convert("P"), io.BytesIO()
        picture.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
        picture.save(buffer, form)
        yield buffer.getvalue()
    yield _saved(labels, "TIFF", save_all=True, append_images=[Image.fromarray(labels)])
    yield _saved((labels > 0).astype(np.uint8) * 255, "JPEG", quality=100)


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


def compressed() -> Iterator[bytes]:
    """One slice with each codec, and one in several fragments with their table."""
    with tempfile.TemporaryDirectory() as folder:
        for syntax in (*dicom_compressed.LOSSLESS, dicom_compressed.uid.JPEGExtended12Bit):
            paths = dicom_series.save(Path(folder), dicom_compressed.slices(dicom_compressed.STORED[:1]))
            yield dicom_compressed.compress(paths, syntax)[0].read_bytes()
        pixels = (dicom_compressed.STORED[0] // 16).astype(np.uint8).tobytes()
        one = dicom_series.one(0, Rows=36, Columns=40, PixelData=pixels, **EIGHT_BITS)
        yield dicom_compressed.to_jpeg(dicom_series.save(Path(folder), [one]))[0].read_bytes()
        paths = dicom_series.save(Path(folder), dicom_compressed.slices(dicom_compressed.STORED[:1]))
        dicom_compressed.compress(paths, dicom_compressed.uid.RLELossless)
        dataset = dicom_compressed.pydicom.dcmread(paths[0])
        frame = dicom_compressed.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        split = {"fragments_per_frame": 3, "has_bot": True}
        dicom_compressed.replace_frames(dataset, [frame], dicom_compressed.uid.RLELossless, **split)
        dataset.save_as(paths[0])
        yield paths[0].read_bytes()


def enhanced() -> Iterator[bytes]:
    """Two frames in one file, plain and compressed, and two volumes of one slice."""
    parts = dicom_compressed.slices(dicom_compressed.STORED[:2, :9, :10])
    kinds = [{"MRImageFrameTypeSequence": {"ComplexImageComponent": kind}} for kind in ("MAGNITUDE", "PHASE")]
    with tempfile.TemporaryDirectory() as folder:
        for frames in (None, kinds):
            (path,) = dicom_series.save(Path(folder), [dicom_compressed.enhanced(parts, frames)])
            yield path.read_bytes()
            yield dicom_compressed.compress([path], dicom_compressed.uid.RLELossless)[0].read_bytes()


def series_of_seg() -> Volume:
    """What the masks of ``segs`` are drawn on, without its files."""
    with tempfile.TemporaryDirectory() as folder:
        return _read_study(Path(folder))._replace(frames=())


def _read_study(folder: Path) -> Volume:
    stored = np.arange(DRAWN.size, dtype=np.uint16).reshape(DRAWN.shape)
    return series_reader.read_series(dicom_study.save(folder / "s", stored), "s")


def segs() -> Iterator[bytes]:
    """Masks as DICOM SEG: binary, fractional and of labels, plain and compressed."""
    with tempfile.TemporaryDirectory() as folder:
        origin = seg_writer.pick_origin(_read_study(Path(folder)).frames, "s")
    binary = seg_writer.encode(DRAWN.astype(np.uint8), origin, "model", {})
    yield binary
    for kind, value in (("FRACTIONAL", 100), ("LABELMAP", 1)):
        dataset = dicom_compressed.pydicom.dcmread(io.BytesIO(binary))
        dataset.SegmentationType, dataset.MaximumFractionalValue = kind, 100
        pixels = dataset.pixel_array.astype(np.uint8) * value
        for keyword, bits in EIGHT_BITS.items():
            setattr(dataset, keyword, bits)
        dataset.PixelData = pixels.tobytes()
        for syntax in ("", dicom_compressed.uid.RLELossless):
            if syntax:
                dataset.compress(syntax, generate_instance_uid=False)
            buffer = io.BytesIO()
            dataset.save_as(buffer)
            yield buffer.getvalue()


def dicomdirs() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        yield tcia_download.make_dicomdir(Path(folder), [["A", "I1"], ["I9"], ["DISK", "A", "I2"]]).read_bytes()


def itk(ending: str) -> Callable[[], Iterator[bytes]]:
    """NRRD or MetaImage with the voxels in the same file."""

    def make() -> Iterator[bytes]:
        kinds = ((VOLUME, False), (VOLUME, True), ((VOLUME > 9).astype(np.uint8), True), (VOLUME.astype("f4"), False),
                 (np.stack([VOLUME] * 3, -1), False))  # fmt: skip
        for array, packed in kinds:
            yield _write_itk(f"x{ending}", array, packed)["x" + ending]

    return make


def detached(ending: str) -> dict[str, bytes]:
    """Header, ``x`` and this ending, and the packed voxels beside it, by their names."""
    whole = _write_itk(f"x{ending}", VOLUME, True)
    skipped = b"line skip: 0\nbyte skip: 0\ndata file:"  # only NRRD has these fields
    return {name: data.replace(b"data file:", skipped) for name, data in whole.items()}


def _write_itk(name: str, array: np.ndarray, packed: bool) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        itk_files.write(Path(folder, name), array, nifti_files.AFFINE, packed=packed)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def mgh() -> Iterator[bytes]:
    for array in (VOLUME, VOLUME.astype(np.uint8), VOLUME.astype("f4"), np.stack([VOLUME] * 3, -1)):
        image = nifti_files.nibabel.MGHImage(array, nifti_files.AFFINE)
        yield image.to_bytes()
        yield gzip.compress(image.to_bytes(), mtime=0)


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
                opened.add(output.Record(name, *facts, lesions=[dict.fromkeys(lesions.COLUMNS, 1)]))
        yield Path(folder, output.JOURNAL).read_bytes()


def tables() -> Iterator[bytes]:
    yield b"row,patient,institution,slice,tumour_pixels,source,spacing\n" + b"".join(
        b"%d,P%d,X,%d,%d,a.tif,1 x 1 x 5\n" % (n, n // 2, n % 2, n) for n in range(8)
    )


def splits() -> Iterator[bytes]:
    subsets = (b"train", b"train", b"val", b"val", b"test", b"test", b"train", b"train")
    yield b"row,patient,fold,subset\n" + b"".join(b"%d,P%d,0,%s\n" % (n, n // 2, s) for n, s in enumerate(subsets))


def facts() -> Iterator[bytes]:
    """dataset.json of nnU-Net and of the Medical Decathlon."""
    channels, labels = dict(enumerate(SEQUENCES)), {"background": 0, "tumour": 1, "ignore": 2}
    yield json.dumps({"channel_names": channels, "labels": labels, "file_ending": ".nii.gz"}, indent=1).encode()
    yield json.dumps({"modality": channels, "labels": {"0": "background", "1": "edema"}}).encode()
    yield json.dumps({"modality": {"0": "MRI"}}).encode()


def pairs() -> Iterator[bytes]:
    """CSVs of pairs of slices and of volumes."""
    names = [b"a/x_%d.tif,b/x_%d.tif" % (n, n) for n in range(3)]
    yield b"image,mask,patient,institution,age\n" + b"".join(
        b"%s,p%d,N,40\n" % pair for pair in zip(names, range(3), strict=True)
    )
    yield b"\xef\xbb\xbfimage;mask\n" + b"\n".join(names).replace(b",", b";")
    yield b"image,pre,post,mask\nv/flair.nii.gz,v/t1.nii.gz,v/t1ce.nii.gz,v/m.nii.gz\n"


def scores() -> Iterator[bytes]:
    yield (ROOT / "metrics/per_patient.csv").read_bytes()


MANIFEST = of_json(run_files.manifest)
EVALUATION = of_json(run_files.evaluation)
SUMMARY = of_json(run_files.summary)
CROSS_VALIDATION = of_json(run_files.cross_validation)
