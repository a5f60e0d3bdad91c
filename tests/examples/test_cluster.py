"""examples/cluster: as far as files for machines that are not here can be checked."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from ruamel.yaml import YAML

from brainseg import cli

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/cluster"
SCRIPTS, FILES = sorted(FOLDER.glob("*.sh")), sorted(FOLDER.iterdir())
COMMANDS = typer.main.get_command(cli.app).commands


def read(name):
    return list(YAML(typ="safe").load_all((FOLDER / name).read_text()))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert path.read_text().startswith("#!/bin/bash\n") and "set -euo pipefail" in path.read_text()


@pytest.mark.parametrize("script", ["setup", "run"])
def test_the_scripts_within_skypilots_file_are_bash(script):
    (task,) = read("skypilot.yaml")
    assert subprocess.run(["bash", "-n"], input=task[script], text=True).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_options_exist_and_versions_are_the_one_that_is_pinned(path):
    text = path.read_text()
    (pinned,) = re.findall(r'"ray==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    named = re.findall(r"(?:\bray(?:\[default\])?==|brainseg-node:|rayVersion: \")([\d.]+\d)", text)
    assert set(named) <= {pinned} and (named or path.suffix == ".sh")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if "brainseg cross-validate" in line]
    for line in lines:
        options = {option for parameter in COMMANDS["cross-validate"].params for option in parameter.opts}
        assert set(re.findall(r" (--[a-z-]+)", line.split("brainseg cross-validate")[1])) <= options, line
    assert "RAY_USAGE_STATS_ENABLED" in text or path.name == "kuberay.yaml"  # whose image sets it


def test_a_script_passes_on_what_it_is_given(tmp_path):
    """The laptop's, with a script in place of the command."""
    told = tmp_path / "brainseg"
    told.write_text('#!/bin/sh\necho "$RAY_USAGE_STATS_ENABLED" "$@"\n')
    told.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", FOLDER / "laptop.sh", "best", "--jobs", "2"], env=environment, capture_output=True)
    assert done.stdout.decode().split() == ["0", "cross-validate", "--on", "ray", "best", "--jobs", "2"]


def test_slurms_script_starts_one_ray_for_all_nodes(tmp_path):
    """With scripts in place of SLURM's programs: what it would start on each node."""
    for name, line in (("srun", 'echo "$@"'), ("scontrol", "printf 'n7\\nn8\\n'")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    given = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "n[7-8]", "SLURM_JOB_ID": "41234"}
    given |= {
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "USER": "ann",
        "PATH": f"{tmp_path}:/usr/bin:/bin",
    }
    for words, command in ((["best"], "cross-validate best"), (["tune", "a.yaml"], "tune a.yaml")):
        done = subprocess.run(["bash", FOLDER / "slurm.sh", *words], env=given, capture_output=True, text=True)
        assert (
            done.stdout.split()
            == (
                "--nodes=2 --ntasks=2 ray symmetric-run --address n7:21234 --min-nodes 2 --num-cpus=16 --num-gpus=0 -- "
                f"brainseg {command} --on ray --address auto --quiet"
            ).split()
        ), done.stderr


def test_kuberays_file_is_one_cluster_and_its_volume():
    volume, cluster = read("kuberay.yaml")
    assert (volume["kind"], cluster["kind"], cluster["apiVersion"]) == (
        "PersistentVolumeClaim",
        "RayCluster",
        "ray.io/v1",
    )
    pods = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for pod in pods:
        (container,) = pod["template"]["spec"]["containers"]
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {each["name"] for each in pod["template"]["spec"]["volumes"]}
    claimed = pods[0]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claimed == volume["metadata"]["name"]


def test_rays_launcher_takes_its_file():
    """By Ray's own schema, where Ray is installed; and what it names is there."""
    (config,) = read("aws.yaml")
    for source in config["file_mounts"].values():
        assert (ROOT / source).is_file()
    assert config["head_node_type"] in config["available_node_types"]
    ray = pytest.importorskip("ray", reason="Ray is not installed (make test-cluster installs it)")
    import jsonschema

    jsonschema.validate(config, json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text()))


def test_the_image_is_linted():
    tool = shutil.which("hadolint", path=Path(sys.executable).parent)
    done = subprocess.run([tool, FOLDER / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
