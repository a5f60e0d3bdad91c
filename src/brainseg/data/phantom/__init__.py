"""Drawn heads with tumours, for trials without data and without internet.

Holds the anatomy and the cohort that is drawn from it.
May touch what data may touch.
"""
