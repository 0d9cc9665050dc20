"""Remotes: what was pushed is done in a fresh clone; what is missing is said and can be mended."""

import logging
import shutil

import pytest
from conftest import ran, small
from ruamel.yaml import YAML

pytestmark = pytest.mark.slow
RUN = "results/miniature/segmenters/source-gta5/seed0"


@pytest.fixture(scope="module")
def endpoint():
    """An S3 server of this process, with a bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys).create_bucket(
        Bucket="madan"
    )
    yield address
    server.stop()


@pytest.fixture(scope="module")
def pushed(tmp_path_factory, endpoint):
    root = tmp_path_factory.mktemp("remote") / "pushed"
    repository = small(root)
    repository.env |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    repository.env |= {"AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"}
    repository.dvc("remote", "add", "-d", "store", "s3://madan/store")
    repository.dvc("remote", "modify", "store", "endpointurl", endpoint)
    repository.dvc("repro")
    repository.commit("Results")
    repository.dvc("push")
    return repository


def test_a_fresh_clone_pulls_from_s3_and_both_doors_do_nothing(pushed, tmp_path):
    clone = pushed.clone(tmp_path / "clone")
    clone.dvc("pull")
    assert "Nothing to be done" in clone.snakemake("-n")
    said = clone.dvc("repro")
    assert not ran(said)
    for name in ("results/miou.csv", f"{RUN}/weights.safetensors"):
        assert (clone.root / name).read_bytes() == (pushed.root / name).read_bytes()
    assert not clone.run("git", "status", "--porcelain").stdout


def test_tables_alone_can_be_pulled(pushed, tmp_path):
    clone = pushed.clone(tmp_path / "clone")
    clone.dvc("pull", "results/miou.csv", "results/metrics.json")
    assert (clone.root / "results/miou.csv").exists()
    assert not (clone.root / RUN).exists()
    # A table without what it was made from is read, not built upon.
    assert {RUN, "results/miou.csv"} < clone.planned()


def test_a_model_gone_from_the_cache_is_named_and_fetched_again(pushed, tmp_path):
    clone = pushed.clone(tmp_path / "clone")
    clone.dvc("pull")
    weights = f"{RUN}/weights.safetensors"
    tracked = clone.run("dvc", "ls", "-R", "--json", ".", RUN).stdout
    assert "weights.safetensors" in tracked
    found = YAML(typ="safe").load(tracked)
    md5 = next(each["md5"] for each in found if each["path"].endswith("weights.safetensors"))
    (clone.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()
    (clone.root / weights).unlink()
    said = clone.dvc("checkout", expect=255)
    assert "Is your cache up to date?" in said and "segmenters" in said
    clone.dvc("pull")
    assert (clone.root / weights).read_bytes() == (pushed.root / weights).read_bytes()
    assert "Nothing to be done" in clone.snakemake("-n")


def test_a_model_gone_from_cache_and_remote_is_trained_again(pushed, tmp_path):
    clone = pushed.clone(tmp_path / "clone")
    clone.dvc("pull")
    shutil.rmtree(clone.root / ".dvc/cache")
    (clone.root / RUN / "weights.safetensors").unlink()
    assert RUN in ran(clone.dvc("repro"))
    assert not clone.run("git", "status", "--porcelain").stdout
