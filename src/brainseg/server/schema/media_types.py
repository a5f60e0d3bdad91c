"""The kinds of answer to a request for an outline, and the choice among them."""

from brainseg.server.refusals import Refusal

JSON, PNG, NIFTI, DICOM = "application/json", "image/png", "application/x-nifti", "application/dicom"


def choose_kind(accept: str) -> str:
    """The kind of answer that an Accept header prefers. Raises Refusal with status 406."""
    best: tuple[float, str] = (0.0, "")
    for entry in (accept or "*/*").split(","):
        kind, *settings = (part.strip().lower() for part in entry.split(";"))
        quality = next((setting[2:] for setting in settings if setting.startswith("q=")), "1")
        share = float(quality) if quality.replace(".", "", 1).isdecimal() else 0.0
        matching = {"*/*": JSON, "application/*": JSON, "image/*": PNG}.get(kind, kind)
        if matching in (JSON, PNG, NIFTI, DICOM) and share > best[0]:
            best = (share, matching)
    if not best[1]:
        raise Refusal(406, "no such kind of answer", f"accept {JSON}, {PNG}, {NIFTI} or {DICOM}")
    return best[1]
