"""Commands that need several rooms and belong to none.

Holds ``brainseg doctor`` and ``brainseg evaluate``.
May touch everything but cli.
"""
