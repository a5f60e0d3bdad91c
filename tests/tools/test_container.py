"""The image without a container engine: its steps replayed in a clean folder, and the result started."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from brainseg import config
from brainseg.errors import IntegrityError
from brainseg.experiments import demo
from brainseg.server import serve
from tests.support.dockerfile_replay import Replay, parse
from tools import copy_released

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "src/brainseg/server/phantoms/phantom-1.tif"


def stages() -> dict[str, list[tuple[str, str]]]:
    return {stage.name: stage.steps for stage in parse((ROOT / "Dockerfile").read_text(encoding="utf-8"))}


def test_what_is_copied_is_in_the_context():
    """.dockerignore lets in what the Dockerfile copies, and nothing else but that."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word.split("/")[0]
        for steps in stages().values()
        for kind, rest in steps
        if kind == "COPY" and not rest.startswith("--from")
        for word in rest.split()[:-1]
    }
    assert copied == allowed and "data" not in allowed


def test_the_last_stage_runs_as_nobody_in_particular_and_is_asked_how_it_is():
    last = dict(stages()["last"])
    assert last["USER"].isdecimal() and int(last["USER"]) >= 10000 and "/health" in last["HEALTHCHECK"]
    assert "RUN" not in last or "pip" not in last["RUN"]


def test_the_serving_requirements_are_a_part_of_all_requirements():
    """The same versions with the same hashes, and no engine for training among them."""

    def pins(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        return dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, flags=re.MULTILINE))

    serving, everything = pins("requirements-serve.txt"), pins("requirements.txt")
    assert serving.items() <= everything.items() and "onnxruntime" in serving
    assert not {"tensorflow", "tensorflow-cpu", "keras", "dvc", "mlflow", "pandas", "scipy"} & set(serving)


def test_compose_asks_for_passwords_and_listens_on_this_machine_alone():
    services = config.read_yaml(ROOT / "compose.yaml")["services"]
    assert services.pop("proxy")["profiles"] == ["public"]  # others reach it, and it starts only if it is asked for
    assert set(services) == {"page", "mlflow", "s3"} and services["page"]["read_only"] is True
    assert all(port.startswith("127.0.0.1:") for each in services.values() for port in each["ports"])
    assert "--allowed-hosts" in services["mlflow"]["command"]
    assert "S3_SECRET_KEY:?" in (ROOT / "compose.yaml").read_text()
    assert "S3_SECRET_KEY=\n" in (ROOT / ".env.example").read_text()


def test_in_compose_the_page_answers_prometheus_and_the_proxy_shows_no_such_name(monkeypatch):
    text = (ROOT / "compose.yaml").read_text()
    hosts = config.read_yaml(ROOT / "compose.yaml")["services"]["page"]["environment"]["BRAINSEG_ALLOWED_HOSTS"]
    assert hosts == "${BRAINSEG_ALLOWED_HOSTS:-},page"
    assert "${BRAINSEG_ALLOWED_HOSTS:-localhost} {" in text  # Caddy's site
    for named, expected in (("", {"page"}), ("a.example, b.example", {"a.example", "b.example", "page"})):
        monkeypatch.setenv("BRAINSEG_ALLOWED_HOSTS", hosts.replace("${BRAINSEG_ALLOWED_HOSTS:-}", named))
        assert serve.named_hosts("0.0.0.0") == expected
    docs = (ROOT / "docs/reference/http.md").read_text(encoding="utf-8")
    assert '["page:5000"]' in docs


def test_the_dockerfile_is_clean_by_hadolint():
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert hadolint, "make setup installs it"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_released_model_is_copied_whole_or_refused(tmp_path):
    found = copy_released.copy(ROOT, tmp_path / "models")
    assert [path.name for path in found] == ["unet.onnx", "unet.int8.onnx"]
    for name in ("dvc.lock", "weights"):
        place = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        place(ROOT / name, tmp_path / name)
    lock = config.read_yaml(tmp_path / "dvc.lock")
    md5 = next(out["md5"] for out in lock["stages"]["export"]["outs"] if out["path"] == "models/unet.onnx")
    stored = tmp_path / "weights/files/md5" / md5[:2] / md5[2:]
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match="other bytes"):
        copy_released.copy(tmp_path, tmp_path / "more")
    stored.unlink()
    with pytest.raises(IntegrityError, match="is not in weights"):
        copy_released.copy(tmp_path, tmp_path / "more")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm"), reason="the page's stage needs Node.js")
def test_the_steps_replayed_make_a_server_that_answers(tmp_path):
    """A phantom is answered; nothing of training is there. Started as the image's user, where this one may change to it
    and the interpreter is anybody's: who can write nothing of it.
    """
    context = tmp_path / "context"
    demo.copy_tracked(ROOT, context)
    replay = Replay(context, tmp_path / "image")
    replay.run()
    installed = {path.name.lower() for path in (tmp_path / "image/opt/brainseg/lib").glob("*/site-packages/*")}
    assert "onnxruntime" in installed and not {"tensorflow", "keras", "dvc", "mlflow", "onnx"} & installed
    for name in ("models/unet.onnx", "examples/patients.zip"):
        assert (tmp_path / "image/opt/brainseg" / name).is_file()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [port if word == "5000" else word for word in replay.command]
    shared = all(
        place.stat().st_mode & 1 for place in Path(sys.executable).resolve().parents
    )  # not in root's own folder
    user = {"user": replay.user} if os.getuid() == 0 and shared else {}
    for folder in [tmp_path, *tmp_path.parents][:3] if user else []:
        folder.chmod(0o755)
    server = subprocess.Popen(command, cwd=replay.place, env=replay.environment | {"HOME": "/nonexistent"},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **user)  # fmt: skip
    try:
        token = wait_for_token(server)
        health = [word.replace("5000", port) for word in replay.health]
        for _ in range(60):
            if subprocess.run(health, env=replay.environment, capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.5)
        else:
            pytest.fail("never healthy")
        answer = json.loads(ask(port, token, PICTURE.read_bytes()))
        assert answer["input"]["slices"] > 1 and "Research use only" in answer["disclaimer"]
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert b"<script" in browser.open(f"http://localhost:{port}/?token={token}").read()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(port, "wrong", PICTURE.read_bytes())
    finally:
        server.terminate()
        server.wait(20)


def wait_for_token(server: subprocess.Popen) -> str:
    lines = []
    for line in server.stdout:
        lines.append(line)
        if found := re.search(r"token=([\w-]+)", line):
            return found[1]
    raise AssertionError("".join(lines))


def ask(port: str, token: str, data: bytes) -> bytes:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.tif"\r\n\r\n' + data + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/segment", body, headers)
    return urllib.request.urlopen(request, timeout=60).read()
