"""Old results never pass for today's, through either door; what a person can answer for."""

import os
import shutil

import pytest
from conftest import NOTHING, ran, stale

pytestmark = pytest.mark.slow
RESULTS = "results/miniature"
RUN = f"{RESULTS}/segmenters/source-gta5/seed0"


def test_results_of_other_settings_that_dvc_was_told_to_believe_are_made_anew(
    repository, monkeypatch
):
    repository.change("training.segmenter.lr", 0.5)
    repository.dvc("commit", "--force")
    for words in (("repro",), ("repro", "pipeline")):
        repository.dvc("commit", "--force")
        repository.dvc(*words)
        assert stale(repository, monkeypatch) == []
    assert NOTHING in repository.snakemake("-n")


def test_a_table_that_was_edited_by_hand_is_made_anew_by_either_door(repository, monkeypatch):
    table = repository.root / "results/miou.csv"
    before = table.read_bytes()
    for door in (repository.snakemake, lambda: repository.dvc("repro")):
        table.write_text("row\nbetter\n")
        assert "results/miou.csv" in repository.run("madan", "check-results", expect=1).stdout
        assert "results/miou.csv" in ran(door())
        assert table.read_bytes() == before


def test_records_lost_and_times_shuffled_make_nothing_anew(repository):
    shutil.rmtree(repository.root / ".snakemake")
    paths = sorted((repository.root / "results").rglob("certificate.json"), reverse=True)
    for number, path in enumerate(paths):
        os.utime(path, (1e9 + number, 1e9 + number))
    assert NOTHING in repository.snakemake("-n")


def test_other_settings_or_other_bytes_cannot_be_accepted(repository):
    repository.change("training.segmenter.lr", 0.5)
    said = repository.run("madan", "accept", "--code", RUN, expect=1).stdout
    assert "cannot be accepted, because training.segmenter.lr was 0.002, is 0.5" in said
    repository.run("git", "checkout", "-q", "params.yaml")
    with (repository.root / RUN / "log.csv").open("a") as file:
        file.write("1")
    assert "its files have" in repository.run("madan", "accept", RUN, expect=1).stdout


def test_a_change_of_code_can_be_accepted_and_leaves_a_trace(repository):
    path = repository.root / "madan/methods/segmentation.py"
    path.write_text(path.read_text() + "\n\nNOTHING = None\n")
    assert RUN in repository.planned()
    repository.env["PYTHONPATH"] = "."
    assert "made by other code" in repository.run("madan", "accept", "results", expect=1).stdout
    repository.run("madan", "accept", "--code", "results")
    assert '"accepted"' in (repository.root / RUN / "certificate.json").read_text()
    # Only the table is written again: it shows the code behind its rows.
    said = repository.snakemake("-n")
    assert ran(said) == {"results/miou.csv"}, said[:1500]


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
    said = repository.snakemake("-n")
    assert "scores/segmenters/source-gta5/cityscapes/val" in said and "figures/curves" in said


def test_a_removed_artefact_is_made_again_by_either_door(repository):
    shutil.rmtree(repository.root / RESULTS / "segmenters/source-gta5")
    expected = {
        RUN,
        f"{RESULTS}/scores/segmenters/source-gta5/cityscapes/test/seed0",
        "results/miou.csv",
    }
    assert repository.planned() == expected
    assert ran(repository.dvc("repro")) == expected
    assert not repository.run("git", "status", "--porcelain").stdout
