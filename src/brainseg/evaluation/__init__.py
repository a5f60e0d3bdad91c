"""Scores of masks.

Holds the metrics, tables and blocks of scores, intervals, the search for a threshold, and the models of the results.
May import inference, data, io and what is below; reaches no engine and no MLflow.
"""
