"""Write docs/reference/schemas/: JSON Schemas of manifest, evaluations and summaries, made from their pydantic models,
and the OpenAPI document of the server.

Run ``python tools/write_schemas.py`` after a model has changed; a test compares the committed schemas with the models.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel

from brainseg import files
from brainseg.evaluation import results
from brainseg.models.manifest import Manifest
from brainseg.server import app
from brainseg.server.layers.metrics import Metrics
from brainseg.server.layers.token import TokenCheck

FOLDER = Path(__file__).parents[1] / "docs/reference/schemas"
KINDS: dict[str, type[BaseModel]] = {
    "manifest": Manifest,
    "evaluation": results.Evaluation,
    "external_evaluation": results.ExternalEvaluation,
    "summary": results.Summary,
    "cross_validation": results.CrossValidationSummary,
}


def texts() -> dict[str, str]:
    """The name of each file and its text."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schemas = {name: dialect | kind.model_json_schema() for name, kind in KINDS.items()}
    schemas["openapi"] = describe_server()
    return {f"{name}.json": json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()}


def describe_server() -> dict[str, Any]:
    """The OpenAPI document, which is the same for every model."""
    model = SimpleNamespace(facts={"model": {"weights_sha256": "", "protocol": {}}, "variant": ""})
    nowhere = app.Settings(page=Path("none"), root=Path("none"))
    return app.create_routes(model, lambda _: None, nowhere, TokenCheck(None), Metrics()).openapi()


if __name__ == "__main__":
    for name, text in texts().items():
        files.write_text(FOLDER / name, text)
