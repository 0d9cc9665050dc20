"""DVC and Snakemake as one system: two doors, one room. A stand-in makes the artefacts at once."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import NOTHING, processes, ran, small, stale

pytestmark = pytest.mark.slow
RESULTS = "results/miniature"
FROM_TRANSLATION = {
    f"{RESULTS}/translators/cyclegan-gta5/seed0",
    f"{RESULTS}/stylised/cyclegan-gta5/gta5/seed0",
    f"{RESULTS}/segmenters/cyclegan-gta5/seed0",
    f"{RESULTS}/scores/segmenters/cyclegan-gta5/cityscapes/test/seed0",
    "results/miou.csv",
}


def assert_nothing_to_do(repository):
    assert NOTHING in repository.snakemake("-n")
    lock = (repository.root / "dvc.lock").read_text()
    assert not ran(repository.dvc("repro"))
    assert (repository.root / "dvc.lock").read_text() == lock
    assert "changed outs" not in repository.dvc("status")


def test_the_whole_life_of_a_repository(tmp_path):
    origin = small(tmp_path / "origin", ("source-gta5", "cyclegan-gta5"))
    work = origin.clone(tmp_path / "work")
    work.dvc("remote", "add", "-d", "store", tmp_path / "store")
    work.commit("A remote")
    assert ran(work.dvc("repro")) >= FROM_TRANSLATION
    first = work.commit("First results")
    assert_nothing_to_do(work)

    work.change("training.translator.lr", 0.5)
    assert ran(work.dvc("repro")) == FROM_TRANSLATION
    second = work.commit("Another rate")
    tables = {second: (work.root / "results/miou.csv").read_text()}

    said = work.dvc("exp", "run", "-n", "longer", "-S", "training.translator.steps=5")
    assert ran(said) == FROM_TRANSLATION
    third = work.commit("A longer training")
    tables[third] = (work.root / "results/miou.csv").read_text()

    work.run("git", "checkout", "-q", first)
    work.dvc("checkout")
    tables[first] = (work.root / "results/miou.csv").read_text()
    assert len(set(tables.values())) == 3
    assert_nothing_to_do(work)
    for commit in (second, third):
        work.run("git", "checkout", "-q", commit)
        work.dvc("checkout")
        assert (work.root / "results/miou.csv").read_text() == tables[commit]
    assert NOTHING in work.snakemake("-n")
    work.dvc("push")
    assert not work.run("git", "status", "--porcelain").stdout

    elsewhere = work.clone(tmp_path / "else where")
    assert not (elsewhere.root / "results").exists()
    elsewhere.dvc("pull")
    assert (elsewhere.root / "results/miou.csv").read_text() == tables[third]
    assert_nothing_to_do(elsewhere)

    shutil.rmtree(elsewhere.root / ".snakemake")
    elsewhere.change("training.translator.lr", 0.25)
    assert elsewhere.planned() == FROM_TRANSLATION
    said = elsewhere.dvc("repro")
    assert "training.translator.lr was 0.5, is 0.25" in said and ran(said) == FROM_TRANSLATION


def test_what_snakemake_made_is_done_for_dvc(tmp_path, committed):
    """Both doors leave the same digests of every out, records included."""
    other = committed.clone(tmp_path / "other")
    lock = (other.root / "dvc.lock").read_text()
    other.snakemake("results/miou.csv", "--cores", "1")
    assert not ran(other.dvc("repro"))
    assert (other.root / "dvc.lock").read_text() == lock


def test_no_out_holds_a_time_or_a_host(repository):
    host = os.uname().nodename.encode()
    outs = [p for p in (repository.root / "results").rglob("*") if p.is_file()]
    assert len(outs) > 5
    for path in outs:
        text = path.read_bytes()
        assert host not in text and str(repository.root).encode() not in text, path


# --- Experiments -----------------------------------------------------------------------------


def test_experiments_run_only_what_their_key_concerns(repository):
    key = "training.segmenter.lr=1e-05"
    made = ran(repository.dvc("exp", "run", "--temp", "-n", "slow", "-S", key))
    assert made == {
        f"{RESULTS}/segmenters/source-gta5/seed0",
        f"{RESULTS}/scores/segmenters/source-gta5/cityscapes/test/seed0",
        "results/miou.csv",
    }
    assert not repository.run("git", "status", "--porcelain").stdout
    table = repository.dvc("exp", "show", "--only-changed", "--csv")
    columns, *lines = [line for line in table.splitlines() if "," in line]
    keys = [name for name in columns.split(",") if "." in name and "/" not in name]
    assert keys == ["training.segmenter.lr"]
    assert any(line.startswith("slow,") and "1e-05" in line for line in lines)
    changed = repository.dvc("params", "diff", "HEAD", "slow")
    assert changed.count("params.yaml") == 1 and "training.segmenter.lr" in changed
    repository.dvc("exp", "apply", "slow")
    assert_nothing_to_do(repository)


def test_another_scale_is_an_experiment_that_touches_nothing_of_the_first(repository):
    for domain in ("gta5", "synthia", "cityscapes"):
        repository.change(f"scales.paper.domains.{domain}.shards", 1)
        (repository.root / "data/raw" / domain).mkdir(parents=True)
    (repository.root / "data/raw/vgg16-397923af.pth").touch()
    made = ran(repository.dvc("exp", "run", "-n", "paper", "-S", "scale=paper"))
    assert "results/paper/segmenters/source-gta5/seed0" in made
    assert not {path for path in made if "miniature" in path}
    repository.change("scale", "miniature")
    assert repository.planned() == {"results/miou.csv"}


# --- Who is at work --------------------------------------------------------------------------


class Running:
    """A command whose jobs wait until they are let go or killed."""

    def __init__(self, repository, *words):
        self.gate = repository.root / "gate"
        folder = repository.root.with_name("slow-bin")
        until = f'while [ ! -e "{self.gate}" ]; do sleep 0.1; done'
        wait = f"case $1 in check-results|accept) ;; *) {until};; esac"
        repository.stand_in(folder, before=wait)
        self.repository = repository
        self.process = subprocess.Popen(
            words, cwd=repository.root, env=repository.env, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self.jobs() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.jobs()

    def jobs(self) -> list[int]:
        return processes(self.repository.root, "--planned")

    def let_go(self) -> int:
        self.gate.touch()
        return self.process.wait(timeout=120)


@pytest.fixture
def waiting(repository):
    """A repository with one job to do, which waits at a gate."""
    repository.change("training.segmenter.lr", 0.5)
    started = []

    def start(*words):
        started.append(Running(repository, *words))
        return started[-1]

    yield repository, start
    for running in started:
        running.gate.touch()
        running.process.wait(timeout=120)


def test_a_second_door_opened_during_dvc_repro_says_so_and_harms_nothing(waiting, monkeypatch):
    repository, start = waiting
    running = start("dvc", "repro")
    jobs = running.jobs()
    assert "is busy, it is being blocked by" in repository.dvc("repro", expect=255)
    assert "another snakemake is at work in this folder" in repository.snakemake(expect=1)
    assert running.jobs() == jobs
    assert running.let_go() == 0
    assert stale(repository, monkeypatch) == []
    assert not ran(repository.dvc("repro"))


def test_dvc_repro_during_snakemake_says_so_and_stops_nothing(waiting, monkeypatch):
    repository, start = waiting
    running = start("snakemake")
    jobs = running.jobs()
    said = repository.run("dvc", "repro", expect=255).stdout
    assert "another snakemake is at work in this folder" in said and "Traceback" not in said
    assert running.jobs() == jobs
    assert running.let_go() == 0
    assert stale(repository, monkeypatch) == []


# --- Network ---------------------------------------------------------------------------------


def test_neither_tool_calls_the_network(repository, tmp_path):
    """An audit hook in every Python process writes down who looks up or connects to a host."""
    log, hooks = tmp_path / "calls", tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(
        "import sys\n"
        "def hook(event, args):\n"
        "    local = event == 'socket.connect' and isinstance(args[1], (str, bytes))\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo') and not local:\n"
        f"        open({str(log)!r}, 'a').write(f'{{event}} {{args}}\\n')\n"
        "sys.addaudithook(hook)\n"
    )
    repository.own_processes().env["PYTHONPATH"] = str(hooks)
    repository.stand_in(tmp_path / "bin", python=sys.executable)
    call = "import socket; socket.socket(socket.AF_INET).connect_ex(('127.0.0.1', 9))"
    repository.run("python", "-c", call)
    assert "127.0.0.1" in log.read_text()
    log.unlink()
    repository.change("training.segmenter.lr", 0.5)
    repository.dvc("repro")
    repository.dvc("status")
    repository.snakemake()
    assert not log.exists(), log.read_text()
