"""A whole client, generated of the OpenAPI document as docs/reference/http.md has it, asks a running server."""

import importlib
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from brainseg.server import app
from tests.support.server_fixture import encoded, head, serving

ROOT = Path(__file__).parents[2]
GENERATOR = "openapi-python-client==0.29.1"
TOKEN = "a-token-that-nobody-guesses"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("uv"), reason="uv, which fetches the generator")]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """The generated package: a function that imports one of its modules."""
    tool = ["uv", "tool", "run", "--from", GENERATOR, "openapi-python-client"]
    there = subprocess.run([*tool, "--version"], capture_output=True, text=True, check=False)
    if there.returncode:
        pytest.skip(f"{GENERATOR} cannot be fetched: {there.stderr.strip().splitlines()[-1:]}")
    folder = tmp_path_factory.mktemp("client")
    command = [*tool, "generate", "--path", str(ROOT / "docs/reference/schemas/openapi.json"), "--meta", "none",
               "--output-path", str(folder / "brainseg_client")]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield lambda name: importlib.import_module(f"brainseg_client.{name}")
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "brainseg_client"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def served():
    with serving(settings=app.Settings(decoders=1, token=TOKEN)) as running:
        yield running


@pytest.fixture(scope="module")
def known(client, served):
    return client("client").AuthenticatedClient(served.url, token=TOKEN)


def send(client, content: bytes):
    file = client("types").File(io.BytesIO(content), "slice.png", "image/png")
    return client("models").SegmentBody(file=[file])


def test_it_outlines_a_picture_and_its_answer_has_types(client, known, served):
    body = send(client, encoded(head()))
    told = client("api.default.segment").sync(
        client=known, body=body, volumes=True, threshold=0.4, x_request_id="a" * 8
    )
    models = client("models")
    assert isinstance(told, models.Answer) and isinstance(told.summary, models.Summary)
    own = served.segment(encoded(head()), query="?threshold=0.4", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    assert told.summary.tumour_pixels == own["summary"]["tumour_pixels"] > 0
    assert [each.pixels for each in told.slices] == [each["pixels"] for each in own["slices"]]
    assert told.rule.threshold == 0.4 and told.rule.of_the_model is False and told.volumes.mask


def test_a_refusal_has_a_type_too(client, known):
    told = client("api.default.segment").sync_detailed(client=known, body=send(client, b"%PDF"))
    assert told.status_code == 415 and told.parsed.error.code == 2 and told.parsed.error.fix


def test_it_asks_for_the_model_the_examples_and_progress(client, known):
    model = client("api.default.describe_model").sync(client=known)
    assert model.weights_sha256 == "ab" * 32
    first = client("api.default.list_examples").sync(client=known)[0]
    file = client("api.default.read_example").sync_detailed(first.id, client=known)
    assert file.status_code == 200 and file.content[:2] in (b"II", b"PK")
    over = client("api.default.show_progress").sync_detailed("a" * 32, client=known)
    assert over.status_code == 404 and over.parsed.error.what


def test_without_the_token_it_is_told_so(client, served):
    told = client("api.default.describe_model").sync_detailed(client=client("client").Client(served.url))
    assert told.status_code == 401 and "token" in told.parsed.error.what + told.parsed.error.fix
