"""Cases: what is outlined together. A picture, a volume, or up to three series of one place as the model's channels."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainseg.errors import DataError, guard
from brainseg.io import pictures, scans, volumes
from brainseg.io.dicom import seg_writer
from brainseg.io.dicom.seg_writer import NoSegError, Origin
from brainseg.io.grid import SQUARE, PixelSize
from brainseg.io.sequences import CHANNELS
from brainseg.io.volumes import Volume

ROLES = {"pre": "pre-contrast", "flair": "FLAIR", "post": "post-contrast"}
_CONVERT = {
    ".mnc": "make it NIfTI: mri_convert IN OUT.nii.gz (FreeSurfer)",
    **dict.fromkeys((".raw", ".zraw"), "name its header, .mhd or .nhdr, which says how the voxels are stored"),
}


class Case(NamedTuple):
    """``voxels`` (S, H, W) or (S, H, W, 3), axial. ``volume``: their place in space, None if it is not known.

    ``kind``: picture, slices, tif (with several pages), dicom, or one of scans.READERS. ``channels``: the contrast in
    each model channel. ``remarks``: for the reader of the answer, what was assumed or passed over. ``origin``: of
    DICOM, what a SEG of the outline refers to; None where none can be made, of DICOM for the reason ``no_seg``.
    ``numbers``: of slices, which are numbered pictures, ascending; those of other kinds are 1, 2, ...
    """

    name: str
    kind: str
    voxels: np.ndarray
    volume: Volume | None
    channels: list[str]
    remarks: tuple[str, ...] = ()
    origin: Origin | None = None
    no_seg: str = ""
    numbers: tuple[int, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The remarks, what speaks against FLAIR, and why there is no DICOM SEG."""
        doubt = self.volume.doubt if self.volume else ""
        more = (doubt, describe_no_seg(self.no_seg) if self.no_seg else "")
        return (*self.remarks, *(each for each in more if each))

    @property
    def slice_numbers(self) -> tuple[int, ...]:
        """Those in the names of numbered pictures, else 1, 2, ... (in NIfTI and DICOM from the feet upwards)."""
        return self.numbers or tuple(range(1, len(self.voxels) + 1))

    @property
    def pixel(self) -> PixelSize:
        """Height and width of a pixel in mm, or of a square pixel if they are not known."""
        return self.volume.spacing[:2] if self.volume else SQUARE


def read(path: Path, name: str) -> Case:
    """Read a file, or a folder whose files are one DICOM series. An image with one channel is taken as FLAIR.

    Raises:
        DataError: it is no complete image of an accepted kind. MachineError: the library for its kind is not installed.
    """
    with guard(name):
        if kind := "dicom" if path.is_dir() else scans.kind_of(path.name):
            scan = scans.read_image(path, name)
            case = make_case(name, kind, scan.voxels, scan.volume, scan.remarks)
            return _add_origin(case) if scan.volume and scan.volume.frames else case
        if not path.is_file():
            raise DataError(name, "does not exist, or is no file", "check the path")
        if fix := next((fix for ending, fix in _CONVERT.items() if name.lower().endswith(ending)), ""):
            raise DataError(name, "is of a kind that is not read", fix)
        if pictures.has_pages(path):
            return make_case(name, "tif", pictures.decode_pages(path.read_bytes(), name), None)
        return make_case(name, "picture", pictures.decode(path.read_bytes(), name)[None], None)


def make_case(name: str, kind: str, voxels: np.ndarray, volume: Volume | None, remarks: tuple[str, ...] = ()) -> Case:
    """A case from arrays: three channels are those of the model, one channel, or three equal ones, is FLAIR.

    Equal channels stay in ``voxels``: a blank slice of a volume in colour has them, too.
    """
    channels = [ROLES["flair"]] * len(CHANNELS) if _is_gray(voxels) else list(CHANNELS)
    return Case(name, kind, voxels, volume, channels, remarks)


def _add_origin(case: Case) -> Case:
    """A DICOM series with what a SEG refers to, or with the reason why there will be none."""
    assert case.volume is not None
    try:
        return case._replace(origin=seg_writer.pick_origin(case.volume.frames, case.name))
    except NoSegError as error:
        return case._replace(no_seg=str(error))


def describe_no_seg(reason: str) -> str:
    """What the reader of an answer is told of a SEG that cannot be made."""
    return f"no DICOM SEG: {reason}"


def _is_gray(voxels: np.ndarray) -> bool:
    """Whether there is one channel, or all three are equal everywhere: gray that was saved as RGB."""
    if voxels.ndim == 3:
        return True
    return all((part == part[..., :1]).all() for part in voxels)  # by slices, which takes little memory


def combine(parts: dict[str, Case], name: str) -> Case:
    """Combine up to three series of one place into one case. FLAIR replaces a missing contrast, as in training.

    A SEG of the outline refers to FLAIR alone.

    Args:
        parts: by role: ``flair``, and ``pre``, ``post`` or both, each with one channel.

    Raises:
        DataError: no FLAIR, a series with three channels, or different shapes, types, places or slice numbers.
    """
    unknown = set(parts) - set(ROLES)
    if unknown or "flair" not in parts:
        raise DataError(name, "has no FLAIR" if not unknown else f"has a role {unknown.pop()!r}", "name FLAIR at least")
    if len(parts) == 1:
        return parts["flair"]
    parts = {role: _drop_copies(part) for role, part in parts.items()}
    flair = parts["flair"]
    for role, part in parts.items():
        _check_same_grid(flair, part, f"{name}, {ROLES[role]}")
    chosen = [parts.get(role, flair) for role in ROLES]
    voxels = np.stack([each.voxels for each in chosen], axis=-1)
    volume = flair.volume._replace(voxels=voxels) if flair.volume else None
    channels = [ROLES[role if role in parts else "flair"] for role in ROLES]
    remarks = join_remarks(parts.values())
    return flair._replace(name=name, voxels=voxels, volume=volume, channels=channels, remarks=remarks)


def join_remarks(parts: Iterable[Case]) -> tuple[str, ...]:
    """The remarks on all parts of a case, each once, in order."""
    return tuple(dict.fromkeys(remark for part in parts for remark in part.remarks))


def _drop_copies(part: Case) -> Case:
    """Gray that was saved as RGB, (S, H, W, 3), as the one channel that it is."""
    if part.voxels.ndim == 3 or not _is_gray(part.voxels):
        return part
    voxels = np.ascontiguousarray(part.voxels[..., 0])
    return part._replace(voxels=voxels, volume=part.volume and part.volume._replace(voxels=voxels))


def _check_same_grid(flair: Case, part: Case, name: str) -> None:
    fix = "resample the series onto the FLAIR's grid, or leave it out"
    if part.voxels.ndim != 3:
        raise DataError(name, "has three channels", "give series of one channel each")
    if part.voxels.shape != flair.voxels.shape or part.voxels.dtype != flair.voxels.dtype:
        shapes = (f"{each.voxels.shape} {each.voxels.dtype}" for each in (part, flair))
        raise DataError(name, "is {}, the FLAIR is {}".format(*shapes), fix)
    if part.slice_numbers != flair.slice_numbers:
        raise DataError(name, "has other slice numbers than the FLAIR", "give the same slices of each, or leave it out")
    if (part.volume is None) != (flair.volume is None):
        raise DataError(name, "and the FLAIR are of different kinds, one with a place in space", fix)
    if part.volume and flair.volume and not volumes.same_place(part.volume, flair.volume):
        raise DataError(name, "lies elsewhere in space than the FLAIR", fix)
