"""Pictures of named patients, each from the run that tested it."""

import numpy as np
import pytest

from brainseg.errors import DataError
from brainseg.experiments import revision, showing
from brainseg.reporting import gallery
from tests.support.scored_folds import FOLDS, PATIENTS, experiments, experiments_pictured, fold_files

NAMES = [fold.name for fold in FOLDS]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    experiments_pictured(tmp_path, monkeypatch)
    rows: list[gallery.Row] = []
    monkeypatch.setattr(gallery, "_sheet", lambda found, *_: rows.extend(found))
    return rows


def test_each_patient_in_the_order_asked_as_its_run_outlined_it(drawn, tmp_path):
    """C is missed, A half right: found, false and missed pixels in the colours of the last column."""
    assert showing.show(["C", "A", "C"], NAMES, tmp_path / "a.png", tmp_path).startswith("2 patients shown; ")
    assert [row.left[0] for row in drawn] == ["C", "A"]
    assert [row.right for row in drawn] == ["Dice: volume 0.00, slice 0.00", "Dice: volume 0.50, slice 0.50"]
    assert not any(row.heading for row in drawn)
    colours = [gallery._rgb(colour) for colour in gallery.ERRORS]
    seen = [[(row.cells[3] == colour).all(-1).any() for colour in colours] for row in drawn]
    assert seen == [[False, False, True], [True, True, True]]


def test_a_run_that_tested_none_of_them_needs_no_predictions(drawn, tmp_path):
    (tmp_path / f"{NAMES[0]}.npz").unlink()
    showing.show(["B"], NAMES, tmp_path / "a.png", tmp_path)
    assert [row.left[0] for row in drawn] == ["B"]


def test_every_name_that_does_not_fit_one_patient_is_reported(tmp_path, monkeypatch):
    both = [patient._replace(name=f"P{patient.name}") for patient in PATIENTS]
    experiments(monkeypatch, fold_files(both[:2], 3), fold_files(both[1:], 3))
    with pytest.raises(DataError) as error:
        showing.show(["X", "P", "PB", "PA", "C"], NAMES, tmp_path / "a.png", tmp_path)
    assert {problem.path: problem.what for problem in error.value.problems} == {
        "X": f"no test patient of {', '.join(NAMES)} has this name",
        "P": "4 test patients have this in their names: PA, PB, PB, PC",
        "PB": f"PB was tested by several of {', '.join(NAMES)}",
    }


def test_the_workspace_has_its_predictions_in_place(tmp_path):
    with (
        pytest.raises(DataError, match="there is no such file"),
        revision.fetched("a/b.npz", revision.WORKSPACE, tmp_path),
    ):
        pass
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a/b.npz", row=np.arange(3))
    with revision.fetched("a/b.npz", revision.WORKSPACE, tmp_path) as path:
        assert path == tmp_path / "a/b.npz"
    assert path.exists()
