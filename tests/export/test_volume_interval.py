"""The conformal interval of a volume."""

import numpy as np
import pandas as pd
import pytest

from brainseg.export import volume_interval
from tests.support.run_files import ROOT


@pytest.mark.parametrize("patients", [40, 110])
def test_the_next_patient_is_covered_as_stated(patients):
    """Over many cohorts, of a skewed ratio: at least 90 %, and not much more."""
    rng, held = np.random.default_rng(1), []
    for _ in range(400):
        outlined = rng.lognormal(3, 1, patients + 20)
        marked = outlined * rng.gamma(4, 0.3, patients + 20)
        low, high = volume_interval.fit(outlined[:patients], marked[:patients])
        held.append(
            np.mean(
                (low * outlined <= marked) & (marked <= high * outlined), where=np.arange(patients + 20) >= patients
            )
        )
    assert 0.9 <= np.mean(held) < 0.94


@pytest.mark.parametrize(("groups", "least", "most"), [("fold", 0.87, 0.93), ("institution", 0.80, 0.95)])
def test_the_committed_folds(groups, least, most):
    table = pd.read_csv(ROOT / "metrics/cross_validation/per_patient.csv")
    volumes = table["predicted_pixels"], table["tumour_pixels"]
    low, high = volume_interval.fit(*volumes)
    assert 0.3 < low < 0.9 and 1.1 < high < 3
    assert least <= volume_interval.coverage(*volumes, table[groups]) <= most


def test_a_group_that_is_unlike_the_others_is_not_covered():
    ratios = np.r_[np.linspace(0.9, 1.1, 90), np.full(10, 5.0)]
    groups = np.r_[np.arange(90) % 2, np.full(10, 2)]
    held = volume_interval.coverage(np.ones(100), ratios, groups)
    assert 0.78 <= held <= 0.91 and held < volume_interval.coverage(np.ones(90), ratios[:90], groups[:90])


def test_too_few_patients_give_none():
    assert volume_interval.fit(np.ones(18), np.ones(18)) is None
    assert volume_interval.fit(np.ones(19), np.ones(19)) == (1, 1)
    assert np.isnan(volume_interval.coverage(np.ones(5), np.ones(5), np.arange(5)))


def test_a_tumour_that_is_not_outlined_makes_the_interval_wider():
    ratios = np.linspace(0.5, 1.5, 110)
    low, high = volume_interval.fit(np.ones(110), ratios)
    outlined = np.ones(110)
    outlined[55:57] = 0
    wider = volume_interval.fit(outlined, ratios)
    assert wider[0] < low and wider[1] > high
    outlined[:10] = 0
    assert volume_interval.fit(outlined, ratios) is None
