"""The render stage on a small run: files, bytes, patients, and pictures that fit the tables."""

import matplotlib as mpl
import numpy as np
import pytest

from brainseg.config import Render
from brainseg.errors import IntegrityError
from brainseg.reporting import rendering, report
from tests.support.small_run import augment, build

PARAMS = Render(patients=4, dpi=50)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return build(tmp_path_factory.mktemp("run"))


@pytest.fixture
def no_charts(monkeypatch):
    """The charts take most of the time and have their own tests."""
    monkeypatch.setattr(rendering, "_charts", lambda *_: None)


def render(root, params=PARAMS, augment=augment) -> str:
    return rendering.run(root / "metrics", root / "data", root / "models", params, augment)


def outputs(root) -> dict[str, bytes]:
    files = [*(root / "metrics/plots").iterdir(), root / "metrics/report.html"]
    return {path.name: path.read_bytes() for path in files}


def test_every_figure_and_the_report_the_same_each_time(run, tmp_path):
    assert "4 patients shown" in render(run)
    first = outputs(run)
    assert set(first) == {f"{name}.png" for name in (*report.FIGURES, "overview")} | {"report.html"}
    elsewhere = build(tmp_path / "else where")
    with mpl.rc_context({"figure.dpi": 300, "font.size": 30, "axes.facecolor": "red", "savefig.bbox": "tight"}):
        render(elsewhere)
    assert outputs(elsewhere) == first


def test_at_most_so_many_patients_in_all_pictures_together(run, no_charts):
    """The augmentations are drawn on a slice that the gallery shows."""
    seen = []
    render(run, augment=lambda image, mask: seen.append((image, mask)) or augment(image, mask))
    ((image, mask),) = seen
    images, masks = (np.load(run / f"data/processed/{name}.npy") for name in ("images", "masks"))
    (row,) = [i for i in range(len(images)) if (images[i] == image).all() and (masks[i] == mask).all()]
    tables = {name: rendering._read_table(run / f"metrics/{name}.csv") for name in ("per_patient", "per_slice")}
    picked = rendering.gallery.pick(tables["per_patient"], tables["per_slice"], PARAMS.patients)
    assert len(picked) == PARAMS.patients and row in picked["row"].tolist()


def test_predictions_of_another_run_are_refused(tmp_path, no_charts):
    root = build(tmp_path)
    render(root)
    before = outputs(root)
    path = root / "data/predictions/probabilities.npz"
    stored = dict(np.load(path))
    np.savez_compressed(path, row=stored["row"], probability=np.roll(stored["probability"], 5, axis=1))
    with pytest.raises(IntegrityError, match=r"not the predictions that per_slice.csv counts \(T0"):
        render(root)
    np.savez_compressed(path, row=stored["row"][:10], probability=stored["probability"][:10])
    with pytest.raises(IntegrityError, match="not the predictions"):
        render(root)
    assert outputs(root) == before


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        *((f"metrics/{name}.csv", "evaluate") for name in ("per_patient", "per_slice", "calibration")),
        *(("metrics/training.csv", "train"), ("data/predictions/probabilities.npz", "evaluate")),
        *(("data/processed/images.npy", "preprocess"), ("data/processed/masks.npy", "preprocess")),
    ],
)
def test_a_damaged_file_is_named_with_the_stage_that_makes_it(tmp_path, no_charts, name, stage):
    path = build(tmp_path) / name
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2] + b'"\xff', b""):
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError) as caught:
            render(tmp_path)
        (problem,) = caught.value.problems
        assert problem.path == str(path) and f"dvc repro -f {stage}" in problem.fix


@pytest.mark.slow  # all is drawn again
def test_one_test_patient(tmp_path):
    assert render(build(tmp_path, test_patients=1)).startswith("1 patient shown")
    assert "gallery.png" in outputs(tmp_path)


@pytest.mark.slow  # all is drawn again
def test_no_patient_with_a_defined_dice(tmp_path):
    """No tumour and none predicted: there is no augmentation picture, but everything else."""
    root = build(tmp_path, test_patients=1)
    for name in ("per_patient", "per_slice"):
        table = rendering._read_table(root / f"metrics/{name}.csv").assign(dice=np.nan)
        table.to_csv(root / f"metrics/{name}.csv", index=False)
    assert render(root).startswith("no patient shown")
    assert set(outputs(root)) == {f"{name}.png" for name in (*report.FIGURES, "overview")} - {"augmentation.png"} | {
        "report.html"
    }


def test_patients_may_be_called_na_or_007(tmp_path):
    table = tmp_path / "per_patient.csv"
    table.write_text("patient,institution,dice\nNA,null,0.5\n007,,\n")
    read = rendering._read_table(table)
    assert read["patient"].tolist() == ["NA", "007"]
    assert read["institution"].tolist() == ["null", ""]
    assert np.isnan(read["dice"][1])
