"""An ONNX file of this project in ONNX Runtime, which only this module imports, and the metadata of the file.

Input ``image`` (N, H, W, K C) float32 intensities 0..255: a slice in the middle of its K - 1 neighbours. Output
``probability`` (N, H, W, M) float32: of the slice (M = 1) or of all K slices (M = K). The metadata key ``brainseg``
holds JSON: ``format``, ``variant`` (float32 | int8), ``marks``, ``model`` (the manifest), ``rule`` (threshold,
min_component, min_share, mirror; temperature, bias and skew, see ``Calibration``, of the probabilities averaged with
the mirrored slice's) and ``evaluation`` (metrics/evaluation.json).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from brainseg import hardware
from brainseg.errors import IntegrityError, lack_library
from brainseg.inference import sealed
from brainseg.inference.sealed import REMEDY

FORMAT, SKEWED_FORMAT = 1, 2  # of a file whose calibration has a skew, which earlier versions would ignore
KEY, INPUT, OUTPUT = "brainseg", "image", "probability"
# The largest allowed difference between a file and its network: above it, the export stage and a gate refuse the file.
MAX_DIFFERENCE = 1e-4  # in a probability, from the network in double precision
MAX_DICE_DIFFERENCE = {"float32": 0.0005, "int8": 0.002}  # in the mean volume Dice of validation
_QUIET = 3  # ONNX Runtime logs errors only


def format_of(rule: Mapping[str, Any]) -> int:
    """The format of a file with this rule."""
    return SKEWED_FORMAT if rule.get("skew") else FORMAT


class Session:
    """A network for inference. Safe to call from several threads.

    Attributes:
        facts: the metadata. content, digest: the file's bytes, as they were checked and loaded, and their sha256.
        side: of the grid. slices: K. channels: C. answers: M.
    """

    def __init__(self, path: Path, threads: int | None = None, *, spin: bool = True):
        """Open ``path``.

        Args:
            threads: None for all physical cores that this process may use.
            spin: a thread that waits for its next operation does not sleep. On two free cores that is up to a third
                faster (one slice, 8 bits). Beside other work it takes processor time from that work.

        Raises:
            IntegrityError: the file is missing, does not fit its own digest, or is not of this version.
            MachineError: ONNX Runtime is not installed.
        """
        try:
            import onnxruntime
        except ImportError:
            raise lack_library("onnxruntime", "ONNX Runtime", "serve") from None
        self.content, self.digest = sealed.read(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or hardware.cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        try:
            self._session = onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])
            self.facts = json.loads(self._session.get_modelmeta().custom_metadata_map[KEY])
            if self.facts["format"] not in (FORMAT, SKEWED_FORMAT):
                raise ValueError(f"format {self.facts['format']}, this version reads {FORMAT} and {SKEWED_FORMAT}")
            (image,), (output,) = self._session.get_inputs(), self._session.get_outputs()
            self.side, depth, self.answers = int(image.shape[1]), int(image.shape[3]), int(output.shape[3])
            self.channels = len(self.facts["model"]["contract"]["channels"])
            self.slices = depth // self.channels
        except Exception as error:  # the exception classes of ONNX Runtime have no common parent
            what = f"is damaged, or no model of this version ({type(error).__name__})"
            raise IntegrityError(path, what, REMEDY) from None

    def run(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (N, H, W, M) float32 for (N, H, W, K C) intensities 0..255 of any type."""
        return self._session.run([OUTPUT], {INPUT: np.asarray(images, np.float32)})[0]
