"""The JSON files of the committed run, with changes: whole, as the models of them ask for."""

import json
from pathlib import Path
from typing import Any

from brainseg.evaluation import results
from tests.support.locked import released_manifest

ROOT = Path(__file__).parents[2]


def manifest(**changes: Any) -> dict:
    """models/unet.json, of no layers, and without the digest of its content, as early ones are."""
    content = released_manifest(ROOT) | {"layers": []}
    del content["content_sha256"]
    return change(content, changes)


def evaluation(**changes: Any) -> dict:
    return change(_read("metrics/evaluation.json"), changes)


def summary(**changes: Any) -> dict:
    return change(_read("metrics/summary.json"), changes)


def cross_validation(**changes: Any) -> dict:
    return sealed(change(_read("metrics/cross_validation/summary.json"), changes))


def sealed(summary: dict) -> dict:
    """A summary of folds as if it had been made like this: with the digest of its content."""
    return summary | {results.DIGEST: results.digest(summary)}


def change(content: dict, changes: dict) -> dict:
    """``content`` with the values of ``changes``, nested in the same way."""
    return content | {
        key: change(content[key], value) if isinstance(value, dict) and key in content else value
        for key, value in changes.items()
    }


def _read(name: str) -> dict:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))
