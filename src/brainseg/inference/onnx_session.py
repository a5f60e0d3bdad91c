"""An ONNX file of ours, opened: the one place that knows ONNX Runtime, and what the file's metadata says.

Input ``image`` (N, H, W, K C) float32 intensities 0..255, a slice in the middle of its K - 1 neighbours; output
``probability`` (N, H, W, M) float32, of the slice (M = 1) or of all (M = K). The metadata's key ``brainseg`` holds
JSON: ``format``, ``variant`` (float32 | int8), ``marks``, ``model`` (the manifest), ``rule`` (threshold, min_component,
mirror) and ``evaluation`` (metrics/evaluation.json).
"""

import json
from pathlib import Path

import numpy as np

from brainseg import files, hardware
from brainseg.errors import IntegrityError, MachineError

FORMAT = 1
KEY, INPUT, OUTPUT = "brainseg", "image", "probability"
# How far a file may be from the network that it was made of, for the export stage to write it and a gate to pass it.
MAX_DIFFERENCE = 1e-4  # of a probability, to the network in double precision
MAX_DICE_DIFFERENCE = {"float32": 0.0005, "int8": 0.002}  # of the mean volume Dice of validation
REMEDY = "run: dvc repro export (of a training), or make pull (the released model)"
_QUIET = 3  # ONNX Runtime's own words: errors only


class Session:
    """A network that answers; safe to call from several threads.

    Attributes:
        facts: the metadata. digest: sha256 of the file. side: of the grid. slices: K. channels: C. answers: M.
    """

    def __init__(self, path: Path, threads: int | None = None, *, spin: bool = True):
        """Open ``path``.

        Args:
            threads: None for all physical cores that this process may use.
            spin: between two operations a thread looks for its next one instead of sleeping. Alone on two cores that
                is up to a third faster, for one slice in 8 bits; beside other work it takes their processor away.

        Raises:
            IntegrityError: missing, damaged, or no file of this version. MachineError: ONNX Runtime is not installed.
        """
        try:
            import onnxruntime
        except ImportError:
            what = "needs ONNX Runtime, which is not installed"
            raise MachineError("onnxruntime", what, "pip install '.[serve]' in a clone of the project") from None
        if not path.is_file():
            raise IntegrityError(path, "there is no model", REMEDY)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or hardware.cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        self.digest = files.sha256(path)
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self.facts = json.loads(self._session.get_modelmeta().custom_metadata_map[KEY])
            if self.facts["format"] != FORMAT:
                raise ValueError(f"format {self.facts['format']}, this version reads {FORMAT}")
            (taken,), (given,) = self._session.get_inputs(), self._session.get_outputs()
            self.side, depth, self.answers = int(taken.shape[1]), int(taken.shape[3]), int(given.shape[3])
            self.channels = len(self.facts["model"]["contract"]["channels"])
            self.slices = depth // self.channels
        except Exception as error:  # ONNX Runtime has a class of its own for each fault, and no parent of them
            what = f"is damaged, or no model of this version ({type(error).__name__})"
            raise IntegrityError(path, what, REMEDY) from None

    def run(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (N, H, W, M) float32 of (N, H, W, K C) intensities 0..255 of any type."""
        return self._session.run([OUTPUT], {INPUT: np.asarray(images, np.float32)})[0]
