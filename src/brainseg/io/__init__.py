"""Bytes to voxels that have a place, and back.

Holds the formats (pictures, NIfTI, DICOM, zips) and what positions and intensities mean.
May import config, errors and files. Only this folder imports pydicom and nibabel, except where contract 4f allows.
"""
