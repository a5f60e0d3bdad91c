"""What the process of the tests computes with."""

import cv2

from brainseg.models import backend
from brainseg.models.backend import Runtime

THREADS = 1  # pytest-xdist starts a process for each core
RUNNING = Runtime("tensorflow", "cpu", "float32", THREADS)


def start() -> None:
    """Start it, before anything imports Keras."""
    cv2.setNumThreads(THREADS)
    backend.start(RUNNING.engine, threads=THREADS, device=RUNNING.device, precision=RUNNING.precision)
