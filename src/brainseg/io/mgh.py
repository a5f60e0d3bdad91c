"""FreeSurfer's volumes, .mgh and, gzipped, .mgz, to axial volumes.

One frame is accepted, or three, which are channels. Limits are checked on the header before any voxel is read.
"""

import gzip
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from brainseg.errors import DataError, guard
from brainseg.io import nifti, values, volumes
from brainseg.io.volumes import MAX_VOXELS, Geometry, Volume

SUFFIXES = (".mgh", ".mgz")

_HEADER = 284  # bytes
_VERSION = b"\0\0\0\1"
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_RESTORE = "restore it, or convert it again: mri_convert"


def is_mgh(head: bytes) -> bool:
    """Whether a file, decompressed, that begins so is MGH: its version, then 1 to 65535 voxels along each axis."""
    return head[:4] == _VERSION and len(head) >= 16 and all(head[i : i + 2] == b"\0\0" for i in (4, 8, 12))


def read_image(path: Path, name: str, most: int = MAX_VOXELS) -> Volume:
    """Read the intensities of a scan. Arguments, answer and errors as in ``nifti.read_image``."""
    header, stored = _read_file(path, name, (1, 3), most)
    return volumes.to_axial(values.to_intensities(stored, header.scaling, name), header.geometry.affine)


def read_labels(path: Path, name: str, most: int = MAX_VOXELS) -> Volume:
    """Read a mask: uint8 or uint16 labels, ``(S, H, W)``. Arguments and errors as in ``nifti.read_labels``."""
    header, stored = _read_file(path, name, (1,), most)
    return volumes.to_axial(values.to_labels(stored, header.scaling, name), header.geometry.affine)


def _read_file(path: Path, name: str, channels: tuple[int, ...], most: int) -> tuple[nifti.Header, np.ndarray]:
    """The header, and the voxels as stored: ``(I, J, K)`` or ``(I, J, K, 3)``."""
    volumes.load_nibabel("MGH")
    with guard(name), nifti.open_file(path, name) as stream:
        try:
            header = _read_header(stream, name)
            nifti.check_header(header, channels, name, most)
            return header, nifti.read_voxels(stream, header, name)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise DataError(name, "is damaged or cut short (its gzip stream is not whole)", _RESTORE) from None


def _read_header(stream: IO[bytes], name: str) -> nifti.Header:
    from nibabel.freesurfer.mghformat import MGHHeader

    block = stream.read(_HEADER)
    if not block:
        raise DataError(name, "is empty", "restore or remove it")
    if block[:4] != _VERSION:
        raise DataError(name, "is not MGH", "save it as NIfTI: mri_convert IN OUT.nii.gz (FreeSurfer)")
    if len(block) < _HEADER:
        raise DataError(name, "is cut short within its header", _RESTORE)
    fields = MGHHeader(block, check=False)
    *shape, frames = (int(side) for side in fields["dims"])
    if min(*shape, frames) < 1:
        raise DataError(name, "has impossible dimensions in its header", _RESTORE)
    if frames not in (1, 3):
        what = f"is {' x '.join(map(str, [*shape, frames]))}, one volume is accepted: I x J x K, or three channels"
        raise DataError(name, what, "save each frame as a file of its own: mri_convert --frame 0")
    if int(fields["type"]) not in _TYPES:
        raise DataError(name, "has voxels of an unknown type", "save it as integers or float32: mri_convert -odt float")
    if int.from_bytes(block[28:30], "big") != 1:  # nibabel puts an orientation of its own in the place of none
        what = "has no orientation (its goodRASFlag is not set), so left and right are unknown"
        raise DataError(name, what, "convert it again from DICOM")
    affine = np.asarray(fields.get_affine(), np.float64)
    volumes.check_affine(affine, name)
    geometry = Geometry(affine, (shape[0], shape[1], shape[2]))
    return nifti.Header(geometry, frames, np.dtype(_TYPES[int(fields["type"])]), False, 0, values.Scaling(), ())
