"""Remotes: the model from weights/ in the repository, without an account; everything else over S3."""

import shutil
import sys

import pytest

from brainseg.experiments import repro
from tests.support import toy_pipeline
from tests.support.toy_pipeline import MODEL, flip

pytestmark = pytest.mark.slow
ACCOUNT = {"AWS_ACCESS_KEY_ID": "toy", "AWS_SECRET_ACCESS_KEY": "toy", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def released(tmp_path):
    """A repository whose model was pushed (as `make push` does) and whose weights/ are committed."""
    repository = toy_pipeline.create(tmp_path / "maker" / "toy")
    code, output = repository.dvc("push", *MODEL)
    assert code == 0, output
    repository.git("add", "weights")
    repository.git("commit", "--quiet", "--message", "model")
    return repository


@pytest.fixture
def bucket():
    """A client of an S3 on loopback that has one empty bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    account = {name.lower(): value for name, value in ACCOUNT.items() if name != "AWS_DEFAULT_REGION"}
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **account)
    client.create_bucket(Bucket="brainseg")
    yield client
    server.stop()


def use(endpoint, repository):
    """Make the bucket the default remote: the commands of docs/how-to/remotes.md."""
    for command in (
        ["remote", "add", "--default", "storage", "s3://brainseg/store"],
        ["remote", "modify", "storage", "verify", "true"],
        ["remote", "modify", "storage", "endpointurl", endpoint],
    ):
        assert repository.dvc(*command)[0] == 0
    repository.git("commit", "--quiet", "--all", "--message", "remote")
    repository.environment |= ACCOUNT


def test_only_the_model_is_pushed(released):
    objects = [path for path in (released.folder / "weights").rglob("*") if path.is_file()]
    assert {path.read_bytes() for path in objects} == {(released.folder / name).read_bytes() for name in MODEL}


def test_a_stranger_pulls_the_model_without_an_account(released, tmp_path):
    stranger = released.clone(tmp_path / "some/where/else/toy")
    code, output = stranger.dvc("pull", *MODEL)
    assert code == 0, output
    for name in MODEL:
        assert (stranger.folder / name).read_bytes() == (released.folder / name).read_bytes()
    assert not (stranger.folder / "data").exists() or not list((stranger.folder / "data").glob("*.npy"))


def test_in_a_zip_of_the_sources_the_way_to_the_model_is_told(released, tmp_path):
    unpacked = released.clone(tmp_path / "unpacked/toy")
    shutil.rmtree(unpacked.folder / ".git")
    pull = (sys.executable, "-m", repro.DVC, "pull", *MODEL)
    code, output = unpacked.run(*pull)
    assert code == 2 and "is in no Git repository" in output
    command = output.split("Fix: ")[1].strip()
    assert unpacked.run("sh", "-c", command)[0] == 0
    code, output = unpacked.run(*pull)
    assert code == 0 and (unpacked.folder / MODEL[0]).stat().st_nlink == 1, output


def test_a_stranger_with_the_data_does_not_train_again(released, tmp_path):
    stranger = released.clone(tmp_path / "some/where/else/toy")
    stranger.dvc("pull", *MODEL)
    code, output = stranger.dvc("repro")
    assert code == 0, output
    assert "Running stage 'data'" in output and "Running stage 'train'" not in output
    assert stranger.git("status", "--porcelain") == ""


def test_v3_a_flipped_bit_in_the_released_weights_is_not_pulled(released, tmp_path):
    stranger = released.clone(tmp_path / "stranger/toy")
    for path in (stranger.folder / "weights").rglob("*/*/*"):
        if path.is_file():
            flip(path)
    code, output = stranger.brainseg("verify-data")
    assert code == 4 and output.count("git checkout") == 2
    code, output = stranger.dvc("pull", *MODEL)
    assert code != 0 and "missing-files" in output  # DVC deletes a changed object from a remote that it verifies
    assert not (stranger.folder / MODEL[0]).exists()
    stranger.git("checkout", "weights")
    assert stranger.dvc("pull", *MODEL)[0] == 0


def test_s3_push_and_pull(released, bucket, tmp_path):
    use(bucket.meta.endpoint_url, released)
    code, output = released.dvc("push")
    assert code == 0, output
    colleague = released.clone(tmp_path / "colleague/toy", **ACCOUNT)
    code, output = colleague.dvc("pull")
    assert code == 0, output
    for name in ("data/images.npy", *MODEL):
        assert (colleague.folder / name).read_bytes() == (released.folder / name).read_bytes()
    code, output = colleague.dvc("status")
    assert "up to date" in output


def test_v3_a_flipped_bit_in_s3_is_not_pulled(released, bucket, tmp_path):
    use(bucket.meta.endpoint_url, released)
    assert released.dvc("push", "data/images.npy")[0] == 0
    (item,) = bucket.list_objects_v2(Bucket="brainseg", Prefix="store/files")["Contents"]
    bucket.put_object(Bucket="brainseg", Key=item["Key"], Body=b"flipped")
    colleague = released.clone(tmp_path / "colleague/toy", **ACCOUNT)
    assert colleague.dvc("pull", "data/images.npy")[0] != 0
    assert not (colleague.folder / "data/images.npy").exists()
    assert released.dvc("push", "data/images.npy")[0] == 0
