"""How time and memory grow: of a step, with sources, picture and batch; of commands, with images.

Writes results/growth.csv, docs/growth.png and the table in docs/performance.md. Each
line is measured in a process of its own, whose largest memory it gives, on noise of the
miniature's size with the miniature's networks.
"""

import argparse
import csv
import datetime
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pairs import document, machine, took

from madan import config, labels
from madan.config import schema
from madan.data import datasets
from madan.engine import process
from madan.pipeline.trials import Noise

SIZE = (64, 128)
LINES: list[tuple[str, str, list[int]]] = [
    ("step", "sources", [1, 2, 3, 4]),
    ("step-sampled", "sources", [2, 3, 4]),
    ("step", "batch", [1, 2, 4, 8]),
    ("step", "pixels", [2048, 4096, 8192, 16384, 32768]),
    ("segmenter-step", "batch", [2, 4, 8, 16]),
    ("segmenter-step", "pixels", [2048, 4096, 8192, 16384, 32768]),
    ("prepare", "images", [100, 1000, 10000]),
    ("stylise", "images", [100, 1000, 10000]),
    ("evaluate", "images", [100, 1000, 10000]),
]


def _noise(name: str, size: tuple[int, int]) -> Noise:
    return Noise(name, size, size, 300)


def segmenter(batch: int, size: tuple[int, int] = SIZE):
    """F of the miniature with its training, over noise."""
    from madan.engine import training
    from madan.methods import segmentation

    params = config.load()
    training.begin(0, 1)
    settings = params.training.segmenter.model_copy(update={"batch": batch, "crop": size})
    net = segmentation.build(params.networks.segmenter)
    return segmentation.Supervised(net, [_noise("noise", size)], settings, 1000, 0)


def translator(sources: int, batch: int, size: tuple[int, int] = SIZE, pairs: int | str = "all"):
    """MADAN's aggregation over so many sources of noise, with the miniature's networks."""
    from madan.engine import training
    from madan.methods import segmentation, translation

    params = config.load()
    training.begin(0, 1)
    names = [f"source{k}" for k in range(sources)]
    run = schema.Translator(
        sources=names, target="target", sad=sources > 1, ccd=sources > 1, semantic="dsc",
        judges=dict.fromkeys(names, "judge"), task={"start": "judge", "update_every": 2},
    )  # fmt: skip
    settings = params.training.translator.model_copy(
        update={"batch": batch, "crop": size, "pairs": pairs}
    )
    judges = {name: segmentation.build(params.networks.segmenter) for name in names}
    return translation.Translator(
        run, settings, params.networks, {n: _noise(n, size) for n in names}, _noise("target", size),
        steps=1000, seed=0, judges=judges, task=segmentation.build(params.networks.segmenter),
    )  # fmt: skip


def _method(what: str, by: str, value: int):
    size = (value // 128, 128) if by == "pixels" else SIZE
    if what == "segmenter-step":
        return segmenter(value if by == "batch" else 8, size)
    sources, batch = value if by == "sources" else 2, value if by == "batch" else 2
    pairs = 2 if what == "step-sampled" else "all"
    return translator(sources, batch, size, pairs)


def _steps(what: str, by: str, value: int) -> float:
    """Seconds of a step: the median of those that can be had in about a second, at least three."""
    method = _method(what, by, value)
    # The last steps of a run, where all gates are open; F_A takes part in every second one.
    pair = lambda: [method.update(step) for step in (998, 999)]  # noqa: E731
    first = took(pair)
    return statistics.median(took(pair) for _ in range(max(3, min(20, int(1 / first))))) / 2


def _images(what: str, count: int) -> float:
    """Seconds of a command over so many images of noise."""
    from madan.engine import training
    from madan.evaluation import evaluate
    from madan.methods import segmentation, stylisation
    from madan.models.generator import Generator

    params = config.load()
    training.begin(0, 1)
    with tempfile.TemporaryDirectory() as scratch:
        if what == "prepare":
            return _prepare(Path(scratch), count)
        folder = Path(scratch, "shard")
        folder.mkdir()
        _shard(folder, count)
        pictures = datasets.Pictures("noise", [folder], [folder])
        if what == "stylise":
            (out := Path(scratch, "out")).mkdir()
            net = Generator(**params.networks.generator.model_dump())
            return took(lambda: stylisation.stylise(net, pictures, out, "fp32"))
        net = segmentation.build(params.networks.segmenter)
        return took(lambda: evaluate.evaluate(net, pictures, params.evaluation.batch, "fp32"))


def _shard(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    truth = rng.integers(0, len(labels.CLASSES), SIZE, np.uint8)
    with (
        datasets.array(folder / "images.npy", (count, *image.shape)) as add_image,
        datasets.array(folder / "labels.npy", (count, *truth.shape)) as add_label,
    ):
        for _ in range(count):
            add_image(image)
            add_label(truth)
    items = [{"name": str(k), "size": SIZE} for k in range(count)]
    pixels = np.bincount(truth.ravel(), minlength=len(labels.CLASSES)) * count
    manifest = {"items": items, "excluded": {}, "pixels": pixels.tolist()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _prepare(scratch: Path, count: int) -> float:
    """Seconds of prepare; the images are links to a few that are drawn."""
    import os

    import data

    from madan.data import layouts, verify

    drawn = data.draw(scratch / "raw", "gta5", 1, SIZE, SIZE)
    first = layouts.item(drawn, "train", "00001")
    for k in range(2, count + 1):
        item = layouts.item(drawn, "train", f"{k:05d}")
        os.link(first.image, item.image)
        os.link(first.label, item.label)
    report = verify.verify("growth", drawn, "train")
    verified = datasets.Verified(report.pairs, report.excluded)
    (out := scratch / "out").mkdir()
    return took(lambda: datasets.prepare(drawn, "train", 0, verified, out))


def measure(what: str, by: str, value: int) -> tuple[float, float]:
    """Seconds, and MiB of the largest memory of this process."""
    seconds = _images(what, value) if by == "images" else _steps(what, by, value)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plot(lines: list[tuple[str, str, int, float, float]], out: Path) -> None:
    """Time and memory over each of sources, batch, pixels and images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes_of = ["sources", "batch", "pixels", "images"]
    figure, axes = plt.subplots(2, 4, figsize=(13, 5.5), layout="constrained")
    for column, by in enumerate(axes_of):
        for what in dict.fromkeys(line[0] for line in lines if line[1] == by):
            mine = [line for line in lines if line[:2] == (what, by)]
            values = [line[2] for line in mine]
            axes[0, column].plot(values, [line[3] for line in mine], "o-", label=what)
            axes[1, column].plot(values, [line[4] for line in mine], "o-", label=what)
        for row, name in ((0, "seconds"), (1, "MiB at most")):
            axes[row, column].set(xlabel=by, ylabel=name if column == 0 else None)
            if by == "images":
                axes[row, column].set_xscale("log")
                axes[row, column].set_yscale("log" if row == 0 else "linear")
            if not (by == "images" and row == 0):
                axes[row, column].set_ylim(bottom=0)
        axes[0, column].legend(frameon=False)
    figure.savefig(out, dpi=90, metadata={"Software": None})


def main() -> None:
    """Measure every line, write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10000, help="at most so many images")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        process.begin()  # as every command does
        what, by, value = chosen.one
        print(*measure(what, by, int(value)))
        return
    lines = []
    begun = time.perf_counter()
    for what, by, values in LINES:
        for value in (v for v in values if by != "images" or v <= chosen.images):
            command = [sys.executable, __file__, "--one", what, by, str(value)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            seconds, memory = map(float, said.split()[-2:])
            lines.append((what, by, value, seconds, memory))
            print(f"{what:16} {by} {value}: {seconds:.3f} s, {memory:.0f} MiB", flush=True)
    Path("results").mkdir(exist_ok=True)
    with open("results/growth.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "by", "value", "seconds", "mib"])
        writer.writerows((*line[:3], f"{line[3]:.5g}", f"{line[4]:.0f}") for line in lines)
    plot(lines, Path("docs/growth.png"))
    about = "; ".join(f"{key} {value}" for key, value in machine().items())
    told = [f"| {w} | {by} | {v} | {s:.4g} | {mib:.0f} |" for w, by, v, s, mib in lines]
    today = datetime.date.today().isoformat()
    document("growth", [
        f"{today}; {about}; {time.perf_counter() - begun:.0f} s in all.",
        "", "![Time and memory over sources, batch, pixels and images](growth.png)",
        "", "| what | by | | seconds | MiB |", "|---|---|--:|--:|--:|", *told,
    ])  # fmt: skip


if __name__ == "__main__":
    main()
