"""The report: one file without external parts, with all required statements, and with all text escaped."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brainseg import config
from brainseg.evaluation import results
from brainseg.evaluation.results import Evaluation
from brainseg.models import manifest
from brainseg.reporting import report
from tests.support.small_run import build
from tests.support.toy_pipeline import PROJECT

VOID = {"meta", "img", "br", "!doctype"}


class Page(HTMLParser):
    """Collects the tags, the attributes and the text; refuses tags that do not close."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return build(tmp_path_factory.mktemp("run"))


def written(run, tmp_path, change=None) -> Page:
    """The report of ``run``, after ``change(evaluation, manifest, patients)``."""
    plots = tmp_path / "plots"
    plots.mkdir(exist_ok=True)
    for name in report.FIGURES:
        Image.new("RGB", (8, 8), "white").save(plots / f"{name}.png")
    evaluation = json.loads((run / "metrics/evaluation.json").read_text())
    model = json.loads((run / "models/unet.json").read_text())
    patients = pd.read_csv(run / "metrics/per_patient.csv")
    if change:
        change(evaluation, model, patients)
    facts = Evaluation.model_validate(evaluation), manifest.Manifest.model_validate(model)
    size = report.write(tmp_path / "report.html", *facts, patients, plots)
    assert size == (tmp_path / "report.html").stat().st_size
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_self_contained(run, tmp_path):
    page = written(run, tmp_path)
    links = [value for name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in links)
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "url(" not in text and "@import" not in text
    ids = {value for name, value in page.attributes if name == "id"}
    assert {value[1:] for value in links if value.startswith("#")} <= ids


def test_every_figure_with_its_caption(run, tmp_path):
    page = written(run, tmp_path)
    assert page.tags.count("img") == len(report.FIGURES) == 8
    for heading, caption in report.FIGURES.values():
        assert heading in page.text and caption in page.text


def test_every_number_of_the_evaluation_has_a_definition(run):
    """The table has every number of a subset of evaluation.json, and no other."""
    subset = json.loads((run / "metrics/evaluation.json").read_text())["test"]
    blocks = {name: part for name, part in subset.items() if name not in ("by_institution", "by_size")}
    held = {(name, key) for name, part in blocks.items() for key in part if key != "unit"}
    assert {(m.block, m.key) for m in report.METRICS} == held


def test_headline_numbers_with_interval(run, tmp_path):
    dice = json.loads((run / "metrics/evaluation.json").read_text())["test"]["volume"]["dice"]
    page = written(run, tmp_path)
    assert f"{dice['mean']:.3f} (95 % interval {dice['lo']:.3f} to {dice['hi']:.3f}, median" in page.text.replace(
        " (", " ("
    )
    assert "6 test patients (24 slices), none of them seen before" in page.text


def test_marks_and_research_use_stand_before_the_first_number(run, tmp_path):
    def mark(evaluation, *_):
        evaluation["protocol"]["marks"] = ["subset of 20 patients", "slice-level split: neighbours"]
        evaluation["protocol"]["unit"] = "slice"

    text = written(run, tmp_path, mark).text
    numbers = text.index("It learned from")
    for words in ("Research use only, not for clinical use", "subset of 20 patients", "slice-level split: neighbours"):
        assert text.index(words) < numbers
    assert "none of them seen before" not in text
    assert "neighbouring slices may have been trained on" in text


CLAIMS = ("none of them seen before", "per patient", "patients noticed", "test patient")


def claims(text: str) -> list[str]:
    return [words for words in CLAIMS if words in text.lower()]


def test_each_image_as_a_patient_claims_nothing_of_patients(run, tmp_path):
    """It is not known whose images they are: others of the same patient may be in training."""
    images = config.Download(source="folder", path="x", images="*", masks="*", patient="each_image")
    split = config.Split(unit="patient", folds=5, test_fold=0, val_fraction=0.2, patients=None, file=None, seed=0)
    train = config.load("train", path=PROJECT / "params.yaml").train

    def change(evaluation, *_):
        evaluation["protocol"].update(source="folder", marks=manifest.marks(images, split, train))

    text = written(run, tmp_path, change).text
    assert claims(text) == []
    assert "6 test images (24 slices), whose patients may have been trained on" in text
    assert "Dice is computed for each image alone" in text and "Dice, per volume" in text
    assert "bootstrapped over images: too narrow where several are of one patient" in text
    assert claims(written(run, tmp_path).text) == list(CLAIMS)


def test_volumes_of_a_slice_level_split_are_called_partial(run, tmp_path):
    def change(evaluation, *_):
        evaluation["protocol"].update(unit="slice", marks=["slice-level split: neighbours of test slices"])

    text = written(run, tmp_path, change).text
    assert "Dice is computed for each patient over its test slices only, a partial volume" in text
    assert claims(text) == ["test patient"]
    assert "partial volume" not in written(run, tmp_path).text


def test_everything_is_escaped(run, tmp_path):
    evil = "<script>alert(1)</script>\"'&"

    def poison(evaluation, manifest, patients):
        evaluation["protocol"]["marks"] = [evil]
        evaluation["test"]["by_institution"] = {evil: {"n": 1, "dice": 0.5, "lo": 0.4, "hi": 0.6}}
        manifest["contract"]["channels"] = [evil]
        patients["patient"] = evil

    page = written(run, tmp_path, poison)
    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") >= 5


def test_undefined_values_are_named(run, tmp_path):
    nothing = dict.fromkeys(("mean", "median", "lo", "hi")) | {"n": 0, "undefined": 3}

    def undefine(evaluation, manifest, patients):
        for part in (evaluation["test"], evaluation["baselines"]["flair_threshold"]):
            for block in ("volume", "slice"):
                part[block] = {key: value if key == "unit" else nothing for key, value in part[block].items()}
        evaluation["protocol"]["empty_rule"] = "as said above"
        evaluation["test"]["detection"]["slice_false_positive_rate"] = None
        evaluation["test"]["by_institution"] = {"A": {"n": 1, "dice": None, "lo": None, "hi": None}}
        patients[["dice", "iou", "precision", "recall"]] = np.nan

    text = written(run, tmp_path, undefine).text
    assert "undefined" in text and "no interval" in text
    assert not re.search(r"\b(nan|None|null)\b", text)


def test_facts_as_words():
    group = {"seed": 1, "stem": True, "file": None, "marks": [], "grid": [256, 256], "train": {"batch_size": 0}}
    assert list(report._flatten(group)) == [
        ("seed", "1"), ("stem", "yes"), ("file", "none"), ("marks", "none"), ("grid", "256, 256"),
        ("train, batch size", "0"),
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["kaggle", "phantom", "folder"])
def test_sources_and_licence(run, tmp_path, source):
    def change(evaluation, *_):
        evaluation["protocol"].update(source=source, marks=[])

    text = written(run, tmp_path, change).text
    lgg = ("10.1016/j.compbiomed.2019.05.002", "Journal of Neuro-Oncology", "TCGA-LGG", "CC BY-NC-SA 4.0", "Mazurowski")
    assert [words in text for words in lgg] == [source == "kaggle"] * len(lgg)
    assert ("drawn by the program" in text) == (source == "phantom")


def noise(side: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_pictures_are_shrunk_to_the_limit_the_largest_first():
    pictures = {"large": noise(300), "small": noise(40)}
    fitted = report.fit_pictures(pictures, 60_000)
    assert sum(map(len, fitted.values())) <= 60_000
    assert fitted["small"] == pictures["small"]
    assert fitted == report.fit_pictures(pictures, 60_000)
    assert report.fit_pictures(pictures, 10**7) == pictures


def test_the_limit_holds_when_pictures_fill_the_room(run, tmp_path, monkeypatch):
    """The text of the pictures' sections counts too."""
    monkeypatch.setattr(report, "LIMIT", 100_000)
    fill = lambda pictures, room: dict.fromkeys(pictures, bytes(room // len(pictures)))  # noqa: E731
    monkeypatch.setattr(report, "fit_pictures", fill)
    written(run, tmp_path)
    assert 99_000 < (tmp_path / "report.html").stat().st_size <= 100_000


def test_a_very_long_table_shows_both_ends_and_the_number_left_out(run, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "LIMIT", 500_000)  # less than the picture
    plots = tmp_path / "plots"
    plots.mkdir()
    (plots / "gallery.png").write_bytes(noise(400))
    evaluation = results.read(run / "metrics/evaluation.json", Evaluation)
    model = manifest.read(run / "models/unet.json")
    one = pd.read_csv(run / "metrics/per_patient.csv").query("subset == 'test'").iloc[[0]]
    many = one.loc[one.index.repeat(3_000)].reset_index(drop=True)
    many = many.assign(patient=[f"P{i:05}" for i in many.index], dice=1 - many.index / 3_000)
    assert report.write(tmp_path / "report.html", evaluation, model, many, plots) <= report.LIMIT
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert [name in text for name in ("P00000", "P00499", "P00500", "P02499", "P02500", "P02999")] == [
        True, True, False, False, True, True,
    ]  # fmt: skip
    assert "Those in the middle, 2,000 patients, are left out here" in text
    assert "left out here" not in written(run, tmp_path).text


def test_size_limit(run, tmp_path, monkeypatch):
    """A picture that is too large is shown with fewer pixels; the file in plots/ does not change."""
    monkeypatch.setattr(report, "LIMIT", 200_000)
    plots = tmp_path / "plots"
    plots.mkdir()
    (plots / "gallery.png").write_bytes(noise(400))
    evaluation = results.read(run / "metrics/evaluation.json", Evaluation)
    model = manifest.read(run / "models/unet.json")
    patients = pd.read_csv(run / "metrics/per_patient.csv")
    assert report.write(tmp_path / "report.html", evaluation, model, patients, plots) <= 200_000
    (picture,) = re.findall(r"base64,([^\"]+)", (tmp_path / "report.html").read_text())
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        assert image.width <= 400
    assert (plots / "gallery.png").read_bytes() == noise(400)
