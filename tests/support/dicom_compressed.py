"""Compressed DICOM files, and enhanced ones, made from the slices of ``dicom_series``."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

pydicom = pytest.importorskip("pydicom")
gdcm = pytest.importorskip("gdcm")
from pydicom import encaps, uid  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402

from tests.support import dicom_series  # noqa: E402

ROWS, COLUMNS, COUNT = 36, 40, 4  # JPEG 2000 has several resolutions
STORED = np.random.default_rng(1).integers(0, 4096, (COUNT, ROWS, COLUMNS))
STORED[:, 0, :2] = 0, 4095
BY_GDCM = {
    uid.JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    uid.JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    uid.JPEGExtended12Bit: gdcm.TransferSyntax.JPEGExtendedProcess2_4,
}
BY_PYDICOM = (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless)
LOSSLESS = (*BY_PYDICOM, uid.JPEGLossless, uid.JPEGLosslessSV1)


def slices(values: np.ndarray = STORED, **changes) -> list:
    """The slices of a series. ``values``: (slices, rows, columns), of 12 bits."""
    sides = dict(zip(("Rows", "Columns"), values.shape[1:], strict=True))
    return [
        dicom_series.one(n, **{"PixelData": own.astype("<i2").tobytes()} | sides | changes)
        for n, own in enumerate(values)
    ]


def compress(paths, syntax: str, **options) -> list:
    """Compress files in place."""
    for path in paths:
        if syntax in BY_GDCM:
            _change(path, syntax)
        else:
            dataset = pydicom.dcmread(path)
            dataset.compress(syntax, generate_instance_uid=False, **options)
            dataset.save_as(path)
    return paths


def _change(path, syntax: str) -> None:
    reader, change = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(BY_GDCM[syntax]))
    change.SetInput(reader.GetImage())
    codec = gdcm.JPEGCodec()
    codec.SetLossless(syntax != uid.JPEGExtended12Bit)
    codec.SetQuality(100)
    change.SetUserCodec(codec)
    assert change.Change()
    dataset, writer = pydicom.dcmread(path), gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetFileName(str(path))
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    pixels = pydicom.dcmread(path).PixelData
    replace_frames(dataset, [encaps.get_frame(pixels, 0, number_of_frames=1)], syntax)  # GDCM rewrites the header
    dataset.save_as(path)


def to_jpeg(paths, quality: int = 100) -> list:
    """Compress files of 8 bits in place, as JPEG baseline."""
    for path in paths:
        dataset, buffer = pydicom.dcmread(path), BytesIO()
        Image.fromarray(dataset.pixel_array.astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        replace_frames(dataset, [buffer.getvalue()], uid.JPEGBaseline8Bit)
        dataset.save_as(path)
    return paths


def replace_frames(dataset, frames: list[bytes], syntax: str, **options) -> None:
    dataset.PixelData = encaps.encapsulate(frames, **options)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)


def item(**values) -> Sequence:
    """A sequence of one item."""
    dataset = pydicom.Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return Sequence([dataset])


def enhanced(parts: list, frames: list[dict] | None = None, **changes):
    """One enhanced file of slices as ``slices`` makes them. ``frames``: more groups for each frame."""
    sides = {"Rows": parts[0].Rows, "Columns": parts[0].Columns, "NumberOfFrames": len(parts)}
    whole = dicom_series.one(0, SOPClassUID=uid.EnhancedMRImageStorage, **sides)
    groups = []
    for n, own in enumerate(parts):
        group = pydicom.Dataset()
        group.PlanePositionSequence = item(ImagePositionPatient=own.ImagePositionPatient)
        if "RescaleSlope" in own:
            group.PixelValueTransformationSequence = item(
                RescaleSlope=own.RescaleSlope, RescaleIntercept=own.RescaleIntercept
            )
        for keyword, values in (frames[n] if frames else {}).items():
            setattr(group, keyword, item(**values))
        groups.append(group)
    first = parts[0]
    whole.SharedFunctionalGroupsSequence = item(
        PixelMeasuresSequence=item(PixelSpacing=first.PixelSpacing, SliceThickness=2),
        PlaneOrientationSequence=item(ImageOrientationPatient=first.ImageOrientationPatient),
    )
    whole.PerFrameFunctionalGroupsSequence = Sequence(groups)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del whole[keyword]
    whole.PixelData = b"".join(own.PixelData for own in parts)
    whole["PixelData"].VR = "OW"
    for keyword, value in changes.items():
        setattr(whole, keyword, value)
    return whole
