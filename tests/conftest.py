"""A tiny world: the project's own params.yaml with few images and steps, in its own folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from madan.config import Dataset
from madan.datasets import Pictures

PROJECT = Path(__file__).parent.parent
ROWS = ("source-gta5", "cyclegan-gta5", "madan")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def raw():
    """The mapping in the project's params.yaml, to be changed at will."""
    return YAML(typ="safe").load(PROJECT / "params.yaml")


def tiny(params: dict, rows: tuple[str, ...] = ROWS) -> dict:
    """Make everything that costs time small: 8 images, 3 steps, the rows given."""
    for splits in params["miniature"]["images"].values():
        splits.update(dict.fromkeys(splits, 8))
    for section in ("segmenter", "translator", "adaptation"):
        params["training"][section]["steps"] = 3
    for run in (*params["segmenters"].values(), *params["translators"].values()):
        run.pop("steps", None)
    params["training"]["adaptation"]["gate"] = 0
    params["domains"]["synthia"]["shards"] = 2
    params["training"]["save_every"] = 1
    params["networks"]["segmenter"].update(widths=[8] * 5, convs=[1] * 5, head=8)
    params["networks"]["generator"].update(ngf=4, blocks=1)
    params["networks"]["discriminator"].update(ndf=4)
    table = params["tables"]["miou"]
    table["rows"] = [row for row in table["rows"] if row["row"] in rows]
    params["tables"] = {"miou": table}
    return params


class World:
    """A folder with a Snakefile and params.yaml in which commands are run as a person runs them."""

    def __init__(self, root: Path, params: dict):
        self.root = root
        for name in ("Snakefile", "workflow", "profiles"):
            source = PROJECT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
        self.env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.env.pop("PYTHONPATH", None)
        self.write(params)

    @property
    def params(self) -> dict:
        return YAML(typ="safe").load(self.root / "params.yaml")

    def write(self, params: dict) -> None:
        with (self.root / "params.yaml").open("w") as file:
            YAML().dump(params, file)

    def change(self, key: str, value) -> None:
        params = self.params
        *sections, last = key.split(".")
        section = params
        for name in sections:
            section = section[name]
        section[last] = value
        self.write(params)

    def own_package(self) -> Path:
        """Work on a copy of the package, which a test may then edit."""
        shutil.copytree(
            PROJECT / "madan", self.root / "madan", ignore=shutil.ignore_patterns("__pycache__")
        )
        self.env["PYTHONPATH"] = str(self.root)
        return self.root / "madan"

    def run(self, *words, expect: int | None = 0, **more) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [str(word) for word in words], cwd=self.root, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more,
        )  # fmt: skip
        assert expect is None or done.returncode == expect, done.stdout[-5000:]
        return done

    def snakemake(self, *words, **more) -> str:
        return self.run("snakemake", "--cores", "2", *words, **more).stdout

    def planned(self, *targets: str) -> set[str]:
        """Folders (or files, of tables) that a dry run says would be made."""
        said = self.snakemake("-n", *targets)
        outputs = [
            line.split()[1].rstrip(",") for line in said.splitlines() if "    output:" in line
        ]
        return {output.removesuffix("/digest") for output in outputs}


@pytest.fixture
def world(tmp_path, raw):
    return World(tmp_path, tiny(raw))


def dataset(layout: str, root: Path, **more) -> Dataset:
    """A dataset in a release's layout, or one's `own`, as params.yaml would give it."""
    usual = {
        "own": None, "size": (32, 64), "shards": 1,
        "splits": "given", "exclude": {}, "known_damage": "exclude",
    }  # fmt: skip
    return Dataset(layout=layout, root=root, **usual | more)


def write_set(folder: Path, name: str, count: int = 4, size=(16, 32), seed: int = 0):
    """A prepared set of random images whose labels are blocks of a few classes."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    truths = rng.integers(0, 5, (count, size[0] // 8, size[1] // 8), dtype=np.uint8)
    truths = truths.repeat(8, 1).repeat(8, 2)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", truths)
    items = [{"name": str(k), "size": list(size)} for k in range(count)]
    pixels = np.bincount(truths.ravel(), minlength=19).tolist()
    (folder / "manifest.json").write_text(json.dumps({"items": items, "pixels": pixels}))
    return Pictures(name, [folder], [folder])
