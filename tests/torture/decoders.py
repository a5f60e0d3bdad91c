"""Every decoder of bytes that the program did not make itself in this run, each as a function of a file's content."""

import contextlib
import functools
import gzip
import random
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainseg import config
from brainseg.data import archive, dataset
from brainseg.data.layouts import recognition
from brainseg.errors import BrainsegError
from brainseg.evaluation import results
from brainseg.experiments import revision
from brainseg.inference import cases
from brainseg.io import itk, mgh, nifti, pictures, scans, untrusted_zip, zips
from brainseg.io.dicom import dicomdir, multiframe, pixel_data, slice_header
from brainseg.io.volumes import Volume
from brainseg.models import manifest
from brainseg.predict import batch, case_files, discover, output
from tests.torture import corpus
from tests.torture.mutate import mutate, mutate_packed_frames, mutate_sealed, repair_png

MOST_MEMBERS = 50
refusals: deque[str] = deque(maxlen=100)  # the last ones, so that a test can see that whole inputs are read


class Decoder(NamedTuple):
    """``act`` gets the damaged bytes and an empty folder; ``share``: how often it is drawn."""

    name: str
    inputs: Callable[[], Iterator[bytes]]
    act: Callable[[bytes, Path], None]
    share: int = 1


own_process: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext  # a child notes when it is there


def in_own_process(reader: Callable) -> Callable:
    """A reader for which the program has a process of its own: if other code ends it there, nothing is lost."""

    @functools.wraps(reader)
    def read(*arguments: object) -> object:
        with own_process():
            return reader(*arguments)

    return read


def on_disk(name: str, *readers: Callable[[Path], object]) -> Callable[[bytes, Path], None]:
    """Write the bytes to a file of this name and give it to each reader, also after one of them has refused it."""

    def act(data: bytes, folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        run_all(*(functools.partial(reader, path) for reader in readers))

    return act


def run_all(*steps: Callable[[], object]) -> None:
    """Call every step. Refusals are right answers; any other exception ends it."""
    for step in steps:
        try:
            step()
        except BrainsegError as error:
            refusals.append(str(error))


ITK = (scans.find_other_half, in_own_process(itk.read_image), in_own_process(itk.read_labels))


def _named(reader: Callable[[Path, str], object]) -> Callable[[Path], object]:
    return lambda path: reader(path, "x")


def _pictures(data: bytes, folder: Path) -> None:
    steps = (pictures.decode, pictures.decode_pages)
    run_all(*(functools.partial(step, data, "x") for step in steps), lambda: pictures.is_deep(data))
    on_disk("x.tif", pictures.has_pages)(data, folder)


def _masks(data: bytes, folder: Path) -> None:
    run_all(*(functools.partial(step, data, "x") for step in (pictures.decode_labels, pictures.decode_label_pages)))


def _dicom_file(path: Path, read_pixels: Callable = pixel_data.read_pixels) -> None:
    headers, _ = multiframe.read_headers(path, "x")
    read_pixels(headers)


def _zip(path: Path) -> None:
    for name in zips.list_names(path)[:MOST_MEMBERS]:
        run_all(lambda name=name: zips.unpack(path, name, path.with_name("member")))


def _slices(path: Path) -> None:
    found = untrusted_zip.open_files(path)
    try:
        for name in list(found.sizes)[:MOST_MEMBERS]:
            run_all(lambda name=name: pictures.decode(found.read(name), name))
    finally:
        found.close()


def _discover(path: Path) -> None:
    """What ``brainseg predict`` does with a folder that holds the file, up to the network.

    It looks for cases itself: what ends that ends the command, and all other cases with it.
    """
    scratch = path.parent.with_name("scratch")
    scratch.mkdir(exist_ok=True)
    sources = discover.find([str(path.parent)], scratch).sources
    for source in sources[:MOST_MEMBERS]:
        alone = len(sources) == 1 and not batch._needs_codec(source)  # such a case is read by the command itself
        reader = cases.read if alone else in_own_process(cases.read)
        run_all(
            lambda source=source: source.digest(scratch),
            lambda source=source, reader=reader: case_files.read(source, scratch, reader),
        )


@functools.cache
def _series() -> Volume:
    return corpus.series_of_seg()


def _seg(path: Path) -> None:
    scans.read_labels(path, "x", _series())


@functools.cache
def _detached(ending: str) -> dict[str, bytes]:
    return corpus.detached(ending)


def _apart(data: bytes, folder: Path, ending: str, hurt: str) -> None:
    """A header and its voxels in two files, of which the one named ``hurt`` is damaged."""
    for name, whole in _detached(ending).items():
        (folder / name).write_bytes(data if name == hurt else whole)
    path = folder / f"x{ending}"
    run_all(*(functools.partial(step, path, "x") for step in ITK))


def _dicomdir(data: bytes, folder: Path) -> None:
    (folder / "medium/A").mkdir(parents=True)
    (folder / "medium/A/I1").write_bytes(inputs_of(NAMED["DICOM file"])[0])
    on_disk("medium/DICOMDIR", dicomdir.find_missing, _discover)(data, folder)


def _layout(data: bytes, folder: Path, name: str, files: tuple[str, ...]) -> None:
    """The recognition of a folder that holds this file beside others, which are not read."""
    for other in files:
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(b"x")
    (folder / name).write_bytes(data)
    paths = (folder, folder / name) if name.endswith(".csv") else (folder,)
    for layout in ("auto", *(("nnunet", "decathlon") if name.endswith(".json") else ("table",))):
        for path in paths:
            settings = {"path": str(path), "layout": layout, "images": "**/*", "masks": "**/*_mask.*"}
            asked = config.Download(source="folder", patient="folder", **settings)
            run_all(functools.partial(recognition.find, asked))


def _journal(path: Path) -> None:
    corpus.write_answers(path.parent)
    with output.open_folder(path.parent) as opened:
        opened.write_summary()


def _dataset(data: bytes, folder: Path, hurt: str) -> None:
    """The tables of the slices and of the split, beside whole arrays."""
    for name in ("images", "masks"):
        np.save(folder / f"{name}.npy", np.zeros((8, 4, 4), np.uint8))
    for name, inputs in (("slices.csv", corpus.tables), ("split.csv", corpus.splits)):
        (folder / name).write_bytes(data if name == hurt else next(inputs()))
    run_all(lambda: dataset.load(folder, folder / "split.csv", "patient"))


def _scores(data: bytes, folder: Path, hurt: str) -> None:
    (folder / "scored").mkdir()
    for name, inputs in (("per_patient.csv", corpus.scores), ("evaluation.json", corpus.EVALUATION)):
        (folder / "scored" / name).write_bytes(data if name == hurt else next(inputs()))
    run_all(lambda: revision.scores("scored", folder))


def _json(kind: type) -> Callable[[bytes, Path], None]:
    return on_disk("x.json", lambda path: results.read(path, kind))


def _any_scan() -> Iterator[bytes]:
    for make in (corpus.pictures, corpus.nifti, corpus.dicom, corpus.zips, corpus.compressed, corpus.enhanced,
                 corpus.mgh, corpus.itk(".nrrd"), corpus.itk(".mha")):  # fmt: skip
        yield from make()


NNUNET = (*(f"imagesTr/A_{n:04}.nii.gz" for n in range(4)), "labelsTr/A.nii.gz")
DECATHLON = ("imagesTr/A.nii.gz", "labelsTr/A.nii.gz")
PAIRED = (
    *(f"{kind}/x_{n}.tif" for kind in ("a", "b") for n in range(3)),
    *(f"v/{name}.nii.gz" for name in ("flair", "t1", "t1ce", "m")),
)
ALL = (
    Decoder("pictures", corpus.pictures, _pictures, 5),
    Decoder("masks", corpus.masks, _masks, 4),
    Decoder("NIfTI", corpus.nifti, on_disk("x.nii", *map(_named, (nifti.read_image, nifti.read_labels))), 5),
    Decoder("DICOM file", corpus.dicom, on_disk("x.dcm", _dicom_file, _named(slice_header.read_series_uid)), 5),
    Decoder("DICOM compressed", corpus.compressed,
            on_disk("x.dcm", lambda path: _dicom_file(path, in_own_process(pixel_data.read_pixels))), 5),
    Decoder("DICOM enhanced", corpus.enhanced, on_disk("x/x.dcm", lambda path: scans.read_image(path.parent, "x")), 3),
    Decoder("DICOM SEG as a mask", corpus.segs, on_disk("x.dcm", _seg), 4),
    Decoder("DICOMDIR", corpus.dicomdirs, _dicomdir),
    Decoder("DICOM series", corpus.dicom, on_disk("x/x.dcm", lambda path: scans.read_image(path.parent, "x")), 2),
    *(Decoder(f"{kind}, x{ending}", corpus.itk(ending),
              on_disk(f"x{ending}", *map(_named, ITK)), 2)
      for kind, ending in (("NRRD", ".nrrd"), ("MetaImage", ".mha"))),
    *(Decoder(f"{hurt} of {ending}", lambda e=ending, h=hurt: iter([_detached(e)[h]]),
              functools.partial(_apart, ending=ending, hurt=hurt))
      for ending, voxels in corpus.DETACHED.items() for hurt in (f"x{ending}", voxels)),
    *(Decoder(f"MGH, x{ending}", corpus.mgh, on_disk(f"x{ending}", *map(_named, (mgh.read_image, mgh.read_labels))), 2)
      for ending in mgh.SUFFIXES),
    Decoder("zip of scans", corpus.zips, on_disk("x.zip", _zip), 4),
    Decoder("zip of slices", corpus.zips, on_disk("x.zip", _slices), 3),
    Decoder("our archive", corpus.archives, on_disk("x.zip", archive.read_index), 2),
    *(Decoder(f"cases in a folder, x{ending}", _any_scan, on_disk(f"folder/x{ending}", _discover))
      for ending in (".png", ".tif", ".nii.gz", ".dcm", "", ".zip", ".nrrd", ".mgz")),
    Decoder("manifest", corpus.MANIFEST, on_disk("unet.json", manifest.read), 2),
    Decoder("evaluation.json", corpus.EVALUATION, _json(results.Evaluation)),
    Decoder("summary.json", corpus.SUMMARY, _json(results.Summary)),
    Decoder("cross-validation", corpus.CROSS_VALIDATION, _json(results.CrossValidationSummary)),
    Decoder("scores to compare", corpus.scores, functools.partial(_scores, hurt="per_patient.csv")),
    Decoder("report to compare", corpus.EVALUATION, functools.partial(_scores, hurt="evaluation.json")),
    Decoder("slices.csv", corpus.tables, functools.partial(_dataset, hurt="slices.csv")),
    Decoder("split.csv", corpus.splits, functools.partial(_dataset, hurt="split.csv")),
    *(Decoder(f"dataset.json, {kind}", corpus.facts, functools.partial(_layout, name="dataset.json", files=files))
      for kind, files in (("nnU-Net", NNUNET), ("Decathlon", DECATHLON))),
    Decoder("CSV of pairs", corpus.pairs, functools.partial(_layout, name="pairs.csv", files=PAIRED)),
    Decoder("params.yaml", corpus.parameters, on_disk("params.yaml", lambda path: config.load(path=path))),
    Decoder("journal", corpus.journals, on_disk(f"answers/{output.JOURNAL}", _journal), 2),
)  # fmt: skip
NAMED = {decoder.name: decoder for decoder in ALL}


@functools.cache
def _make(inputs: Callable[[], Iterator[bytes]]) -> list[bytes]:
    return list(inputs())


def inputs_of(decoder: Decoder) -> list[bytes]:
    return _make(decoder.inputs)


def draw(seed: int) -> tuple[Decoder, bytes]:
    """The decoder and the damaged bytes of this seed."""
    rng = random.Random(f"mutations {seed}")
    (decoder,) = rng.choices(ALL, [each.share for each in ALL])
    data, other = rng.choice(inputs_of(decoder)), rng.choice(inputs_of(rng.choice(ALL)))
    if data.startswith(b"\x1f\x8b") and rng.random() < 0.7:  # damage within what the checksum covers
        return decoder, gzip.compress(mutate(gzip.decompress(data), rng, other), 1, mtime=0)
    if rng.random() < 0.5 and (changed := mutate_packed_frames(data, rng, other)):
        return decoder, changed
    if decoder.name == "journal" and rng.random() < 0.7:
        return decoder, mutate_sealed(data, rng, other)
    changed = mutate(data, rng, other)
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        changed = repair_png(changed)
    return decoder, changed
