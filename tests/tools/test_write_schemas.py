"""The committed JSON Schemas are those of the models."""

from tools import write_schemas


def test_the_committed_schemas_are_those_of_the_models():
    """If not: python tools/write_schemas.py."""
    committed = {path.name: path.read_text(encoding="utf-8") for path in write_schemas.FOLDER.iterdir()}
    assert committed == write_schemas.texts()
