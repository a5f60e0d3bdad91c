"""Compressed DICOM: what it becomes, and that no decoder is trusted."""

import struct

import numpy as np
import pytest

from brainseg.errors import DataError
from brainseg.io import volumes
from brainseg.io.dicom import pixel_data, series_reader

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("gdcm")
from pydicom import encaps, uid  # noqa: E402
from pydicom.data import get_testdata_file  # noqa: E402

from tests.support.dicom_compressed import (  # noqa: E402
    COLUMNS,
    COUNT,
    LOSSLESS,
    ROWS,
    STORED,
    compress,
    replace_frames,
    slices,
    to_jpeg,
)  # fmt: skip
from tests.support.dicom_series import one, save  # noqa: E402


def in_file_order(volume) -> np.ndarray:
    """``(slices, rows, columns)``."""
    return volumes.to_file_order(volume.voxels, volume.geometry).transpose(2, 1, 0)


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_compression_changes_no_value(tmp_path, syntax, signed):
    values = STORED - 2048 if signed else STORED
    changes = {"PixelRepresentation": signed, "RescaleSlope": 2, "RescaleIntercept": -3} if signed else {}
    volume = series_reader.read_series(compress(save(tmp_path / "s", slices(values, **changes)), syntax), "p/s")
    np.testing.assert_array_equal(in_file_order(volume), values * 2 - 3 if signed else values)
    assert volume.remarks == ()


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGLosslessSV1])
def test_monochrome1_is_inverted_after_decoding(tmp_path, syntax):
    paths = compress(save(tmp_path / "s", slices(PhotometricInterpretation="MONOCHROME1")), syntax)
    np.testing.assert_array_equal(in_file_order(series_reader.read_series(paths, "p/s")), 4095 - STORED)


def test_lossy_compression_is_said(tmp_path):
    kind = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    smooth = np.linspace(0, 255, ROWS * COLUMNS).reshape(ROWS, COLUMNS).astype("u1")
    paths = to_jpeg(save(tmp_path / "s", slices(np.array([smooth] * COUNT), PixelData=smooth.tobytes(), **kind)))
    volume = series_reader.read_series(paths, "p/s")
    assert np.abs(in_file_order(volume).astype(int) - smooth).max() < 4
    assert volume.remarks == ("lossy compressed: 4 of 4 slices",)
    datasets = slices()
    for dataset, ratio in zip(datasets, ([2, 11], [2, 12], [2, 13], None), strict=True):
        dataset.pop("LossyImageCompression", None)  # setting its value would change that of other tests
        dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", ratio
    volume = series_reader.read_series(save(tmp_path / "s2", datasets), "p/s")
    assert volume.remarks == ("lossy compressed (ratio 2 to 13): 4 of 4 slices",)


def test_jpeg_of_12_bits_is_read(tmp_path):
    source = pydicom.dcmread(get_testdata_file("JPGExtended.dcm"))
    assert source.file_meta.TransferSyntaxUID == uid.JPEGExtended12Bit
    dataset = one(0, Rows=source.Rows, Columns=source.Columns)
    [path] = save(tmp_path / "s", [dataset])
    dataset = pydicom.dcmread(path)
    replace_frames(dataset, [encaps.get_frame(source.PixelData, 0, number_of_frames=1)], uid.JPEGExtended12Bit)
    dataset.save_as(path)
    read = in_file_order(series_reader.read_series([path], "p/s"))[0]
    assert read[420, 140] == 244 and read[230, 120] == 95  # as pydicom's own tests have them


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("form", ["no table", "a table", "several items"])
def test_offset_tables_and_fragments(tmp_path, form, syntax):
    paths = compress(save(tmp_path / "s", slices()), syntax)
    for path in paths:
        dataset = pydicom.dcmread(path)
        frame = encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        options = {"has_bot": form == "a table", "fragments_per_frame": 3 if form == "several items" else 1}
        replace_frames(dataset, [frame], syntax, **options)
        dataset.save_as(path)
    np.testing.assert_array_equal(in_file_order(series_reader.read_series(paths, "p/s")), STORED)


def claim(path, rows: int, columns: int) -> None:
    """Let the compressed frame claim another size than the header."""
    data = path.read_bytes()
    at = data.index(b"\xff\x4f\xff\x51")
    path.write_bytes(data[: at + 8] + struct.pack(">II", columns, rows) + data[at + 16 :])


def test_a_frame_that_claims_another_size_is_never_decoded(tmp_path, monkeypatch):
    paths = compress(save(tmp_path / "s", slices()), uid.JPEG2000Lossless)
    claim(paths[2], 60_000, 60_000)
    monkeypatch.setattr("pydicom.pixels.get_decoder", None)
    with pytest.raises(DataError) as caught:
        series_reader.read_series(paths[2:3], "p/s")
    assert str(caught.value).startswith(
        "p/s/7.dcm: has compressed pixels of 60000 x 60000 x 1, its header says 40 x 36"
    )


def test_a_header_that_claims_too_much_is_refused_before_decoding(tmp_path, monkeypatch):
    paths = compress(save(tmp_path / "s", slices()), uid.RLELossless)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.Rows = dataset.Columns = 60_000
        dataset.save_as(path)
    monkeypatch.setattr(pixel_data, "read_pixels", None)
    with pytest.raises(DataError, match="is 4 axial slices of 60000 x 60000"):
        series_reader.read_series(paths, "p/s")


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_damaged_frames_are_read_or_refused_by_the_name_of_their_syntax(tmp_path, syntax, capfd):
    [path] = compress(save(tmp_path / "s", slices()[1:2]), syntax)
    source, rng = path.read_bytes(), np.random.default_rng(5)
    start = source.rindex(b"\xe0\x7f\x10\x00") + 12
    for n in range(30):
        damaged = np.frombuffer(source, np.uint8).copy()
        damaged[rng.integers(start, len(damaged), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes() if n % 3 else source[: start + n])
        try:
            assert series_reader.read_series([path], "p/s").voxels.size == ROWS * COLUMNS
        except DataError as error:
            assert error.problems[0].path == "p/s/3.dcm" and error.problems[0].fix
    assert "1970" not in "".join(capfd.readouterr())


def test_without_a_decoder_the_syntax_and_a_way_out_are_named(tmp_path, monkeypatch):
    paths = compress(save(tmp_path / "s", slices()), uid.JPEG2000Lossless)
    monkeypatch.setattr(pixel_data, "_DECODERS", ())
    with pytest.raises(DataError, match=r"3\.dcm: is encoded as JPEG 2000 .*, for which no decoder") as caught:
        series_reader.read_series(paths, "p/s")
    assert "gdcmconv --raw IN OUT" in caught.value.problems[0].fix


@pytest.mark.parametrize(("fill", "told"), [(4095, 1), (0, 0)])
def test_padding_becomes_the_least_value(tmp_path, fill, told):
    stored = np.clip(STORED, 1, 4000)
    padded = stored.copy()
    padded[:, :2] = fill
    datasets = slices(padded)
    for dataset in datasets:
        dataset.add_new(0x00280120, "US", fill)
    volume = series_reader.read_series(save(tmp_path / "s", datasets), "p/s")
    expected = padded.copy()
    expected[:, :2] = stored[:, 2:].min() if told else 0
    np.testing.assert_array_equal(in_file_order(volume), expected)
    assert volume.remarks == ("padding (320 pixels) was given the least value of the image",) * told
