"""Experiments from settings: what Hydra's grammar asks for, and names that say what is other."""

import itertools
import typing

import pytest
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo
from dvc.repo.experiments.utils import check_ref_format

from brainseg import config
from brainseg.errors import DataError
from brainseg.experiments import variants
from tests.support import toy_pipeline

PARAMS = config.read_yaml(toy_pipeline.PROJECT / "params.yaml")
KEYS = config.flatten(PARAMS)


@pytest.mark.parametrize(("setting", "values"), [
    ("train.epochs=3", [3]),
    ("train.learning_rate=1e-3,0.004", [0.001, 0.004]),
    ("train.seed=range(1,4)", [1, 2, 3]),
    ("train.loss=choice(dice, bce)", ["dice", "bce"]),
    ("preprocess.foreground=[1,2,4]", [[1, 2, 4]]),
    ("preprocess.window=[0,99],[1,99]", [[0, 99], [1, 99]]),
    ("split.patients=null", [None]),
    ("evaluate.tta=false", [False]),
    ("download.images=**/*.png", ["**/*.png"]),
    ('download.images="a,b.png"', ["a,b.png"]),
    (r'download.patient="(\w+)_\d"', [r"(\w+)_\d"]),
    ("download.path='/my data'", ["/my data"]),
])  # fmt: skip
def test_settings_are_read_as_dvc_reads_them(setting, values):
    assert variants.read_settings([setting]) == {setting.partition("=")[0]: values}


NO_NAME = "params.yaml names all of them"


@pytest.mark.parametrize(
    "setting", ["train.loss", "loss=dice", "train.=dice", "=1", "+train.loss=dice", "~train.loss=1"]
)
def test_what_is_no_setting_is_refused(setting):
    with pytest.raises(DataError, match=r"is (no parameter with its value|not a parameter)") as error:
        variants.read_settings([setting])
    fix = error.value.problems[0].fix
    assert fix.startswith("write -S train.loss=") or fix == NO_NAME


@pytest.mark.parametrize(("value", "fix"), [
    (r"(\w+)_\d", r"""write -S 'download.patient="(\w+)_\d"'"""),
    ("glob(*)", """write -S 'download.patient="glob(*)"'"""),
])  # fmt: skip
def test_what_dvc_cannot_read_is_refused_with_how_to_write_it(value, fix):
    with pytest.raises(DataError) as error:
        variants.read_settings([f"download.patient={value}"])
    assert error.value.problems[0].fix == fix
    assert variants.read_settings([fix.partition("-S ")[2].strip("'")]) == {"download.patient": [value]}


@pytest.mark.parametrize(("key", "value", "name"), [
    ("train.loss", "jaccard", "jaccard"),
    ("train.learning_rate", 0.001, "lr0.001"),
    ("train.learning_rate", 1e-05, "lr1e-05"),
    ("train.device", "gpu", "gpu"),
    ("train.device", "auto", "device_auto"),
    ("train.keep", "best", "keep_best"),
    ("train.tumour_share", None, "no_tumour_share"),
    ("evaluate.tta", False, "no_tta"),
    ("evaluate.tta", True, "tta"),
    ("preprocess.foreground", [1, 2, 4], "foreground1_2_4"),
    ("preprocess.window", [0.5, 99.0], "percentiles0.5_99.0"),
    ("split.file", "/own data/split.csv", "file_split_csv"),
    ("download.images", "**/*", "images"),
    ("download.path", "a" * 99, "path_" + "a" * 35),
])  # fmt: skip
def test_a_value_in_a_name(key, value, name):
    assert variants.describe_value(key, value) == name


def test_every_parameter_has_a_word_of_its_own():
    assert set(variants.WORDS) <= set(KEYS)
    named = [variants.describe_value(key, 1) for key in KEYS]
    assert sorted(named) == sorted(set(named))


def test_values_that_stand_alone_belong_to_one_parameter():
    alone = [key for key, word in variants.WORDS.items() if word == variants.ALONE]
    blocks = typing.get_type_hints(config.Params)
    values = []
    for key in alone:
        block, _, name = key.partition(".")
        values += [value for value in typing.get_args(blocks[block].model_fields[name].annotation) if value != "auto"]
    assert len(values) > 20 and len(values) == len(set(values))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A project with the real params.yaml, a branch ``dice``, a tag ``bce`` and an experiment ``jaccard``."""
    toy = toy_pipeline.create(tmp_path_factory.mktemp("variants") / "toy")
    (toy.folder / "params.yaml").write_bytes((toy_pipeline.PROJECT / "params.yaml").read_bytes())
    toy.git("commit", "--quiet", "--all", "--message", "the real parameters")
    toy.git("branch", "dice")
    toy.git("tag", "bce")
    toy.git("update-ref", str(ExpRefInfo(toy.git("rev-parse", "HEAD~1").strip(), "jaccard")), "HEAD")
    return toy.folder


def names(repository, *settings, recipe=None, overrides=None):
    return [variant.name for variant in variants.plan(settings, recipe, overrides or {}, repository)]


def test_a_sweep_is_an_experiment_for_each_value(repository):
    plan = variants.plan(["train.learning_rate=0.001,0.002", "train.seed=1,2"], None, {}, repository)
    assert [variant.name for variant in plan] == ["lr0.001-seed1", "lr0.001-seed2", "lr0.002-seed1", "lr0.002-seed2"]
    assert plan[1].overrides == {"train": {"learning_rate": 0.001, "seed": 2}}


def test_a_recipe_stands_for_what_it_sets(repository):
    best = {"train": {"epochs": 60}, "network": {"name": "residual_unet"}}
    assert names(repository, recipe="best", overrides=best) == ["best"]
    assert names(repository, "train.seed=2", "train.epochs=9", recipe="best", overrides=best) == ["best-seed2-epochs9"]


def test_names_that_something_has_get_a_number(repository):
    assert names(repository, "train.loss=jaccard,dice,bce") == ["jaccard-2", "dice-2", "bce-2"]
    twice = variants.Names(repository)
    assert [twice.choose(PARAMS, ["train.seed"]) for _ in range(3)] == ["seed1", "seed1-2", "seed1-3"]


def test_what_the_workspace_has_changed_is_named_too(repository):
    path = repository / "params.yaml"
    committed = path.read_text()
    path.write_text(committed.replace("epochs: 28", "epochs: 3").replace("tta: true", "tta: false"))
    try:
        assert names(repository, "train.seed=2") == ["seed2-epochs3-no_tta"]
        assert names(repository) == ["epochs3-no_tta"]
    finally:
        path.write_text(committed)
    assert names(repository) == ["unchanged"]


def test_long_names_are_cut_between_parts(repository):
    many = [f"augmentation.{key}=0.125" for key in ("rotation", "translation", "zoom", "shear", "noise", "gamma")]
    assert names(repository, *many) == ["rotation0.125-translation0.125-zoom0.125-and-3-more"]


def test_all_bad_values_of_a_sweep_are_refused_at_once(repository):
    with pytest.raises(DataError) as error:
        names(repository, "train.loss=dise,jacard,bce")
    assert [problem.fix for problem in error.value.problems] == ["write dice", "write jaccard"]


def test_git_and_dvc_take_the_names(repository):
    values = ["a..b", "@{x}", "x.lock", "-x", "ü", "a/b", "~^:?*[\\", ".", "", "a b", None, True, 0.5, [0.5, 1e-7]]
    with Repo(str(repository)) as repo:
        for key, value in itertools.product(("train.loss", "download.path"), values):
            name = variants._join([variants.describe_value(key, value), "x"])
            check_ref_format(repo.scm, ExpRefInfo("0" * 40, name))
