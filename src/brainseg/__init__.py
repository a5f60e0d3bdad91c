"""Outline lower-grade gliomas on brain MRI: a reproducible pipeline and the tools to trust it.

Research use only, not for clinical use.
"""

import os

__version__ = "0.1.0"

# What this package uses reports to nobody. ONNX Runtime would also leave an identifier and a queue of events in the
# user's home. It reads its variable when it is loaded and its own switch comes after that; so they are set here, before
# any other module of the package, and for the processes that it starts.
os.environ.update(ORT_DISABLE_TELEMETRY="1", MLFLOW_DISABLE_TELEMETRY="true", DVC_NO_ANALYTICS="1", DO_NOT_TRACK="1")
