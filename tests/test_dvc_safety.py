"""DVC and Snakemake: values that would reach a shell, caches of others, jobs left behind."""

import os
import shutil
import signal
import stat
import time
from pathlib import Path

import pytest
from conftest import ran, stale
from test_dvc import RESULTS, Running

pytestmark = pytest.mark.slow
RUN = f"{RESULTS}/segmenters/source-gta5/seed0"
EVIL = "x; touch pwned; $(touch pwned) `touch pwned`"


# --- Names are data --------------------------------------------------------------------------


def put(key, value):
    def change(params):
        *sections, last = key.split(".")
        for name in sections:
            params = params[name]
        params[last] = value

    return change


def rename(section, name):
    return lambda params: params[section].update({EVIL: params[section].pop(name)})


VALUES = {
    "scale": put("scale", EVIL),
    "gres": put("resources.gres", EVIL),
    "minutes": put("resources.segment.minutes", EVIL),
    "cpus": put("resources.segment.cpus", EVIL),
    "mem_mb": put("resources.segment.mem_mb", EVIL),
    "seeds": put("seeds", [EVIL]),
    "split": put("evaluation.split", EVIL),
    "size": put("domains.gta5.size", [EVIL, 64]),
    "shards": put("domains.gta5.shards", EVIL),
    "domain": rename("domains", "gta5"),
    "segmenter": rename("segmenters", "source-gta5"),
    "translator": rename("translators", "cyclegan-gta5"),
    "adaptation": rename("adaptations", "madan"),
    "figure": rename("figures", "translation"),
    "table": lambda params: params["tables"].update({EVIL: params["tables"]["miou"]}),
    "run of a row": put("tables.miou.rows", [{"row": "x", "setting": "", "run": EVIL}]),
}


@pytest.mark.parametrize("door", ["snakemake", "dvc"])
@pytest.mark.parametrize("value", VALUES)
def test_no_value_of_the_settings_is_run_by_a_shell(repository, value, door):
    params = repository.params
    VALUES[value](params)
    repository.write(params)
    before = {path for path in repository.root.glob("*")}
    words = ["snakemake", "--cores", "1"] if door == "snakemake" else ["dvc", "repro"]
    done = repository.run(*words, expect=None)
    assert done.returncode != 0
    assert not list(repository.root.rglob("pwned"))
    assert {path for path in repository.root.glob("*")} == before
    assert "madan: params.yaml" in done.stdout and "Traceback" not in done.stdout


# --- Caches and leftovers --------------------------------------------------------------------


def test_what_dvc_keeps_of_the_site_lies_in_the_project_and_no_other_user_may_write_it(repository):
    del repository.env["DVC_SITE_CACHE_DIR"]
    repository.dvc("status")
    repository.dvc("data", "status")
    places = [repository.root / ".dvc-site", *(repository.root / ".dvc-site").rglob("*")]
    assert len([path for path in places if path.is_dir()]) >= 3
    others = stat.S_IWOTH
    assert [path for path in places if path.stat().st_mode & others] == []
    assert not repository.run("git", "status", "--porcelain").stdout


def test_what_killed_jobs_leave_beside_results_is_no_part_of_them(repository):
    lock = (repository.root / "dvc.lock").read_text()
    folder = (repository.root / RUN).parent
    (folder / ".seed0.lock").touch()
    for name in (".seed0.new", ".seed0.old"):
        (folder / name).mkdir()
        (folder / name / "half").touch()
    assert "changed outs" not in repository.dvc("status")
    assert not ran(repository.dvc("repro"))
    assert (repository.root / "dvc.lock").read_text() == lock
    assert not repository.run("git", "status", "--porcelain").stdout


@pytest.mark.parametrize("name", ["results", "state", "logs"])
def test_git_ignores_results_that_are_a_link_to_another_disk(repository, tmp_path, name):
    repository.snakemake("-n")
    place = repository.root / name
    place.mkdir(exist_ok=True)
    shutil.move(place, tmp_path / "disk")
    place.symlink_to(tmp_path / "disk")
    assert not repository.run("git", "status", "--porcelain").stdout


# --- Jobs that fail, and jobs that are left behind ---------------------------------------------


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "end", ["exit 1", "kill -9 $$", "sleep 1; exit 1", "params"], ids=lambda end: end
)
def test_a_job_that_fails_or_is_refused_leaves_the_result_that_was_there(repository, tmp_path, end):
    before = bytes_of(repository.root / RUN)
    repository.change("training.segmenter.lr", 0.5)
    # Of params.yaml edited after the plan, the job itself refuses.
    changed = f"sed -i 's/lr: 0.5/lr: 0.25/' '{repository.root}/params.yaml'"
    fail = changed if end == "params" else end
    repository.stand_in(tmp_path / "bin", before=f'case "$1" in segment) {fail};; esac')
    said = repository.snakemake(expect=1)
    assert "Error in rule segment" in said
    assert bytes_of(repository.root / RUN) == before
    shutil.rmtree(tmp_path / "bin")
    repository.change("training.segmenter.lr", 0.5)
    assert RUN in ran(repository.snakemake())


@pytest.fixture
def orphan(repository):
    """Snakemake is killed alone while its training job waits at a gate."""
    before = bytes_of(repository.root / RUN)
    repository.change("training.segmenter.lr", 0.5)
    running = Running(repository, "snakemake")
    os.kill(running.process.pid, signal.SIGKILL)
    for pid in pids_of(repository, "snakemake"):
        os.kill(pid, signal.SIGKILL)
    running.process.wait(60)
    yield repository, running, before
    running.gate.touch()


def pids_of(repository, word):
    from conftest import processes

    found = []
    for pid in processes(repository.root):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(each.endswith(word.encode()) for each in words[:2]):
            found.append(pid)
    return found


def test_a_killed_snakemake_leaves_the_result_that_was_there(orphan):
    repository, running, before = orphan
    assert running.jobs()
    assert bytes_of(repository.root / RUN) == before


def test_what_an_orphan_made_is_taken_and_not_trained_anew(orphan, monkeypatch):
    repository, running, before = orphan
    running.gate.touch()
    deadline = time.monotonic() + 60
    while running.jobs() and time.monotonic() < deadline:
        time.sleep(0.05)
    made = bytes_of(repository.root / RUN)
    assert made != before
    again = ran(repository.snakemake())
    assert RUN not in again and "results/miou.csv" in again
    assert bytes_of(repository.root / RUN) == made
    assert stale(repository, monkeypatch) == []
