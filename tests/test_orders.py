"""Random orders of edits, commands, losses and damage never leave a result that is out of date.

MADAN_ORDERS says how many steps are taken, MADAN_ORDERS_SEED where the random numbers start.
"""

import collections
import os
import random
import re
import shutil

import pytest
from conftest import Repository, small, stale

pytestmark = pytest.mark.slow
STEPS = int(os.environ.get("MADAN_ORDERS", 60))
SEED = int(os.environ.get("MADAN_ORDERS_SEED", 0))
OPTIONS = [
    [],
    ["--persistence-backend", "db"],
    ["--rerun-triggers", "params"],
    ["--rerun-triggers", "code", "input"],
    ["--workflow-profile", "none", "--cores", "2"],
    ["--max-checksum-file-size", "0"],
    ["--cores", "1"],
]
PARTIAL = [
    ["-n"],
    ["--touch"],
    ["--until", "prepare"],
    ["--omit-from", "segment"],
    ["--cleanup-metadata", "results/miou.csv"],
    ["results/miniature/segmenters/source-gta5/seed0/certificate.json"],
]
HIDDEN = "Run the same command without --forcerun"
KEYS = {
    "training.segmenter.lr": [0.002, 0.5, 0.25],
    "evaluation.batch": [8, 4],
    "training.save_every": [1, 7],
    "domains.gta5.shards": [1, 2],
}
MODULES = [
    "methods/segmentation", "data/verify", "report/tables", "pipeline/jobs/segment",
    "pipeline/jobs/prepare",
]  # fmt: skip


class Orders:
    """A repository, a clone of other settings, and what was done to them."""

    def __init__(self, repository: Repository, other: Repository, rng: random.Random):
        self.repository, self.other, self.rng = repository, other, rng
        self.moves = 0

    @property
    def root(self):
        return self.repository.root

    def path(self):
        """A file of the results or the data."""
        found = [
            path
            for folder in ("results", "data")
            for path in sorted((self.root / folder).rglob("*"))
            if path.is_file()
        ]
        return self.rng.choice(found) if found else None

    # What makes everything that the table needs, and so must leave nothing out of date.

    def snakemake(self):
        return "snakemake", *self.rng.choice(OPTIONS)

    def forced(self):
        rule = self.rng.choice(["verify", "segment", "miou"])
        return "snakemake", "--cores", "2", "--forcerun", rule

    def repro(self):
        return self.rng.choice([("dvc", "repro"), ("dvc", "repro", "pipeline")])

    def experiment(self):
        key = self.rng.choice([key for key in KEYS if key.startswith("training")])
        value = self.rng.choice(KEYS[key])
        return "dvc", "exp", "run", "--force", "-S", f"{key}={value}"

    # What makes or changes a part, and may fail.

    def partly(self):
        self.attempt("snakemake", "--cores", "2", *self.rng.choice(PARTIAL))

    def commit(self):
        self.attempt("git", "add", "-A")
        self.attempt("git", "commit", "-q", "-m", "A step")

    def back(self):
        self.attempt("git", "checkout", "-q", ".")

    def another_commit(self):
        commits = self.repository.run("git", "rev-list", "--all", "--max-count=9").stdout.split()
        self.attempt("git", "checkout", "-q", "--force", self.rng.choice(commits))

    def believe(self):
        self.attempt("dvc", "commit", "--force")

    def checkout(self):
        self.attempt("dvc", "checkout", "--force")

    def collect(self):
        self.attempt("dvc", "gc", "--workspace", "--force")

    def set(self):
        key = self.rng.choice(list(KEYS))
        self.repository.change(key, self.rng.choice(KEYS[key]))

    def code(self):
        path = self.root / f"madan/{self.rng.choice(MODULES)}.py"
        path.write_text(path.read_text() + f"\n\nX{self.rng.randrange(9)} = 1\n")

    def lose(self):
        path = self.path()
        if path and self.rng.random() < 0.3:
            shutil.rmtree(path.parent)
        elif path:
            path.unlink()

    def damage(self):
        if path := self.path():
            path.write_bytes(path.read_bytes()[:-1] + b"?")

    def swap(self):
        one, two = self.path(), self.path()
        if one and two and one != two:
            first, second = one.read_bytes(), two.read_bytes()
            one.write_bytes(second)
            two.write_bytes(first)

    def times(self):
        for path in sorted((self.root / "results").rglob("*")) + [self.path()]:
            if path:
                moment = self.rng.choice([1e9, 1.7e9, 4e9]) + self.rng.random()
                os.utime(path, (moment, moment))

    def forget(self):
        for name in self.rng.sample([".snakemake", "state", "logs"], 1):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def copy_of_another_clone(self):
        name = self.rng.choice(["results", "data", "results/miniature", "data/prepared"])
        shutil.rmtree(self.root / name, ignore_errors=True)
        shutil.copytree(self.other.root / name, self.root / name)

    def move(self):
        self.moves += 1
        place = self.root.with_name(f"moved{self.moves}")
        self.root.rename(place)
        self.repository.root = place

    def follow_advice(self) -> bool:
        """Delete the certificates that jobs called those of damaged files; say whether any did.

        That is refused, and not made anew, of files that this machine never looked at.
        """
        said = [path.read_text() for path in (self.root / "logs").rglob("*.log")]
        advised = [name for text in said for name in re.findall(r"delete (\S+) and run", text)]
        found = [self.root / name for name in advised if (self.root / name).exists()]
        for path in found:
            path.unlink()
        return bool(found)

    def attempt(self, *words):
        self.repository.run(*words, expect=None)


FULL = ("snakemake", "forced", "repro", "experiment")
WEIGHTS = {
    "snakemake": 6, "forced": 2, "repro": 3, "experiment": 1, "partly": 3, "commit": 2, "back": 2,
    "another_commit": 1, "believe": 1, "checkout": 1, "collect": 0.3, "set": 6, "code": 3,
    "lose": 4, "damage": 4, "swap": 2, "times": 2, "forget": 2, "copy_of_another_clone": 1.5,
    "move": 1,
}  # fmt: skip


def test_no_order_of_steps_leaves_what_a_run_from_nothing_does_not_give(tmp_path, monkeypatch):
    rng = random.Random(SEED)
    repository = small(tmp_path / "orders" / "work")
    repository.dvc("repro")
    repository.commit("Results")
    other = repository.copy(tmp_path / "orders" / "other")
    other.change("training.segmenter.lr", 0.125)
    other.snakemake()
    orders, told = Orders(repository, other, rng), []
    counts: collections.Counter = collections.Counter()
    for number in range(STEPS):
        step = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if number == STEPS - 1:
            step = "snakemake"
        words = getattr(orders, step)()
        counts[step] += 1
        told.append(" ".join(words) if words else step)
        if step in FULL:
            done = orders.repository.run(*words, expect=None)
            for _ in range(9):
                if done.returncode == 0 or not orders.follow_advice():
                    break
                done = orders.repository.run(*words, expect=None)
            if step == "forced" and done.returncode and HIDDEN in done.stdout:
                counts["hidden behind a forced job"] += 1
                done = orders.repository.run("snakemake", "--cores", "2", expect=None)
            assert done.returncode == 0, f"{told}\n{done.stdout[-3000:]}"
            assert stale(orders.repository, monkeypatch) == [], told
    print(f"\nseed {SEED}: {STEPS} steps, {dict(counts)}")
