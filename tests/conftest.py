"""A tiny world: the project's own params.yaml with few images and steps, in its own folder."""

import copy
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import quick
import torch
from ruamel.yaml import YAML

from madan import config
from madan.config.data_settings import Dataset
from madan.config.scales import at_scale
from madan.data.datasets import Pictures
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.pipeline.publishing import Job

PROJECT = Path(__file__).parent.parent
ROWS = ("source-gta5", "cyclegan-gta5", "madan")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@functools.cache
def _settings() -> dict:
    return YAML(typ="safe").load(PROJECT / "params.yaml")


@functools.cache
def _flat() -> dict:
    """The project's settings with the miniature's among those of all; scales differ from these."""
    raw, scales = _settings(), {}
    base, _ = at_scale(raw | {"scale": "miniature"})
    for name, section in raw["scales"].items():
        below = section.get("base")
        first = at_scale(raw | {"scale": below})[0] if below else base
        own, _ = at_scale(raw | {"scale": name})
        stands = {"base": below} if below else {}
        scales[name] = _difference(first | {"scale": name}, own) | stands
    return base | {"scales": scales}


def _difference(base: dict, other: dict) -> dict:
    """What `other` says otherwise; null where it says nothing."""
    found = {}
    for key in base.keys() | other.keys():
        before, now = base.get(key), other.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            now = _difference(before, now)
            if now:
                found[key] = now
        elif before != now:
            found[key] = now
    return found


def params_yaml() -> dict:
    """The settings in the project's params.yaml as one mapping, to be changed at will.

    What only the miniature says stands at the top, too.
    """
    return copy.deepcopy(_flat())


@pytest.fixture
def raw():
    return params_yaml()


def tiny(params: dict, rows: tuple[str, ...] = ROWS) -> dict:
    """Make everything that costs time small: 8 images, 3 steps, the rows given."""
    for splits in params["miniature"]["images"].values():
        splits.update(dict.fromkeys(splits, 8))
    for section in ("segmenter", "translator", "adaptation"):
        params["training"][section]["steps"] = 3
    for kind in ("segmenters", "translators", "adaptations"):
        for run in params[kind].values():
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
    for scale in params["scales"].values():
        scale.pop("tables", None)  # What it says of the tables that are gone.
    return params


class World:
    """A folder with a Snakefile and params.yaml in which commands are run as a person runs them.

    They are forked from a server (quick.py), unless they are to be processes of their own.
    """

    def __init__(self, root: Path, params: dict):
        self.root = root
        for name in ("Snakefile", "workflow", "profiles"):
            source = PROJECT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
        places = quick.server().bin, Path(sys.executable).parent, os.environ["PATH"]
        self.env = {**os.environ, "PATH": ":".join(map(str, places))}
        self.env["PYTHONPATH"] = str(PROJECT)
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

    def own_processes(self) -> Self:
        """From now on commands are started as a shell does."""
        self.env["PATH"] = self.env["PATH"].replace(f"{quick.server().bin}:", "")
        return self

    def beside(self, root: Path) -> Self:
        """The same person's commands in another folder."""
        other = copy.copy(self)
        other.root, other.env = root, dict(self.env)
        return other

    def copy(self, root: Path) -> Self:
        """The folder as it lies there, cache and times included, at another place."""
        shutil.copytree(self.root, root, symlinks=True)
        return self.beside(root)

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
        return {output.removesuffix("/certificate.json") for output in outputs}


class Repository(World):
    """A world in git with the project's DVC files and a package of its own."""

    def __init__(self, root: Path, params: dict, stand_in: bool = True):
        super().__init__(root, params)
        for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore",
                     ".dvc-site/repo/.gitignore"):  # fmt: skip
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, root / name)
        self.own_package()
        # Not from here: either door has to find the package of the folder it works in.
        del self.env["PYTHONPATH"]
        beside = root.with_name(f"{root.name}-beside")
        self.env |= {f"GIT_{who}_NAME": "tester" for who in ("AUTHOR", "COMMITTER")}
        self.env |= {f"GIT_{who}_EMAIL": "tester@localhost" for who in ("AUTHOR", "COMMITTER")}
        self.env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        self.env |= {
            f"DVC_{what}_DIR": str(beside / what)
            for what in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")
        }
        if stand_in:
            self.stand_in(beside / "bin")
        self.run("git", "init", "-q", "-b", "main")
        self.commit("The project")

    def stand_in(self, folder: Path, before: str = "", python: str | None = None) -> None:
        """Put a stand-in for `madan` first in PATH, with shell commands to run before it."""
        folder.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("stand_in.py")
        quick.server().script(folder / "madan", script, before, python)
        if str(folder) not in self.env["PATH"]:
            self.env["PATH"] = f"{folder}:{self.env['PATH']}"

    def commit(self, message: str) -> str:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)
        return self.run("git", "rev-parse", "HEAD").stdout.strip()

    def dvc(self, *words, **more) -> str:
        return self.run("dvc", *words, **more).stdout

    def clone(self, root: Path) -> "Repository":
        """A clone with git alone: no results, no cache."""
        self.run("git", "clone", "-q", self.root, root)
        return self.beside(root)


def ran(said: str) -> set[str]:
    """Folders (or tables) that jobs made, as Snakemake's output tells."""
    outputs = [line.split()[1].rstrip(",") for line in said.splitlines() if "    output:" in line]
    return {output.removesuffix("/certificate.json") for output in outputs}


NOTHING = "Nothing to be done"


def small(root: Path, rows=("source-gta5",), **more) -> Repository:
    """A repository whose table has these rows, in a new folder."""
    root.mkdir(parents=True)
    return Repository(root, tiny(params_yaml(), rows), **more)


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """One row, made by a stand-in through DVC and committed."""
    repository = small(tmp_path_factory.mktemp("dvc") / "committed")
    repository.dvc("repro")
    repository.commit("Results")
    return repository


@pytest.fixture
def repository(committed, tmp_path):
    return committed.copy(tmp_path / "copy")


def stale(repository: Repository, monkeypatch) -> list[str]:
    """What is not as a run from nothing makes it, by what the stand-in writes."""
    monkeypatch.chdir(repository.root)
    graph = Graph(config.load(), repository.root / "madan")
    wrong = []
    for artefact in graph.ancestry([parse("tables/miou")]):
        table = artefact.kind == "tables"
        path = artefact.csv if table else graph.folder(artefact) / "weights.safetensors"
        if not path.exists() or Job(graph, artefact).key not in path.read_text():
            wrong.append(str(path))
    return wrong


def processes(root: Path, word: str = "") -> list[int]:
    """Processes in that folder whose command line holds the word."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if (not word or word.encode() in words) and (entry / "cwd").resolve() == root.resolve():
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


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
