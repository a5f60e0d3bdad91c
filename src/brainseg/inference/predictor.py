"""Outlines in one line of Python: ``mask, probability = Predictor("models/unet.onnx")("scan.nii.gz")``.

Research use only, not for clinical use.
"""

from pathlib import Path

import numpy as np

from brainseg.inference import cases
from brainseg.inference.outlining import Outliner, Segmentation

MODEL = Path("models/unet.onnx")  # below the project's top folder
PACKAGED = Path(__file__).parents[1] / "released/unet.onnx"  # tools/build_wheel.py puts it there; a clone has none


class Predictor(Outliner):
    """A model that outlines arrays and files. Safe to call from several threads."""

    def __init__(self, path: Path | str | None = None, *, threads: int | None = None, spin: bool = True):
        """Open a model.

        Args:
            path: None for ``models/unet.onnx``, or for the released model in the package where there is no such file.
            threads: None for all cores.
            spin: False if other work shares the cores, as in a server: a little slower, but idle threads sleep.

        Raises:
            IntegrityError, MachineError: see ``onnx_session.Session``.
        """
        if path is None:
            path = PACKAGED if PACKAGED.is_file() and not MODEL.exists() else MODEL
        super().__init__(path, threads=threads, spin=spin)

    def __call__(self, image: np.ndarray | Path | str) -> tuple[np.ndarray, np.ndarray]:
        """Outline an array as ``segment`` does, or a file: a picture, a NIfTI file, or a folder of one DICOM series.

        Returns:
            Mask, uint8 in {0, 1}, and probability, float32 in 0..1: (H, W) or (S, H, W). The slices of a volume are
            axial, from feet to head, in radiological display, whatever the order in the file is.

        Raises:
            DataError: it is no complete image of an accepted kind. RunError: see ``segment``.
        """
        if isinstance(image, np.ndarray):
            answer = self.segment(image)
        else:
            case = cases.read(Path(image), str(image))
            answer = self.segment(case.voxels, case.pixel, name=case.name)
            if case.kind == "picture":
                answer = Segmentation(answer.mask[0], answer.probability[0])
        return answer.mask, answer.probability / np.float32(255)
