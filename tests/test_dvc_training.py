"""Either door trains the same bits, also when it was slammed shut in the middle."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import Repository, params_yaml, processes, ran, tiny

pytestmark = pytest.mark.slow
RUN = "results/miniature/segmenters/source-gta5/seed0"
BITS = ("results/miou.csv", "results/metrics.json", "results/miou.certificate.json",
        f"{RUN}/weights.safetensors", f"{RUN}/log.csv", f"{RUN}/certificate.json")  # fmt: skip


@pytest.fixture(scope="module")
def made_by_snakemake(tmp_path_factory):
    """One row, really trained, through Snakemake."""
    root = tmp_path_factory.mktemp("training") / "snakemake"
    root.mkdir()
    params = tiny(params_yaml(), ("source-gta5",))
    params["training"]["segmenter"]["steps"] = 40
    repository = Repository(root, params, stand_in=False)
    repository.snakemake("--cores", "8", "results/miou.csv")
    return repository


def bits(repository) -> dict[str, bytes]:
    return {name: (repository.root / name).read_bytes() for name in BITS}


def test_either_door_leaves_the_same_bytes_and_sees_the_other_s_work_as_done(
    made_by_snakemake, tmp_path
):
    other = made_by_snakemake.clone(tmp_path / "dvc")
    assert f"{RUN}" in ran(other.dvc("repro"))
    assert bits(other) == bits(made_by_snakemake)
    assert "Nothing to be done" in other.snakemake("--cores", "8", "results/miou.csv")
    assert not ran(made_by_snakemake.dvc("repro"))
    locks = [(each.root / "dvc.lock").read_text() for each in (other, made_by_snakemake)]
    assert locks[0] == locks[1]


@pytest.fixture
def training(made_by_snakemake, tmp_path):
    """A folder without results, whose `dvc repro` has just saved a state of the training."""
    repository = made_by_snakemake.copy(tmp_path / "copy").own_processes()
    shutil.rmtree(repository.root / "results")
    running = subprocess.Popen(
        ["dvc", "repro"], cwd=repository.root, env=repository.env,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((repository.root / "state").rglob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    jobs = processes(repository.root, "segment")
    assert jobs
    yield repository, running, jobs
    for pid in processes(repository.root):
        os.kill(pid, signal.SIGKILL)
    running.wait()


def kill_at_once(pids):
    """Kill processes none of which sees another end: DVC would write its locks, and be torn."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


def goes_on_to_the_same_bits(repository, whole):
    repository.dvc("repro")
    log = repository.root / "logs/miniature/segmenters/source-gta5/seed0.log"
    assert "goes on from step" in log.read_text()
    assert bits(repository) == bits(whole)


def test_dvc_repro_goes_on_after_its_job_was_killed(training, made_by_snakemake):
    repository, running, jobs = training
    for pid in jobs:
        os.kill(pid, signal.SIGKILL)
    assert running.wait() != 0
    assert not (repository.root / RUN / "weights.safetensors").exists()
    goes_on_to_the_same_bits(repository, made_by_snakemake)


def test_dvc_repro_goes_on_after_everything_was_killed(training, made_by_snakemake):
    repository, running, _ = training
    while alive := [pid for pid in processes(repository.root) if _lives(pid)]:
        kill_at_once(alive)
        running.poll()
    goes_on_to_the_same_bits(repository, made_by_snakemake)


def test_a_job_left_behind_and_its_successor_never_both_write(training, made_by_snakemake):
    repository, running, jobs = training
    for pid in jobs:
        os.kill(pid, signal.SIGSTOP)
    kill_at_once(set(processes(repository.root)) - set(jobs))
    running.wait()
    said = repository.dvc("repro", expect=255)
    assert "is being made by another process, which holds" in said
    assert all(_lives(pid) for pid in jobs)
    for pid in jobs:
        os.kill(pid, signal.SIGKILL)
    goes_on_to_the_same_bits(repository, made_by_snakemake)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
