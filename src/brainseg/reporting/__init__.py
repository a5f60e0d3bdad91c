"""Tables to pictures and pages.

Holds the charts, the gallery, the report, the model card and their templates.
May touch models.manifest and what training may touch; reaches no engine and no MLflow.
"""
