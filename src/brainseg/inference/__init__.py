"""Inference with an ONNX file: from an image to a mask, its measurements and its overlay.

Holds the session, the cases, plausibility, measurements and overlays.
May import io and what is below it; reaches no engine and no pandas.
"""
