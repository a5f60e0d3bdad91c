"""Outline lower-grade gliomas on brain MRI: a reproducible pipeline and the tools to trust it.

Research use only, not for clinical use.
"""

__version__ = "0.1.0"
