"""A comparison as a table, as JSON and as a page."""

import json
import math
import re

import numpy as np
import pytest

from brainseg.experiments import comparison
from brainseg.experiments.comparing import comparison_page
from tests.support.paired_scores import PARAMS, PROTOCOL, scores


@pytest.fixture
def compared():
    rng = np.random.default_rng(2)
    low = rng.beta(8, 2, 22)
    b = scores(low + 0.04 + rng.normal(0, 0.02, 22), "<b>", PROTOCOL | {"unit": "slice"}, {"train": {"loss": "dice"}})
    return comparison.compare(scores(low, "main", params=PARAMS), b)


def test_the_table_has_numbers_verdict_and_what_changed(compared):
    text = comparison_page.format_table(compared)
    d = compared.differences[0]
    assert f"{d.mean_a:.3f}  {d.mean_b:.3f}  {d.mean:+.3f} [{d.lo:+.3f}, {d.hi:+.3f}]" in text
    assert 'Parameter train.loss: "bce" -> "dice"' in text
    assert "WARNING: the protocols differ in unit: patient and slice" in text
    most = re.findall(r"^  (P\d+) ", text, re.M)
    assert most == compared.patients["patient"].tolist()[:5]
    words = f"<b> compared with main (volume Dice, 22 patients): better, p < 0.001, {d.mean:+.3f} ["
    assert text.splitlines()[-1].startswith(words)
    assert text.endswith("Read the warnings: this may not be a fair comparison.")


def test_no_significant_difference_states_what_is_detectable():
    c = comparison.compare(scores([0.5, 0.6] * 4), scores([0.6, 0.5] * 4, "B"))
    said = comparison_page.conclude(c)
    words = "B compared with A (volume Dice, 8 patients): no significant difference (p = 1.000, +0.000 ["
    assert said.startswith(words)
    assert f"a true difference of {c.differences[0].detectable:.3f} is found in 4 of 5" in said
    few = comparison.compare(scores([0.5, 0.6, 0.7]), scores([0.6, 0.6, 0.7], "B"))
    assert comparison_page.conclude(few).endswith("1 patients differ; with fewer than 6 no verdict is possible.")


def test_identical_scores():
    c = comparison.compare(scores([0.5, math.nan, 0.7]), scores([0.5, math.nan, 0.7], "B"))
    assert comparison_page.conclude(c) == "B and A score the same in each of 3 patients."
    assert "Largest changes" not in comparison_page.format_table(c)
    assert c.verdict == "identical"


def test_null_is_a_value_and_absent_is_none():
    sides = scores([0.5], params={"a": None, "b": "x"}), scores([0.6], "B", params={"a": 20, "c": [1]})
    text = comparison_page.format_table(comparison.compare(*sides))
    for line in ("Parameter a: null -> 20", 'Parameter b: "x" -> absent', "Parameter c: absent -> [1]"):
        assert line in text


def test_json_is_strict_and_whole(compared):
    def refuse(token):
        raise AssertionError(token)

    content = json.loads(comparison_page.format_json(compared), parse_constant=refuse)
    assert content["verdict"] == "better"
    assert list(content["metrics"]) == list(comparison.METRICS)
    assert content["metrics"]["dice"]["n"] == len(content["patients"]) == 22
    assert content["params"]["train.loss"] == {"a": "bce", "b": "dice"}
    nothing = comparison.compare(scores([math.nan]), scores([0.5], "B"))
    assert json.loads(comparison_page.format_json(nothing), parse_constant=refuse)["metrics"]["dice"]["mean"] is None


def test_what_both_have_without_scalp_and_given_flair_alone_is_compared():
    with_it = scores([0.5, 0.7], stripped_dice=[0.2, 0.6]), scores([0.6, 0.8], "B", stripped_dice=[0.5, 0.7])
    assert "Dice, no scalp  0.400  0.600" in comparison_page.format_table(comparison.compare(*with_it))
    early = comparison.compare(scores([0.5, 0.7]), with_it[1])
    assert "Dice, no scalp" not in comparison_page.format_table(early)


def test_json_keeps_all_digits():
    """p is about 1e-20 if all 110 patients gain, and is not written as 0."""
    a = np.linspace(0.3, 0.8, 110)
    c = comparison.compare(scores(a), scores(a + np.linspace(0.01, 0.02, 110), "B"))
    p = json.loads(comparison_page.format_json(c))["metrics"]["dice"]["p"]
    assert p == c.differences[0].p
    assert 0 < p < 1e-15


def test_the_page_stands_alone_and_is_escaped(compared, tmp_path):
    path = tmp_path / "pages" / "compared.html"
    comparison_page.write(compared, path)
    text = path.read_text(encoding="utf-8")
    assert "<b> compared" not in text  # names are escaped
    assert "&lt;b&gt; compared with main (volume Dice, 22 patients): better, p &lt; 0.001" in text
    assert text.count("data:image/png;base64,") == 1
    assert not re.search(r"""(src|href)=["']?(https?:|//|file:)""", text)
    assert all(f">{patient}</th>" in text for patient in compared.patients["patient"])
    assert "the protocols differ in unit" in text
    assert path.stat().st_size < 600_000
