"""NRRD and MetaImage files that are made up, written by SimpleITK."""

from pathlib import Path

import numpy as np
import pytest

itk = pytest.importorskip("SimpleITK")


def write(path: Path, array: np.ndarray, affine: np.ndarray, *, packed: bool = False) -> Path:
    """Write ``(I, J, K)``, or ``(I, J, K, C)`` as vectors, whose ``affine`` ``(4, 4)`` leads to RAS+, by its ending."""
    turned = np.ascontiguousarray(array.transpose(2, 1, 0, *range(3, array.ndim)))
    image = itk.GetImageFromArray(turned, isVector=array.ndim == 4)
    lps = np.diag([-1, -1, 1, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    itk.WriteImage(image, str(path), useCompression=packed)
    return path
