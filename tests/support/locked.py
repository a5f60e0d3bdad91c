"""Where dvc.lock and weights/ are not of the tree that they are in."""

import json
from functools import cache
from pathlib import Path

from brainseg import config
from brainseg.data import inputs
from brainseg.experiments import integrity

WEIGHTS_LIMIT = 40_000_000  # bytes that a clone carries for the released model


def lock_faults(root: Path, limit: int = WEIGHTS_LIMIT) -> list[str]:
    """Where dvc.lock is not of this code, these params and these outputs, or weights/ not of its model."""
    lock, pipeline = (config.read_yaml(root / name)["stages"] for name in ("dvc.lock", "dvc.yaml"))
    if set(lock) != set(pipeline):
        return [f"dvc.lock has the stages {', '.join(lock)}"]
    made = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    faults = [f"{name}: {fault}" for name in lock for fault in stage_faults(root, lock[name], pipeline[name], made)]
    kept = [entry for entry in integrity.list_outs(root) if not entry.cached]
    faults += [f"{entry.path}: not the bytes of the run" for entry in kept if digest(root / entry.path) != entry.md5]
    return faults + weights_faults(root, declared_outs(*pipeline.values()), made, limit)


def stage_faults(root: Path, locked: dict, declared: dict, made: dict[str, str]) -> list[str]:
    """Why `dvc repro` would run the stage again; a dependency is what another stage made, or a file of the tree."""
    params, now = locked.get("params", {}).get("params.yaml", {}), config.read_yaml(root / "params.yaml")
    deps = {dep["path"]: dep["md5"] for dep in locked.get("deps", [])}
    outs = {out["path"] for out in locked["outs"]}
    return [
        *(["another cmd"] if locked["cmd"] != declared["cmd"] else []),
        *(["other deps"] if set(deps) != set(declared["deps"]) else []),
        *(["other outs"] if outs != set(declared_outs(declared)) else []),
        *(["other params"] if set(params) != set(declared.get("params", [])) else []),
        *(f"{path} changed" for path, md5 in deps.items() if (made.get(path) or digest(root / path)) != md5),
        *(f"{key} changed" for key, value in params.items() if looked_up(now, key) != value),
    ]


def weights_faults(root: Path, outs: dict[str, dict], made: dict[str, str], limit: int) -> list[str]:
    """weights/ holds the objects of the committed run's model, of the released ones and the page's examples, whole."""
    released = [made[path] for path, flags in outs.items() if flags.get("remote") == "weights" and path in made]
    beside = [*(root / "models/released").glob("*.onnx.dvc"), *(root / "examples").glob("*.zip.dvc")]
    tracked = [config.read_yaml(path)["outs"] for path in beside]
    released += [out["md5"] for each in tracked for out in each]
    due = {f"weights/files/md5/{md5[:2]}/{md5[2:]}": md5 for md5 in released}
    files = [path for path in (root / "weights").rglob("*") if path.is_file()]
    held = {path.relative_to(root).as_posix(): digest(path) for path in files}
    faults = [f"{path}: missing, changed or not of the model" for path in sorted(dict(due.items() ^ held.items()))]
    size = sum(path.stat().st_size for path in files)
    return faults + ([f"weights/ has {size:,} bytes"] if size > limit else [])


def declared_outs(*stages: dict) -> dict[str, dict]:
    """Path → flags of every output of stages of dvc.yaml."""
    outs = [out for stage in stages for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    return {path: flags for out in outs for path, flags in (out if isinstance(out, dict) else {out: {}}).items()}


def digest(path: Path) -> str | None:
    """As DVC names it; None where there is nothing."""
    if not path.exists():
        return None
    return inputs.name_md5(path)


def looked_up(params: dict, key: str):
    for part in key.split("."):
        params = params.get(part, {})
    return params


def released_manifest(root: Path) -> dict:
    """models/unet.json as the clone's remote weights/ holds it."""
    return json.loads(_read_released_manifest(root))


@cache
def _read_released_manifest(root: Path) -> str:
    stages = config.read_yaml(root / "dvc.lock")["stages"].values()
    (md5,) = {out["md5"] for stage in stages for out in stage["outs"] if out["path"] == "models/unet.json"}
    return (root / f"weights/files/md5/{md5[:2]}/{md5[2:]}").read_text(encoding="utf-8")
