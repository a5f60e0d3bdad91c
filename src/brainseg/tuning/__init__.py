"""The search for better parameters: Optuna proposes, DVC runs and keeps, patients that no trial saw decide.

May import experiments, reporting, evaluation and what is below; reaches no engine and no MLflow.
"""
