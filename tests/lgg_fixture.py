"""The real LGG data for tests, if it lies beside the checkout (``../shared/lgg``); else they are skipped."""

import subprocess
import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "lgg"


def shared() -> Path:
    """The folder that holds the data; skips the calling test when there is none."""
    if not (SHARED / "SHA256SUMS.xz").exists():
        pytest.skip("needs ../shared/lgg")
    return SHARED


def restored(path: Path, *options: str) -> Path:
    """Rebuild Kaggle's archive (about a minute); ``--single`` holds each file once."""
    subprocess.run([sys.executable, str(shared() / "restore"), str(path), *options], check=True, capture_output=True)
    return path
