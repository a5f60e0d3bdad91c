"""The examples of the release: listed with the model's own scores, sound, and open to the server as to the page."""

import json
import zipfile

import pytest

from brainseg.server import app, examples
from brainseg.server.refusals import Refusal
from tests.support.server_fixture import encoded, head, serving

WEIGHTS = "ab" * 32  # those of the made-up model
PATIENT = "TCGA_CS_4942_19970222"


def entry(level: str, **numbers: float) -> dict:
    return {"id": level, "patient": PATIENT, "slices": 3, "dice": 0.9242, "precision": 0.95, "recall": 0.9} | numbers


@pytest.fixture
def root(tmp_path):
    """A project's folder with two patients of the release."""
    (tmp_path / "examples").mkdir()
    listed = {"attribution": "Buda 2019. CC BY-NC-SA 4.0", "licence": "https://creativecommons.org/",
              "weights_sha256": WEIGHTS,
              "examples": [entry("easy"), entry("fails", dice=0.56, recall=0.393)]}  # fmt: skip
    with zipfile.ZipFile(tmp_path / examples.RELEASED, "w") as archive:
        for level in ("easy", "fails"):
            with archive.open(f"{level}.zip", "w") as file, zipfile.ZipFile(file, "w") as inside:
                for n in (1, 2, 3):
                    inside.writestr(f"{PATIENT}/{PATIENT}_{n}.png", encoded(head(tumour=n == 2)))
                    inside.writestr(f"{PATIENT}/{PATIENT}_{n}_mask.png", encoded(head(tumour=n == 2)))
        archive.writestr("list.json", json.dumps(listed))
    return tmp_path


def test_they_are_named_by_how_well_the_model_does(root):
    easy, fails = examples.Examples(root, weights=WEIGHTS).list_all()
    assert easy["title"] == "Easy: patient CS 4942" and easy["kind"] == "slices"
    assert easy["note"] == "3 slices; Dice 0.92 against the readers' outline"
    assert fails["title"] == "It fails: patient CS 4942" and fails["note"].endswith("39 % of the tumour is found")
    assert "CC BY-NC-SA" in easy["attribution"] and easy["licence"].startswith("https://creativecommons.org")


def test_of_another_model_of_lgg_no_score_is_told(root):
    for each in examples.Examples(root, weights="cd" * 32).list_all():
        assert each["title"] == "Patient CS 4942" and each["note"] == "3 slices; this model may have learned from it"


def test_a_model_of_other_data_or_of_phantoms_has_none_of_them(root):
    for known in (examples.Examples(root), examples.Examples(root, phantoms_alone=True)):
        assert [each["id"] for each in known.list_all()] == ["phantom-1", "phantom-2"]


def test_without_the_release_there_are_phantoms_and_no_warning(tmp_path, capsys):
    found = examples.Examples(tmp_path, weights=WEIGHTS).list_all()
    assert [each["id"] for each in found] == ["phantom-1", "phantom-2"] and capsys.readouterr().err == ""


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.95])
def test_a_flipped_bit_is_found_and_hinders_nothing(root, place, capsys):
    path = root / examples.RELEASED
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    found = examples.Examples(root, weights=WEIGHTS)
    assert [each["id"] for each in found.list_all()] == ["phantom-1", "phantom-2"]
    said = capsys.readouterr().err
    assert said.count("WARNING") == 1 and examples.RELEASED in said and "make pull" in said


def test_what_changes_later_is_not_given_away(root):
    found = examples.Examples(root, weights=WEIGHTS)
    assert found.content("easy")
    (root / examples.RELEASED).write_bytes(b"another")
    with pytest.raises(Refusal, match="have changed since"):
        found.content("fails")


def test_the_server_lists_gives_and_outlines_them(root):
    with serving(settings=app.Settings(root=root, decoders=1)) as served:
        first = served.get("/v1/examples").json()[0]
        assert first["id"] == "easy" and first["note"] and first["attribution"]
        given = served.get("/v1/examples/easy")
        assert given.headers["content-type"] == "application/zip"
        answer = served.segment(given.content).json()
        assert answer["input"]["kind"] == "slices" and answer["summary"]["slices_with_tumour"] == 1
        assert served.get("/v1/examples/hard").status_code == 404
