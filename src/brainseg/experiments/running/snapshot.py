"""What travels to a node and back in Git bundles: the project's files as one commit without history, and experiments.

The commit has the tracked files as they are in the workspace, and dvc.lock, which may not be committed yet: what ``dvc
exp run`` would run here. It has no parent, since the history is of no use to a node. What a node makes of it becomes an
experiment on the commit that the workspace was on, as if it had run here.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from brainseg.errors import IntegrityError
from brainseg.experiments import integrity

if TYPE_CHECKING:
    from dulwich.objects import ObjectID
    from dulwich.refs import Ref

LOCK = "dvc.lock"
BRANCH = b"refs/heads/snapshot"


class Snapshot(NamedTuple):
    """``commit``: the one that travels; ``base``: that of the workspace; ``below``: the project in the repository."""

    commit: str
    base: str
    below: str


class _Pack:
    """Objects to be written, as dulwich's Bundle wants them."""

    def __init__(self, objects: list[Any], object_format: Any):
        self.objects, self.object_format = objects, object_format

    def __len__(self) -> int:
        return len(self.objects)

    def iter_unpacked(self) -> Any:
        return iter(self.objects)

    def close(self) -> None:
        pass


def take(root: Path) -> Snapshot:
    """Make the commit. The same files give the same one; index, branches and files stay as they are.

    Raises:
        DataError: the project is in no Git repository, or in one without a commit.
    """
    import pygit2
    from pygit2.enums import FileStatus

    integrity.check_git(root)
    repository = pygit2.Repository(pygit2.discover_repository(str(root.resolve())))
    below = root.resolve().relative_to(Path(repository.workdir).resolve())
    base, index = repository.head.peel(pygit2.Commit), repository.index
    for path, status in repository.status(untracked_files="no").items():
        if status & FileStatus.WT_DELETED:
            index.remove(path)
        elif status & (FileStatus.WT_MODIFIED | FileStatus.WT_TYPECHANGE):
            index.add(path)
    if (root / LOCK).exists():
        index.add((below / LOCK).as_posix())
    who = pygit2.Signature("brainseg", "brainseg@localhost", base.commit_time, 0)
    commit = repository.create_commit(None, who, who, "The workspace, for a node", index.write_tree(), [])
    return Snapshot(str(commit), str(base.id), below.as_posix())


def pack(root: Path, commit: str) -> bytes:
    """A bundle of a commit alone, as ``git bundle`` writes it."""
    from dulwich.objects import ObjectID
    from dulwich.refs import Ref

    return _write(root, Ref(BRANCH), ObjectID(commit.encode()), None)


def forget(clone: Path, snapshot: str, name: str) -> None:
    """Drop an experiment of this name that ran on the snapshot before, if there is one: DVC would refuse another."""
    from dulwich.repo import Repo

    with Repo.discover(str(clone)) as repository:
        repository.refs.remove_if_equals(_name_reference(snapshot, name), None)


def pack_experiment(clone: Path, snapshot: str, name: str) -> bytes:
    """A bundle of what an experiment has that the snapshot, on which it was run, has not."""
    from dulwich.objects import ObjectID
    from dulwich.repo import Repo

    reference = _name_reference(snapshot, name)
    with Repo.discover(str(clone)) as repository:
        made = repository.refs[reference]
    return _write(clone, reference, made, ObjectID(snapshot.encode()))


def _write(folder: Path, reference: "Ref", commit: "ObjectID", before: "ObjectID | None") -> bytes:
    from dulwich.bundle import Bundle, write_bundle
    from dulwich.repo import Repo

    with Repo.discover(str(folder)) as repository, Bundle() as bundle:
        _, objects = repository.generate_pack_data({before} if before else set(), {commit})
        bundle.version, bundle.capabilities, bundle.references = 2, {}, {reference: commit}
        bundle.prerequisites = [(before, b"")] if before else []
        bundle.pack_data = _Pack(list(objects), repository.object_format)
        stream = io.BytesIO()
        write_bundle(stream, bundle)
    return stream.getvalue()


def is_taken(root: Path, snapshot: Snapshot, name: str) -> bool:
    """Whether the commit that the workspace is on has an experiment of this name."""
    from dulwich.repo import Repo

    with Repo.discover(str(root)) as repository:
        return _name_reference(snapshot.base, name) in repository.refs


def take_over(root: Path, snapshot: Snapshot, name: str, content: bytes) -> None:
    """Make the experiment that a node ran one of this repository: a commit on ``snapshot.base``, and its reference.

    Raises:
        IntegrityError: there is another one of its name.
    """
    from dulwich.bundle import read_bundle
    from dulwich.objects import Commit, ObjectID
    from dulwich.repo import Repo

    with Repo.discover(str(root)) as repository, read_bundle(io.BytesIO(content)) as bundle:
        bundle.store_objects(repository.object_store)
        made = Commit.from_string(repository[bundle.references[_name_reference(snapshot.commit, name)]].as_raw_string())
        made.parents = [ObjectID(snapshot.base.encode())]
        reference = _name_reference(snapshot.base, name)
        before = repository[repository.refs[reference]] if reference in repository.refs else None
        if isinstance(before, Commit):
            if before.tree == made.tree:
                return
            raise IntegrityError(name, "is there already, with other results", f"dvc exp remove {name}, run again")
        repository.object_store.add_object(made)
        repository.refs[reference] = made.id


def _name_reference(commit: str, name: str) -> "Ref":
    """DVC's reference of an experiment on a commit."""
    from dulwich.refs import Ref

    return Ref(f"refs/exps/{commit[:2]}/{commit[2:]}/{name}".encode())
