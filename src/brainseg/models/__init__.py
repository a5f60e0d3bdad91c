"""Keras networks by name, and the one door to TensorFlow and JAX (backend).

Holds the networks, their manifest, and slices to probabilities.
May touch data, io and what is below; only backend imports TensorFlow or JAX.
"""
