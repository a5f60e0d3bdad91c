"""The OpenAPI document: what it promises is what is answered, and the types of a client can be made of it."""

import importlib
import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from brainseg.inference.answers import lesions
from brainseg.io import scans
from brainseg.server import app
from brainseg.server.routes.model import OnnxFile
from brainseg.server.schema import answers
from tests.support.server_fixture import encoded, head, serving
from tools import write_schemas

PICTURE = encoded(head())


@pytest.fixture(scope="module")
def served():
    with serving(settings=app.Settings(decoders=1)) as running:
        yield running


@pytest.fixture(scope="module")
def document(served):
    return served.get("/openapi.json").json()


def operations(document):
    return {(method, path): each for path, item in document["paths"].items() for method, each in item.items()}


def volume() -> bytes:
    voxels = np.zeros((64, 64, 4), np.uint8)
    voxels[16:32, 16:32, 1:3] = 230
    return nibabel.Nifti1Image(voxels, np.diag([1, 1, 5, 1])).to_bytes()


def test_answers_are_what_their_models_say(served):
    """Each field is described, and each that is described is there."""
    for sent, query in ((PICTURE, ""), (volume(), "?volumes=true"), (encoded(head(tumour=False)), "?volumes=true")):
        body = served.segment(sent, query=query).json()
        answer = answers.Answer.model_validate(body)
        assert json.loads(answer.model_dump_json(exclude_unset=True)) == body
        assert set(body) == set(answers.Answer.model_fields) - (set() if query else {"volumes"})
    assert tuple(answers.LesionRow.model_fields) == lesions.COLUMNS
    assert set(answers.Kind.__args__) == {*scans.READERS, "dicom", "picture", "slices", "tif"}
    for path, kind in (("/v1/model", answers.ModelDescription), ("/health", answers.Status)):
        assert set(served.get(path).json()) == set(kind.model_fields)
    refused = served.segment(b"%PDF")
    assert answers.Refused.model_validate(refused.json()).error.code == 2


def test_the_image_that_the_client_has_may_be_left_out(served):
    whole = served.segment(volume(), query="?volumes=true").json()["volumes"]
    rest = served.segment(volume(), query="?volumes=true&image=false").json()["volumes"]
    assert set(whole) == {"image", "mask", "probability"} and rest == {
        name: whole[name] for name in ("mask", "probability")
    }
    assert "volumes" not in served.segment(volume(), query="?image=false").json()


def test_each_answer_has_a_schema_and_each_refusal_an_example_of_its_own(document):
    for (method, path), operation in operations(document).items():
        examples = []
        for status, response in operation["responses"].items():
            content = response.get("content", {})
            assert content or status in ("204", "303"), (method, path, status)
            for kind, told in content.items():
                assert told["schema"], (method, path, status, kind)
            if int(status) >= 400:
                told = content["application/json"]
                assert told["schema"] == {"$ref": "#/components/schemas/Refused"}
                examples.append(json.dumps(answers.Refused.model_validate(told["example"]).model_dump()))
        assert len(set(examples)) == len(examples)
    assert document["paths"]["/v1/segment"]["post"]["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Answer"
    }
    assert "ValidationError" not in json.dumps(document)
    assert {path for _, path in operations(document)} >= {"/login", "/metrics", "/model/unet.onnx"}


def test_the_examples_of_refusals_are_what_is_answered(document):
    """Each of the address that has it: a 404 of /v1/progress speaks of no example."""
    settings = app.Settings(token="secret", sound=lambda: False, file=OnnxFile(b"x", "0" * 64), decoders=0)
    form, wide = {"token": "another"}, {"token": "a" * 5000}
    with serving(settings=settings) as own:
        bearer = {"headers": {"Authorization": "Bearer secret"}}
        other = {"headers": {"Origin": "https://evil.example"}}
        for path, method, status, asked in (
            ("/v1/progress/{request_id}", "get", 404, bearer), ("/v1/examples/{identity}", "get", 404, bearer),
            ("/model/unet.onnx", "get", 404, bearer | {"params": {"digest": "1"}}), ("/ready", "get", 503, {}),
            ("/login", "post", 401, {"data": form}), ("/login", "post", 413, {"data": wide}),
            ("/login", "post", 415, {"data": b"x"}), ("/login", "post", 403, other),
            ("/v1/segment", "post", 403, other), ("/v1/model", "get", 401, {}),
        ):  # fmt: skip
            answer = own.session.request(method, own.url + path, timeout=30, **asked)
            told = document["paths"][path][method]["responses"][str(status)]["content"]["application/json"]["example"]
            assert (answer.status_code, answer.json()) == (status, told), (path, status)


def test_refusals_are_declared_where_they_can_come_and_nowhere_else(document):
    for (method, path), operation in operations(document).items():
        statuses = set(operation["responses"])
        is_open = path in ("/health", "/ready")
        assert ("401" in statuses) != is_open, path
        assert ("403" in statuses) == (method == "post"), path
        assert ("422" in statuses) == (path == "/v1/segment"), path  # all else takes any text
        assert list(statuses) and list(operation["responses"]) == sorted(statuses)


def test_the_document_tells_where_a_token_is_needed(document):
    schemes = document["components"]["securitySchemes"]
    assert schemes["token"] == {"type": "http", "scheme": "bearer"}
    assert (schemes["cookie"]["in"], schemes["cookie"]["name"]) == ("cookie", "brainseg_token")
    assert document["security"] == [{"token": []}, {"cookie": []}, {}]
    free = {path for (_, path), each in operations(document).items() if each.get("security") == []}
    assert free == {"/health", "/ready", "/login"}


def test_the_committed_document_is_that_of_the_server(document):
    assert json.loads(write_schemas.texts()["openapi.json"]) == document


def test_the_types_of_a_client_can_be_made_of_the_document(served, tmp_path, monkeypatch):
    """Its types hold what the server answers, also a refusal; and not what a document of other names would say."""
    command = [
        sys.executable,
        "-m",
        "datamodel_code_generator",
        "--input-file-type",
        "openapi",
        "--output",
        "client_types.py",
    ]
    command += ["--input", write_schemas.FOLDER / "openapi.json", "--output-model-type", "pydantic_v2.BaseModel"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    types = importlib.import_module("client_types")
    answer = types.Answer.model_validate_json(served.segment(volume(), query="?volumes=true&image=false").content)
    assert answer.summary.volume_ml == pytest.approx(16 * 16 * 2 * 5 / 1000)
    assert answer.input.kind is types.Kind.nifti and answer.input.spacing_mm == (1.0, 1.0, 5.0)
    assert answer.lesions[0].voxels == 512 and answer.volumes.mask and answer.volumes.image is None
    assert types.Refused.model_validate_json(served.segment(b"%PDF").content).error.code == 2
    assert types.ModelDescription.model_validate_json(served.get("/v1/model").content).marks == ["20 of 110 patients"]
    with pytest.raises(ValueError, match="volume_ml"):
        types.Summary.model_validate(answer.summary.model_dump() | {"volume_ml": "much"})
