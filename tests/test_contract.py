"""The structure holds itself: walls, dvc.yaml against the imports and the params read."""

import ast
import re
from pathlib import Path

import pytest

from brainseg import config, demo, training
from brainseg.engine import Engine
from tests.locked import declared_outs

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "brainseg"
STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py"))
# What no output depends on: checked parameters, the command line, messages, the view on the results, file plumbing.
NO_DEPENDENCY = {"__init__", "__version__", "config", "cli", "errors", "files", "progress", "tracking"}
DVC = config.read_yaml(ROOT / "dvc.yaml")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Top-level names of what a file imports anywhere; ``brainseg`` modules as ``brainseg.x``."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "brainseg":
            found |= {f"brainseg.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return {".".join(name.split(".")[:2]) if name.startswith("brainseg") else name.split(".")[0] for name in found}


def modules_of(path: Path) -> set[str]:
    """Every module of the package that a script reaches and that its outputs depend on."""
    reached, waiting = set(), [path]
    while waiting:
        for name in imports(waiting.pop()):
            module = name.removeprefix("brainseg.")
            if name.startswith("brainseg.") and module not in reached | NO_DEPENDENCY:
                reached.add(module)
                waiting.append(PACKAGE / f"{module}.py")
    return reached


def data_paths(paths) -> set[str]:
    return {path for path in paths if path.split("/")[0] in ("data", "models", "metrics")}


def outs_of(stage: str) -> set[str]:
    return set(declared_outs(DVC["stages"][stage]))


def packaged(modules: set[str]) -> set[str]:
    """Templates and tables that these modules name, and what those templates include."""
    others = {path for path in PACKAGE.iterdir() if path.is_file() and path.suffix not in (".py", ".pyc")}
    texts = [(PACKAGE / f"{name}.py").read_text(encoding="utf-8") for name in modules]
    found: set[Path] = set()
    while new := {path for path in others - found if any(path.name in text for text in texts)}:
        found |= new
        texts = [path.read_text(encoding="utf-8") for path in new]
    return {f"src/brainseg/{path.name}" for path in found}


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_imports(stage):
    script = f"stages/{stage}.py"
    code = {dep for dep in DVC["stages"][stage]["deps"] if dep.startswith(("src/", "stages/"))}
    modules = modules_of(ROOT / script)
    assert code == {script} | {f"src/brainseg/{name}.py" for name in modules} | packaged(modules)


def test_a_checkpoint_knows_all_code_that_takes_part():
    """training.identity names the modules of the train stage; checkpoints have a format number of their own."""
    params = config.load(path=ROOT / "params.yaml")
    known = training.identity(params, {}, Engine("tensorflow", "cpu", "float32", 2))["code"]
    assert set(known) == {f"{name}.py" for name in modules_of(ROOT / "stages/train.py") - {"checkpoints"}}


def test_every_packaged_file_is_named_by_a_module():
    files = {f"src/brainseg/{path.name}" for path in PACKAGE.iterdir() if path.is_file()}
    assert packaged({path.stem for path in PACKAGE.glob("*.py")}) == {
        f for f in files if not f.endswith((".py", ".pyc"))
    }


def blocks_read(stage: str) -> set[str]:
    """The blocks that a script names in ``config.load(...)``."""
    calls = [node for node in ast.walk(tree(ROOT / f"stages/{stage}.py")) if isinstance(node, ast.Call)]
    (load,) = [call for call in calls if ast.unparse(call.func) == "config.load"]
    return {argument.value for argument in load.args}


@pytest.mark.parametrize("stage", STAGES)
def test_params_declared_are_params_read(stage):
    declared = {name.split(".")[0] for name in DVC["stages"][stage]["params"]}
    assert declared == blocks_read(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_no_parameter_is_left_out_of_the_run_cache(stage):
    """DVC hashes a block without its keys ``size`` and ``nfiles``: such a block is declared key by key, whole."""
    values = config.read_yaml(ROOT / "params.yaml")
    declared = DVC["stages"][stage]["params"]
    for name in declared:
        assert not {"size", "nfiles"} & set(values[name] if "." not in name else {})
    for block in ("phantom", "preprocess"):
        keys = {name.split(".")[1] for name in declared if name.startswith(f"{block}.")}
        assert keys in (set(), set(values[block]))


def test_train_reads_of_download_and_split_what_it_declares():
    """The train stage names single keys of these blocks: what the manifest tells of the data."""
    declared = {name for name in DVC["stages"]["train"]["params"] if name.startswith(("download.", "split."))}
    scripts = [PACKAGE / "manifest.py", PACKAGE / "training.py", ROOT / "stages/train.py"]
    attributes = [node for script in scripts for node in ast.walk(tree(script)) if isinstance(node, ast.Attribute)]
    texts = {ast.unparse(node).removeprefix("params.") for node in attributes}
    assert declared == {text for text in texts if text.startswith(("download.", "split.")) and text.count(".") == 1}


def test_every_stage_has_its_script_and_every_script_its_stage():
    assert sorted(DVC["stages"]) == STAGES
    for name, stage in DVC["stages"].items():
        assert stage["cmd"] == f"PYTHONPATH=src python stages/{name}.py"


def test_what_a_stage_needs_another_one_makes():
    """No declared file that nothing writes: every data path has one stage that makes it before it is used."""
    made: set[str] = set()
    for name, stage in DVC["stages"].items():
        assert data_paths(stage["deps"]) <= made
        assert not outs_of(name) & made
        made |= outs_of(name)


def names_in(path: Path) -> set[str]:
    """Last parts of the paths, and single words, among the strings of a module."""
    texts = [node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)]
    return {text.split("/")[-1] for text in texts if isinstance(text, str) and not re.search(r"\s", text)}


@pytest.mark.parametrize("stage", STAGES)
def test_every_declared_out_is_named_by_the_code_that_writes_it(stage):
    """By its file's name, or without its ending where several files are written in one loop."""
    script = ROOT / f"stages/{stage}.py"
    named = set().union(*(names_in(path) for path in [script, *(PACKAGE / f"{m}.py" for m in modules_of(script))]))
    assert [out for out in outs_of(stage) if not {Path(out).name, Path(out).stem} & named] == []


@pytest.mark.parametrize("stage", STAGES)
def test_paths_in_a_script_are_the_declared_ones(stage):
    """The file that train saves is the file that evaluate loads: both scripts name what dvc.yaml names."""
    constants = [node.value for node in ast.walk(tree(ROOT / f"stages/{stage}.py")) if isinstance(node, ast.Constant)]
    declared = outs_of(stage) | data_paths(DVC["stages"][stage]["deps"])
    for path in data_paths(value for value in constants if isinstance(value, str)):
        assert any(known == path or known.startswith(f"{path}/") for known in declared), f"{path} is not declared"


def test_dvc_yaml_holds_no_number():
    def leaves(value):
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return [value] if children is None else [leaf for child in children for leaf in leaves(child)]

    assert not [leaf for leaf in leaves(DVC) if isinstance(leaf, int | float) and not isinstance(leaf, bool)]


@pytest.mark.parametrize("stage", STAGES)
def test_stages_only_wire(stage):
    path = ROOT / "stages" / f"{stage}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.AugAssign | ast.For | ast.While)
        if isinstance(node, ast.BinOp):  # a path below a folder, no arithmetic
            assert isinstance(node.op, ast.Div) and ast.unparse(node.left).isupper()


SERVER = {path.stem for path in PACKAGE.glob("server*.py")} - {"server_worker"}  # which opens what strangers send
WALLS = {
    "mlflow": {"registry", "tracking"},
    "tensorflow": {"engine"},
    "jax": {"engine"},
    "nibabel": {"nifti", "server_volumes", "server_worker"},
    "pydicom": {"dicom", "server_worker"},
    "fastapi": SERVER,
    "starlette": SERVER,
    "uvicorn": SERVER,
    "onnx": {"exporting"},
    "onnxruntime": {"exporting", "onnx_session"},
    "cc3d": {"postprocessing"},
    "keras": {
        *("augmentation", "checkpoints", "engine", "exporting", "inference", "losses"),
        *("finetuning", "networks", "progress", "segmenter", "timing", "training"),
        *("attention_unet", "blocks", "residual_unet", "unet", "unet3d"),
    },
}


ENGINES = {"mlflow", "tensorflow", "jax", "keras"}


@pytest.mark.parametrize("wall", WALLS)
def test_walls(wall):
    for path in PACKAGE.glob("*.py"):
        if path.stem not in WALLS[wall]:
            assert wall not in imports(path), f"{path.stem} imports {wall}"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "metrics",
            "statistics",
            "imaging",
            "scans",
            "intensity",
            "evaluation",
            "scoring",
            "postprocessing",
            "figures",
            "report",
        ),
        *("comparison", "comparison_page", "crossvalidation", "gate", "revision"),
        *("cases", "grid", "onnx_session", "outlining", "predictor"),
        "plausibility",
        "predicting",
    ],
)
def test_what_needs_no_engine_reaches_none(name):
    """Neither Keras nor MLflow, not even through another module."""
    for module in {name} | modules_of(PACKAGE / f"{name}.py"):
        assert not imports(PACKAGE / f"{module}.py") & ENGINES, f"{name} reaches it through {module}"


def test_whoever_shows_the_model_card_needs_nothing_for_it():
    assert imports(PACKAGE / "model_card.py") == {"brainseg.model_card_words"}
    assert imports(PACKAGE / "model_card_words.py") == set()


HEAVY = {*ENGINES, "pandas", "scipy", "matplotlib", "sklearn"}  # what the extra ``serve`` does not bring


@pytest.mark.parametrize("name", ["server_start", "server_worker"])
def test_the_server_reaches_nothing_heavy(name):
    for module in {name} | modules_of(PACKAGE / f"{name}.py"):
        assert not imports(PACKAGE / f"{module}.py") & HEAVY, f"{name} reaches it through {module}"


def test_what_opens_uploads_knows_no_web_framework():
    for module in {"server_worker"} | modules_of(PACKAGE / "server_worker.py"):
        assert not imports(PACKAGE / f"{module}.py") & {"fastapi", "starlette", "uvicorn", "onnxruntime"}


def test_nothing_imports_stages():
    for path in PACKAGE.glob("*.py"):
        assert "stages" not in imports(path)


FORBIDDEN_MODULES = {"pickle", "joblib", "yaml"}
FORBIDDEN = ["extractall(", "shell=True", "safe_mode=False", "allow_pickle=True"]


@pytest.mark.parametrize("folder", ["src", "stages", "benchmarks"])
def test_nothing_runs_what_it_reads(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert not imports(path) & FORBIDDEN_MODULES, path
        assert not [text for text in FORBIDDEN if text in path.read_text(encoding="utf-8")], path


@pytest.mark.parametrize("line", ["import io, pickle", "from pickle import loads", "from yaml.loader import Loader",
                                  "    import joblib.externals as j", "from joblib import load"])  # fmt: skip
def test_forbidden_modules_are_found_however_they_are_imported(line, tmp_path):
    (tmp_path / "a.py").write_text(f"if True:\n    {line.strip()}\n")
    assert imports(tmp_path / "a.py") & FORBIDDEN_MODULES


def test_no_catch_all_modules():
    assert not {"utils", "helpers", "common", "misc"} & {path.stem for path in PACKAGE.glob("*.py")}


def test_no_placeholder_is_left():
    """What stands for a number until the run that makes it, an upper-case word between two at signs."""
    for name in demo.git(ROOT, "ls-files", "-z").split("\0"):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in content:
            assert not re.findall(rb"@[A-Z]+@", content), name
