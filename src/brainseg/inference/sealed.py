"""A model file that carries the digest of its own content: one wrong bit anywhere is found when the file is opened.

The file is body and seal. The body is the serialised ModelProto: graph, weights, metadata. The seal is one more entry
of ``metadata_props``, as protobuf writes it: ``content_sha256`` and the digest of the body. Protobuf appends repeated
fields of messages that follow each other, so whatever reads ONNX takes the file as it is and shows the digest among the
metadata.

The digest of an ONNX file stands here and nowhere else. ``models/unet.json`` names that of the weights and is written
before there is an ONNX file; of which weights a file was made, its metadata say, and the digest holds for them too.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from brainseg.errors import IntegrityError

KEY = "content_sha256"
REMEDY = "run: dvc repro export (of a training), or make pull (the released model)"


class Content(NamedTuple):
    """The bytes of a file that fits its digest; sha256: of the whole file."""

    data: bytes
    sha256: str


def seal(body: bytes) -> bytes:
    """The bytes of a file with this body."""
    return body + _entry(hashlib.sha256(body).hexdigest())


def read(path: Path) -> Content:
    """Read a file once and check it. What is used must be these bytes: the file may be another one by then.

    Raises:
        IntegrityError: there is no file, it is damaged, or it carries no digest.
    """
    if not path.is_file():
        raise IntegrityError(path, "there is no model", REMEDY)
    data = path.read_bytes()
    body, found = memoryview(data)[:-SIZE], data[-SIZE:]
    digest = hashlib.sha256(body)
    if found != _entry(digest.hexdigest()):
        what = "is damaged, or no model of this version: its content does not fit the digest at its end"
        raise IntegrityError(path, what, REMEDY)
    digest.update(found)  # of the whole file, without reading its body again
    return Content(data, digest.hexdigest())


def _entry(digest: str) -> bytes:
    """Field 14 of a ModelProto, ``metadata_props``: a message of key (field 1) and value (field 2)."""
    pair = b"".join(bytes([field << 3 | 2, len(text)]) + text.encode() for field, text in ((1, KEY), (2, digest)))
    return bytes([14 << 3 | 2, len(pair)]) + pair


SIZE = len(_entry(64 * "0"))
