"""From raw data to arrays and a split in which no patient is in two subsets.

Holds the sources, the canonical archive, preprocessing, the split, and the arrays as training reads them.
May import io and what is below it; imports no models and no engine.
"""
