"""Several runs beside the first: Holm's correction, what it does to verdicts, the table, JSON and page."""

import itertools
import json
import re

import numpy as np
import pytest

from brainseg.errors import DataError
from brainseg.experiments import comparison
from brainseg.experiments.comparing import several
from tests.support.paired_scores import PARAMS, scores

PATIENTS = 22


@pytest.fixture(scope="module")
def base():
    return np.random.default_rng(2).beta(8, 2, PATIENTS)


def gain(base, mean, seed=1, spread=0.02):
    return base + mean + np.random.default_rng(seed).normal(0, spread, len(base))


@pytest.fixture(scope="module")
def compared(base):
    """Far better, the same, and one whose p is below 0.05 alone and above when corrected for three."""
    others = [
        scores(gain(base, 0.05), "<far>", params={**PARAMS, "train": {"loss": "dice", "epochs": 3}}),
        scores(base, "again"),
        scores(gain(base, 0.008, 9), "a little"),
    ]
    return several.compare(scores(base, "main"), others)


@pytest.mark.parametrize(("p", "expected"), [
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # as R's p.adjust(p, "holm") has it
    ([0.9, 0.6], [1.0, 1.0]),
    ([0.02], [0.02]),
    ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
    ([1e-20, 1.0], [2e-20, 1.0]),
])  # fmt: skip
def test_holms_correction_on_paper(p, expected):
    assert several.correct(p) == pytest.approx(expected)


def test_it_rejects_what_the_closed_test_of_bonferroni_rejects():
    """Holm's method is that closed test: a p is rejected if each set that holds it has one below 0.05 / its size."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        p = rng.beta(0.3, 2, 4)
        sets = [s for size in range(1, 5) for s in itertools.combinations(range(4), size)]
        small = {s: min(p[list(s)]) * len(s) < 0.05 for s in sets}
        closed = [all(small[s] for s in sets if i in s) for i in range(4)]
        assert [value < 0.05 for value in several.correct(p)] == closed


def test_verdicts_follow_the_corrected_p(compared, base):
    alone = comparison.compare(scores(base, "main"), scores(gain(base, 0.008, 9), "a little"))
    assert alone.verdict == "better" and 0.025 < alone.differences[0].p < 0.05
    assert [pair.verdict for pair in compared.pairs] == ["better", "identical", "no significant difference"]
    assert compared.alone[2]["dice"] == alone.differences[0].p
    assert compared.pairs[2].differences[0].p == pytest.approx(2 * alone.differences[0].p)  # the second smallest of 3
    assert compared.pairs[2].differences[0].detectable > alone.differences[0].detectable


def test_the_table_has_a_row_for_each_run(compared):
    text = several.format_table(compared)
    d = compared.pairs[2].differences[0]
    row = f"a little  {d.mean_b:.3f}  {comparison.format_interval(d)}  {d.p:.3f}        no significant difference  "
    assert row + f"{compared.alone[2]['dice']:.3f}" in text
    assert re.search(rf"^A         {d.mean_a:.3f}$", text, re.M)
    assert '<far>: train.loss "bce" -> "dice"\nagain: the same parameters' in text
    assert "p is corrected for 3 comparisons (Holm)" in text and "no verdict is possible" not in text
    verdicts = "better: <far>; identical: again; no significant difference: a little."
    assert text.endswith(f"Compared with main: {verdicts}")


def test_warnings_name_their_run_and_those_of_the_first_stand_once(base):
    first, other = scores(base, "main"), scores(base, "B")
    first, other = first._replace(warnings=["main is old"]), other._replace(warnings=["B is old"])
    slices = other._replace(name="C", protocol=other.protocol.model_copy(update={"unit": "slice"}), warnings=[])
    told = several.compare(first, [other, slices])
    assert told.warnings == ["main is old", "B: B is old", "C: the protocols differ in unit: patient and slice"]
    text = several.format_table(told)
    assert text.count("WARNING: ") == 3 and text.endswith("Read the warnings: this may not be a fair comparison.")


def test_few_patients_give_no_verdict():
    runs = [scores([0.1 + more] * 4, name) for more, name in ((0, "A"), (0.1, "B"), (0.2, "C"))]
    text = several.format_table(several.compare(runs[0], runs[1:]))
    assert "Where fewer than 7 patients differ no verdict is possible." in text
    assert text.endswith("no significant difference: B, C.")


def test_all_runs_that_cannot_be_compared_are_named(base):
    others = [scores(base[:9], "B"), scores(base, "C"), scores(base[:8], "D")]
    with pytest.raises(DataError) as error:
        several.compare(scores(base, "main"), others, suggest=lambda a, b: f"see {b.name}")
    assert [(problem.path, problem.fix) for problem in error.value.problems] == [("B", "see B"), ("D", "see D")]


def test_json_has_both_p_of_each_metric(compared):
    content = json.loads(several.format_json(compared))
    assert [run["b"] for run in content["runs"]] == ["<far>", "again", "a little"]
    assert content["correction"] == "Holm"
    last = content["runs"][2]
    assert last["verdict"] == last["metrics"]["dice"]["verdict"] == "no significant difference"
    assert last["metrics"]["dice"]["p"] == pytest.approx(2 * last["metrics"]["dice"]["p_alone"])
    assert len(last["patients"]) == PATIENTS and set(last["metrics"]) == set(comparison.METRICS)


def test_the_page_stands_alone_and_is_escaped(tmp_path):
    others = [scores([0.6, 0.7], "<b>", params={"train": {"loss": "dice"}}), scores([0.5, 0.7], "C")]
    several.write(several.compare(scores([0.5, 0.6]), others), tmp_path / "several.html")
    text = (tmp_path / "several.html").read_text(encoding="utf-8")
    assert "<b></h2>" not in text and "&lt;b&gt;</h2>" in text
    assert text.count("data:image/png;base64,") == 2
    assert not re.search(r"""(src|href)=["']?(https?:|//|file:)""", text)
    assert "p is corrected for 2 comparisons" in text and ">train.loss</th>" in text
