"""The structure holds itself: walls, dvc.yaml against the imports and the params read."""

import ast
import functools
import re
from pathlib import Path

import pytest

from brainseg import config
from brainseg.experiments import demo
from brainseg.models.backend import Runtime
from brainseg.training import trainer
from tests.support.locked import declared_outs

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "brainseg"
STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py"))
FILES = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES}  # by names like io.nifti
# What no output depends on: checked parameters and inputs, the command line, messages, the view on the results, file
# plumbing.
NO_DEPENDENCY = {"config", "cli", "errors", "files", "data.inputs", "training.progress"}
NO_DEPENDENCY |= {f"tracking.{name}" for name in ("mlflow_runs", "live_run", "run_store")}
DVC = config.read_yaml(ROOT / "dvc.yaml")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path) -> set[str]:
    """What a file imports anywhere: packages of others by first names, modules of ours as ``brainseg.io.nifti``."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {named(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            found |= {named(f"{node.module}.{alias.name}") for alias in node.names}
    return found


def named(name: str) -> str:
    """The module that a dotted name is, or lies in; an import of a whole room is none."""
    first, *rest = name.split(".")
    if first != "brainseg" or rest in ([], ["__version__"]):
        return first
    (module,) = {".".join(rest), ".".join(rest[:-1])} & set(MODULES) or [None]
    assert module, f"{name} is no module"
    return f"brainseg.{module}"


@functools.cache
def modules_of(path: Path) -> set[str]:
    """Every module of the package that a script reaches and that its outputs depend on."""
    reached, waiting = set(), [path]
    while waiting:
        for name in imports(waiting.pop()):
            module = name.removeprefix("brainseg.")
            if name.startswith("brainseg.") and module not in reached | NO_DEPENDENCY:
                reached.add(module)
                waiting.append(MODULES[module])
    return reached


def data_paths(paths) -> set[str]:
    return {path for path in paths if path.split("/")[0] in ("data", "models", "metrics")}


def outs_of(stage: str) -> set[str]:
    return set(declared_outs(DVC["stages"][stage]))


def inside(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def packaged(modules: set[str]) -> set[Path]:
    """Templates and tables that these modules name, and what those templates include; the server's own apart."""
    others = {path for path in inside(PACKAGE) - inside(PACKAGE / "server") if path.suffix != ".py"}
    texts = [MODULES[name].read_text(encoding="utf-8") for name in modules]
    found: set[Path] = set()
    while new := {path for path in others - found if any(path.name in text for text in texts)}:
        found |= new
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in new]  # some are no text
    return found


def test_modules_are_found():
    """The other tests would pass on nothing."""
    rooms = {name.split(".")[0] for name in MODULES if "." in name}
    assert len(MODULES) > 90 and len(rooms) > 10
    assert all(modules_of(ROOT / f"stages/{stage}.py") for stage in STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_imports(stage):
    """A folder stands for all of it: nothing else lies in it but its docstring and what no output depends on."""
    script = ROOT / f"stages/{stage}.py"
    declared = {ROOT / dep for dep in DVC["stages"][stage]["deps"] if dep.startswith(("src/", "stages/"))}
    folders = {path for path in declared if path.is_dir()}
    covered = {path for folder in folders for path in inside(folder)}
    modules = modules_of(script)
    needed = {script} | {MODULES[name] for name in modules} | packaged(modules)
    free = {path for path in covered if path.name == "__init__.py"} | {MODULES[name] for name in NO_DEPENDENCY}
    assert (declared - folders) | (covered - free) == needed
    assert not declared & covered


def test_a_checkpoint_knows_all_code_that_takes_part():
    """All that the trainer imports. What the train stage imports beside it describes the model that was trained."""
    params = config.load(path=ROOT / "params.yaml")
    known = trainer.identity(params, {}, Runtime("tensorflow", "cpu", "float32", 2))["code"]
    needed = {"training.trainer"} | modules_of(MODULES["training.trainer"])
    assert modules_of(ROOT / "stages/train.py") - needed == {
        "training.description", "training.history", "data.fingerprints",
    }  # fmt: skip
    assert set(known) == {MODULES[name].relative_to(PACKAGE).as_posix() for name in needed}


def test_every_packaged_file_is_named_by_a_module():
    here = inside(PACKAGE) - inside(PACKAGE / "server")
    assert packaged(set(MODULES)) == {path for path in here if path.suffix != ".py"} != set()


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
    modules = ("models.manifest", "training.description", "training.trainer")
    scripts = [*(MODULES[name] for name in modules), ROOT / "stages/train.py"]
    attributes = [node for script in scripts for node in ast.walk(tree(script)) if isinstance(node, ast.Attribute)]
    texts = {ast.unparse(node).removeprefix("params.") for node in attributes}
    assert declared == {text for text in texts if text.startswith(("download.", "split.")) and text.count(".") == 1}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_checks_its_inputs_before_it_computes(stage):
    """Right after its parameters, if another stage makes what it reads."""
    (main,) = [node for node in ast.walk(tree(ROOT / f"stages/{stage}.py")) if isinstance(node, ast.FunctionDef)]
    first, second, *_ = (ast.unparse(line) for line in main.body)
    assert "config.load(" in first
    assert (second == f"inputs.check('{stage}')") == bool(data_paths(DVC["stages"][stage]["deps"]))


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
    named = set().union(*(names_in(path) for path in [script, *(MODULES[m] for m in modules_of(script))]))
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


def room(name: str) -> set[str]:
    return {module for module in MODULES if module.startswith(f"{name}.")}


SERVER = room("server") - {"server.worker"}  # which opens what strangers send
WALLS = {
    "mlflow": {"tracking.registry", "tracking.run_store"},
    "tensorflow": {"models.backend", "models.devices"},
    "jax": {"models.backend"},
    "nibabel": {"io.volumes", "io.mgh", "inference.answers.nifti_files", "inference.decoding_worker"},
    "pydicom": {"io.dicom.slice_header", "io.dicom.seg_writer", "inference.decoding_worker"},
    "highdicom": {"io.dicom.seg_writer"},
    "fastapi": SERVER,
    "starlette": SERVER,
    "uvicorn": SERVER,
    "prometheus_client": SERVER,
    "onnx": {"export.onnx_files", "export.metadata", "export.ensemble", "export.half_weights"},
    "onnxruntime": {"export.onnx_files", "inference.onnx_session"},
    "ray": {"experiments.running.connection", "experiments.running.node_task"},
    "cc3d": {"inference.postprocessing", "inference.answers.lesions"},
    "keras": room("models") | room("training") | room("export") | {"commands.timing"},
}


def test_what_travels_to_a_node_imports_nothing_of_the_project():
    """It runs where there is no file of the project yet."""
    assert not [name for name in imports(MODULES["experiments.running.node_task"]) if name.startswith("brainseg")]


ENGINES = {"mlflow", "tensorflow", "jax", "keras"}


@pytest.mark.parametrize("wall", WALLS)
def test_walls(wall):
    users = {name for name, path in MODULES.items() if wall in imports(path)}
    assert users and users <= WALLS[wall]


@pytest.mark.parametrize(
    "name",
    [
        *("evaluation.metrics", "evaluation.bootstrap", "evaluation.evaluate", "evaluation.scoring"),
        *("io.pictures", "io.scans", "io.intensity", "io.grid"),
        *("reporting.charts", "reporting.report"),
        *("experiments.comparison", "experiments.comparing.comparison_page", "experiments.cross_validation"),
        *("experiments.revision", "tracking.gate", "export.metadata", "export.ensemble"),
        *("inference.cases", "inference.onnx_session", "inference.outlining", "inference.predictor"),
        *("inference.plausibility", "inference.postprocessing", "predict.batch"),
    ],
)
def test_what_needs_no_engine_reaches_none(name):
    """Neither Keras nor MLflow, not even through another module."""
    for module in {name} | modules_of(MODULES[name]):
        assert not imports(MODULES[module]) & ENGINES, f"{name} reaches it through {module}"


HEAVY = {*ENGINES, "pandas", "scipy", "matplotlib", "sklearn"}  # what the extra ``serve`` does not bring


@pytest.mark.parametrize("name", ["server.serve", "server.worker", "reporting.model_card"])
def test_the_server_reaches_nothing_heavy(name):
    for module in {name} | modules_of(MODULES[name]):
        assert not imports(MODULES[module]) & HEAVY, f"{name} reaches it through {module}"


def test_what_opens_uploads_knows_no_web_framework():
    for module in {"server.worker"} | modules_of(MODULES["server.worker"]):
        assert not imports(MODULES[module]) & {"fastapi", "starlette", "uvicorn", "onnxruntime"}


def test_nothing_imports_stages_or_tools():
    for path in MODULES.values():
        assert not imports(path) & {"stages", "tools"}


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
    assert not {"utils", "helpers", "common", "misc"} & {word for name in MODULES for word in name.split(".")}


def test_no_room_is_too_full():
    folders = {path.parent for path in MODULES.values()}
    assert max(len(list(folder.glob("*.py"))) for folder in folders) <= 15  # 14 modules and the docstring
    assert len(list(PACKAGE.glob("*.py"))) <= 6


def test_no_placeholder_is_left():
    """What stands for a number until the run that makes it, an upper-case word between two at signs."""
    for name in demo.git(ROOT, "ls-files", "-z").split("\0"):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in content:
            assert not re.findall(rb"@[A-Z]+@", content), name
