"""Comparing two runs: values on paper, refusals that name patients, and how often a verdict is wrong."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from brainseg.errors import DataError
from brainseg.experiments import comparison
from brainseg.experiments.comparing import comparison_page
from tests.support.paired_scores import PARAMS, PROTOCOL, scores

ROOT = Path(__file__).parents[2]


def test_values_on_paper():
    """Differences +0.1 three times, -0.2, 0 and one undefined: mean 0.02, median 0.1, three wins."""
    a = scores([0.5, 0.5, 0.5, 0.5, 0.5, math.nan])
    b = scores([0.6, 0.6, 0.6, 0.3, 0.5, 0.9], "B")
    d = comparison.compare(a, b).differences[0]
    assert (d.metric, d.n, d.undefined) == ("dice", 5, 1)
    assert (d.wins, d.losses, d.ties) == (3, 1, 1)
    assert (d.mean_a, d.mean_b) == (pytest.approx(0.5), pytest.approx(0.52))
    assert (d.mean, d.median) == (pytest.approx(0.02), pytest.approx(0.1))
    assert d.verdict == "no significant difference"


def test_agrees_with_scipy():
    rng = np.random.default_rng(1)
    a, b = (pd.Series(rng.beta(8, 2, 40)) for _ in range(2))
    d = comparison.measure_difference(a, b)
    assert d.p == pytest.approx(stats.wilcoxon(b, a).pvalue)
    theirs = stats.bootstrap((b - a,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2))
    assert (d.lo, d.hi) == pytest.approx(theirs.confidence_interval, abs=0.004)
    z = 1.959964 + 0.841621
    assert d.detectable == pytest.approx(z * np.std(b - a, ddof=1) / math.sqrt(40), rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 8, 14, 22, 50, 51, 110])
def test_the_p_of_signed_ranks_is_scipys_to_the_bit(count):
    """Also with ties and zeros, and for a sum of ranks below, at and above its mean."""
    rng = np.random.default_rng(count)
    for shift in (-1.5, -0.2, 0.0, 0.2, 1.5):
        values = rng.normal(shift, 1, count)
        for differences in (values, values.round(1) + 0.0, np.where(values > 2, 0.0, values)):
            if np.any(differences):
                assert comparison.signed_rank_p(differences) == stats.wilcoxon(differences).pvalue


def test_a_comparison_waits_for_no_library_that_it_does_not_use():
    """To import one of these takes as long as all the rest."""
    heavy = "{'scipy.stats', 'dvc', 'jinja2', 'matplotlib', 'mlflow'}"
    code = (
        "import sys; from brainseg.experiments import comparison, revision; import numpy, pandas;"
        "from brainseg.experiments.comparing import comparison_page;"
        "values = pandas.Series(numpy.linspace(0.5, 0.9, 22)); comparison.measure_difference(values, values ** 2);"
        f"revision.Reader('HEAD', revision.Path({str(ROOT)!r}))('params.yaml');"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_better_becomes_worse_with_the_sides_swapped():
    rng = np.random.default_rng(3)
    low = rng.beta(8, 2, 30)
    high = low + 0.03 + rng.normal(0, 0.02, 30)
    assert comparison.compare(scores(low), scores(high, "B")).verdict == "better"
    assert comparison.compare(scores(high), scores(low, "B")).verdict == "worse"


@pytest.mark.parametrize(
    ("lo", "hi", "p", "expected"),
    [
        (0.01, 0.03, 0.01, "better"),
        (-0.03, -0.01, 0.01, "worse"),
        (0.01, 0.03, 0.06, "no significant difference"),
        (-0.01, 0.03, 0.01, "no significant difference"),
        (0.0, 0.03, 0.01, "no significant difference"),
        (math.nan, math.nan, 1.0, "no significant difference"),
    ],
)
def test_interval_and_test_must_agree(lo, hi, p, expected):
    assert comparison.decide(lo, hi, p) == expected


@pytest.mark.parametrize(
    ("verdict", "p", "words"),
    [
        ("better", 0.0104, "better, p = 0.010, +0.016 [+0.008, +0.027]"),
        ("worse", 2e-7, "worse, p < 0.001, +0.016 [+0.008, +0.027]"),
        ("no significant difference", 0.31, "no significant difference (p = 0.310, +0.016 [+0.008, +0.027])"),
        ("identical", 1.0, "identical"),
    ],
)
def test_a_verdict_in_the_words_of_statistics(verdict, p, words):
    d = comparison.measure_difference(pd.Series([0.5]), pd.Series([0.6]))
    assert comparison.describe(d._replace(verdict=verdict, p=p, mean=0.0159, lo=0.0081, hi=0.0272)) == words


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(4)
    a, b = scores(rng.random(20)), scores(rng.random(20), "B")
    turned = b._replace(patients=b.patients[::-1].reset_index(drop=True))
    one, two = comparison.compare(a, b), comparison.compare(a, turned)
    assert one.differences == two.differences
    pd.testing.assert_frame_equal(one.patients, two.patients)


def test_the_patients_with_the_largest_change_come_first():
    c = comparison.compare(scores([0.5, 0.5, math.nan, 0.5]), scores([0.6, 0.1, 0.5, 0.5], "B"))
    assert c.patients["patient"].tolist() == ["P001", "P000", "P003", "P002"]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_patients_never_show_a_significant_difference(count):
    c = comparison.compare(scores([0.1] * count), scores([0.9] * count, "B"))
    assert c.verdict == "no significant difference"
    assert "with fewer than 6 no verdict is possible." in comparison_page.format_table(c)
    assert comparison_page.format_json(c)


def test_other_test_patients_are_refused_by_name():
    a, b = scores([0.5] * 4), scores([0.5] * 4, "B", patient=["P000", "P001", "Q1", "Q2"])
    with pytest.raises(DataError) as error:
        comparison.compare(a, b)
    (line,) = error.value.lines()
    assert line.startswith(
        "ERROR 2 B: its test patients are not those of A: 2 of the 4 of A are not in B (P002, P003); "
        "2 of the 4 of B are not in A (Q1, Q2). Fix: compare runs of one split"
    )
    with pytest.raises(DataError) as error:
        comparison.compare(scores([0.5] * 22), scores([0.5] * 4, "B"), suggest=lambda a, b: f"{a.name} and {b.name}")
    assert "18 of the 22 of A are not in B (P004, P005, P006 and 15 more). Fix: A and B" in error.value.lines()[0]


def test_another_grid_is_refused():
    with pytest.raises(DataError, match="its grid is 128 pixels, A has 256"):
        comparison.compare(scores([0.5]), scores([0.5], "B", {**PROTOCOL, "grid": 128}))


def test_other_masks_are_refused_by_name():
    with pytest.raises(DataError, match="2 patients were scored on other slices or masks than in A: P000, P002"):
        comparison.compare(scores([0.5] * 3), scores([0.5] * 3, "B", tumour_pixels=[99, 100, 101]))
    with pytest.raises(DataError, match="1 patients were scored on other slices or masks than in A: P001"):
        comparison.compare(scores([0.5] * 3), scores([0.5] * 3, "B", slices=[30, 3, 30]))


OTHER_PROTOCOLS = [("source", "folder"), ("unit", "slice"), ("marks", ["subset of 20 patients"])]


@pytest.mark.parametrize(("key", "value"), OTHER_PROTOCOLS)
def test_protocols_that_differ_give_a_warning(key, value):
    c = comparison.compare(scores([0.5]), scores([0.5], "B", {**PROTOCOL, key: value}))
    (warning,) = c.warnings
    assert f"differ in {key}" in warning
    assert f"WARNING: {warning}" in comparison_page.format_table(c)


def test_params_that_differ():
    new = {"train": {"loss": "dice", "epochs": 3}, "split": {"file": None}, "render": {"dpi": 80}}
    assert comparison.diff_params(PARAMS, new) == {
        "train.loss": ("bce", "dice"),
        "render": (comparison.ABSENT, {"dpi": 80}),
    }
    assert comparison.diff_params(PARAMS, PARAMS) == {}


def dice(rng: np.random.Generator, patients: int) -> np.ndarray:
    """Most patients good, some bad, as the real ones are."""
    return np.where(rng.random(patients) < 0.12, rng.beta(1, 2, patients), rng.beta(14, 2, patients))


def two_trainings(rng: np.random.Generator, patients: int, gain: float = 0.0) -> tuple[pd.Series, pd.Series]:
    """The same patients with two equally good models: random changes, large ones for a few patients."""
    quality = dice(rng, patients)
    far = np.where(rng.random((2, patients)) < 0.1, 0.15, 0.02)
    moved = np.clip(quality + rng.standard_t(4, (2, patients)) * far, 0, 1)
    return pd.Series(moved[0]), pd.Series(np.clip(moved[1] + gain, 0, 1))


COMPARISONS = 2000


def published_rates() -> dict[tuple[int, float], list[float]]:
    """(patients, gain) → percents in the order of ``simulated``, from a table of docs/explanation/comparability.md."""
    text = (Path(__file__).parents[2] / "docs/explanation/comparability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (no difference|B better by [\d.]+) \|([^a-z\n]+)\|$", text, re.M)
    return {
        (int(patients), float(truth.partition("by ")[2] or 0)): [float(cell.strip(" %")) for cell in cells.split("|")]
        for patients, truth, cells in rows
    }


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "gain"), [(17, 0.0), (22, 0.0), (110, 0.0), (110, 0.02)])
def test_verdicts_are_as_rare_and_as_frequent_as_published(patients, gain, monkeypatch, capsys):
    """At most 5 % of the comparisons of two equally good models find a difference; a gain is never "worse"."""
    percent = simulated(patients, gain, monkeypatch)
    with capsys.disabled():
        print(f"\nn = {patients}, true difference {gain}: {percent}")
    assert list(percent.values()) == pytest.approx(published_rates()[patients, gain], abs=0.06)
    assert percent["worse"] == 0 if gain else percent["better"] + percent["worse"] <= 5


def simulated(patients: int, gain: float, monkeypatch) -> dict[str, float]:
    monkeypatch.setattr(comparison, "RESAMPLES", 2000)
    rng = np.random.default_rng(7)
    found = [comparison.measure_difference(*two_trainings(rng, patients, gain)) for _ in range(COMPARISONS)]
    counts = {name: sum(d.verdict == name for d in found) for name in ("better", "worse", "no significant difference")}
    counts["interval alone"] = sum(not d.lo <= 0 <= d.hi for d in found)
    counts["test alone"] = sum(d.p < 0.05 for d in found)
    return {name: round(100 * count / COMPARISONS, 1) for name, count in counts.items()}
