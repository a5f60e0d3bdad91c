"""NIfTI-1 and NIfTI-2, single files and pairs .hdr/.img, plain or gzipped, to axial volumes and back.

Accepted shapes are ``(I, J, K)``, with or without trailing axes of length 1, one slice ``(I, J)``, and for images also
three channels, ``(I, J, K, 3)``, vectors ``(I, J, K, 1, 3)`` or RGB24, in the order pre-contrast, FLAIR, post-contrast.
A time series is refused. The position comes from the sform where its code is above 0, else from the qform. Where the
two disagree, the sform wins, as in nibabel, unless only the qform is an upright grid. A file with neither is refused:
its left and right would be a guess.

Intensities stay uint8, uint16, int16 or float32 where the file stores them so and does not scale them. Scaled ones
become float32 (``slope * stored + intercept``, computed in float64). So do int8, int32, uint32, int64, uint64 and
float64; integers that float32 cannot hold exactly are refused.

Limits are checked on the header, before any voxel is read, and no more is decompressed than the header declares. The
free texts of the header (description, names, extensions) are never read.
"""

import gzip
import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from brainseg import files
from brainseg.errors import DataError, guard
from brainseg.io import values, volumes
from brainseg.io.volumes import MAX_VOXELS, Geometry, Volume

SUFFIXES = (".nii", ".nii.gz")
PAIR_SUFFIXES = (".hdr", ".hdr.gz", ".img", ".img.gz")  # a header, and its voxels in a file of their own
ANY = -1  # sequences of a file of which only the header is read

_HEADER_SIZES = {struct.pack(f"{order}i", size): (size, order) for size in (348, 540) for order in "<>"}
_SINGLE_FILE_MARKS = (b"n+1\0", b"n+2\0\r\n\x1a\n")
_PAIR_MARKS = (b"ni1\0", b"ni2\0\r\n\x1a\n")
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 128: "u1", 256: "i1", 512: "u2", 768: "u4", 1024: "i8"}
_TYPES[1280] = "u8"
_RGB = 128
_OTHER_TYPES = {1: "1-bit", 32: "complex", 1536: "128-bit", 1792: "complex", 2048: "complex", 2304: "RGBA"}
_MAX_OFFSET = 2**24  # bytes of header and extensions before the voxels
_MAX_TRAILING = 2**20  # bytes after the voxels that are ignored
_MM_CODES = (0, 2)  # codes of the unit: 0 is unknown, which is taken as millimetres, and 2 is millimetres
_TIMES = {8: "s", 16: "ms", 24: "us"}  # codes of the unit of the fourth axis, the other ones but 0 are of spectra
_TIME_SERIES = 2001  # intent
_VECTORS = (1007, 2003)  # intents of a fifth axis: vector, RGB
_MASK_LEVEL, _MAP_LEVEL = 9, 4  # of gzip: numbers take ten times as long as masks, and gain little
_SCANNER = 1  # code of an sform or qform in coordinates of the scanner

_RESTORE = "restore it, or save it again as .nii or .nii.gz"


class Header(NamedTuple):
    """What reading the voxels of a file needs, of NIfTI or of another format that stores them in the same way."""

    geometry: Geometry
    channels: int
    dtype: np.dtype  # as stored, with its byte order
    interleaved: bool  # RGB24: the channels of a voxel lie side by side
    offset: int  # bytes between the end of the header and the voxels
    scaling: values.Scaling
    remarks: tuple[str, ...]


def is_head(data: bytes) -> bool:
    """Whether a file, decompressed, that begins so is NIfTI, or the header of a pair."""
    size, _ = _HEADER_SIZES.get(data[:4], (0, ""))
    mark = data[344:348] if size == 348 else data[4:12]
    return size > 0 and mark in (*_SINGLE_FILE_MARKS, *_PAIR_MARKS)


def other_names(name: str) -> list[str]:
    """Names that the other half of a pair may have: of ``a.img`` those of its header, of ``a.hdr`` those of its voxels.

    Empty if the name is of no half.
    """
    own = max((end for end in PAIR_SUFFIXES if name.lower().endswith(end)), key=len, default="")
    if not own:
        return []
    stem, wanted = name[: -len(own)], ".img" if own.startswith(".hdr") else ".hdr"
    endings = [wanted, f"{wanted}.gz"]
    return [stem + ending for ending in (*endings, *map(str.upper, endings))]


def find_other_half(path: Path) -> Path | None:
    """The other half of a pair, in the same folder; None if there is none, or if ``path`` is no half."""
    others = map(path.with_name, other_names(path.name))
    return next((other for other in others if os.path.isfile(other)), None)  # raises nothing, as of too long a name


def read_geometry(path: Path, name: str) -> Geometry:
    """The grid of a volume, from its header alone. Errors as in :func:`read_image`, of a header; sequences may be many.

    A fourth axis of any length is accepted: its volumes share one grid.
    """
    volumes.load_nibabel("NIfTI")
    with guard(name), open_file(_find_halves(path, name)[0], name) as stream:
        return _read_header(stream, name, is_pair=bool(other_names(path.name)), sequences=ANY).geometry


def read_sequences(path: Path, name: str, sequences: int, chosen: Sequence[int], most: int = MAX_VOXELS) -> Volume:
    """Read some of the volumes that lie one after another on the fourth axis, when another file says what they are.

    Args:
        sequences: how many volumes there must be.
        chosen: one or three of them, by their numbers from 0; a number may be there twice.

    Returns:
        As :func:`read_image`, ``(S, H, W)`` for one, ``(S, H, W, 3)`` for three.
    """
    header, stored = _read_file(path, name, (sequences,), most, sequences)
    picked = stored[..., list(chosen)] if len(chosen) > 1 else stored[..., chosen[0]]
    axial = volumes.to_axial(values.to_intensities(picked, header.scaling, name), header.geometry.affine)
    return axial._replace(remarks=header.remarks)


def read_image(path: Path, name: str, most: int = MAX_VOXELS) -> Volume:
    """Read the intensities of a scan.

    Args:
        path: the file, or one half of a pair; its bytes say whether it is gzipped.
        name: what errors call it.
        most: values accepted in all.

    Returns:
        uint8, uint16, int16 or float32, ``(S, H, W)`` or ``(S, H, W, 3)``, all of them finite.

    Raises:
        DataError: not a whole single-file NIfTI of one volume with a position in space, or too large.
        MachineError: nibabel is not installed.
    """
    header, stored = _read_file(path, name, (1, 3), most)
    intensities = values.to_intensities(stored, header.scaling, name)
    return volumes.to_axial(intensities, header.geometry.affine)._replace(remarks=header.remarks)


def read_labels(path: Path, name: str, most: int = MAX_VOXELS) -> Volume:
    """Read a mask: uint8 or uint16 labels, ``(S, H, W)``. Arguments and errors as in :func:`read_image`.

    Any stored type is accepted if all its values, scaled, are whole numbers 0 to 65535.
    """
    header, stored = _read_file(path, name, (1,), most)
    labels = values.to_labels(stored, header.scaling, name)
    return volumes.to_axial(labels, header.geometry.affine)._replace(remarks=header.remarks)


def write(path: Path, voxels: np.ndarray, geometry: Geometry) -> None:
    """Write a mask, or a map of numbers, as NIfTI-1 in the geometry of the file that its image came from.

    The same voxels give the same bytes. sform and qform both have the code "scanner"; the header holds no text.

    Args:
        path: ends in ``.nii`` or ``.nii.gz``.
        voxels: ``(S, H, W)`` in axial order, uint8 or bool for a mask, float32 for a map.
        geometry: of the image, as :func:`read_image` gave it.

    Raises:
        ValueError: another type, shape or file ending.
        MachineError: nibabel is not installed.
    """
    if voxels.dtype not in (np.uint8, np.bool_, np.float32) or voxels.ndim != 3 or not path.name.endswith(SUFFIXES):
        what = "uint8 or float32 (S, H, W) goes to .nii or .nii.gz"
        raise ValueError(f"{path.name}: {what}, not {voxels.dtype} {voxels.shape}")
    stored = np.dtype("<f4" if voxels.dtype == np.float32 else np.uint8)
    header = volumes.load_nibabel("NIfTI").Nifti1Header(endianness="<")
    header.set_data_dtype(stored)
    header.set_data_shape(geometry.shape)
    header.set_qform(geometry.affine, _SCANNER)
    header.set_sform(geometry.affine, _SCANNER)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["vox_offset"] = 352
    ordered = volumes.to_file_order(voxels.astype(stored), geometry)
    data = header.binaryblock + bytes(4) + ordered.tobytes(order="F")
    level = _MASK_LEVEL if stored == np.uint8 else _MAP_LEVEL
    with files.replacing(path) as temporary:
        temporary.write_bytes(_compress(data, level) if path.name.endswith(".gz") else data)


def _compress(data: bytes, level: int) -> bytes:
    """gzip with neither a file name nor a time in its header, so that equal data gives equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", level, fileobj=buffer, mtime=0) as packed:
        packed.write(data)
    return buffer.getvalue()


def _read_file(
    path: Path, name: str, channels: tuple[int, ...], most: int, sequences: int = 0
) -> tuple[Header, np.ndarray]:
    """The header, and the voxels as stored: ``(I, J, K)``, ``(I, J, K, 3)`` or ``(I, J, K, sequences)``."""
    volumes.load_nibabel("NIfTI")  # before the file is opened
    with guard(name):
        try:
            own, voxels = _find_halves(path, name)
            with open_file(own, name) as stream:
                header = _read_header(stream, name, is_pair=voxels is not None, sequences=sequences)
                check_header(header, channels, name, most)
                if not voxels:
                    return header, read_voxels(stream, header, name)
            with open_file(voxels, name) as stream:
                return header, read_voxels(stream, header, name)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise DataError(name, "is damaged or cut short (its gzip stream is not whole)", _RESTORE) from None


def check_header(header: Header, channels: tuple[int, ...], name: str, most: int) -> None:
    """Refuse other numbers of channels and what is too small or too large, before any voxel is read."""
    volumes.check_channels(header.channels, channels, name)
    volumes.check_size(header.geometry, header.channels, name, most)


def _find_halves(path: Path, name: str) -> tuple[Path, Path | None]:
    """The file with the header and, of a pair, the one with the voxels."""
    if not other_names(path.name):
        return path, None
    other = find_other_half(path)
    is_header = path.name.lower().endswith(PAIR_SUFFIXES[:2])
    if other is None:
        missing = ".img with its voxels" if is_header else ".hdr with its header"
        fix = "put both files of the pair side by side, under one name"
        raise DataError(name, f"is one half of a pair, and there is no {missing} beside it", fix)
    return (path, other) if is_header else (other, path)


@contextmanager
def open_file(path: Path, name: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed if its first bytes are those of gzip."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
        raise DataError(name, "is not a file", "put the file itself here")
    with path.open("rb") as file, _open_stream(file) as stream:
        yield stream


@contextmanager
def _open_stream(file: Any) -> Iterator[IO[bytes]]:
    """``file`` itself or, if its first bytes are those of gzip, a stream of the decompressed data."""
    if file.peek(2)[:2] != b"\x1f\x8b":
        yield file
        return
    with gzip.GzipFile(fileobj=file) as stream:
        yield stream  # type: ignore[misc]


def _read_header(stream: IO[bytes], name: str, *, is_pair: bool, sequences: int = 0) -> Header:
    """Read the header, leave ``stream`` at its end, and refuse what is not accepted.

    Args:
        sequences: the length of the fourth axis if it is known to hold them; ANY accepts each.
    """
    block = stream.read(348)
    if not block:
        raise DataError(name, "is empty", "restore or remove it")
    size, order = _HEADER_SIZES.get(block[:4], (0, ""))
    if not size:
        raise DataError(name, "is not NIfTI", "save it as .nii or .nii.gz")
    block += stream.read(size - len(block))
    if len(block) < size:
        raise DataError(name, "is cut short within its header", _RESTORE)
    mark = block[344:348] if size == 348 else block[4:12]
    if is_pair and mark in _SINGLE_FILE_MARKS:
        raise DataError(
            name, "is half of a pair by its name, a whole file by its header", "name the header's file .nii"
        )
    if is_pair and mark not in _PAIR_MARKS:
        what = "is Analyze (it has no NIfTI mark), which does not say where left and right are"
        fix = "convert its DICOM files again (dcm2niix); if you know how it lies, save it as NIfTI with that affine"
        raise DataError(name, what, fix)
    if mark in _PAIR_MARKS and not is_pair:
        raise DataError(name, "is one half of a pair .hdr and .img", "name it .hdr, beside its .img")
    if mark not in (*_SINGLE_FILE_MARKS, *_PAIR_MARKS):
        raise DataError(name, "has no NIfTI mark in its header (Analyze, or damaged)", _RESTORE)
    kind = "Nifti1Header" if size == 348 else "Nifti2Header"
    fields = getattr(volumes.load_nibabel(), kind)(block, order, check=False)  # its checks repair silently, and log
    if not sequences:
        _check_time(fields, name)
    shape = _read_shape(fields, name, sequences)
    dtype, code = _read_dtype(fields, order, name)
    if code == _RGB and len(shape) == 4:
        raise DataError(name, "has several colours in each of its channels", "save three channels of one value each")
    affine, remarks = _read_affine(fields, name)
    geometry = Geometry(affine, (shape[0], shape[1], shape[2]))
    channels = 3 if code == _RGB else shape[3] if len(shape) == 4 else 1
    scaling = values.Scaling() if code == _RGB else _read_scaling(fields, name)  # NIfTI never scales colours
    return Header(
        geometry,
        channels,
        dtype,
        code == _RGB,
        _read_offset(fields, 0 if is_pair else size, name),
        scaling,
        remarks,
    )


def _check_time(fields: Any, name: str) -> None:
    """Refuse volumes one after another in time: a unit of time and a step, or a step that is no default."""
    volumes_in_time = int(fields["dim"][4])
    if int(fields["dim"][0]) < 4 or volumes_in_time < 2:
        return
    unit, step = int(fields["xyzt_units"]) & 0x38, float(fields["pixdim"][4])
    marked = step != 0 if unit else step not in (0, 1)
    if not marked and int(fields["intent_code"]) != _TIME_SERIES:
        return
    each = f" every {step:g} {_TIMES.get(unit, '')}".rstrip() if unit in _TIMES or not unit else ""
    what = f"is a series of {volumes_in_time} volumes{each} by its header, one volume is accepted"
    fix = "save one time point as a file of its own; if they are three sequences, save them again with nibabel after "
    raise DataError(name, what, fix + "header.set_xyzt_units('mm') and header['pixdim'][4] = 1")


def _read_shape(fields: Any, name: str, sequences: int = 0) -> list[int]:
    """``[I, J, K]``, ``[I, J, K, 3]`` or ``[I, J, K, sequences]``."""
    count, *sides = (int(side) for side in fields["dim"])
    shape = sides[:count]
    if not 1 <= count <= 7 or min(shape) < 1:
        raise DataError(name, "has impossible dimensions in its header", _RESTORE)
    if count == 2:
        shape.append(1)  # one slice
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) == 5 and shape[3] == 1 and int(fields["intent_code"]) in _VECTORS:
        del shape[3]
    if sequences not in (0, ANY) and shape[3:] != [sequences]:
        what = f"is {' x '.join(map(str, shape))}, not {sequences} volumes one after another as dataset.json says"
        raise DataError(name, what, "correct dataset.json, or leave the case out")
    if len(shape) != 3 and (len(shape) != 4 or shape[3] != 3) and (not sequences or len(shape) > 4):
        what = f"is {' x '.join(map(str, shape))}, one volume is accepted: I x J x K, or I x J x K x 3 channels"
        raise DataError(name, what, "save each volume, or the three channels, as a file of their own")
    return shape


def _read_dtype(fields: Any, order: str, name: str) -> tuple[np.dtype, int]:
    code = int(fields["datatype"])
    if code not in _TYPES:
        what = f"has voxels of {_OTHER_TYPES.get(code, 'an unknown')} type"
        raise DataError(name, what, "save it as integers, float32 or float64")
    dtype = np.dtype(order + _TYPES[code])
    if int(fields["bitpix"]) != 8 * dtype.itemsize * (3 if code == _RGB else 1):
        raise DataError(name, "declares a type and a size of its voxels that disagree", _RESTORE)
    return dtype, code


def _read_affine(fields: Any, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The sform if its code is above 0 and it is an upright grid, else the qform; ``(4, 4)``, float64, and a remark."""
    if int(fields["xyzt_units"]) & 7 not in _MM_CODES:
        raise DataError(name, "is not measured in millimetres", "convert its header to millimetres")
    if int(fields["sform_code"]) <= 0:
        if int(fields["qform_code"]) > 0:
            return _read_qform(fields, name), ()
        what = "has no orientation (neither sform nor qform), so left and right are unknown"
        raise DataError(name, what, "set it with fslorient or nibabel, or convert it again from DICOM")
    affine = np.asarray(fields.get_sform(), np.float64)
    try:
        volumes.check_affine(affine, name)
    except DataError as unusable:
        if int(fields["qform_code"]) <= 0:
            raise
        try:
            qform = _read_qform(fields, name)
        except DataError:
            raise unusable from None
        return qform, (f"its sform {unusable.problems[0].what}, so its qform was used",)
    return affine, ()


def _read_qform(fields: Any, name: str) -> np.ndarray:
    """``(4, 4)``, float64, checked."""
    if fields["pixdim"][0] == 0:  # the standard takes it as 1
        fields["pixdim"][0] = 1
    try:
        affine = np.asarray(fields.get_qform(), np.float64)
    except (ValueError, volumes.load_nibabel().spatialimages.HeaderDataError):
        raise DataError(name, "has an orientation (qform) that is no rotation", _RESTORE) from None
    volumes.check_affine(affine, name)
    return affine


def _read_scaling(fields: Any, name: str) -> values.Scaling:
    """Slope and intercept. In the standard a slope of 0 means no scaling; nibabel writes NaN for it."""
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return values.Scaling()
    if not np.isfinite([slope, intercept]).all():
        raise DataError(name, "has a scaling (scl_slope, scl_inter) that is not a number", _RESTORE)
    return values.Scaling(slope, intercept)


def _read_offset(fields: Any, size: int, name: str) -> int:
    """Bytes from the end of a header of ``size`` to the voxels; a pair has none of it in the file of its voxels."""
    offset = float(fields["vox_offset"])
    if not (size and size + 4) <= offset <= _MAX_OFFSET or offset % 1:
        raise DataError(name, "says that its voxels begin at an impossible place", _RESTORE)
    return int(offset) - size


def read_voxels(stream: IO[bytes], header: Header, name: str) -> np.ndarray:
    """The voxels as stored, ``(I, J, K)`` or ``(I, J, K, 3)``, from a stream that is at the end of the header.

    Read to the end, which also checks the checksum of gzip; more than the header declares is refused.
    """
    shape = header.geometry.shape
    count = header.channels * int(np.prod(shape, dtype=np.int64))
    stream.read(header.offset)
    size = count * header.dtype.itemsize
    data = stream.read(size + _MAX_TRAILING + 1)
    if len(data) < size:
        raise DataError(name, f"is cut short: {len(data):,} of {size:,} bytes of voxels", _RESTORE)
    if len(data) > size + _MAX_TRAILING:
        raise DataError(name, "holds more than its header declares", _RESTORE)
    stored = np.frombuffer(data, header.dtype, count)
    if header.interleaved:
        return np.moveaxis(stored.reshape((3, *shape), order="F"), 0, 3)
    return stored.reshape(shape if header.channels == 1 else (*shape, header.channels), order="F")
