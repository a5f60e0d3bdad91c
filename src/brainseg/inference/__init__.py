"""Answers of an ONNX file: an image to a mask, its measurements and its overlay.

Holds the session, the cases, plausibility, measurements and overlays.
May touch io and what is below; reaches no engine and no pandas.
"""
