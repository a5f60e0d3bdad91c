"""How comparisons are shown, made of several runs, and given a baseline that is missing."""
