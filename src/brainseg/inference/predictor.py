"""Outlines for whoever has an image: ``mask, probability = Predictor("models/unet.onnx")("scan.nii.gz")``.

Research use only, not for clinical use.
"""

from pathlib import Path

import numpy as np

from brainseg.inference import cases
from brainseg.inference.outlining import Answer, Outliner


class Predictor(Outliner):
    """A model of ours, ready to answer; safe to call from several threads."""

    def __init__(self, path: Path | str = "models/unet.onnx", *, threads: int | None = None, spin: bool = True):
        """Open a model.

        Args:
            threads: None for all cores.
            spin: False where other work shares the cores, as in a server: a little slower, idle threads sleep.

        Raises:
            IntegrityError, MachineError: as ``onnx_session.Session``.
        """
        super().__init__(path, threads=threads, spin=spin)

    def __call__(self, given: np.ndarray | Path | str) -> tuple[np.ndarray, np.ndarray]:
        """Outline an array, as ``segment``, or what a path holds: a picture, NIfTI, a folder of one DICOM series.

        Returns:
            Mask, uint8 in {0, 1}, and probability, float32 in 0..1: (H, W) or (S, H, W). Of a volume its slices are
            axial, feet to head, in radiological display, whatever the file's order.

        Raises:
            DataError: no whole image of an accepted kind.
        """
        if isinstance(given, np.ndarray):
            answer = self.segment(given)
        else:
            case = cases.read(Path(given), str(given))
            answer = self.segment(case.voxels, case.pixel)
            if case.kind == "picture":
                answer = Answer(answer.mask[0], answer.probability[0])
        return answer.mask, answer.probability / np.float32(255)
