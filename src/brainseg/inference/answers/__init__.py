"""What is made of an outline: measurements, lesions, pictures, files.

Knows cases and outlines, and no model.
"""
