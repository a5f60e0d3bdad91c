"""From Keras to ONNX.

Holds the conversion, the quantisation, and the comparison of the files with the network.
May import models, inference and what is below; only this folder imports onnx.
"""
