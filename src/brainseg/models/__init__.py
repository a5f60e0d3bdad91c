"""Keras networks by name, their manifests, and the only access to TensorFlow and JAX (``backend``).

``prediction`` turns slices into probabilities.
May import data, io and what is below; only ``backend`` imports TensorFlow or JAX.
"""
