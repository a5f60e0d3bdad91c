"""What would be read of LGG or of a user's folder, by names, sizes and headers alone."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainseg import config
from brainseg.commands.expected_data import ARCHIVE, ExpectedData, describe
from brainseg.commands.findings import show_bytes
from brainseg.data import archive, download, kaggle
from brainseg.data.layouts import recognition
from brainseg.data.layouts.pairing import PairedFiles
from brainseg.errors import BrainsegError, raise_all
from brainseg.experiments.planning import Plan
from brainseg.io import nifti, scans, volumes
from brainseg.io.sequences import CHANNELS

LGG_BYTES = 1_058_000_000  # of its files; Kaggle's zip holds them twice, compressed
LGG_FETCHED = 736_000_000
SERVER_SECONDS = 3.0
_HEADERS = 40  # volumes whose headers are read; the others are taken to be like them


def look(params: config.Params, plan: Plan, root: Path) -> ExpectedData:
    """The data by the archive, if it is there, else by their source.

    Raises:
        BrainsegError: the source cannot be read, with all that is wrong with it.
    """
    if not plan.runs("download") and (root / ARCHIVE).is_file():
        with archive.Archive(root / ARCHIVE) as opened:
            patients = [row.patient for row in opened.rows()]
        return describe(f"{ARCHIVE} is there ({show_bytes((root / ARCHIVE).stat().st_size)})", patients)
    source = params.download.source
    if source == "folder" and not plan.runs("download"):  # which need not be on this machine
        return ExpectedData(f"{ARCHIVE} comes from DVC's cache")
    if source == "phantom":
        return _look_at_phantoms(params.phantom)
    return _look_at_folder(params.download) if source == "folder" else _look_at_lgg(plan)


def _look_at_phantoms(params: config.Phantom) -> ExpectedData:
    slices = params.patients * params.slices
    told = f"phantoms, drawn here: {params.patients:,} patients, about {slices:,} slices"
    drawn = slices * params.size**2 * (len(CHANNELS) + 1)
    return ExpectedData(told, params.patients, slices, 2 * params.slices, drawn)


def _look_at_lgg(plan: Plan) -> ExpectedData:
    patients = [name for name, expected in kaggle.read_table().items() for _ in range(expected.slices)]
    return describe("LGG" if plan.runs("download") else f"LGG, {ARCHIVE} comes from DVC's cache", patients, LGG_BYTES)


class Source(NamedTuple):
    """Where LGG is taken from, in words, and the bytes that are fetched; ``warning``: what may go wrong."""

    told: str
    fetched: int = 0
    warning: str = ""


def reach_lgg() -> Source:
    """Look at the mirror, or ask the server.

    Raises:
        MachineError: there is no such mirror, or the server cannot be reached or refuses.
        IntegrityError: the mirror lacks files, or has others.
    """
    mirror = kaggle.find_mirror()
    place = mirror if isinstance(mirror, Path) else download.find_place(mirror)
    if isinstance(mirror, Path) or place.is_file():
        size = kaggle.measure(place)
        return Source(f"{place}, {show_bytes(size)}; the contents are verified when they are read")
    kept = place.with_suffix(".part")
    there = kept.stat().st_size if kept.is_file() else 0
    try:
        size, warning = download.ask_size(mirror, SERVER_SECONDS), ""
    except TimeoutError as error:
        size, warning = 0, f"it may not answer: {error}"
    left = max(0, (size or LGG_FETCHED) - there)
    name = "Kaggle, no account needed" if mirror == kaggle.URL else "BRAINSEG_MIRROR"
    return Source(f"{show_bytes(left)} are fetched from {name}", left, warning)


def _look_at_folder(params: config.Download) -> ExpectedData:
    read = recognition.find(params)
    raise_all(read.found.problems)
    cases = read.found.cases
    whole = [case for case in cases if case.is_volume]
    shapes = [shape for case in _choose(whole) if (shape := _read_shape(read.root, case))]
    told = f"{read.title} in {read.root}: {len({case.patient for case in cases}):,} patients"
    bytes_known = sum((read.root / name).stat().st_size for case in cases if not case.is_volume
                      for name in (case.image, case.mask))  # fmt: skip
    if whole and not shapes:
        told = f"{told}, {len(whole):,} volumes whose size is not known before they are read"
        return ExpectedData(told, len({case.patient for case in cases}))
    mean = float(np.mean([shape[0] for shape in shapes])) if shapes else 0.0
    voxels = float(np.mean([np.prod(shape) for shape in shapes])) if shapes else 0.0
    channels = len(CHANNELS) if any(case.pre or case.post or len(case.volumes) > 1 for case in whole) else 1
    slices = len(cases) - len(whole) + round(mean * len(whole))
    per_patient = Counter(case.patient for case in cases)
    largest = max((count * (mean if whole else 1) for count in per_patient.values()), default=0)
    archived = bytes_known + round(voxels * len(whole)) * (4 * channels + 1)  # at most: 32 bits a voxel, 8 a label
    about = "about " if len(whole) > len(shapes) else ""
    return ExpectedData(f"{told}, {about}{slices:,} slices (brainseg data says more)", len(per_patient), slices,
                        round(largest), archived)  # fmt: skip


def _choose(cases: list[PairedFiles]) -> list[PairedFiles]:
    return cases[:: max(1, len(cases) // _HEADERS)]


def _read_shape(root: Path, case: PairedFiles) -> tuple[int, ...]:
    """The axial slices, rows and columns of a NIfTI; empty for others, or where its header is damaged."""
    path = root / case.image
    if scans.kind_of(case.image) != "nifti":
        return ()
    try:
        return volumes.axial_shape(nifti.read_geometry(path, str(path)))
    except BrainsegError:  # download names all that are, and so does brainseg data
        return ()
