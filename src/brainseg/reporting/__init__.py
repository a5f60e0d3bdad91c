"""Pictures and pages from tables.

Holds the charts, the gallery, the report, the model card and their templates.
May import models.manifest and what training may import; reaches no engine and no MLflow.
"""

import os

from brainseg import files

# Matplotlib reads the user's style and writes a cache of fonts, in the user's home. Here both are the project's own.
os.environ.setdefault("MPLCONFIGDIR", str(files.project_root() / ".brainseg/matplotlib"))
