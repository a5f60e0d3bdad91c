"""DICOM files as stacks of slices and as masks, and outlines as DICOM SEG.

Holds what knows a DICOM header. Nothing else reads one.
"""
