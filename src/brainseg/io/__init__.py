"""Bytes to voxels that have a place, and back.

Holds the formats (pictures, NIfTI, DICOM, zips) and what positions and intensities mean.
May touch config, errors, files; pydicom and nibabel are imported here alone.
"""
