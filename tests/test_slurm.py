"""Jobs through a real Slurm on this machine: pre-emption, time limits, restarts of its parts."""

import itertools
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import quick
from cluster import FOLDER, Cluster, missing, until
from conftest import PROJECT, World, params_yaml, tiny

reason = missing()
pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(reason), reason=reason or "")]

QUICK = {
    "slurm": ("--slurm-init-seconds-before-status-checks", "1"),
    "sbatch": ("--seconds-between-status-checks", "1"),
}
DRAWN = "data/miniature/gta5/certificate.json"
CYCLEGAN = "results/miniature/translators/cyclegan-gta5/seed0"
# Says who it is and waits for the file `go`; then makes the artefact as stand_in.py does.
HELD = """#!/bin/sh
echo "$SLURM_JOB_ID $SLURM_JOB_NODELIST $(cut -d ' ' -f 5 /proc/$$/stat)" >> started
while [ ! -e go ]; do sleep 0.1; done
exec {python} {stand_in} "$@"
"""
# Holds the GPU for a moment, and says when it did.
ON_GPU = """#!/bin/sh
begin=$(date +%s.%N)
sleep 1
echo "$SLURM_JOB_NODELIST:$CUDA_VISIBLE_DEVICES $begin $(date +%s.%N)" >> {seen}
exec {python} {stand_in} "$@"
"""
# Leaves when it is warned, as a training job does, the first time.
WARNED = """#!/bin/sh
echo "$(squeue -h -j $SLURM_JOB_ID -o %l)" >> limits
if [ "$(wc -l < limits)" -gt 1 ]; then exec {python} {stand_in} "$@"; fi
exec python3 -c 'import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(138))
signal.alarm(150)
signal.pause()'
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp(FOLDER))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(autouse=True)
def idle(cluster):
    """Each test finds the queue empty and both nodes idle, and leaves them so."""
    yield
    cluster.cancel_all()
    cluster.until_idle()


class Submitted:
    """A Snakemake that goes on in the background, and what it says."""

    def __init__(self, world: World, profile: str, *words: str):
        self.world = world
        self.path = world.root / "said"
        command = ["snakemake", "--workflow-profile", profile, *QUICK[profile], *words]
        with self.path.open("w") as out:
            self.process = subprocess.Popen(
                command, cwd=world.root, env=world.env, stdout=out, stderr=subprocess.STDOUT
            )

    @property
    def said(self) -> str:
        return self.path.read_text()

    def job(self) -> str:
        """Slurm's id of the latest job."""
        ids = re.compile(r"external jobid '(\d+)'|SLURM jobid (\d+)")
        return "".join(until(lambda: ids.findall(self.said))[-1])

    def end(self, expect: int = 0) -> str:
        try:
            assert self.process.wait(300) == expect, self.said[-5000:]
        finally:
            self.process.kill()
        return self.said


@pytest.fixture
def stand_in(cluster, tmp_path, raw):
    """Give a world in which `madan` is that script."""

    def make(script: str, name: str = "world", **more) -> World:
        root = tmp_path / name
        (root / "bin").mkdir(parents=True)
        world = World(root, tiny(raw, ("cyclegan-gta5",)))
        python = quick.server().python
        names = {"python": python, "stand_in": Path(__file__).with_name("stand_in.py")}
        (root / "bin/madan").write_text(script.format(**names, **more))
        (root / "bin/madan").chmod(0o755)
        world.env |= {"SLURM_CONF": cluster.env["SLURM_CONF"]}
        world.env["PATH"] = f"{root}/bin:{world.env['PATH']}"
        return world

    return make


def started(world: World, count: int = 1) -> list[list[str]]:
    """Job id, node and process group of every start of the held job, once so many are there."""
    path = world.root / "started"
    until(lambda: path.exists() and len(path.read_text().splitlines()) >= count)
    return [line.split() for line in path.read_text().splitlines()]


def go(world: World) -> None:
    (world.root / "go").touch()


def left_behind(world: World, profile: str) -> str:
    """Start the held job, kill the Snakemake that submitted it, and give the job's id."""
    run = Submitted(world, profile, DRAWN)
    job = started(world)[0][0]
    run.process.kill()
    run.process.wait()
    return job


def test_a_preempted_job_is_requeued_and_goes_on_without_a_retry(cluster, stand_in):
    world = stand_in(HELD)
    world.env["SBATCH_PARTITION"] = "low"
    run = Submitted(world, "sbatch", DRAWN)
    job = started(world)[0][0]
    whole = ("--exclusive", "--nodes=2", "--partition=main", "--output=/dev/null")
    hog = cluster.run("sbatch", "--parsable", *whole, "--wrap", "sleep 60").strip()
    until(lambda: cluster.state(hog) == "RUNNING")
    cluster.run("scancel", hog)
    assert [each for each, *_ in started(world, 2)] == [job, job]
    go(world)
    assert "Trying to restart" not in run.end()


def test_a_job_of_a_lost_node_goes_on_elsewhere_without_a_retry(cluster, stand_in):
    world = stand_in(HELD)
    run = Submitted(world, "sbatch", DRAWN)
    [[job, node, group]] = started(world)
    cluster.lose(node, int(group))
    assert started(world, 2)[1][:2] == [job, {"n1": "n2", "n2": "n1"}[node]]
    go(world)
    assert "Trying to restart" not in run.end()
    cluster.start_node(node)


def test_jobs_that_end_while_the_controller_is_away_are_not_forgotten(cluster, stand_in):
    worlds = {profile: stand_in(HELD, profile) for profile in ("slurm", "sbatch")}
    runs = {profile: Submitted(world, profile, DRAWN) for profile, world in worlds.items()}
    for world in worlds.values():
        started(world)
    cluster.stop("controller")
    for world in worlds.values():
        go(world)
        until((world.root / DRAWN).exists)
    time.sleep(3)
    cluster.start_controller()
    for profile, run in runs.items():
        assert "Trying to restart" not in run.end()
        assert len(started(worlds[profile])) == 1


def test_snakemake_started_again_takes_over_the_job_it_left_behind(cluster, stand_in):
    world = stand_in(HELD)
    job = left_behind(world, "sbatch")
    run = Submitted(world, "sbatch", DRAWN)
    assert run.job() == job
    go(world)
    run.end()
    assert len(started(world)) == 1


def test_what_was_finished_while_no_snakemake_was_there_is_not_made_again(cluster, stand_in):
    world = stand_in(HELD)
    job = left_behind(world, "sbatch")
    go(world)
    until(lambda: cluster.state(job) == "COMPLETED")
    assert "Nothing to be done" in Submitted(world, "sbatch", DRAWN).end()
    world.change("miniature.seed", 1)
    assert "seed was 0, is 1 (miniature/gta5)" in world.snakemake("-n", DRAWN)


def test_jobs_left_behind_are_stopped_by_the_line_of_the_document(cluster, stand_in):
    world = stand_in(HELD)
    job = left_behind(world, "slurm")
    document = (PROJECT / "docs/cluster.md").read_text()
    [line] = re.findall(r"^squeue --me .*scancel$", document, re.MULTILINE)
    world.run("bash", "-c", line)
    until(lambda: cluster.state(job) == "CANCELLED")
    run = Submitted(world, "slurm", DRAWN)
    assert job not in started(world, 2)[1]
    go(world)
    run.end()


def test_jobs_with_gpus_wait_for_gpus(cluster, stand_in, tmp_path):
    seen, target = tmp_path / "seen", f"{CYCLEGAN}/certificate.json"
    first = stand_in(ON_GPU, "slurm", seen=seen)
    first.change("resources.translate.gpus", 1)
    first.snakemake(
        *(f"{path}/certificate.json" for path in first.planned(target) if "prepared" in path)
    )
    gres = first.copy(tmp_path / "gres")
    gres.change("resources.gres", "gpu")
    worlds = {first: "slurm", gres: "slurm", first.copy(tmp_path / "sbatch"): "sbatch"}
    seen.unlink()
    for run in [Submitted(*each, target) for each in worlds.items()]:
        run.end()
    held = [line.split() for line in seen.read_text().splitlines()]
    assert len(held) == 3 and {gpu for gpu, *_ in held} == {"n1:0", "n2:0"}
    for one, other in itertools.combinations(held, 2):
        assert one[0] != other[0] or one[2] < other[1] or other[2] < one[1], "a GPU had two jobs"


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A tiny world made by Snakemake without a cluster."""
    params = tiny(params_yaml(), ("cyclegan-gta5",))
    world = World(tmp_path_factory.mktemp("local"), params).own_processes()
    world.snakemake("results/miou.csv")
    return world


def results(world: World) -> dict[str, bytes]:
    """Every file of a world's results and data."""
    return {
        str(path.relative_to(world.root)): path.read_bytes()
        for folder in ("results", "data")
        for path in sorted((world.root / folder).rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def longer(local, tmp_path_factory):
    """That world with a longer training, which saves no state unless it is asked to leave."""
    world = local.copy(tmp_path_factory.mktemp("longer") / "world")
    world.change("translators.cyclegan-gta5.steps", 60)
    world.change("training.save_every", 10**6)
    world.snakemake(f"{CYCLEGAN}/certificate.json")
    return world


def test_a_job_is_warned_before_its_time_is_up_and_gets_more_when_tried_again(
    cluster, stand_in, request
):
    world = stand_in(WARNED)
    world.change("resources.miniature.minutes", 1)
    submit = world.root / "profiles/sbatch/submit"
    assert "USR1@300" in submit.read_text()
    submit.write_text(submit.read_text().replace("USR1@300", "USR1@50"))
    run = Submitted(world, "sbatch", DRAWN)
    request.getfixturevalue("longer")  # while the minute goes by, for the tests that follow
    until(lambda: "Trying to restart" in run.said, 90)
    assert run.end().count("Trying to restart") == 1
    assert (world.root / "limits").read_text().split() == ["1:00", "2:00"]


def test_the_table_made_on_slurm_equals_the_local_one_byte_for_byte(cluster, local, tmp_path):
    world = World(tmp_path, local.params).own_processes()
    world.env["SLURM_CONF"] = cluster.env["SLURM_CONF"]
    Submitted(world, "sbatch", "results/miou.csv").end()
    assert "results/miou.csv" in results(local)
    assert results(world) == results(local)


def test_two_tasks_of_srun_train_one_run_as_two_processes_do(cluster, local, tmp_path):
    made = {}
    for srun in (True, False):
        world = local.copy(tmp_path / f"{srun}")
        # No name server knows the nodes of this cluster.
        world.env |= {"SLURM_CONF": cluster.env["SLURM_CONF"], "MASTER_ADDR": "127.0.0.1"}
        shutil.rmtree(world.root / CYCLEGAN)
        command = "madan", "translate", "cyclegan-gta5"
        if srun:
            world.run("srun", "--ntasks=2", *command)
        else:
            world.run(*command, "--processes", "2")
        made[srun] = (world.root / CYCLEGAN / "weights.safetensors").read_bytes()
    assert made[True] == made[False]
    assert made[True] != (local.root / CYCLEGAN / "weights.safetensors").read_bytes()


TOLD = {
    "slurm": ("slurm", ["--signal=USR1"]),  # as --signal=USR1@300 does: to all steps
    "sbatch": ("sbatch", ["--batch", "--signal=USR1"]),  # as --signal=B:USR1@300: to the shell
    "cancelled": ("sbatch", []),
}


def test_a_training_job_saves_when_it_is_told_and_the_next_goes_on_to_the_same_bytes(
    cluster, local, longer, tmp_path
):
    def interrupted(case: str) -> None:
        profile, signals = TOLD[case]
        world = local.copy(tmp_path / case)
        shutil.rmtree(world.root / "state")
        world.env["SLURM_CONF"] = cluster.env["SLURM_CONF"]
        world.write(longer.params)
        run = Submitted(world, profile, f"{CYCLEGAN}/certificate.json")
        lock = world.root / "state/miniature/translators/cyclegan-gta5/seed0/lock"
        until(lock.exists)
        time.sleep(0.3)
        assert not list(lock.parent.glob("*.pt")), case
        cluster.run("scancel", *signals, run.job())
        until(lambda: list(lock.parent.glob("*.pt")))
        assert run.end().count("Trying to restart") == 1, case
        log = (world.root / "logs/miniature/translators/cyclegan-gta5/seed0.log").read_text()
        assert "goes on from step" in log, case
        for name in ("weights.safetensors", "log.csv", "certificate.json"):
            path = f"{CYCLEGAN}/{name}"
            assert (world.root / path).read_bytes() == (longer.root / path).read_bytes(), name

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(interrupted, TOLD)) == [None] * 3
