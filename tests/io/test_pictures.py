"""Decoding: what each kind of TIF and PNG becomes, and what is refused by name."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from brainseg.errors import DataError
from brainseg.io import pictures

GRAY = np.arange(256, dtype=np.uint8).reshape(16, 16)
RGB = np.stack([GRAY, GRAY[::-1], GRAY.T], axis=-1)


def encode(image: np.ndarray | Image.Image, kind: str = "TIFF", **options) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def converted(mode: str) -> Image.Image:
    return Image.fromarray(RGB).convert(mode)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand, for kinds that Pillow does not write."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(pixels: bytes, bits: list[int], planes: int = 1) -> bytes:
    """A 16 x 16 uncompressed little-endian TIFF by hand; ``planes`` 2 puts the channels one after another."""
    tags = {256: [16], 257: [16], 258: bits, 259: [1], 262: [2 if len(bits) == 3 else 1], 273: [], 277: [len(bits)],
            278: [16], 279: [], 284: [planes], 339: [1] * len(bits)}  # fmt: skip
    parts = len(bits) if planes == 2 else 1
    at = 8 + 2 + 12 * len(tags) + 4
    tags[273] = [at + 8 * 5 + n * len(pixels) // parts for n in range(parts)]  # after room for five lists
    tags[279] = [len(pixels) // parts] * parts
    entries, lists = b"", b""
    for tag, values in tags.items():
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            packed, lists = struct.pack("<I", at + len(lists)), lists + packed.ljust(8, b"\0")
        entries += struct.pack("<HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + lists.ljust(40, b"\0") + pixels


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["grayscale", "rgb"])
def test_what_was_saved_comes_back(pixels, kind):
    decoded = pictures.decode(encode(pixels, kind), "a")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiffs_come_back(compression):
    np.testing.assert_array_equal(pictures.decode(encode(RGB, compression=compression), "a"), RGB)


def test_channels_one_after_another_come_back():
    planes = RGB.transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(pictures.decode(tiff(planes, [8, 8, 8], planes=2), "a"), RGB)
    np.testing.assert_array_equal(pictures.decode(tiff(RGB.tobytes(), [8, 8, 8]), "a"), RGB)


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_p3_one_bit_becomes_0_and_255(kind):
    bits = GRAY > 100
    np.testing.assert_array_equal(pictures.decode(encode(Image.fromarray(bits), kind), "a"), bits * np.uint8(255))


def test_p3_palette_becomes_its_colours_and_opaque_alpha_is_dropped():
    palette = converted("P")
    np.testing.assert_array_equal(pictures.decode(encode(palette, "PNG"), "a"), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(pictures.decode(encode(converted("RGBA"), "PNG"), "a"), RGB)
    np.testing.assert_array_equal(pictures.decode(encode(Image.fromarray(GRAY).convert("LA"), "PNG"), "a"), GRAY)


DEEP = {
    "uint16 TIFF": (GRAY.astype(np.uint16) * 257, "TIFF"),
    "uint16 PNG": (GRAY.astype(np.uint16) * 257, "PNG"),
    "big-endian uint16 TIFF": ((GRAY.astype(np.uint16) * 257).astype(">u2"), "TIFF"),
    "float TIFF": (GRAY.astype(np.float32) * 1.5 - 7, "TIFF"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_p3_deep_grayscale_keeps_its_values_for_the_window(kind):
    pixels, form = DEEP[kind]
    decoded = pictures.decode(encode(pixels, form), "a")
    assert decoded.dtype.isnative
    assert decoded.dtype == pixels.dtype.newbyteorder("=")
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_p4_what_is_no_number_is_refused(value):
    pixels = GRAY.astype(np.float32)
    pixels[3, 4] = value
    with pytest.raises(DataError, match=r"p/a\.tif: holds NaN or infinity"):
        pictures.decode(encode(pixels), "p/a.tif")


def test_a_jpeg_is_a_picture():
    decoded = pictures.decode(encode(RGB, "JPEG", quality=95), "a")
    assert decoded.shape == RGB.shape and decoded.dtype == np.uint8


def test_pages_of_a_tif_are_slices(tmp_path, monkeypatch):
    several = encode(GRAY, save_all=True, append_images=[Image.fromarray(GRAY.T)])
    for name, data, answer in (("several", several, True), ("one", encode(GRAY), False), ("none", b"II*\0rub", False)):
        (tmp_path / name).write_bytes(data)
        assert pictures.has_pages(tmp_path / name) is answer
    np.testing.assert_array_equal(pictures.decode_pages(several, "a"), [GRAY, GRAY.T])
    unlike = encode(GRAY, save_all=True, append_images=[Image.fromarray(RGB)])
    with pytest.raises(DataError, match="pages of different kinds"):
        pictures.decode_pages(unlike, "a")
    monkeypatch.setattr(pictures, "MAX_VALUES", 2 * GRAY.size - 1)
    monkeypatch.setattr(pictures, "_page", lambda image, name: GRAY)  # the second page is not decoded
    with pytest.raises(DataError, match="more than 1,024 pages or 511 values"):
        pictures.decode_pages(several, "a")


def test_deep_pictures_show_by_their_header():
    deep = [encode(GRAY.astype(np.uint16)), encode(GRAY.astype(np.float32)), encode(GRAY.astype(np.uint16), "PNG")]
    assert [pictures.is_deep(data) for data in (*deep, encode(GRAY), encode(RGB, "PNG"), b"II*\0")] == [True] * 3 + [
        False
    ] * 3


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["one channel", "three"])
def test_a_slice_of_a_volume_comes_back_unchanged(pixels, dtype):
    decoded = pictures.decode(pictures.encode(pixels.astype(dtype)), "a")
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, pixels.astype(dtype))


@pytest.mark.parametrize(
    "data",
    [
        pictures.encode(GRAY)[:-5], pictures.encode(GRAY)[:9], pictures.encode(GRAY.astype(np.int64)),
        pictures.encode(np.zeros((4, 4), np.uint8)), pictures.encode(np.zeros((2, 8, 8, 3), np.uint8)),
        pictures.encode(GRAY.astype(complex)),
    ],
)  # fmt: skip
def test_a_slice_that_is_none_is_refused(data):
    with pytest.raises(DataError, match=r"p/1\.npy"):
        pictures.decode(data, "p/1.npy")


REFUSED = {
    "uint16 colour PNG": png(16, 16, 16, 2, (b"\0" + bytes(16 * 6)) * 16),
    "uint16 colour TIFF": tiff(bytes(16 * 16 * 6), [16, 16, 16]),
    "uint16 planar TIFF": tiff(bytes(16 * 16 * 6), [16, 16, 16], planes=2),
    "2-bit TIFF": tiff(bytes(16 * 4), [2]),
    "4-bit TIFF": tiff(bytes(16 * 8), [4]),
    "2-bit PNG": png(16, 16, 2, 0, bytes(1 + 4) * 16),
    "4-bit PNG": png(16, 16, 4, 0, bytes(1 + 8) * 16),
    "int32": encode(GRAY.astype(np.int32)),
    "CMYK": encode(converted("CMYK")),
    "transparent": encode(np.dstack([RGB, GRAY]), "PNG"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_p3_other_kinds_are_refused_not_wrapped(kind):
    with pytest.raises(DataError, match=r"p/a\.tif: has .* pixels"):
        pictures.decode(REFUSED[kind], "p/a.tif")


def test_p3_a_palette_of_16_colours_becomes_its_colours():
    image = Image.fromarray(GRAY % 16)
    image.putpalette([channel for n in range(16) for channel in (n, 2 * n, 255 - n)])
    expected = np.stack([GRAY % 16, GRAY % 16 * 2, 255 - GRAY % 16], axis=-1)
    for bits in (4, 8):
        np.testing.assert_array_equal(pictures.decode(encode(image, "PNG", bits=bits), "a"), expected)


def test_p3_signed_tiff_is_refused():
    data = bytearray(encode(GRAY, tiffinfo={339: 1}))
    at = data.index(struct.pack("<HHI", 339, 3, 1)) + 8
    data[at : at + 2] = struct.pack("<H", 2)
    with pytest.raises(DataError, match="signed"):
        pictures.decode(bytes(data), "a.tif")


def numpy_header(text: str) -> bytes:
    """What is read as Python's source: NumPy passes on what the tokenizer and the parser raise."""
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode("latin1")


BAD = {
    "white is zero": (encode(GRAY.astype(np.uint16), tiffinfo={262: 0}), "negative"),
    "uint16 planar gray TIFF": (tiff(bytes(16 * 16 * 2), [16], planes=2), "damaged"),
    "empty file": (b"", "is empty"),
    "text": (b"patient,slice\n", "neither a TIFF nor a PNG nor a JPEG"),
    "bmp": (encode(RGB, "BMP"), "neither a TIFF nor a PNG nor a JPEG"),
    "turned jpeg": (encode(RGB, "JPEG", exif=turned()), "turned"),
    "CMYK jpeg": (encode(converted("CMYK"), "JPEG"), "CMYK"),
    "truncated JPEG": (encode(RGB, "JPEG")[:-40], "cut short"),
    "truncated TIFF": (encode(RGB)[:-100], "cut short"),
    "truncated PNG": (encode(RGB, "PNG")[:-60], "cut short"),
    "NumPy's mark alone": (b"\x93NUMPY", "is damaged"),
    "NumPy's, whose header is no Python": (numpy_header("{'descr': '|u1', 'shape': (8,"), "is damaged"),
    "NumPy's, whose header is no text": (numpy_header("\0\xff(" * 40), "is damaged"),
    "multi-page": (encode(GRAY, save_all=True, append_images=[Image.fromarray(GRAY)]), "more than one page"),
    "1x1": (encode(GRAY[:1, :1]), "1 x 1"),
    "30,000x30,000": (png(30_000, 30_000, 8, 0, b""), "pixels"),
    "5,000x100": (png(5_000, 100, 8, 0, b""), "5000 x 100"),
}


@pytest.mark.parametrize("kind", BAD)
def test_p5_bad_images_are_refused_by_name(kind):
    data, what = BAD[kind]
    with pytest.raises(DataError, match=what) as caught:
        pictures.decode(data, "TCGA_CS_0001/TCGA_CS_0001_1.tif")
    assert caught.value.problems[0].path == "TCGA_CS_0001/TCGA_CS_0001_1.tif"


@pytest.mark.filterwarnings("ignore")
def test_p5_damaged_bytes_decode_or_are_refused_but_never_crash():
    rng = np.random.default_rng(5)
    for source in (encode(GRAY), encode(RGB), encode(RGB, "PNG"), encode(converted("P"))):
        for _ in range(150):
            damaged = np.frombuffer(source, np.uint8).copy()
            damaged[rng.integers(0, len(damaged), 4)] = rng.integers(0, 256, 4)
            try:
                assert pictures.decode(damaged.tobytes(), "a").dtype == np.uint8
            except DataError as error:
                assert error.problems[0].path == "a"


@pytest.mark.parametrize("error", [struct.error, NotImplementedError, zlib.error, RecursionError, AssertionError])
def test_whatever_pillow_raises_names_the_file(monkeypatch, tmp_path, error):
    def foreign(*_, **__):
        raise error("DOE^JANE")

    data = encode(GRAY)
    (tmp_path / "a.tif").write_bytes(data)
    monkeypatch.setattr(pictures.Image, "open", foreign)
    with pytest.raises(DataError, match=r"^a\.tif: is damaged") as caught:
        pictures.decode(data, "a.tif")
    assert "DOE" not in str(caught.value)
    assert not pictures.is_deep(data) and not pictures.has_pages(tmp_path / "a.tif")


STACK = np.random.default_rng(0).integers(0, 256, (12, 16, 16)).astype(np.uint8)  # pages
OME = '<OME><Image ID="1"><Pixels DimensionOrder="{}" SizeC="{}" SizeT="{}" SizeZ="{}"/></Image></OME>'


def described(text: str, pages: np.ndarray = STACK) -> bytes:
    first, *rest = (Image.fromarray(page) for page in pages)
    return encode(first, save_all=True, append_images=rest, tiffinfo={270: text})


NOT_SLICES = {
    "ImageJ=1.53t\nimages=12\nchannels=2\nslices=6\n": "6 slices x 2 channels",
    "ImageJ=1.53t\nimages=12\nchannels=12\n": "12 channels",
    "ImageJ=1.53t\nimages=12\nframes=12\n": "12 time points",
    "ImageJ=1.53t\nimages=12\nchannels=3\nframes=4\n": "4 time points x 3 channels",
    "ImageJ=1.53t\nimages=12\nchannels=2\nslices=5\n": "5 slices x 2 channels by its description, in 12 pages",
    OME.format("XYCZT", 2, 1, 6): "6 slices x 2 channels",
    OME.format("XYZTC", 1, 3, 4): "3 time points x 4 slices",
    OME.format("XYZTC", 1, 1, 12) + OME: "holds 2 images",
    '{"shape": [6, 2, 16, 16], "axes": "ZCYX"}': "6 slices x 2 channels",
    '{"shape": [6, 2, 16, 16]}': "6 pages x 2 pages",
    '{"shape": [12, 16, 16], "axes": "TYX"}': "12 time points",
}


@pytest.mark.parametrize("text", NOT_SLICES)
def test_pages_that_are_not_slices_by_their_description_are_refused(text):
    with pytest.raises(DataError, match=f"^a.tif: .*{NOT_SLICES[text]}") as caught:
        pictures.decode_pages(described(text), "a.tif")
    assert "save one" in caught.value.problems[0].fix


CHANNELS = {
    "ImageJ=1.53t\nimages=12\nchannels=3\nslices=4\n": False,
    OME.format("XYCZT", 3, 1, 4): False,
    OME.format("XYZCT", 3, 1, 4): True,
    '{"shape": [3, 4, 16, 16], "axes": "CZYX"}': True,
}


@pytest.mark.parametrize("text", CHANNELS)
def test_three_channels_of_each_slice_lie_side_by_side(text):
    shape, slices = ((3, 4), 1) if CHANNELS[text] else ((4, 3), 0)
    expected = np.moveaxis(STACK.reshape(*shape, 16, 16), 1 - slices, -1)
    decoded = pictures.decode_pages(described(text), "a")
    assert decoded.shape == (4, 16, 16, 3)
    np.testing.assert_array_equal(decoded, expected)


def test_three_channels_of_one_slice():
    decoded = pictures.decode_pages(described("ImageJ=1.53t\nimages=3\nchannels=3\n", STACK[:3]), "a")
    np.testing.assert_array_equal(decoded, np.moveaxis(STACK[:3], 0, -1)[None])


@pytest.mark.parametrize(
    "text",
    [
        "ImageJ=1.53t\nimages=12\nslices=12\n",
        "ImageJ=1.53t\nimages=24\nchannels=2\nslices=12\n",  # one channel, saved with the description of both
        "{not JSON",
        '{"shape": [12, 16, 16]}',
        "channels=2 of a scanner",
    ],
)
def test_slices_by_their_description_stay_slices(text):
    np.testing.assert_array_equal(pictures.decode_pages(described(text), "a"), STACK)


def test_colours_that_ome_counts_as_channels_stay_colours():
    colours = np.stack([STACK] * 3, -1)
    decoded = pictures.decode_pages(described(OME.format("XYCZT", 3, 1, 12), colours), "a")
    np.testing.assert_array_equal(decoded, colours)


def test_what_is_signed_is_named_with_what_is_read():
    data = bytearray(encode(GRAY.astype(np.uint16), tiffinfo={339: 1}))
    at = data.index(struct.pack("<HHI", 339, 3, 1)) + 8
    data[at : at + 2] = struct.pack("<H", 2)
    with pytest.raises(DataError, match=r"has signed 16-bit pixels") as caught:
        pictures.decode(bytes(data), "a.tif")
    assert "unsigned 16-bit grayscale" in caught.value.problems[0].fix


def test_a_png_without_pixels_is_damaged():
    whole = png(16, 16, 8, 0, b"")
    cut = whole[: whole.index(b"IDAT") - 4] + whole[whole.index(b"IEND") - 4 :]
    with pytest.raises(DataError, match=r"^a.png: is damaged .*no pixels"):
        pictures.decode(cut, "a.png")


def test_a_png_with_any_wrong_bit_gives_its_pixels_or_is_damaged():
    """Pillow reads pixels that do not fit their checksum. Nobody would see that of a mask."""
    pixels = np.where(GRAY > 200, 255, 0).astype(np.uint8)
    whole = encode(pixels, "PNG")
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        try:
            np.testing.assert_array_equal(pictures.decode_labels(bytes(data), "a.png"), pixels)
        except DataError:
            continue


def test_what_the_libraries_print_of_a_damaged_tiff_stays_off_the_terminal(capfd):
    whole = encode(RGB, compression="tiff_lzw")
    pixels = Image.open(io.BytesIO(whole)).tag_v2[273][0]
    with pytest.raises(DataError, match="damaged"):
        pictures.decode(whole[:pixels] + b"\xff" * 40 + whole[pixels + 40 :], "a.tif")
    assert capfd.readouterr() == ("", "")


def test_warnings_of_pillow_stay_off_the_terminal(tmp_path):
    data = bytearray(encode(GRAY, tiffinfo={65000: "a text of more than four bytes"}))
    at = data.index(struct.pack("<HH", 65000, 2)) + 4
    data[at : at + 8] = struct.pack("<II", 5000, 10**8)  # beyond the end of the file
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.warns(UserWarning, match="Tag data larger"), Image.open(tmp_path / "a.tif") as image:
        image.load()
    code = "import sys; from brainseg.io import pictures; pictures.decode(open(sys.argv[1], 'rb').read(), 'a.tif')"
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "a.tif"], capture_output=True, text=True, check=True)
    assert (told.stdout, told.stderr) == ("", "")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(16, 16, 8, 0, b"").replace(b"IHDR\0\0\0\x10", b"IHDR\0\0\0\x11"), "PNG"),  # its checksum is wrong
        (tiff(bytes(16 * 16 * 12), [32, 32, 32]), "TIFF"),
    ],
)
def test_what_begins_as_a_picture_and_cannot_be_opened_is_not_called_another_kind(data, kind):
    with pytest.raises(DataError, match=f"^a: is a {kind} that is damaged or of a kind that is not read"):
        pictures.decode(data, "a")
