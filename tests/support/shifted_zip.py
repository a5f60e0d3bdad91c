"""A zip whose end says that its directory lies elsewhere: every member seems to begin before the file does."""

import zipfile
from pathlib import Path


def shifted_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x05\x06") + 16
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "little") + 99).to_bytes(4, "little")
    path.write_bytes(data)
    return path
