"""Drawn heads with tumours, for trials without data and without the network.

Holds the anatomy and the cohort that is drawn from it.
May touch what data may touch.
"""
