"""Stale results never pass for fresh, through either door; what a person can answer for."""

import os
import shutil
import subprocess

import pytest
from conftest import NOTHING, SKIPPED, ran, stale

pytestmark = pytest.mark.slow
RESULTS = "results/miniature"
EDIT = "edit"
LOSE = "lose .snakemake"
SHUFFLE = "shuffle times"
REPRO, SNAKEMAKE, COMMIT = "dvc repro", "snakemake", "dvc commit --force"
CHECKOUT, BACK, KEYS_BACK = (
    "dvc checkout --force",
    "git checkout -q .",
    "git checkout -q params.yaml",
)


@pytest.mark.parametrize(
    "steps",
    [
        [EDIT, COMMIT, LOSE, SNAKEMAKE, REPRO],
        [EDIT, SNAKEMAKE, COMMIT, KEYS_BACK, CHECKOUT, REPRO],
        [EDIT, REPRO, BACK, LOSE, CHECKOUT, SHUFFLE, SNAKEMAKE, REPRO],
        [EDIT, SNAKEMAKE, LOSE, BACK, CHECKOUT, EDIT, REPRO],
        [EDIT, COMMIT, CHECKOUT, LOSE, BACK, SHUFFLE, REPRO],
    ],
    ids=lambda steps: " ".join(step.split()[-1] for step in steps),
)
def test_no_order_of_commands_passes_stale_results_off_as_fresh(steps, repository, monkeypatch):
    """A door that opens (exit code 0) leaves what params.yaml says; one that does not says why."""
    for step in steps:
        if step == EDIT:
            repository.change("training.segmenter.lr", 0.5)
        elif step == LOSE:
            shutil.rmtree(repository.root / ".snakemake")
        elif step == SHUFFLE:
            paths = sorted((repository.root / "results").rglob("*"), reverse=True)
            for number, path in enumerate(paths):
                os.utime(path, (1e9 + number, 1e9 + number))
        else:
            done = repository.run(*step.split(), expect=None)
            if step not in (REPRO, SNAKEMAKE):
                assert done.returncode == 0, done.stdout
            elif done.returncode == 0:
                assert stale(repository, monkeypatch) == []
            else:
                assert stale(repository, monkeypatch)
                assert "/certificate.json" in done.stdout and "now" in done.stdout


def test_results_of_other_settings_that_dvc_was_told_to_believe_are_refused(repository):
    repository.change("training.segmenter.lr", 0.5)
    said = repository.dvc("commit", expect=None, stdin=subprocess.DEVNULL)
    assert "changed" in said and "--force" in said
    repository.dvc("commit", "--force")
    said = repository.dvc("repro", expect=255)
    assert SKIPPED in said
    assert f"{RESULTS}/segmenters/source-gta5/seed0/certificate.json" in said
    repository.snakemake()
    repository.dvc("repro")


def test_records_lost_and_times_shuffled_make_nothing_anew(repository):
    shutil.rmtree(repository.root / ".snakemake")
    paths = sorted((repository.root / "results").rglob("certificate.json"), reverse=True)
    for number, path in enumerate(paths):
        os.utime(path, (1e9 + number, 1e9 + number))
    assert NOTHING in repository.snakemake("-n")


def test_vouching_gives_the_records_back(repository):
    shutil.rmtree(repository.root / ".snakemake")
    said = repository.run("madan", "vouch", "data", "results").stdout
    assert f"vouched: {RESULTS}/segmenters/source-gta5/seed0/certificate.json" in said
    assert NOTHING in repository.snakemake("-n")
    repository.change("training.segmenter.lr", 0.5)
    assert f"{RESULTS}/segmenters/source-gta5/seed0" in repository.planned()


def test_nobody_can_vouch_for_other_settings_or_other_bytes(repository):
    run = f"{RESULTS}/segmenters/source-gta5/seed0"
    repository.change("training.segmenter.lr", 0.5)
    said = repository.run("madan", "vouch", "--code", run, expect=1).stdout
    assert f"{run}/certificate.json was made with other settings" in said
    repository.run("git", "checkout", "-q", "params.yaml")
    with (repository.root / run / "log.csv").open("a") as file:
        file.write("1")
    assert "its files hold" in repository.run("madan", "vouch", run, expect=1).stdout


def test_a_change_of_code_can_be_vouched_for_and_leaves_a_trace(repository):
    shutil.rmtree(repository.root / ".snakemake")
    path = repository.root / "madan/segmentation.py"
    path.write_text(path.read_text() + "\n\nNOTHING = None\n")
    run = f"{RESULTS}/segmenters/source-gta5/seed0/certificate.json"
    repository.env["PYTHONPATH"] = "."
    said = repository.snakemake("-n", expect=1)
    assert f"madan vouch --code {run}" in said
    assert "made by other code" in repository.run("madan", "vouch", "results", expect=1).stdout
    repository.run("madan", "vouch", "--code", "results")
    assert '"vouched"' in (repository.root / run).read_text()
    assert NOTHING in repository.snakemake("-n")


def test_what_was_made_by_name_follows_the_settings_through_dvc_and_is_guarded(repository):
    row = {"row": "x", "setting": "", "run": "segmenters/source-gta5"}
    repository.change("tables.other", {"target": "cityscapes", "rows": [row]})
    score = f"{RESULTS}/scores/segmenters/source-gta5/cityscapes/val/seed0/certificate.json"
    curves = {"shows": "training", "runs": ["translators/cyclegan-gta5"]}
    repository.change("figures.curves", curves)
    figure = f"{RESULTS}/figures/curves/certificate.json"
    repository.snakemake("results/tables/other.csv", score, figure)
    repository.change("training.segmenter.lr", 0.5)
    repository.change("training.translator.lr", 0.5)
    made = ran(repository.dvc("repro"))
    assert "results/tables/other.csv" in made and "results/miou.csv" in made
    # Nothing that no table needs is trained for a picture's sake.
    assert not {path for path in made if "translators" in path or "figures" in path}
    shutil.rmtree(repository.root / ".snakemake")
    said = repository.snakemake("-n", expect=1)
    assert score in said and figure in said and "tables/other.digest" not in said


def test_a_removed_artefact_is_made_again_by_either_door(repository):
    shutil.rmtree(repository.root / RESULTS / "segmenters/source-gta5")
    expected = {
        f"{RESULTS}/segmenters/source-gta5/seed0",
        f"{RESULTS}/scores/segmenters/source-gta5/cityscapes/test/seed0",
        "results/miou.csv",
    }
    assert repository.planned() == expected
    assert ran(repository.dvc("repro")) == expected
    assert not repository.run("git", "status", "--porcelain").stdout
