"""Raw data to arrays, patients apart.

Holds the sources, the canonical archive, preprocessing, the split and the arrays as training reads them.
May touch io and what is below it; no network, no engine.
"""
