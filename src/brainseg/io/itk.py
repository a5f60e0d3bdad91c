"""NRRD and MetaImage to axial volumes, by SimpleITK: .nrrd, .nhdr, .mha, .mhd.

The voxels of .nhdr and .mhd lie in a file of their own, which must be in the same folder. ITK would follow any path in
a header, so it never sees the file's own: the few fields that say how voxels are stored and where they lie are checked,
and written into a header that names one file. Free text is never read. Limits are checked before any voxel is.

Accepted are ``(I, J, K)`` and three channels of it, as in ``io.nifti``. A header without an orientation is refused.
"""

import os
import re
import tempfile
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from brainseg.errors import DataError, guard, lack_library
from brainseg.io import pictures, values, volumes
from brainseg.io.volumes import MAX_VOXELS, Geometry, Volume

NRRD_SUFFIXES, META_SUFFIXES = (".nrrd", ".nhdr"), (".mha", ".mhd")
SUFFIXES = (*NRRD_SUFFIXES, *META_SUFFIXES)
DETACHED_SUFFIXES = (".nhdr", ".mhd")  # a header, and its voxels in a file of their own
DETACHED = "the file of its voxels"
MAX_HEADER = 2**16  # bytes
_MAX_NAME = 250  # bytes of the name of the file with the voxels; beside it a header is named NAME.nhdr or NAME.mhd
LOAD_SECONDS = 5.0  # SimpleITK takes one second to load, more on a slow disk

_META = re.compile(rb"(ObjectType|ObjectSubType|NDims|Comment)[ \t]*=")  # ITK and its relatives begin with one
_VALUE = re.compile(r"[-+?0-9.eE(),\w \"]{1,500}", re.ASCII)
_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_ZLIB_OR_GZIP = 47  # of zlib: it looks which
_LOCAL = "LOCAL"
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's x grows to the left, its y to the back
_RESTORE = "restore it, or save it again"
_WITH_PLACE = "save it again in 3D Slicer or with SimpleITK, or convert it again from DICOM"
_SLICE = "is one slice without a place in space"
_SLICE_FIX = "save it as a picture, or as a volume of one slice"
_TYPES = {
    *("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t", "short", "short int"),
    *("signed short", "signed short int", "int16", "int16_t", "ushort", "unsigned short", "unsigned short int"),
    *("uint16", "uint16_t", "int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"),
    *("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    *("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "float", "double"),
    *(f"MET_{kind}" for kind in ("CHAR", "UCHAR", "SHORT", "USHORT", "INT", "UINT", "FLOAT", "DOUBLE")),
    *("MET_LONG_LONG", "MET_ULONG_LONG"),
}
_SPACES = {"left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las"}
_ENCODINGS = {"raw", "gzip", "gz"}  # ITK crashes on damaged text
_MM = {"mm", "millimeter", "millimeters", "?", ""}
_NRRD_FIELDS = ("type", "dimension", "space", "sizes", "space directions", "space origin", "kinds", "endian",
                "encoding")  # fmt: skip
_META_FIELDS = ("NDims", "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData",
                "TransformMatrix", "Rotation", "Orientation", "Offset", "Position", "Origin", "ElementSpacing",
                "ElementSize", "DimSize", "ElementNumberOfChannels", "ElementType")  # fmt: skip
_ORIENTATIONS = ("TransformMatrix", "Rotation", "Orientation")


class _Header(NamedTuple):
    """``fields`` as the file has them, ``end``: where a header ends, in bytes and lines; ``voxels``: a file's name."""

    is_nrrd: bool
    fields: dict[str, str]
    end: int
    lines: int
    voxels: str  # empty: they follow the header


def load() -> ModuleType:
    """Import SimpleITK where it is needed: it is optional, large, and slow to import.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import SimpleITK
    except ImportError:
        raise lack_library("NRRD and MetaImage", "SimpleITK") from None
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return SimpleITK


def is_nrrd(data: bytes) -> bool:
    """Whether a file that begins so is NRRD."""
    return data.startswith(b"NRRD000")


def is_head(data: bytes) -> bool:
    """Whether a file that begins so is NRRD or MetaImage."""
    return is_nrrd(data) or _META.match(data) is not None


def is_itk(name: str) -> bool:
    """Whether a file of this name is NRRD or MetaImage."""
    return name.lower().endswith(SUFFIXES)


def find_voxels(data: bytes, name: str) -> str:
    """The name of the file with the voxels of a header, in the same folder; empty if they follow the header.

    Args:
        data: the file, or its first MAX_HEADER bytes.

    Raises:
        DataError: it is no header that can be read, or names a file elsewhere.
    """
    with guard(name):
        return _read_header(data, name).voxels


def read_image(path: Path, name: str, most: int = MAX_VOXELS) -> Volume:
    """Read the intensities of a scan. Arguments, answer and errors as in ``nifti.read_image``."""
    stored, affine = _read_file(path, name, (1, 3), most)
    return volumes.to_axial(values.to_intensities(stored, values.Scaling(), name), affine)


def read_labels(path: Path, name: str, most: int = MAX_VOXELS) -> Volume:
    """Read a mask: uint8 or uint16 labels, ``(S, H, W)``. Arguments and errors as in ``nifti.read_labels``."""
    stored, affine = _read_file(path, name, (1,), most)
    return volumes.to_axial(values.to_labels(stored, values.Scaling(), name), affine)


def _read_file(path: Path, name: str, channels: tuple[int, ...], most: int) -> tuple[np.ndarray, np.ndarray]:
    """The voxels as stored, ``(I, J, K)`` or ``(I, J, K, 3)``, and the affine ``(4, 4)``."""
    itk = load()
    with guard(name, _RESTORE):
        with path.open("rb") as file:
            header = _read_header(file.read(MAX_HEADER), name)
        source = path.with_name(header.voxels) if header.voxels else path
        if not os.path.isfile(source):  # which raises nothing, as of a name that the disk finds too long
            fix = "put both files side by side, under the names that they were saved with"
            raise DataError(name, f"is a header alone: {DETACHED}, {header.voxels}, is not beside it", fix)
        with tempfile.TemporaryDirectory(prefix="brainseg-") as folder, pictures.quiet():
            own = Path(folder, "header.nhdr" if header.is_nrrd else "header.mhd")
            own.write_text("\n".join(_rewrite(header, source.stat().st_size, name)) + "\n", "ascii")
            Path(folder, "voxels").symlink_to(source.resolve())
            reader = itk.ImageFileReader()
            reader.SetImageIO("NrrdImageIO" if header.is_nrrd else "MetaImageIO")
            reader.SetFileName(str(own))
            reader.ReadImageInformation()
            shape = _read_shape(reader, header, name)
            affine = _read_affine(reader)
            volumes.check_affine(affine, name)
            count = shape[3] if len(shape) > 3 else 1
            volumes.check_channels(count, channels, name)
            volumes.check_size(Geometry(affine, (shape[0], shape[1], shape[2])), count, name, most)
            if _is_packed(header):
                _check_packed(source, header, name)
            array = itk.GetArrayFromImage(reader.Execute())
    if count == 1:
        return array.reshape(shape[2::-1]).transpose(), affine
    if reader.GetNumberOfComponents() == 1:  # channels of a fourth axis
        return array.reshape(shape[::-1]).transpose(), affine
    return array.reshape(*shape[2::-1], count).transpose(2, 1, 0, 3), affine


def _read_header(data: bytes, name: str) -> _Header:
    if not data:
        raise DataError(name, "is empty", "restore or remove it")
    header = _read_nrrd(data, name) if is_nrrd(data) else _read_meta(data, name)
    if voxels := header.voxels:
        if (size := len(voxels.encode())) > _MAX_NAME:
            what = f"names {DETACHED} by {size:,} bytes, at most {_MAX_NAME} are read"
            raise DataError(name, what, "give it a shorter name, also in the header")
        if "/" in voxels or "\\" in voxels or voxels in (".", "..") or not voxels.isprintable():
            what = f"names {DETACHED} by a path; only a file in the same folder is read"
            raise DataError(name, what, "put both in one folder, and write the name alone into the header")
        if re.fullmatch(r"LIST( .*)?", voxels) or "%" in voxels:
            raise DataError(name, "has its voxels in several files", "save it as one .nrrd, .mha or .nii.gz")
    return header


def _read_nrrd(data: bytes, name: str) -> _Header:
    """Fields are ``name: value``, up to an empty line or the end."""
    found = re.search(rb"\r?\n\r?\n", data)
    end = found.end() if found else len(data)
    lines = data[:end].decode("utf-8", "replace").split("\n")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        key, colon, value = line.strip().partition(":")
        if not line.strip() or line.startswith("#") or value.startswith("="):  # a comment, or a key of the user's own
            continue
        key = " ".join(key.lower().split()).replace("datafile", "data file")
        if not colon or key in fields:
            raise DataError(name, "is damaged: its header has a line that is no field, or a field twice", _RESTORE)
        fields[key] = _tidy(value) if key != "data file" else value.strip()
    voxels = fields.pop("data file", "")
    if not (found or voxels) or len(data) == MAX_HEADER == end:
        raise DataError(name, "is cut short within its header, or has a header that is too long", _RESTORE)
    _check_nrrd(fields, name)
    return _Header(True, fields, end, len(lines) - 1, voxels)


def _check_nrrd(fields: dict[str, str], name: str) -> None:
    if fields.get("dimension") == "2":
        raise DataError(name, _SLICE, _SLICE_FIX)
    if fields.get("space", "").lower() not in _SPACES or "space directions" not in fields:
        what = "has no orientation (no space and space directions of a patient), so left and right are unknown"
        raise DataError(name, what, _WITH_PLACE)
    if fields.get("type", "") not in _TYPES:
        raise DataError(name, "has voxels of a type that is not read", "save it as integers, float or double")
    if fields.get("encoding", "").lower() not in _ENCODINGS:
        what = "is encoded as something other than raw or gzip"
        raise DataError(name, what, "save it again with gzip, as 3D Slicer and SimpleITK do")
    dimension = _to_integer(fields, "dimension")
    _check_numbers(fields, {"sizes": dimension, "space directions": 9, "space origin": 3}, name)
    if any(unit.lower() not in _MM for unit in re.findall(r'"([^"]*)"', fields.get("space units", ""))):
        raise DataError(name, "is not measured in millimetres", "convert its header to millimetres")


def _read_meta(data: bytes, name: str) -> _Header:
    """Fields are ``Name = value``; the last one is ElementDataFile."""
    fields: dict[str, str] = {}
    end = lines = 0
    while "ElementDataFile" not in fields:
        line, newline, _ = data[end:].partition(b"\n")
        end, lines = end + len(line) + 1, lines + 1
        key, equals, value = line.decode("utf-8", "replace").partition("=")
        key = key.strip()
        if not equals or not re.fullmatch(r"\w{1,80}", key, re.ASCII):
            what = "is neither NRRD nor MetaImage" if not fields else "is damaged: its header has a line without ="
            raise DataError(name, what, _RESTORE)
        if key in fields or not (newline or key == "ElementDataFile"):
            raise DataError(name, "is damaged: its header has a field twice, or is cut short", _RESTORE)
        fields[key] = _tidy(value) if key != "ElementDataFile" else value.strip()
    voxels = fields.pop("ElementDataFile")
    if not any(key in fields for key in _ORIENTATIONS):
        what = "has no orientation (no TransformMatrix), so left and right are unknown"
        raise DataError(name, what, _WITH_PLACE)
    if not any(key in fields for key in ("ElementSpacing", "ElementSize")):
        raise DataError(name, "has no ElementSpacing, so the size of its voxels is unknown", _WITH_PLACE)
    if fields.get("ElementType", "") not in _TYPES:
        raise DataError(name, "has voxels of a type that is not read", "save it as integers, float or double")
    if fields.get("BinaryData", "True").lower() != "true":
        raise DataError(name, "has its voxels as text", "save it again in 3D Slicer or with SimpleITK")
    dimension = _to_integer(fields, "NDims")
    lists = {key: dimension for key in ("DimSize", "ElementSpacing", "ElementSize", "Offset", "Position", "Origin")}
    _check_numbers(fields, lists | dict.fromkeys(_ORIENTATIONS, dimension**2), name)
    if fields.get("DistanceUnits", "").lower() not in _MM:
        raise DataError(name, "is not measured in millimetres", "convert its header to millimetres")
    return _Header(False, fields, end, lines, "" if voxels.upper() == _LOCAL else voxels)


def _tidy(value: str) -> str:
    """A value with one blank for each tab or other white space, which ITK may not read."""
    return " ".join(value.split())


def _rewrite(header: _Header, size: int, name: str) -> list[str]:
    """Lines of a header for the file ``voxels`` of so many bytes: what is known, and checked, of the file's own.

    Raises:
        DataError: a known field that cannot be written. ITK would take a default for it: another place or size.
    """
    known = _NRRD_FIELDS if header.is_nrrd else _META_FIELDS
    kept = {key: value for key, value in header.fields.items() if key in known}
    if odd := [key for key, value in kept.items() if not _VALUE.fullmatch(value)]:
        raise DataError(name, f"is damaged: {odd[0]} in its header is empty, too long or has odd characters", _RESTORE)
    if header.is_nrrd:
        return ["NRRD0004", *(f"{key}: {value}" for key, value in kept.items()), *_skip_nrrd(header), ""]
    skipped = 0 if header.voxels else header.end
    own = _to_integer(header.fields, "HeaderSize")
    packed = {}
    if header.fields.get("CompressedData", "").lower() == "true":
        there = max(size - max(skipped or own, 0), 0)
        packed = {"CompressedDataSize": str(min(_to_integer(header.fields, "CompressedDataSize") or there, there))}
    last = {"HeaderSize": str(skipped or own), "ElementDataFile": "voxels"}
    return [f"{key} = {value}" for key, value in ({"ObjectType": "Image"} | kept | packed | last).items()]


def _is_packed(header: _Header) -> bool:
    fields = header.fields
    return fields.get("CompressedData", "").lower() == "true" or fields.get("encoding", "").lower() in ("gzip", "gz")


def _check_packed(source: Path, header: _Header, name: str) -> None:
    """Refuse voxels whose zlib or gzip stream is not whole, or has another checksum: ITK may not look."""
    stream, left = zlib.decompressobj(_ZLIB_OR_GZIP), MAX_VOXELS * 8
    with source.open("rb") as file:
        file.seek(max(_to_integer(header.fields, "HeaderSize"), 0) if header.voxels else header.end)
        lines = _to_integer(header.fields, "line skip", "lineskip")
        while lines > 0 and file.readline(MAX_HEADER):  # a header may name any number
            lines -= 1
        while not stream.eof and left > 0 and (chunk := stream.unconsumed_tail or file.read(2**20)):
            try:
                left -= len(stream.decompress(chunk, 2**20))
            except zlib.error:
                break
    if not stream.eof:
        raise DataError(name, "is damaged or cut short (its compressed voxels are not whole)", _RESTORE)


def _skip_nrrd(header: _Header) -> list[str]:
    """What comes before the voxels: of an attached header its own lines, else what it says."""
    lines = _to_integer(header.fields, "line skip", "lineskip")
    count = _to_integer(header.fields, "byte skip", "byteskip")
    return [f"line skip: {lines + (0 if header.voxels else header.lines)}", f"byte skip: {count}", "data file: voxels"]


def _check_numbers(fields: dict[str, str], counts: dict[str, int], name: str) -> None:
    """Refuse fields that do not hold so many numbers; ITK would take what it can read of them."""
    for key, count in counts.items():
        found = re.findall(_NUMBER, fields.get(key, ""))
        rest = re.sub(rf"{_NUMBER}|[(), \t]|\bnone\b", "", fields.get(key, ""))
        if key in fields and (rest or len(found) != count):
            raise DataError(name, f"is damaged: {key} in its header is not {count} numbers", _RESTORE)


def _to_integer(fields: dict[str, str], *keys: str) -> int:
    return next((int(fields[key]) for key in keys if re.fullmatch(r"-?[0-9]{1,15}", fields.get(key, ""))), 0)


def _read_shape(reader: Any, header: _Header, name: str) -> list[int]:
    """``[I, J, K]`` or ``[I, J, K, 3]``, by what ITK reads in the header."""
    shape, channels = [int(side) for side in reader.GetSize()], int(reader.GetNumberOfComponents())
    if len(shape) < 3:
        raise DataError(name, _SLICE, _SLICE_FIX)
    step = float(reader.GetSpacing()[3]) if len(shape) > 3 else 1.0
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    in_time = "time" in header.fields.get("kinds", "").lower().split() or (len(shape) == 4 and step not in (0, 1))
    if in_time and (count := shape[3] if len(shape) > 3 else channels) > 1:
        what = f"is a series of {count} volumes by its header, one volume is accepted"
        raise DataError(name, what, "save one time point as a file of its own")
    shape += [channels] if channels > 1 else []
    if len(shape) != 3 and (len(shape) != 4 or shape[3] != 3):
        what = f"is {' x '.join(map(str, shape))}, one volume is accepted: I x J x K, or I x J x K x 3 channels"
        raise DataError(name, what, "save each volume, or the three channels, as a file of their own")
    return shape


def _read_affine(reader: Any) -> np.ndarray:
    """``(4, 4)``, float64: voxel to millimetres, RAS+."""
    size = int(reader.GetDimension())
    directions = np.array(reader.GetDirection(), np.float64).reshape(size, size)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(reader.GetSpacing()[:3], np.float64)
    affine[:3, 3] = reader.GetOrigin()[:3]
    return _TO_RAS @ affine
