"""Small files that are large, endless or slow once they are opened: what a server must say no to."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")
from pydicom import uid  # noqa: E402

MIB = 2**20
ALL: dict[str, Callable[[], bytes]] = {}


def bomb(make: Callable[[], bytes]) -> Callable[[], bytes]:
    ALL[make.__name__] = make
    return make


def zeros(mebibytes: int, wbits: int = -zlib.MAX_WBITS) -> bytes:
    """So many, deflated: one piece of 4 MiB, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(4 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    last = packer.compress(b"") + packer.flush()
    return head + piece * (mebibytes // 4) + last


# PNG


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *more: bytes, bits: int = 8, colour: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")])


@bomb
def png_of_huge_dimensions():
    return png(30_000, 30_000, zlib.compress(bytes(100)))


@bomb
def png_of_a_billion_real_pixels():
    return png(32_768, 32_768, zeros(128, zlib.MAX_WBITS), bits=1)


@bomb
def png_one_pixel_too_wide():
    return png(4097, 8, zlib.compress(bytes(8 * 4098)))


@bomb
def png_with_a_compressed_text_of_200_mib():
    return png(64, 64, zlib.compress(bytes(64 * 65)), chunk(b"zTXt", b"a\0\0" + zeros(200, zlib.MAX_WBITS)))


@bomb
def png_of_many_frames():
    first, *others = [Image.fromarray(np.full((16, 16), n % 251, np.uint8)) for n in range(1500)]
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=True, append_images=others)
    return buffer.getvalue()


# TIFF


def tif(pages: list[list[tuple[int, int, int, int]]], data: bytes = b"", after: int = 0, big: bool = False) -> bytes:
    """Directories of (tag, type, count, value), one after the other; then the data; the last points to ``after``."""
    parts, at = [b"II*\0" + struct.pack("<I", 8)], 8
    for number, entries in enumerate(pages, 1):
        at += 6 + 12 * len(entries)
        following = at if number < len(pages) else after
        body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
        parts.append(struct.pack("<H", len(entries)) + body + struct.pack("<I", following))
    return b"".join(parts) + data


def page(width: int, height: int, at: int, size: int, compression: int = 1, samples: int = 1) -> list:
    return [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression),
        (262, 3, 1, 1 if samples == 1 else 2), (273, 4, 1, at), (277, 3, 1, samples), (278, 4, 1, height),
        (279, 4, 1, size),
    ]  # fmt: skip


@bomb
def tif_of_huge_dimensions():
    return tif([page(65_000, 65_000, 200, 100)], bytes(200))


@bomb
def tif_whose_directory_is_its_own_next():
    whole = tif([page(64, 64, 200, 4096)], after=8)
    return whole.ljust(200, b"\0") + bytes(4096)


@bomb
def tif_whose_directories_go_in_a_circle():
    whole = tif([page(64, 64, 400, 4096)] * 3, after=8)
    return whole.ljust(400, b"\0") + bytes(4096)


@bomb
def tif_of_two_thousand_pages():
    return tif([page(16, 16, 8, 256)] * 2000)


@bomb
def tif_whose_pages_are_two_billion_pixels():
    packed = zlib.compress(bytes(4096 * 4096), 9)
    size = 120 * 114 + 8
    return tif([page(4096, 4096, size, len(packed), 8)] * 120).ljust(size, b"\0") + packed


@bomb
def tif_of_four_thousand_million_strips():
    entries = [entry if entry[0] not in (273, 279) else (entry[0], 4, 2**32 - 1, 8) for entry in page(64, 64, 8, 4096)]
    return tif([entries], bytes(4096))


@bomb
def tif_whose_strip_is_four_gib():
    return tif([page(64, 64, 200, 2**32 - 1, 8)], bytes(200))


@bomb
def tif_with_a_tag_of_four_gib():
    return tif([[*page(64, 64, 8, 4096)[:6], (270, 2, 2**32 - 1, 8), *page(64, 64, 8, 4096)[6:]]], bytes(100))


@bomb
def jpeg_of_huge_dimensions():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


# NIfTI


def nifti_header(*shape: int, kind: type = np.uint8, **edits: object) -> bytes:
    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype(kind)
    header.set_sform(np.eye(4), 1)
    header["dim"] = [len(shape), *shape, *[1] * (7 - len(shape))]
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    for key, value in edits.items():
        header[key] = value
    return header.binaryblock + bytes(4)


def gzipped(head: bytes, mebibytes: int) -> bytes:
    """``head`` and then zeros; the sum of a gzip stream comes at its end, which nobody should get to."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + start + zeros(mebibytes) + bytes(8)


@bomb
def nifti_that_inflates_to_more_than_it_declares():
    return gzipped(nifti_header(32, 32, 8), 1024)


@bomb
def nifti_of_a_billion_voxels():
    return gzipped(nifti_header(1024, 1024, 1024), 1024)


@bomb
def nifti_of_huge_dimensions():
    return nifti_header(32_767, 32_767, 32_767, kind=np.float64)


@bomb
def nifti_of_negative_dimensions():
    return nifti_header(-64, 64, 64) + bytes(4096)


@bomb
def nifti_as_large_as_a_library_would_take():
    return gzip.compress(nifti_header(1024, 1024, 128) + bytes(128 * MIB), 1)


@bomb
def nifti_of_doubles_that_fit_on_paper():
    return gzipped(nifti_header(512, 512, 500, kind=np.float64), 1000)


@bomb
def nifti_whose_voxels_begin_far_away():
    return gzipped(nifti_header(32, 32, 8, vox_offset=2.0**31), 1024)


@bomb
def nifti_wrapped_in_gzip_three_times():
    return gzip.compress(gzip.compress(gzipped(nifti_header(32, 32, 8), 256)))


@bomb
def nifti_of_a_volume_for_each_second():
    return gzipped(nifti_header(64, 64, 64, 30_000), 1024)


# zip


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def handmade_zip(data: bytes, declared: int, count: int = 1) -> bytes:
    """``count`` names for one deflated body that all of them share, said to inflate to ``declared`` bytes."""
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 33, 0, len(data), declared, 9, 0) + b"00000.dcm" + data
    directory = b"".join(
        struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 8, 0, 33, 0, len(data), declared, 9, 0, 0, 0, 0, 0, 0)
        + b"%05d.dcm" % n
        for n in range(count)
    )
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(directory), len(local), 0)
    return local + directory + end


@bomb
def zip_of_one_gib():
    return handmade_zip(zeros(1024), 2**30)


@bomb
def zip_that_inflates_to_more_than_it_declares():
    return handmade_zip(zeros(1024), 1000)


@bomb
def zip_whose_members_share_their_bytes():
    return handmade_zip(zeros(4), 4 * MIB, 500)


@bomb
def zip_of_many_that_are_large_together():
    body = bytes(128) + b"DICM" + bytes(4 * MIB)
    return zipped(*((f"{n}.dcm", body) for n in range(40)))


@bomb
def zip_of_five_thousand_members():
    return zipped(*((f"{n}.dcm", b"") for n in range(5000)))


@bomb
def zip_in_a_zip_in_a_zip():
    return zipped(("b.dcm", zipped(("c.dcm", zipped(("d.dcm", bytes(4 * MIB)))))))


@bomb
def zip_whose_member_leaves_the_folder():
    return zipped(("../../../../tmp/evil.dcm", bytes(128) + b"DICM"))


# DICOM


def dicom(syntax: str = uid.ExplicitVRLittleEndian, **changes: object) -> bytes:
    dataset = pydicom.Dataset()
    values = {
        "SOPClassUID": uid.MRImageStorage, "SeriesInstanceUID": "1.2.3", "Rows": 64, "Columns": 64,
        "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1, "BitsAllocated": 16, "BitsStored": 16,
        "HighBit": 15, "PixelRepresentation": 0, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, 0], "PixelSpacing": [1, 1], "SliceThickness": 5, "PixelData": bytes(8192),
    }  # fmt: skip
    for keyword, value in (values | changes).items():
        setattr(dataset, keyword, value)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = uid.MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def meta(syntax: bytes) -> bytes:
    syntax = syntax + b"\0" * (len(syntax) % 2)
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element)) + element


@bomb
def dicom_deflated_to_one_gib():
    return meta(b"1.2.840.10008.1.2.1.99") + zeros(1024)


@bomb
def dicom_of_huge_dimensions():
    return dicom(Rows=65_535, Columns=65_535)


@bomb
def dicom_of_many_frames():
    return dicom(NumberOfFrames=2**31 - 1)


@bomb
def dicom_with_an_element_of_four_gib():
    return meta(b"1.2.840.10008.1.2.1") + struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 2**32 - 2) + bytes(100)


@bomb
def dicom_with_a_million_items():
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    head = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 8 * 250_000)
    return meta(b"1.2.840.10008.1.2.1") + head + item * 250_000


@bomb
def dicom_of_sequences_ten_thousand_deep():
    def opened() -> Iterator[bytes]:
        for _ in range(9000):
            yield struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 2**32 - 1)
            yield struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)

    return meta(b"1.2.840.10008.1.2.1") + b"".join(opened())


@bomb
def dicom_compressed_as_jpeg_2000():
    return dicom(uid.JPEG2000Lossless, PixelData=pydicom.encaps.encapsulate([bytes(100)]))


@bomb
def dicom_whose_jpeg_2000_claims_4_gib():
    size = struct.pack(">8I", 2**16, 2**16, 0, 0, 2**16, 2**16, 0, 0)
    start = b"\xff\x4f\xff\x51" + struct.pack(">HH", 41, 0) + size + struct.pack(">H3B", 1, 7, 1, 1)
    return dicom(uid.JPEG2000Lossless, PixelData=pydicom.encaps.encapsulate([start + bytes(100)]))
