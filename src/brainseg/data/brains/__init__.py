"""Brain masks of the prepared slices: what is left of an image when the scalp is removed.

Holds how they are made, and how training and evaluation remove the scalp with them.
May touch what data may touch.
"""
