"""Pictures and pages from tables.

Holds the charts, the gallery, the report, the model card and their templates.
May import models.manifest and what training may import; reaches no engine and no MLflow.
"""
