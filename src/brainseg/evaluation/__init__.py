"""Masks to honest numbers.

Holds the metrics, tables and blocks of scores, intervals, and the search for a threshold.
May touch inference, data, io and what is below; reaches no engine and no MLflow.
"""
