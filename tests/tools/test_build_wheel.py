"""The wheel works where there is no clone: in an empty environment it outlines, serves and fetches nothing."""

import csv
import re
import shutil
import subprocess
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import requests

from brainseg import __version__
from brainseg.errors import MachineError
from brainseg.experiments import demo
from tests.support.watch import Watched
from tools import build_page, build_wheel, copy_released

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "src/brainseg/server/phantoms/phantom-1.tif"
SOURCE = "https://github.com/jane/brainseg"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](docs/a.md#b)", f"[a]({SOURCE}/blob/v{__version__}/docs/a.md#b)"),
        ("![a](metrics/a.png)", f"![a]({SOURCE}/raw/v{__version__}/metrics/a.png)"),
        ('<img src="docs/a.png" width="74%">', f'<img src="{SOURCE}/raw/v{__version__}/docs/a.png" width="74%">'),
        ("[a](https://b.c/d) [e](#f) [g](mailto:h)", "[a](https://b.c/d) [e](#f) [g](mailto:h)"),
        ("f(x)[0](", "f(x)[0]("),
    ],
)
def test_links_lead_to_the_repository_at_this_version(text, expected):
    assert build_wheel.absolute(text, SOURCE) == expected


def test_the_address_is_that_of_the_project():
    assert re.fullmatch(r"https://github\.com/[\w-]+/brainseg", build_wheel.find_source(ROOT))


def test_a_build_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "page").mkdir()
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/brainseg_lgg-0.0.1-py3-none-any.whl").write_bytes(b"earlier")
    monkeypatch.setattr(build_page, "run", lambda web: "up to date")
    monkeypatch.setattr(build_page, "PAGE", tmp_path / "page")
    monkeypatch.setattr(build_wheel.shutil, "which", lambda name: "false" if name == "uv" else None)
    with pytest.raises(MachineError, match="ended with 1"):
        build_wheel.run(tmp_path / "dist", ROOT)
    assert [path.read_bytes() for path in (tmp_path / "dist").iterdir()] == [b"earlier"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built by the machine's Node.js, or one from PyPI, from what git tracks."""
    out = tmp_path_factory.mktemp("dist")
    assert "MB" in build_wheel.run(out, ROOT)
    (built,) = out.iterdir()
    return built


@pytest.mark.slow
def test_what_is_in_the_wheel(wheel):
    """All of the package that git tracks, the page, and the released model with its terms; nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        told = message_from_bytes(archive.read(f"brainseg_lgg-{__version__}.dist-info/METADATA"))
        model = archive.read("brainseg/released/unet.onnx")
    tracked = {name.removeprefix("src/") for name in demo.list_tracked(ROOT) if name.startswith("src/")}
    page = {f"brainseg/server/page/{path.relative_to(build_page.PAGE)}" for path in build_page.PAGE.rglob("*.*")}
    released = {"brainseg/released/unet.onnx", "brainseg/released/LICENSE.txt"}
    assert {name for name in names if ".dist-info/" not in name} == tracked | page | released
    (expected,) = copy_released.copy(ROOT, wheel.parent / "model", [build_wheel.MODEL])
    assert model == expected.read_bytes()
    assert told["Name"] == "brainseg-lgg" and "CC-BY-NC-SA-4.0" in told["License-Expression"]
    assert not re.search(r'\]\((?!https:|#)|src="(?!https:)', told.get_payload())


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of the programs of an environment with ``WHEEL[serve]``, at the versions of requirements-serve.txt.

    With those the extra is complete: nothing is fetched for the wheel itself.
    """
    folder = tmp_path_factory.mktemp("empty") / "env"
    venv.create(folder, with_pip=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--require-hashes", "-r", ROOT / "requirements-serve.txt"], check=True)
    subprocess.run([*pip, "--no-index", f"{wheel}[serve]"], check=True)
    return folder / "bin"


@pytest.fixture
def empty(tmp_path) -> Watched:
    """A folder with one picture of a phantom, in which every access to another folder or to the network is noted."""
    watched = Watched(tmp_path / "watched")
    shutil.copyfile(PICTURE, watched.home.parent / "phantom.tif")
    return watched


@pytest.mark.slow
def test_it_outlines_where_there_is_no_project(installed, empty):
    folder = empty.home.parent
    done = subprocess.run([installed / "brainseg", "predict", "phantom.tif", "-o", "out"], cwd=folder,
                          env=empty.environment, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "brainseg/released/unet.onnx, released with brainseg-lgg" in done.stderr
    (row,) = csv.DictReader((folder / "out/summary.csv").read_text().splitlines())
    assert int(row["slices_with_tumour"]) > 0 and (folder / "out" / row["mask"]).is_file()
    assert empty.seen() == []


@pytest.mark.slow
def test_it_serves_page_and_outlines_where_there_is_no_project(installed, empty):
    folder = empty.home.parent
    command = [installed / "brainseg", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=empty.environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[-1]
            assert requests.get(f"{address}health", timeout=60).json() == {"status": "ok"}
            page = requests.get(address, timeout=60).text
            scripts = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', page)
            assert scripts and all(requests.get(f"{address}{name}", timeout=60).ok for name in scripts)
            answer = requests.post(f"{address}v1/segment", files={"file": PICTURE.read_bytes()}, timeout=60).json()
            assert answer["summary"]["tumour_pixels"] > 0 and answer["model"]["marks"] == []
        finally:
            server.terminate()
    assert empty.seen() == []


@pytest.mark.slow
def test_what_the_extra_does_not_bring_is_named(installed, empty):
    """The command that is told leaves the package as it is: pip has no reason to look for another."""
    done = subprocess.run([installed / "brainseg", "data", "."], cwd=empty.home.parent, env=empty.environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == "ERROR 3 pandas: is not installed. Fix: pip install 'brainseg-lgg[train]'\n"
    again = [installed / "python", "-m", "pip", "install", "--no-index", "brainseg-lgg[medical]"]
    told = subprocess.run(again, capture_output=True, text=True, check=True).stdout
    assert "Requirement already satisfied: brainseg-lgg[medical]" in told
