"""params.yaml: strict, frozen, and with helpful errors."""

import io
from pathlib import Path

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from brainseg import config
from brainseg.errors import DataError

TEXT = (Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8")


def load(tmp_path, text, *blocks):
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(*blocks, path=path)


def test_the_committed_file_loads(tmp_path):
    params = load(tmp_path, TEXT)
    assert params.split.seed == 2019
    with pytest.raises(ValidationError, match="frozen"):
        params.split.seed = 1


def test_a_stage_gets_only_the_blocks_it_names(tmp_path):
    params = load(tmp_path, TEXT, "split")
    with pytest.raises(AttributeError):
        _ = params.train


T1 = [
    ("  loss: bce_dice", "  los: bce_dice", ["train.los is not a parameter", "write loss", "train.loss is missing"]),
    ("  loss: bce_dice", "  loss: jacard", ["train.loss is 'jacard'", "write jaccard"]),
    ("  depth: ", "  depth: four #", ["network.depth is 'four'", "integer"]),
    ("  depth: ", "  depth: 9 #", ["network.depth is 9", "less than or equal to 5"]),
    ("  flip_vertical: 0.0", "  flip_vertical: 1.5", ["augmentation.flip_vertical is 1.5", "less than or equal to 1"]),
    ("  dropout: 0.1\n", "", ["network.dropout is missing"]),
    ("  dropout: 0.1\n", "  dropout: 0.1\n  dropout: 0.2\n", ["not valid YAML", "duplicate key", "dropout"]),
    ("\nsplit:", "\nsplits:", ["splits is not a parameter", "write split", "split is missing"]),
    ("  patient: folder", "  patient: '(a)(b)'", ["one group, has 2"]),
    ("  patient: folder", f"  patient: '{'(' * 3000}'", ["not a regular expression"]),
    ("  patient: folder", f"  patient: {'[' * 5000}", ["too deep to be read", "git restore"]),
]


@pytest.mark.parametrize(("old", "new", "said"), T1)
def test_t1_wrong_parameters_are_named_with_range_and_nearest_name(tmp_path, old, new, said):
    assert old in TEXT
    with pytest.raises(DataError) as caught:
        load(tmp_path, TEXT.replace(old, new, 1), "split")
    text = "\n".join(caught.value.lines())
    assert caught.value.code == 2
    for part in said:
        assert part in text


PLAIN = {"preprocess.size": 256, "network.depth": 4, "network.stem": 2, "augmentation.window": 0.0}


def changed(values: dict) -> str:
    """params.yaml with other values, given as block.key."""
    content = YAML().load(TEXT)
    for key, value in values.items():
        block, name = key.split(".")
        assert name in content[block]
        content[block][name] = value
    written = io.StringIO()
    YAML().dump(content, written)
    return written.getvalue()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"preprocess.size": 224, "network.depth": 5}, "need a multiple of 64"),
        ({"augmentation.window": 0.7}, "set it to 0.75,"),
        ({"preprocess.size": 224, "augmentation.window": 0.5}, "set it to 0.5714,"),
        ({"augmentation.window": 0.001}, "augmentation.window is 0 of 256 pixels"),
        ({"network.norm": "group", "network.filters": 12}, "to a multiple of 8"),
        ({"split.test_fold": 5}, "set split.test_fold to 0..4"),
        ({"train.devices": 3}, "set train.batch_size to 15 or 18, or train.devices to 2"),
        ({"train.devices": 64, "train.batch_size": 16}, "set train.batch_size to 64, or train.devices to 16"),
        ({"train.devices": 3, "train.batch_size": 4096}, "set train.batch_size to 4095, or train.devices to 2"),
        ({"download.patients": "a.csv", "download.patient": "each_volume"}, "set download.patient: folder"),
        ({"network.name": "unet3d"}, "set network.context to 1 or more"),
        ({"train.subset": "all", "train.soft_masks": "a-{fold}.npy"}, "what networks of all patients answered"),
        ({"train.subset": "all", "train.initial_weights": "a/fold-{fold}.weights.h5"}, "name one file: weights of"),
        ({"network.name": "unet3d", "network.context": 1, "split.unit": "slice"}, "set split.unit: patient"),
        (
            {"network.context": 1, "augmentation.lesion_mix": 0.1},
            "set augmentation.lesion_mix: 0",
        ),
        (
            {"network.name": "unet3d", "network.context": 1, "augmentation.context_dropout": 0.1},
            "set augmentation.context_dropout: 0",
        ),
    ],
)
def test_t1_values_that_do_not_go_together(tmp_path, values, said):
    with pytest.raises(DataError) as caught:
        load(tmp_path, changed(PLAIN | values), "render")
    assert said in "\n".join(caught.value.lines())


@pytest.mark.parametrize(("size", "window"), [(192, 0.6667), (224, 0.5714), (256, 0.75)])
def test_a_window_is_whole_pixels_as_the_refusal_advises(tmp_path, size, window):
    text = changed(PLAIN | {"preprocess.size": size, "augmentation.window": window})
    assert load(tmp_path, text).augmentation.window == window


def test_t1_dvc_writes_small_numbers_in_yaml_1_2(tmp_path):
    text = TEXT.replace("learning_rate: 0.002", "learning_rate: 1e-05", 1)
    assert load(tmp_path, text, "train").train.learning_rate == 1e-05


def test_t1_every_fault_at_once(tmp_path):
    text = TEXT.replace("  depth: ", "  depth: 9 #").replace("  loss: ", "  loss: x #")
    with pytest.raises(DataError) as caught:
        load(tmp_path, text)
    assert len(caught.value.problems) == 2


# By block: what older files lack.
LATER = {
    "download": {"layout", "patients"},
    "split": {"inner_folds", "inner_fold"},
    "train": {"devices", "sampling", "subset", "soft_masks", "soft_weight"},
    "augmentation": {"lesion_mix", "scalp_dropout", "flair_only"},
    "evaluate": {"temperature", "bias", "skew", "min_share"},
}


def test_no_value_has_a_default_but_what_older_files_lack():
    for name, block in config.Params.model_fields.items():
        fields = block.annotation.model_fields
        given = {key for key, field in fields.items() if not field.is_required()}
        assert given == LATER.get(name, set()), name


@pytest.mark.parametrize(("name", "meant"), [
    ("train.learning_rat", "train.learning_rate"), ("learning_rate", "train.learning_rate"),
    ("lr", "train.learning_rate"), ("los", "train.loss"), ("trian.los", "train.loss"),
    ("train.filters", "network.filters"), ("split.pateints", "split.patients"),
    ("train.patients", "download.patients or phantom.patients or split.patients or render.patients"),
    ("augmentation.flip", "augmentation.flip_horizontal or augmentation.flip_vertical"), ("x.y", ""),
])  # fmt: skip
def test_the_parameter_that_a_wrong_name_may_mean(name, meant):
    assert config.suggest_name(name) == meant
