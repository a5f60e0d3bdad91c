"""What Ray calls on a node, which has Python and the requirements, and no file of this project.

This module travels with its functions, so it imports nothing of the project. The project's files come in a Git bundle;
then ``node.py`` among them does the work in a process of its own and says what is to be sent, one JSON object a line.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = "BRAINSEG_NODE_FOLDER"  # where a node keeps code, data and checkpoints; else below its temporary files
PIECE = 2**24  # bytes that are sent at once
PATIENCE = 30  # seconds for a training to end as by Ctrl-C
OF_OTHERS = ("DVC_ROOT", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # of the project that Ray was started in


def run(order: dict[str, Any], code: list[Any]) -> Iterator[dict[str, Any]]:
    """Run an experiment. Yields what happens; ``{"file": path, "piece": bytes}`` is the next part of a result.

    Args:
        order: see ``node.Order``.
        code: a reference to the bundle with the snapshot.
    """
    yield {"node": _name_node(), "host": socket.gethostname()}
    home = make_home()
    try:
        clone, using = _unpack(home, order["snapshot"], code[0])
    except ModuleNotFoundError as error:
        yield {"lacks": str(error.name)}
        return
    removed = {*OF_OTHERS, *(name for name, value in order["environment"].items() if value is None)}
    variables = {name: value for name, value in os.environ.items() if name not in removed}
    variables |= {name: value for name, value in order["environment"].items() if value is not None}
    project = clone / order["below"]
    variables |= {"PYTHONPATH": str(project / "src"), "PYTHONUNBUFFERED": "1"}
    with using, tempfile.TemporaryFile(dir=home) as errors, subprocess.Popen(
        [sys.executable, "-m", "brainseg.experiments.running.node"], cwd=project, env=variables, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
    ) as child, _ended(child):  # fmt: skip
        assert child.stdin and child.stdout
        with contextlib.suppress(BrokenPipeError), child.stdin:  # it may have ended, for want of a package
            child.stdin.write(json.dumps(order | {"home": str(home)}) + "\n")
        for line in child.stdout:
            told = json.loads(line)
            if "send" in told:
                yield from _read_pieces(told["send"], Path(told["from"]))
            else:
                yield told
        if ended := child.wait():
            errors.seek(0)
            yield {"broken": errors.read().decode(errors="replace"), "code": ended}


def bring(objects: dict[str, list[Any]]) -> None:
    """Write objects into this node's cache: for the MD5 of each, references to its pieces."""
    import ray

    home = make_home()
    for md5, pieces in objects.items():
        target = home / "cache/files/md5" / md5[:2] / md5[2:]
        with _locked(home / "bring.lock"):
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            digest, unfinished = hashlib.md5(usedforsecurity=False), home / "unfinished"
            with open(unfinished, "wb") as written:
                for piece in pieces:
                    content = ray.get(piece)
                    digest.update(content)
                    written.write(content)
                written.flush()
                os.fsync(written.fileno())
            if digest.hexdigest() != md5.removesuffix(".dir"):
                raise ValueError(f"the object {md5} was damaged on its way")
            os.chmod(unfinished, 0o444)
            os.replace(unfinished, target)


def forget(name: str) -> None:
    """Remove the checkpoints of a training that nobody will go on with."""
    shutil.rmtree(make_home() / "trainings" / name, ignore_errors=True)


def make_home() -> Path:
    """The node's folder. Raises PermissionError: it is another user's."""
    given = os.environ.get(FOLDER)
    home = Path(given).expanduser().absolute() if given else Path(tempfile.gettempdir()) / f"brainseg-{os.getuid()}"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Another user may have put a link there, to another folder of ours. root's are an administrator's.
    if home.stat().st_uid != os.getuid() or home.lstat().st_uid not in (os.getuid(), 0):
        raise PermissionError(f"{home} is of another user: set {FOLDER} on the node")
    home.chmod(0o700)  # images of patients are in it
    return home


def _name_node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()


def _unpack(home: Path, snapshot: str, code: Any) -> tuple[Path, contextlib.ExitStack]:
    """The folder with the project's files, and a lock that keeps it. Others that nobody uses are removed."""
    from dulwich.bundle import read_bundle
    from dulwich.refs import HEADREF
    from dulwich.repo import Repo

    folder, using = home / "code", contextlib.ExitStack()
    clone = folder / snapshot
    folder.mkdir(exist_ok=True)
    with _locked(home / "unpack.lock"):
        using.enter_context(_locked(folder / f"{snapshot}.lock", fcntl.LOCK_SH))
        for other in set(folder.glob("*.lock")) - {folder / f"{snapshot}.lock"}:
            with contextlib.suppress(BlockingIOError), _locked(other, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(other.with_suffix(""), ignore_errors=True)
                other.unlink()
        if clone.exists():
            return clone, using
        import ray

        unfinished = folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        content = io.BytesIO(ray.get(code))
        with Repo.init(str(unfinished), mkdir=True) as repository, read_bundle(content) as bundle:
            bundle.store_objects(repository.object_store)
            (reference, commit) = next(iter(bundle.references.items()))
            repository.refs[reference] = commit
            repository.refs.set_symbolic_ref(HEADREF, reference)
            repository.get_worktree().reset_index()
        unfinished.rename(clone)
    return clone, using


@contextlib.contextmanager
def _locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    with open(path, "a") as held:
        fcntl.flock(held, how)
        yield


@contextlib.contextmanager
def _ended(child: subprocess.Popen[str]) -> Iterator[None]:
    """End a process at the end of the block, however that ends: it ends its training as Ctrl-C does."""
    try:
        yield
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE)
            child.kill()


def _read_pieces(name: str, path: Path) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as content:
        yield {"file": name, "piece": content.read(PIECE)}  # also of an empty file
        while piece := content.read(PIECE):
            yield {"file": name, "piece": piece}
