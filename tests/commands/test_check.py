"""`brainseg check`: a line for each thing, all faults at once, and the code of the first."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from brainseg import cli, files, hardware
from brainseg.commands import check, data_source, speed
from brainseg.data import kaggle
from brainseg.experiments import planning
from brainseg.experiments.planning import Plan, StagePlan
from tests.support import fake_lgg, own_layouts, tiny_pipeline, toy_pipeline

STAGES = ("download", "preprocess", "brains", "split", "train", "evaluate", "render", "export")
ROOMY = hardware.Memory(2**36, 2**36)


class Project:
    """A folder with params.yaml and a mirror of a small LGG; ``plan`` says which stages run."""

    def __init__(self, monkeypatch, capsys):
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.plan(*STAGES)

    def plan(self, *runs: str, copies: bool = True) -> None:
        stages = [StagePlan(name, "runs" if name in runs else "up to date", "why" * (name in runs)) for name in STAGES]
        self.monkeypatch.setattr(planning, "make", lambda params: Plan(stages, Path(".dvc/cache").absolute(), copies))

    def check(self, *arguments: str) -> tuple[int, dict[str, str], list[str]]:
        """The exit code, the lines by their subjects, and the ERROR lines."""
        self.monkeypatch.setattr(sys, "argv", ["brainseg", "check", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        told = self.capsys.readouterr()
        return code, {line.split()[1]: line for line in told.out.splitlines()}, told.err.splitlines()


@pytest.fixture
def project(tmp_path, monkeypatch, capsys):
    shutil.copy(toy_pipeline.PROJECT / "params.yaml", tmp_path)
    shutil.copytree(toy_pipeline.PROJECT / "recipes", tmp_path / "recipes")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("BRAINSEG_MIRROR", str(fake_lgg.write_zip(tmp_path / "lgg.zip", fake_lgg.doubled())))
    monkeypatch.setattr(kaggle, "read_table", fake_lgg.table)
    monkeypatch.setattr(hardware, "memory", lambda: ROOMY)
    monkeypatch.setattr(hardware, "kind", lambda: "2-cores-toy")
    monkeypatch.setattr(hardware, "list_gpus", list)
    monkeypatch.setattr(files, "free_bytes", lambda path: 2**40)
    monkeypatch.chdir(tmp_path)
    return Project(monkeypatch, capsys)


def prepare(patients: int, slices: int) -> None:
    """data/processed/slices.csv of as many patients with tumour."""
    lines = ["row,patient,institution,slice,tumour_pixels,source,spacing"]
    for row in range(patients * slices):
        lines.append(f"{row},p{row // slices},A,{row % slices},9,x.tif,")
    Path("data/processed").mkdir(parents=True)
    Path("data/processed/slices.csv").write_text("\n".join(lines) + "\n")


def test_a_run_that_can_start(project):
    code, lines, faults = project.check("fast", "-S", "train.loss=jaccard")
    assert (code, faults) == (0, [])
    assert lines["parameters"].endswith("valid, with train.epochs=7, train.loss=jaccard")
    assert "would run: download (why), preprocess (why)" in lines["stages"]
    assert lines["data"].endswith("LGG: 3 patients, 16 slices")
    assert "lgg.zip" in lines["source"] and "verified when they are read" in lines["source"]
    assert all(line.startswith("PASS") for line in lines.values())


def test_every_wrong_setting_is_named_at_once_with_the_nearest_name(project):
    settings = ["train.learning_rat=0.1", "los=dice", "lr=1", "train.loss=jacard", "train.epochs"]
    code, lines, faults = project.check(*(word for setting in settings for word in ("-S", setting)))
    assert code == 2 and list(lines) == ["parameters"] and lines["parameters"].startswith("FAIL")
    assert faults == [
        "ERROR 2 -S train.learning_rat=0.1: train.learning_rat is not a parameter (did you mean train.learning_rate?). "
        "Fix: write -S train.learning_rate=0.1",
        "ERROR 2 -S los=dice: los is not a parameter (did you mean train.loss?). Fix: write -S train.loss=dice",
        "ERROR 2 -S lr=1: lr is not a parameter (did you mean train.learning_rate?). "
        "Fix: write -S train.learning_rate=1",
        "ERROR 2 -S train.epochs: is no parameter with its value. Fix: write -S train.loss=jaccard",
        "ERROR 2 -S train.loss: train.loss is 'jacard': input should be 'bce', 'dice', 'jaccard', 'bce_dice' or "
        "'focal_tversky'. Fix: write jaccard",
    ]


def test_a_fault_is_named_by_the_place_where_the_value_was_set(project):
    Path("recipes/odd.yaml").write_text("network: {depth: 9}\n")
    text = Path("params.yaml").read_text().replace("  dpi: 110", "  dpi: 1")
    Path("params.yaml").write_text(text)
    _, _, faults = project.check("odd", "-S", "train.epochs=0")
    places = {tuple(fault.split()[2:4]) for fault in faults}
    assert places == {("-S", "train.epochs:"), ("recipes/odd.yaml:", "network.depth"), ("params.yaml:", "render.dpi")}


def test_all_runs_of_a_queue_are_checked(project):
    code, lines, _ = project.check("-S", "train.learning_rate=0.001,0.004", "-S", "preprocess.window=[1, 99]")
    assert code == 0 and "all 2 runs" in lines["parameters"] and "train.learning_rate=0.001," in lines["parameters"]
    code, _, faults = project.check("-S", "train.seed=1,2", "-S", "train.learning_rate=0.001,40,50")
    assert code == 2 and ["train.learning_rate is 40" in faults[0], "is 50" in faults[1]] == [True, True]
    assert len(faults) == 2


def test_faults_of_several_kinds_are_all_told_and_the_first_has_the_code(project, monkeypatch):
    monkeypatch.setenv("BRAINSEG_MIRROR", "/nowhere")
    code, lines, faults = project.check("-S", "split.patients=20")
    assert code == 3
    assert [fault.split(":")[0] for fault in faults] == ["ERROR 3 /nowhere", "ERROR 2 params.yaml"]
    assert lines["source"].startswith("FAIL") and "split.patients is 20, there are 3" in lines["split"]
    assert lines["disk"].startswith("PASS")
    kept = json.loads(Path(".brainseg/errors.json").read_text())
    assert kept["code"] == 3 and len(kept["problems"]) == 2


def test_a_mirror_without_all_files_is_refused(project, monkeypatch):
    members = fake_lgg.members()
    members.pop(next(name for name in members if name.endswith("_2_mask.tif")))
    monkeypatch.setenv("BRAINSEG_MIRROR", str(fake_lgg.write_zip(Path("short.zip").absolute(), members)))
    code, lines, faults = project.check()
    assert code == 4 and lines["source"].startswith("FAIL")
    assert any("_2_mask.tif: is missing" in fault for fault in faults)


def test_outside_of_git_nothing_is_asked_of_dvc(project):
    Path(".git").rmdir()
    code, lines, faults = project.check()
    assert code == 2 and "stages" not in lines and "git init" in faults[0]


@pytest.mark.parametrize(("copies", "times"), [(True, 2), (False, 1)])
def test_the_disk_follows_from_slices_and_size(project, monkeypatch, copies, times):
    prepared = 16 * 256**2 * 4
    project.plan("preprocess", copies=copies)
    asked = []
    monkeypatch.setattr(check, "show_bytes", lambda size: asked.append(size) or f"{size}")
    assert f"about {times * prepared} needed" in project.check()[1]["disk"]
    monkeypatch.setattr(files, "free_bytes", lambda path: times * prepared - 1)
    code, lines, faults = project.check()
    assert code == 3 and lines["disk"].startswith("FAIL")
    assert f"{times * prepared - 1} free" in faults[0] and faults[0].endswith("Fix: free some space and run again")
    if copies:  # what DVC removes before the stage makes room
        Path("data/processed").mkdir(parents=True)
        Path("data/processed/images.npy").write_bytes(bytes(1000))
        assert project.check()[0] == 0


def test_memory_that_is_not_free_or_not_there_is_a_warning(project, monkeypatch):
    """It is an estimate, which must not keep a run from trying."""
    monkeypatch.setattr(hardware, "memory", lambda: hardware.Memory(2**31, 2**29))
    code, lines, _ = project.check()
    assert code == 0 and lines["memory"].startswith("WARN") and "close other programs" in lines["memory"]
    code, lines, _ = project.check("-S", "train.batch_size=256")
    assert code == 0 and lines["memory"].startswith("WARN") and "there are 2.0 GiB" in lines["memory"]
    batch = int(lines["memory"].split("set train.batch_size: ")[1].split(",")[0])
    assert "there are 2.0 GiB" not in project.check("-S", f"train.batch_size={batch}")[1]["memory"]
    assert "there are 2.0 GiB" in project.check("-S", f"train.batch_size={2 * batch}")[1]["memory"]


def test_own_data_that_the_cache_has_need_not_be_here(project):
    project.plan("preprocess")
    code, lines, _ = project.check("-S", "download.source=folder", "-S", "download.path=/nowhere")
    assert code == 0 and "comes from DVC's cache" in lines["data"]


def test_the_time_is_told_where_it_was_measured(project):
    assert "not known for this machine; brainseg check --time" in project.check()[1]["time"]
    Path("benchmarks/results").mkdir(parents=True)
    rows = [{"id": "train_vs_pytorch", "ours": 40.0}]
    Path("benchmarks/results/2-cores-toy.json").write_text(json.dumps({"rows": rows}))
    measured = [f"network.{name}={value}" for name, value in speed.MEASURED]
    asked = [word for setting in measured for word in ("-S", setting)]
    assert "40 images/s (roughly, from benchmarks/results/2-cores-toy.json)" in project.check(*asked)[1]["time"]
    slower = project.check(*asked, "-S", "network.filters=64")[1]["time"]
    assert " 10 images/s" in slower or " 11 images/s" in slower  # four times the products, apart from the ends
    assert "not known" in project.check("-S", "train.engine=jax")[1]["time"]
    params = check.config.load()
    speed.remember(params, 100.0, 200.0)
    told = project.check("-S", "train.epochs=120", "-S", "train.learning_rate=0.1")[1]["time"]
    assert "120 epochs of 11 slices, 100 images/s (measured here before)" in told
    assert "measured here" not in project.check("-S", "train.batch_size=8")[1]["time"]


@pytest.mark.parametrize("name", ["soft_masks", "initial_weights"])
@pytest.mark.parametrize(("settings", "fold"), [((), 0), (("split.inner_folds=2", "split.inner_fold=1"), 1)])
def test_files_of_a_training_that_are_not_there(project, name, settings, fold):
    given = (f'train.{name}="given/fold-{{fold}}.weights.h5"', *settings)
    code, _, faults = project.check(*(word for each in given for word in ("-S", each)))
    assert code == 2 and f"given/fold-{fold}.weights.h5: train.{name}: there is no such file" in faults[0]


def test_minutes_of_a_training(project):
    params = check.config.load()
    assert speed.count_minutes(params, {"train": 1600, "val": 100}, 40, 50) == pytest.approx(28 * (40 + 2) / 60)


def test_prepared_slices_are_counted_and_split_as_the_stage_would(project):
    prepare(patients=12, slices=4)
    project.plan("split", "train", "evaluate", "render", "export")
    code, lines, _ = project.check("-S", "split.patients=8", "-S", "split.folds=4")
    assert code == 0 and lines["data"].endswith("data/processed is prepared: 12 patients, 48 slices")
    assert lines["split"].endswith("train 20 slices, val 4 slices, test 8 slices")
    code, _, faults = project.check("-S", "split.folds=13")
    assert code == 2 and "12 patients cannot be divided into 13 folds" in faults[0]
    project.plan("train")
    Path("data/splits").mkdir()
    Path("data/splits/split.csv").write_text("row,patient,fold,subset\n0,a,0,train\n1,b,0,val\n2,b,0,train\n")
    speed.remember(check.config.load(), 1.0, 1.0)
    assert "of 2 slices" in project.check()[1]["time"]


def test_own_data_are_counted_by_names_and_headers(project):
    root = own_layouts.brats(Path("own").absolute())
    code, lines, _ = project.check("-S", "download.source=folder", "-S", f"download.path={root}", "-S", "split.folds=2")
    assert code == 0 and "BraTS folders" in lines["data"] and "2 patients, 4 slices" in lines["data"]
    shutil.rmtree(root)
    code, lines, faults = project.check("-S", "download.source=folder", "-S", f"download.path={root}")
    assert code == 2 and "is not a folder" in faults[0] and "at least" in lines["disk"]
    code, lines, _ = project.check("-S", "download.source=phantom")
    assert code == 0 and "30 patients, about 600 slices" in lines["data"]


def test_devices_that_a_training_would_not_have_or_could_not_use(project, monkeypatch):
    said = project.check("-S", "train.devices=2")[1]["training"]
    assert said.startswith("WARN") and "train.devices is 2, of 1. Fix: set train.devices: auto" in said
    monkeypatch.setattr(hardware, "list_gpus", lambda: ("0", "1", "2"))
    assert "which 3 GPUs cannot share equally. Fix: set train.batch_size to 15 or 18" in project.check()[1]["training"]
    assert "training" not in project.check("-S", "train.devices=2")[1]
    assert "training" not in project.check("-S", "train.device=cpu")[1]


def test_what_a_training_would_stop_at_or_crawl_with(project, monkeypatch):
    code, _, faults = project.check("fine-tune")
    assert code == 2 and "pretrained/unet.weights.h5" in faults[0]
    monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(hardware, "instruction_sets", lambda: ("avx2",))
    assert "12 times as long" in project.check("-S", "train.precision=bfloat16")[1]["training"]
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None)
    code, _, faults = project.check()
    assert code == 3 and "this engine is not installed" in faults[0]


def test_lgg_on_a_server_is_asked_for_its_size(project, monkeypatch):
    monkeypatch.setenv("BRAINSEG_MIRROR", "http://somewhere/lgg.zip")
    monkeypatch.setattr(data_source.download, "ask_size", lambda url, seconds: 500 * 2**20)
    _, lines, _ = project.check()
    assert "500 MiB are fetched from BRAINSEG_MIRROR" in lines["source"] and "what is fetched 500 MiB" in lines["disk"]
    kept = data_source.download.find_place("http://somewhere/lgg.zip")
    kept.parent.mkdir()
    kept.with_suffix(".part").write_bytes(bytes(2**20))
    assert "499 MiB" in project.check()[1]["source"]

    def wait(url, seconds):
        raise TimeoutError("no answer in time")

    monkeypatch.setattr(data_source.download, "ask_size", wait)
    code, lines, _ = project.check()
    assert code == 0 and lines["source"].startswith("WARN")


def test_nothing_slow_is_imported():
    code = "import brainseg.commands.check, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"keras", "tensorflow", "jax", "mlflow", "pandas", "sklearn", "dvc.repo"} & set(loaded)


def test_make_repro_checks_first():
    lines = (toy_pipeline.PROJECT / "Makefile").read_text().split("\nrepro:")[1].split("\n\n")[0].splitlines()[1:]
    first, second = lines
    assert first.startswith("\t$(BIN)/brainseg check $(RECIPE) || ") and first.endswith("exit $$code; }")
    assert second == "\t$(BIN)/brainseg repro $(RECIPE)"


@pytest.mark.slow
def test_the_real_pipeline_is_checked_and_left_as_it_was(tmp_path):
    repository = tiny_pipeline.create(tmp_path / "tiny")
    repository.environment["PYTHONPATH"] = str(repository.folder / "src")
    code, output = repository.brainseg("check", "-S", "train.loss=jaccard")
    assert code == 0, output
    assert "would run: download" in output and "phantoms, drawn here: 10 patients" in output
    assert repository.git("status", "--porcelain") == ""
    code, output = repository.brainseg("check", "-S", "train.learning_rat=0.1")
    assert code == 2 and "did you mean train.learning_rate?" in output
