"""The decoding worker of the server: what a zip may hold is what could be sent without it."""

from brainseg.inference import decoding_worker
from brainseg.io import untrusted_zip
from brainseg.io.dicom import slice_header
from brainseg.server import limits, worker


def test_a_file_of_frames_may_be_as_large_in_a_zip_as_without(monkeypatch):
    for name in ("MAX_MEMBERS", "MAX_MEMBER_BYTES", "MAX_TOTAL_BYTES"):
        monkeypatch.setattr(untrusted_zip, name, getattr(untrusted_zip, name))  # restored afterwards
    monkeypatch.setattr(decoding_worker, "run", lambda *_: None)
    worker.main()
    assert min(limits.MAX_BODY, slice_header.MAX_FRAMES_BYTES) == untrusted_zip.MAX_MEMBER_BYTES
