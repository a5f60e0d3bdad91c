"""Commands that use several folders of the package and belong to none of them.

Holds ``brainseg doctor`` and ``brainseg evaluate``.
May import everything except cli.
"""
