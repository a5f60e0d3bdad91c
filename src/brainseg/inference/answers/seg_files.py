"""The mask as DICOM SEG on the series that was given."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from brainseg.inference.cases import Case
from brainseg.io import volumes
from brainseg.io.dicom import seg_writer


def encode_mask(mask: np.ndarray, case: Case, facts: Mapping[str, Any]) -> bytes | None:
    """Encode ``mask`` (S, H, W) as the bytes of a file; None for what is no DICOM series, or lacks what a SEG needs.

    Raises:
        NoSegError: see seg_writer.encode.
    """
    if case.origin is None or case.volume is None:
        return None
    in_order = volumes.to_file_order(mask, case.volume.geometry).transpose(2, 1, 0)  # slices, rows, columns
    weights, rule = facts["model"]["weights_sha256"], facts.get("rule") or {}
    model = json.dumps([weights, facts["variant"], facts.get("rule")])
    numbers = {"min_share": 0.0, **rule} if rule else {}
    chosen = {key: f"{numbers[key]:.12g}" for key in ("threshold", "min_component", "min_share") if key in numbers}
    parameters = {"weights_sha256": weights, "variant": facts["variant"], **chosen}
    return seg_writer.encode(in_order, case.origin, model, parameters)
