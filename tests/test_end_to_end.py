"""A tiny world from drawing to table, through Snakemake, as a newcomer runs it."""

import csv
import os
import shlex
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from conftest import PROJECT, ROWS, World, params_yaml, processes, tiny
from PIL import Image
from test_project import commands

pytestmark = pytest.mark.slow
CYCLEGAN = "results/miniature/translators/cyclegan-gta5/seed0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    raw = params_yaml()
    world = World(tmp_path_factory.mktemp("whole world"), tiny(raw)).own_processes()
    world.snakemake("results/miou.csv")
    return world


def test_table_holds_a_line_for_each_row_with_its_protocol(finished):
    lines = list(csv.DictReader((finished.root / "results/miou.csv").open()))
    assert [line["row"] for line in lines] == list(ROWS)
    for line in lines:
        assert (line["scale"], line["split"], line["images"]) == ("miniature", "test", "8")
        assert line["resolution"] == "64x128" and line["target"] == "cityscapes"
        assert line["torch"] == torch.__version__
        assert 0 <= float(line["miou19"]) <= 100 and int(line["classes"]) <= 19
        assert len(line["settings"]) == len(line["data"]) == len(line["code"]) == 16
    assert len({line["settings"] for line in lines}) == 3
    assert (finished.root / "results/metrics.json").exists()


def test_second_run_does_nothing(finished):
    assert "Nothing to be done" in finished.snakemake("results/miou.csv")


def test_every_figure_is_drawn_labelled_by_its_runs_and_published(finished):
    """Of each kind one, of runs that the tiny table has."""
    figures = {
        "domains": {"shows": "shares"},
        "table": {"shows": "heatmap"},
        "classes": {"shows": "classes"},
        "confusion": {"shows": "confusion", "runs": ["adaptations/madan"]},
        "translation": {
            "shows": "translation", "runs": ["translators/cyclegan-gta5", "translators/madan"],
        },
        "qualitative": {"shows": "qualitative", "images": 2},
        "training": {"shows": "training", "runs": ["translators/madan", "adaptations/madan"]},
        "judges": {"shows": "discriminators", "runs": ["translators/madan", "adaptations/madan"]},
        "features": {"shows": "features", "images": 4},
        "graph": {"shows": "graph"},
    }  # fmt: skip
    before = finished.params
    finished.change("figures", figures)
    assert "out of date" in finished.run("madan", "publish", "shown", expect=1).stdout
    finished.snakemake("figures")
    for name in figures:
        for suffix in ("png", "pdf"):
            path = finished.root / f"results/miniature/figures/{name}/figure.{suffix}"
            assert 1000 < path.stat().st_size < 2_000_000, path
    finished.run("madan", "publish", "shown")
    published = {path.name for path in (finished.root / "shown").iterdir()}
    assert published == {*(f"{name}.png" for name in figures), "miou.csv", "metrics.json",
                         ".madan-publish.sha256"}  # fmt: skip
    finished.write(before)


def test_no_state_is_left_behind(finished):
    assert not list((finished.root / "state").rglob("*.pt"))
    assert not [path for path in finished.root.rglob(".*.new")]


def test_stylised_images_have_the_size_of_their_labels(finished):
    for shard in range(2):
        stylised = f"results/miniature/stylised/madan/synthia/seed0/{shard}/images.npy"
        labels = f"data/prepared/miniature/synthia/train-64x128/{shard}-of-2/labels.npy"
        shapes = [np.load(finished.root / path).shape for path in (stylised, labels)]
        assert shapes[0][:3] == shapes[1] == (4, 64, 128)


def test_cores_do_not_change_a_byte(finished, tmp_path):
    other = World(tmp_path, finished.params)
    other.snakemake("results/miou.csv", "--cores", "1")
    for name in ("results/miou.csv", "results/metrics.json", f"{CYCLEGAN}/weights.safetensors"):
        assert (finished.root / name).read_bytes() == (other.root / name).read_bytes(), name


def test_translate_killed_in_the_middle_ends_with_the_bits_of_an_uninterrupted_run(
    finished, tmp_path
):
    whole, killed = (finished.copy(tmp_path / name) for name in ("whole", "killed"))
    for world in (whole, killed):
        shutil.rmtree(world.root / CYCLEGAN)
        shutil.rmtree(world.root / "state")
        world.change("translators.cyclegan-gta5.steps", 40)
    whole.snakemake(f"{CYCLEGAN}/certificate.json")
    command = ["snakemake", "--cores", "1", f"{CYCLEGAN}/certificate.json"]
    with subprocess.Popen(
        command,
        cwd=killed.root,
        env=killed.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        deadline = time.monotonic() + 120
        while not list((killed.root / "state").rglob("*.pt")) and time.monotonic() < deadline:
            time.sleep(0.02)
        [job] = processes(killed.root, "translate")
        os.kill(job, signal.SIGKILL)
        assert running.wait() != 0
    assert list((killed.root / "state").rglob("*.pt"))
    assert not (killed.root / CYCLEGAN / "weights.safetensors").exists()
    killed.snakemake(f"{CYCLEGAN}/certificate.json")
    log = (killed.root / "logs/miniature/translators/cyclegan-gta5/seed0.log").read_text()
    assert "goes on from step" in log
    for name in ("weights.safetensors", "log.csv", "certificate.json"):
        assert (whole.root / CYCLEGAN / name).read_bytes() == (
            killed.root / CYCLEGAN / name
        ).read_bytes()


# Commands of the README and the tutorial that are not run here, and why.
ELSEWHERE = {
    "make setup": "installs",
    "make miou": "installs, then the command below it",
    "make test": "is what runs this",
    "make report": "test_report.py",
    "madan estimate": "test_estimate.py: tries every kind of job for seconds",
    "snakemake figures": "test_every_figure_is_drawn_labelled_by_its_runs_and_published",
    "dvc repro": "test_dvc.py",
    "dvc exp run -S training.segmenter.lr=0.001": "test_dvc.py",
}


def test_commands_of_readme_and_tutorial_work_in_their_order(finished):
    """After the world's own `snakemake results/miou.csv`; what they promise of files is there."""
    drawn = next(finished.root.glob("data/miniature/cityscapes/leftImg8bit/test/*/*.png"))
    (finished.root / "holiday").mkdir()
    with Image.open(drawn) as picture:
        picture.save(finished.root / "holiday/beach.png")
        picture.save(finished.root / "street.jpg")
    tools = "make|madan|snakemake|dvc|conda"
    texts = [(PROJECT / name).read_text() for name in ("docs/tutorial.md", "README.md")]
    lines = [line.replace("--cores 8 ", "").strip() for t in texts for line in commands(t, tools)]
    assert set(ELSEWHERE) < set(lines)
    said = {
        line: finished.run(*shlex.split(line)).stdout
        for line in dict.fromkeys(lines)
        if line not in ELSEWHERE
    }
    assert "tables/miou" in said["madan status"]
    assert "Nothing to be done" in said["snakemake -n results/miou.csv"]  # After `madan verify`.
    for path in ("labelIds/beach.png", "labelIds/street.png", "overlay/beach.jpg", "mosaic.png"):
        assert (finished.root / "seen" / path).exists(), path
    assert (finished.root / "styled/beach.png").exists()
    told = finished.run("madan", "predict", "street.jpg", "--model", "madam", expect=1).stdout
    assert "did you mean madan?" in told
