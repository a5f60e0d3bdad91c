"""MLflow: a view of the files that the stages wrote.

Holds the logging of runs, the registry and its gate, and the model as MLflow loads it.
May touch experiments and what is below; mlflow is imported here alone.
"""
