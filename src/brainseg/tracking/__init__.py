"""Logging to MLflow. The files that the stages wrote stay the source; MLflow only shows them.

Holds the logging of runs, the registry and its gate, and the model as MLflow loads it.
May import experiments and what is below; no other folder imports mlflow.
"""
