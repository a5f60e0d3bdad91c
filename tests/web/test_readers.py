"""Files of every kind: the page reads the values that Python reads, or refuses what it cannot read exactly."""

import json
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from brainseg.errors import BrainsegError
from brainseg.inference import cases
from tests.support import dicom_series, golden, nifti_files, shared
from tests.support.site import needs_libraries

pytestmark = needs_libraries
HERE_ALONE = {"jpeg.jpg", "tif-ccitt.tif"}  # read by Python, refused by the page: see docs/how-to/page.md
REFUSED = {"tif-32.tif", "tif-signed.tif", "tif-negative-16.tif"}  # by both


def pictures(folder: Path) -> None:
    rng = np.random.default_rng(5)
    grey = rng.integers(0, 256, (23, 31), dtype=np.uint8)
    colour = rng.integers(0, 256, (23, 31, 3), dtype=np.uint8)
    deep = rng.integers(0, 65536, (23, 31), dtype=np.uint16)
    real = rng.normal(100, 40, (23, 31)).astype(np.float32)
    flat = Image.fromarray(grey)
    for name, image, options in (
        *(
            ("png-grey.png", flat, {}),
            ("png-colour.png", Image.fromarray(colour), {}),
            ("png-16.png", Image.fromarray(deep), {}),
        ),
        *(("png-1.png", flat.convert("1"), {}), ("png-palette.png", Image.fromarray(colour).quantize(200), {})),
        *(
            ("png-palette-4.png", Image.fromarray(colour).quantize(9), {"bits": 4}),
            ("png-2.png", flat.convert("L"), {}),
        ),
        ("png-opaque.png", Image.fromarray(colour).convert("RGBA"), {}),
        ("png-clear.png", Image.merge("LA", (flat, flat)), {}),
        ("png-interlaced.png", flat, {"interlace": 1}),
        ("jpeg.jpg", flat, {}),
        *(("tif-raw.tif", flat, {}), ("tif-lzw.tif", Image.fromarray(colour), {"compression": "tiff_lzw"})),
        ("tif-deflate.tif", Image.fromarray(deep), {"compression": "tiff_adobe_deflate"}),
        ("tif-predictor.tif", Image.fromarray(colour), {"compression": "tiff_lzw", "tiffinfo": {317: 2}}),
        ("tif-packbits.tif", flat, {"compression": "packbits"}),
        ("tif-float.tif", Image.fromarray(real), {"compression": "tiff_lzw"}),
        ("tif-1.tif", flat.convert("1"), {}),
        ("tif-ccitt.tif", flat.convert("1"), {"compression": "group4"}),
        ("tif-palette.tif", Image.fromarray(colour).quantize(200), {}),
        ("tif-cmyk.tif", Image.fromarray(colour).convert("CMYK"), {}),
        ("tif-32.tif", Image.fromarray(deep.astype(np.int32)), {}),
        ("tif-negative.tif", flat, {"tiffinfo": {262: 0}}),
        ("tif-negative-16.tif", Image.fromarray(deep), {"tiffinfo": {262: 0}}),
        ("tif-signed.tif", Image.fromarray(deep), {"tiffinfo": {339: 2}}),
    ):
        image.save(folder / name, **options)
    pages = [Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)) for _ in range(6)]
    for name, told in (("plain", ""), ("slices", "ImageJ=1.5\nimages=6\nslices=6\n"), ("times", "ImageJ=1\nframes=6\n"),
                       ("channels", "ImageJ=1.5\nimages=6\nchannels=3\nslices=2\nhyperstack=true\n")):  # fmt: skip
        pages[0].save(folder / f"pages-{name}.tif", save_all=True, append_images=pages[1:], description=told)
    (folder / "text.png").write_bytes(b"no picture")
    whole = (folder / "png-grey.png").read_bytes()
    (folder / "png-damaged.png").write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    (folder / "tif-cut.tif").write_bytes((folder / "tif-lzw.tif").read_bytes()[:700])
    (folder / "empty.png").write_bytes(b"")


def volumes(folder: Path) -> None:
    rng = np.random.default_rng(6)
    for kind in ("u1", "i1", "u2", "i2", "i4", "u4", "f4", "f8", "i8"):
        array = (rng.normal(40, 20, (9, 10, 11)).clip(0, 120)).astype(kind)
        for order in "<>":
            image = nibabel.Nifti1Image(array, nifti_files.AFFINE, nibabel.Nifti1Header(endianness=order), dtype=kind)
            (folder / f"{kind}-{'little' if order == '<' else 'big'}.nii").write_bytes(image.to_bytes())
    array = rng.integers(0, 999, (9, 10, 11)).astype(np.int16)
    for number, (axes, signs) in enumerate(nifti_files.ORIENTATIONS[::5]):
        nifti_files.nifti(folder / f"turned-{number}.nii.gz", array, (axes, signs))
    encode = nifti_files.encode
    thrice = np.moveaxis(np.stack([array[..., :3] % 256] * 3), 0, -1).astype(np.float32)
    for name, data in {
        "second.nii": encode(array, kind=nibabel.Nifti2Image),
        "scaled.nii": encode(array, slope=("<f", 0.3), inter=("<f", -7)),
        "no-slope.nii": encode(array, slope=("<f", 0), inter=("<f", 5)),
        "qform.nii": encode(array, sform=("<h", 0)),
        "no-place.nii": encode(array, sform=("<h", 0), qform=("<h", 0)),
        "metres.nii": encode(array, units=("<B", 1)),
        "colours.nii": encode(thrice),
        "four.nii": encode(np.zeros((9, 10, 11, 4), np.uint8)),
        "times.nii": encode(np.zeros((9, 10, 11, 3), np.uint8), step=("<f", 2.5), units=("<B", 10)),
        "nan.nii": encode(np.where(array > 990, np.nan, array).astype(np.float32)),
        "analyze.nii": encode(array, magic=("<4s", b"\0\0\0\0")),
        "flat.nii": encode(array[..., :1]),
        "short.nii": encode(array)[:-40],
        "far.nii": encode(array, vox_offset=("<f", 100)),
        "type.nii": encode(array, datatype=("<h", 32)),
        "large.nii": encode(np.full((9, 10, 11), 2**25, np.int32)),
    }.items():
        (folder / name).write_bytes(data)
    rgb = np.zeros((9, 10, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["R"], rgb["B"] = 7, 200
    nibabel.save(nibabel.Nifti1Image(rgb, nifti_files.AFFINE), folder / "rgb.nii.gz")
    sheared = nifti_files.AFFINE.copy()
    sheared[0, 1] = 0.9
    (folder / "sheared.nii").write_bytes(encode(array, sheared))
    cut = (folder / "turned-0.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(cut[: len(cut) // 2])


def series(folder: Path) -> None:
    make = dicom_series
    for name, changes in {
        "plain": {}, "inverted": {"PhotometricInterpretation": "MONOCHROME1"}, "signed": {"PixelRepresentation": 1},
        "rescaled": {"RescaleSlope": "0.5", "RescaleIntercept": "-3"}, "padded": {"PixelPaddingValue": 4095},
        "lossy": {"LossyImageCompression": "01"}, "colour": {"PhotometricInterpretation": "RGB"},
        "burned": {"BurnedInAnnotation": "YES"}, "nowhere": {"ImagePositionPatient": None},
        "flat": {"RescaleSlope": "0"},
        "times": {"EchoTime": "12", "RepetitionTime": "500"},
    }.items():  # fmt: skip
        make.save(folder / f"dicom-{name}", make.series(**changes))
    gap = make.series()
    gap[2].ImagePositionPatient = [f"{value:.6f}" for value in np.array([-70, 25.5, 90]) + 3 * 2.4 * make.NORMAL]
    make.save(folder / "dicom-gap", gap)
    mixed = make.series()
    mixed[1].SeriesInstanceUID = "1.2.3"
    make.save(folder / "dicom-mixed", mixed)
    make.save(folder / "dicom-copies", [*make.series(), make.one(2)])
    make.save(folder / "dicom-alone", [make.one(0)])


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """The folder of the files, and what Node says of each."""
    folder = tmp_path_factory.mktemp("readers")
    for write in (pictures, volumes, series):
        write(folder)
    asked = [Reading(path.name, folder) for path in sorted(folder.iterdir())]
    program = shared.folder("golden-program", golden.build) / "golden.js"
    return folder, golden.run_node(program, folder, asked)


class Reading:
    """A file, or the folder of a series, that is read and not outlined."""

    def __init__(self, name: str, folder: Path):
        path = folder / name
        self.id, self._paths = name, sorted(path.iterdir()) if path.is_dir() else [path]
        self._folder = folder

    def for_node(self) -> dict:
        parts = [{"role": "file", "path": str(path.relative_to(self._folder))} for path in self._paths]
        return {"id": self.id, "parts": parts, "choice": {}, "readOnly": True}


def test_values_are_pythons_or_refused(answered):
    folder, told = answered
    assert len(told) > 80
    wrong = {name: problem for name, mine in told.items() if (problem := compare(folder, name, mine))}
    assert not wrong, json.dumps(wrong, indent=1)


def compare(folder: Path, name: str, mine: dict) -> str:
    """Why Node's answer differs from Python's; empty if it does not."""
    try:
        truth = cases.read(folder / name, name)
    except BrainsegError as error:
        return "" if "refused" in mine else f"Python refuses it: {error}"
    if "refused" in mine:
        return "" if name in HERE_ALONE else f"refused: {mine['refused']}"
    shape = mine["shape"]
    voxels = np.fromfile(folder / f"{name}.voxels", golden.TYPES[shape["type"]])
    if voxels.dtype != truth.voxels.dtype:
        return f"{voxels.dtype} for {truth.voxels.dtype}"
    channels = truth.voxels.shape[3:] or (1,)
    size = (shape["slices"], shape["height"], shape["width"], shape["channels"])
    if size != (*truth.voxels.shape[:3], *channels):
        return f"{size} for {truth.voxels.shape}"
    if not np.array_equal(voxels, truth.voxels.ravel()):
        return f"{np.count_nonzero(voxels != truth.voxels.ravel())} of {voxels.size} values differ"
    return compare_place(shape, truth)


def compare_place(shape: dict, truth: cases.Case) -> str:
    if (shape["place"] is None) != (truth.volume is None):
        return "one has a place and the other not"
    if shape["noSeg"] != truth.no_seg:
        return f"no SEG: {shape['noSeg']}, not {truth.no_seg}"
    if truth.volume is None:
        return ""
    place = shape["place"]
    if not np.allclose(place["geometry"]["affine"], truth.volume.geometry.affine, atol=1e-4):
        return f"lies at {place['geometry']['affine']}, not {truth.volume.geometry.affine.tolist()}"
    if not np.allclose(place["spacing"], truth.volume.spacing, atol=1e-5):
        return f"spacing {place['spacing']}, not {truth.volume.spacing}"
    known = [remark for remark in (*truth.remarks, truth.volume.doubt) if remark]
    return "" if len(known) == len(shape["remarks"]) else f"remarks {shape['remarks']}, not {known}"


def test_what_docs_page_md_names_is_refused(answered):
    folder, told = answered
    assert all("refused" in told[name] for name in HERE_ALONE | REFUSED)
    for name in REFUSED:
        with pytest.raises(BrainsegError):
            cases.read(folder / name, name)


def test_what_only_a_browser_reads_is_said(answered):
    assert "browser" in answered[1]["jpeg.jpg"]["refused"]


def test_every_kind_of_header_was_written(answered):
    """The file that is edited in place is the one that is read: its fields are where the standard has them."""
    folder, _ = answered
    assert struct.unpack_from("<f", (folder / "scaled.nii").read_bytes(), 112)[0] == pytest.approx(0.3)
