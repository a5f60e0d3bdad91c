"""DVC runs: made, collected, compared and verified.

Holds revisions, comparison, cross-validation, recipes and the demo.
May import reporting, evaluation and what is below; reaches no engine and no MLflow.
"""
