"""The file that says what a search may change."""

import pytest

from brainseg import config
from brainseg.errors import DataError
from brainseg.tuning import space
from tests.support.toy_pipeline import PROJECT

RATE = "parameters:\n  train.learning_rate: {low: 0.001, high: 0.01, log: true}\n"


def read(folder, text):
    (folder / "space.yaml").write_text(text)
    return space.read(folder / "space.yaml", PROJECT)


class FakeTrial:
    """Proposes the low end, or the last choice, and remembers what it was asked."""

    def __init__(self):
        self.asked = {}

    def suggest_float(self, name, low, high, **how):
        self.asked[name] = ("float", low, high, how)
        return low

    def suggest_int(self, name, low, high, **how):
        self.asked[name] = ("int", low, high, how)
        return low

    def suggest_categorical(self, name, choices):
        self.asked[name] = ("choice", *choices)
        return choices[-1]


def test_each_kind_of_range_is_asked_for_as_optuna_has_it(tmp_path):
    text = RATE + (
        "  train.batch_size: {low: 8, high: 32, step: 8}\n"
        "  network.dropout: {low: 0.0, high: 0.3, step: 0.1}\n"
        "  train.loss: {choices: [dice, jaccard]}\n"
        "  train.patience: {choices: [null, 5]}\n"
        "fixed:\n  train: {epochs: 3}\n"
    )
    trial = FakeTrial()
    found = read(tmp_path, text).suggest(trial)
    assert found["train"] == {"epochs": 3, "learning_rate": 0.001, "batch_size": 8, "loss": "jaccard", "patience": 5}
    assert trial.asked["train.learning_rate"] == ("float", 0.001, 0.01, {"log": True, "step": None})
    assert trial.asked["train.batch_size"] == ("int", 8, 32, {"log": False, "step": 8})
    assert trial.asked["network.dropout"] == ("float", 0.0, 0.3, {"log": False, "step": 0.1})
    assert trial.asked["train.patience"] == ("choice", None, 5)


def test_numbers_are_proposed_with_six_digits_within_the_range(tmp_path):
    found = read(
        tmp_path, RATE.replace("0.001,", "0.00123456789,") + "  train.batch_size: {low: 8, high: 32, step: 8}\n"
    )
    assert found.shorten({"train.learning_rate": 0.00818053287547967, "train.batch_size": 16}) == {
        "train.learning_rate": 0.00818053, "train.batch_size": 16,
    }  # fmt: skip
    assert found.shorten({"train.learning_rate": 0.0012345679}) == {"train.learning_rate": 0.00123457}
    assert found.shorten({"train.learning_rate": 0.00123456789}) == {"train.learning_rate": 0.00123457}
    assert found.shorten({"train.learning_rate": 0.00123456001}) == {"train.learning_rate": 0.00123456789}


def test_the_default_is_the_first_trial_if_the_space_holds_it(tmp_path):
    params = config.read_yaml(PROJECT / "params.yaml")
    assert read(tmp_path, RATE).find_default(params) == {"train.learning_rate": 0.002}
    assert read(tmp_path, RATE.replace("0.001", "0.003")).find_default(params) is None
    steps = "parameters:\n  network.filters: {low: 16, high: 48, step: 16}\n"
    assert read(tmp_path, steps).find_default(params) == {"network.filters": 16}
    assert read(tmp_path, steps.replace("low: 16", "low: 8")).find_default(params) is None  # 8, 24, 40
    tenths = "parameters:\n  network.dropout: {low: 0.0, high: 0.4, step: 0.1}\n"  # 0.3 / 0.1 is not quite 3
    params["network"]["dropout"] = 0.3
    assert read(tmp_path, tenths).find_default(params) == {"network.dropout": 0.3}
    del params["train"]["sampling"]  # an older file lacks it
    assert read(tmp_path, RATE + "  train.sampling: {choices: [slice, patient]}\n").find_default(params)


@pytest.mark.parametrize(("text", "message"), [
    ("parameters:\n  train.lr: {low: 0.001, high: 0.01}\n", r"not a parameter \(did you mean train.learning_rate"),
    ("parameters:\n  split.seed: {low: 1, high: 9}\n", "split.seed may not be searched"),
    ("parameters:\n  train.epochs: {low: 0, high: 9}\n", "train.epochs"),
    ("parameters:\n  train.epochs: {low: 1.5, high: 9.5}\n", "train.epochs"),
    ("parameters:\n  train.loss: {choices: [dice, dise]}\n", "train.loss"),
    ("parameters:\n  network.dropout: {low: 0.3, high: 0.1}\n", "low, 0.3, must be below high, 0.1"),
    ("parameters:\n  network.dropout: {low: 0.0, high: 0.1, log: true}\n", "log needs a low above 0"),
    (RATE + "fixed:\n  evaluate: {tta: false}\n", "evaluate.tta may not be searched or fixed"),
    ("parameters: {}\n", "parameters"),
    (RATE + "trials: 3\n", "trials"),
    (RATE + "fixed:\n  train: {subset: all}\n", "train.subset may not be searched or fixed"),
    (RATE + "fixed:\n  train: {initial_weights: x.h5}\n", "train.initial_weights may not"),
    (RATE + "  train.soft_weight: {low: 0.1, high: 0.9}\n", "train.soft_weight may not"),
])  # fmt: skip
def test_faults_are_named_before_any_trial(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_missing_file_names_those_that_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    with pytest.raises(DataError) as caught:
        space.read(tmp_path / "none.yaml", PROJECT)
    assert "recipes/tune/default.yaml" in caught.value.problems[0].fix


def test_the_spaces_of_the_project_are_sound():
    for path in (PROJECT / "recipes/tune").glob("*.yaml"):
        found = space.read(path, PROJECT)
        assert found.find_default(config.read_yaml(PROJECT / "params.yaml")), f"{path} does not hold the default"
