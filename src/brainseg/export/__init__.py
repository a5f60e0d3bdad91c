"""Keras to ONNX.

Holds the conversion, the quantisation and the measurement of how near the files are.
May touch models, inference and what is below; onnx is imported here alone.
"""
