"""Verify and prepare on files of true size, against plain Pillow: python benchmarks/data.py

Paired in one process, A B A B, median of the rounds; peak memory of each command in a process of
its own. Baselines do the least that any script must: open, decode, and for prepare resize and save.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pairs import Pair, Size
from PIL import Image

from madan.config.data_settings import Dataset
from madan.data import datasets, layouts, verify
from madan.data.datasets import Verified
from madan.miniature import world

SIZES = {"gta5": (1052, 1914), "cityscapes": (1024, 2048)}
TRAINING = (600, 1080)


def draw(
    root: Path, layout: str, pairs: int, size: tuple[int, int], prepared: tuple[int, int] = TRAINING
) -> Dataset:
    """Write that many pairs of this size: one drawn scene, with other sensor noise in each."""
    rng = np.random.default_rng(0)
    image, truth = world.draw(layout, "train", 0, seed=0, size=size)
    # Label ids are the same in both layouts.
    native = np.zeros(256, np.uint8)
    known = np.flatnonzero(layouts.LAYOUTS[layout].table < 19)
    native[layouts.LAYOUTS[layout].table[known]] = known
    dataset = Dataset(
        layout=layout, own=None, root=root, size=prepared, shards=1, splits="all"
        if layout == "gta5" else "given", exclude={}, known_damage="exclude",
    )  # fmt: skip
    for k in range(pairs):
        item = layouts.item(dataset, "train", f"{k + 1:05d}")
        for path in (item.image, item.label):
            path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(-6, 7, image.shape)
        Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8)).save(item.image)
        Image.fromarray(native[truth]).save(item.label)
    return dataset


def open_all(dataset: Dataset) -> None:
    """Baseline of verify: every image and label decoded by Pillow."""
    for item in layouts.items(dataset, "train"):
        for path in (item.image, item.label):
            with Image.open(path) as opened:
                np.asarray(opened)


def resize_all(dataset: Dataset, out: Path) -> None:
    """Baseline of prepare: decoded and resized by Pillow, collected and saved."""
    images, truths = [], []
    size = dataset.size[::-1]
    for item in layouts.items(dataset, "train"):
        with Image.open(item.image) as opened:
            images.append(np.asarray(opened.resize(size, Image.Resampling.BICUBIC)))
        with Image.open(item.label) as opened:
            truths.append(np.asarray(opened.resize(size, Image.Resampling.NEAREST)))
    np.save(out / "images.npy", np.stack(images))
    np.save(out / "labels.npy", np.stack(truths))


def prepare_all(dataset: Dataset, out: Path) -> None:
    """Ours, of what verify let through."""
    report = verify.verify("benchmark", dataset, "train")
    datasets.prepare(dataset, "train", 0, Verified(report.pairs, report.excluded), out)


def pairs(size: Size, scratch: Path) -> Iterator[Pair]:
    """verify and prepare of GTA5."""
    count = 3
    dataset, out = draw(scratch / "raw", "gta5", count, size.native, size.prepared), scratch / "out"
    out.mkdir()
    report = verify.verify("benchmark", dataset, "train")
    verified = Verified(report.pairs, report.excluded)

    def check() -> float:
        resize_all(dataset, out)
        plain = np.load(out / "images.npy")
        datasets.prepare(dataset, "train", 0, verified, out)
        return float((plain != np.load(out / "images.npy")).mean())

    what = f"{count} pairs of {size.native[0]}x{size.native[1]}, beside Pillow's "
    yield Pair(
        "verify", what + "decoding alone", lambda: open_all(dataset),
        lambda: verify.verify("benchmark", dataset, "train", jobs=1), lambda: 0.0, 0.0,
    )  # fmt: skip
    yield Pair(
        "prepare", what + "decoding and resizing alone", lambda: resize_all(dataset, out),
        lambda: datasets.prepare(dataset, "train", 0, verified, out), check, 0.0,
    )  # fmt: skip


def paired(
    name: str, baseline: Callable[[], object], ours: Callable[[], object], pairs: int, rounds: int
) -> None:
    """Print the median ratio of baseline over ours, its range, and images a second of both."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        took = []
        for job in (baseline, ours):
            begun = time.perf_counter()
            job()
            took.append(time.perf_counter() - begun)
        times.append((took[0], took[1]))
    ratios = [a / b for a, b in times]
    rates = [pairs / statistics.median(each) for each in zip(*times, strict=True)]
    print(
        f"{name:24} x{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        f"   baseline {rates[0]:.1f}/s   ours {rates[1]:.1f}/s"
    )


def peak(code: str, *words: object) -> float:
    """Largest memory, in MiB, of a process of its own that runs this code."""
    tail = "; print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    command = [sys.executable, "-c", code + tail, *map(str, words)]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return int(done.stdout.split()[-1]) / 1024


def main() -> None:
    """Draw, time and weigh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    pairs, rounds = chosen.pairs, chosen.rounds
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {pairs} pairs")
    with tempfile.TemporaryDirectory() as scratch:
        for layout in SIZES:
            root, out = Path(scratch, layout), Path(scratch, "out")
            dataset, out = draw(root, layout, pairs, SIZES[layout]), Path(scratch, f"{layout}-out")
            out.mkdir()
            for jobs in (1, 2):
                paired(
                    f"{layout} verify, {jobs} jobs", lambda d=dataset: open_all(d),
                    lambda d=dataset, j=jobs: verify.verify("benchmark", d, "train", jobs=j),
                    pairs, rounds,
                )  # fmt: skip
            report = verify.verify("benchmark", dataset, "train")
            verified = Verified(report.pairs, report.excluded)
            paired(
                f"{layout} prepare", lambda d=dataset, o=out: resize_all(d, o),
                lambda d=dataset, v=verified, o=out: datasets.prepare(d, "train", 0, v, o),
                pairs, rounds,
            )  # fmt: skip
            code = (
                "import sys, data; from pathlib import Path; d = data.Dataset.model_validate_json"
            )
            code += "(sys.argv[1]); data.{}"
            for name, call in (
                ("verify, 2 jobs", "verify.verify('benchmark', d, 'train', jobs=2)"),
                ("prepare", "prepare_all(d, Path(sys.argv[2]))"),
                ("prepare by Pillow", "resize_all(d, Path(sys.argv[2]))"),
            ):
                mib = peak(code.format(call), dataset.model_dump_json(), out)
                print(f"{layout} {name}: peak {mib:.0f} MiB")


if __name__ == "__main__":
    main()
