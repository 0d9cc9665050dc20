"""What the figures of params.yaml show: read from the inputs of the job, drawn by `figures`."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Picture

from madan import labels
from madan.config.schema import Figure, Translator
from madan.data.datasets import ImageSet
from madan.evaluation import metrics
from madan.pipeline import artefacts, edges, graph_figure, settings
from madan.pipeline.edges import Role
from madan.pipeline.jobs import inputs
from madan.pipeline.publishing import Job
from madan.report import plots
from madan.report.plots import Line, Panel

# Terms of the logs in the paper's words, in the order in which they are shown.
TERMS = {
    "gan_target": "$L_{GAN}$, source → target: $G_i$ against $D_T$",
    "gan_source": "$L_{GAN}$, target → source: $G_{T→i}$ against $D_i$",
    "cycle": "$L_{cyc}$, both ways",
    "identity": "identity",
    "semantic": "semantic consistency",
    "sad": "SAD: $G_j$ against $D_A^i$",
    "ccd": "CCD: source j as source i, against $D_i$",
    "task": "$L_{task}$",
    "feat": "$L_{feat}$: F against $D_F$",
    "cla": "$L_{CLA}$: F against the discriminators of all classes",
    "mixed": "cross-entropy of mixed images",
    "masked": "cross-entropy of masked images",
    "confident": "share of confident pseudo-labels",
    "loss": "soft maximum over the sources of MDAN's losses",
    "d_target": "loss of $D_T$",
    "d_source": "loss of $D_i$",
    "d_sad": "loss of $D_A^i$",
    "d_feat": "loss of $D_F$",
    "domain": "MDAN: loss of source i's discriminator",
    "accuracy": "accuracy of $D_F$",
}
JUDGES = ("d_target", "d_source", "d_sad", "d_feat", "d_cla", "domain", "accuracy", "cla_accuracy")
# Where a discriminator says the same of everything: (1/4 + 1/4) / 2, log 2, and log 2 twice.
UNDECIDED = {"d_target": 0.25, "d_source": 0.25, "d_sad": 0.25}
UNDECIDED |= {"d_feat": float(np.log(2)), "domain": float(2 * np.log(2))}


class Chosen:
    """Some of the images of a set, in the place of all."""

    def __init__(self, images: ImageSet, rows: Sequence[int]):
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        """Count those chosen."""
        return len(self.rows)

    def image(self, index: int) -> np.ndarray:
        """Image [h, w, 3] uint8."""
        return np.asarray(self.images.image(self.rows[index]))

    def label(self, index: int) -> np.ndarray:
        """Train ids [H, W] uint8."""
        return np.asarray(self.images.label(self.rows[index]))


class Shown(NamedTuple):
    """A figure, its job, and the inputs of the job by role."""

    job: Job[artefacts.Figure]
    figure: Figure
    scores: Role
    runs: Role
    segmenters: Role
    stylised: Role
    sources: Role
    target: Role

    @property
    def titles(self) -> dict[str, str]:
        """The runs that are shown and their titles: the row, or the run's own name."""
        params = self.job.params
        rows = {row.run: row.row for row in reversed(params.tables[self.figure.table].rows)}
        return {run: rows.get(run, run.split("/")[1]) for run in edges.runs(params, self.figure)}


def draw(
    job: Job[artefacts.Figure], scores: Role, runs: Role, segmenters: Role, stylised: Role,
    sources: Role, target: Role,
) -> Picture:  # fmt: skip
    """Draw the figure of a job."""
    figure = job.params.figures[job.artefact.figure]
    shown = Shown(job, figure, scores, runs, segmenters, stylised, sources, target)
    match figure.shows:
        case "translation":
            return plots.translation(list(_translation(shown)))
        case "qualitative":
            return plots.qualitative(_qualitative(shown))
        case "classes":
            return plots.classes({row: _ious(each) for row, each in _confusions(shown).items()})
        case "heatmap":
            return plots.heatmap(*_table(shown))
        case "confusion":
            rows = {row: np.sum(each, axis=0) for row, each in _confusions(shown).items()}
            return plots.confusion({row: _percent(each) for row, each in rows.items()})
        case "features":
            return plots.features(_features(shown))
        case "shares":
            return plots.shares(dict(_shares(shown)))
        case "graph":
            return graph_figure.draw(*graph_figure.boxes(job.graph, figure))
        case terms:
            return plots.curves(list(_panels(shown, terms == "discriminators")))


def _spread(count: int, wanted: int) -> list[int]:
    """So many of `count` indices, from the first on, evenly apart."""
    return [k * count // min(count, wanted) for k in range(min(count, wanted))]


def _translation(shown: Shown) -> Iterator[dict[str, list[np.ndarray]]]:
    """For every dataset among the sources the same scenes in every style; then the target."""
    graph, params = shown.job.graph, shown.job.params
    wanted = shown.figure.images
    for name in dict.fromkeys(m for source in shown.sources for m in params.members(source)):
        before = inputs.image_set(graph, name, _of_member(shown.sources, name), labelled=True)
        scenes = _spread(len(before), wanted)
        rows = {name: [before.image(k) for k in scenes]}
        for item, [stylised] in shown.stylised.items():
            run, source = item.split("/")
            if name in params.members(source):
                after = inputs.stylised_set(graph, item, stylised, shown.sources[source])
                first = _first(shown, source, name)
                rows[run] = [after.image(first + k) for k in scenes]
        yield rows | {"labels": [before.label(k) for k in scenes]}
    for name, shards in shown.target.items():
        target = inputs.image_set(graph, name, shards)
        yield {f"{name} (target)": [target.image(k) for k in _spread(len(target), wanted)]}


def _of_member(sets: Role, member: str) -> list[artefacts.Artefact]:
    """The shards of a dataset, also where it is part of a union."""
    every = dict.fromkeys(shard for shards in sets.values() for shard in shards)
    return [shard for shard in every if shard.address.split("/")[1] == member]


def _first(shown: Shown, source: str, member: str) -> int:
    """Where a dataset's images begin in a union."""
    members = shown.job.params.members(source)
    earlier = members[: members.index(member)]
    shards = [s for name in earlier for s in _of_member({source: shown.sources[source]}, name)]
    return len(inputs.image_set(shown.job.graph, source, shards))


def _qualitative(shown: Shown) -> dict[str, list[np.ndarray]]:
    """Scenes of the target, their labels if there are any, and what each run's F predicts."""
    from madan.evaluation import evaluate

    graph, params = shown.job.graph, shown.job.params
    [[name, shards]] = shown.target.items()
    labelled = inputs.labelled(graph, shards)
    images = inputs.image_set(graph, name, shards, labelled)
    scenes = Chosen(images, _spread(len(images), shown.figure.images))
    columns = {"image": [scenes.image(k) for k in range(len(scenes))]}
    if labelled:
        columns["truth"] = [plots.reduced(scenes.label(k)) for k in range(len(scenes))]
    precision = params.training.segmenter.precision
    for run, [trained] in shown.segmenters.items():
        net = inputs.segmenter(graph, trained)
        scored = evaluate.scored(net, scenes, params.evaluation.batch, precision)
        columns[shown.titles[run]] = [
            evaluate.predict(score, scenes.image(row).shape[:2]) for row, score in scored
        ]
    return columns


def _confusions(shown: Shown) -> dict[str, list[np.ndarray]]:
    """Confusion matrices [19, 19] of every seed, by row."""
    found = {}
    for run, named in shown.scores.items():
        paths = [shown.job.folder(score) / "score.json" for score in named]
        matrices = [np.array(json.loads(path.read_text())["confusion"]) for path in paths]
        found[shown.titles[run]] = matrices
    return found


def _ious(confusions: list[np.ndarray]) -> np.ndarray:
    return 100 * np.stack([metrics.iou(each) for each in confusions])


def _percent(confusion: np.ndarray) -> np.ndarray:
    """Percent of each label's pixels; NaN for classes without any."""
    pixels = confusion.sum(1, keepdims=True)
    return np.where(pixels > 0, 100 * confusion / np.maximum(pixels, 1), np.nan)


def _table(shown: Shown) -> tuple[dict[str, np.ndarray], list[str]]:
    """Mean over seeds of IoU and mIoU in percent by row, and the titles of the columns."""
    means = {"mIoU 19": range(19), "mIoU 16": labels.CLASSES_16, "mIoU 13": labels.CLASSES_13}
    rows = {}
    for title, confusions in _confusions(shown).items():
        over = [
            100 * np.mean([metrics.mean_iou(each, tuple(ids)) for each in confusions])
            for ids in means.values()
        ]
        rows[title] = np.concatenate([plots.over_seeds(_ious(confusions)), over])
    return rows, [*labels.CLASSES, *means]


def _panels(shown: Shown, discriminators: bool) -> Iterator[Panel]:
    """Terms of the runs' logs, either of what is trained or of the discriminators against it."""
    for run, trained in shown.runs.items():
        logs = [pd.read_csv(shown.job.folder(each) / "log.csv") for each in trained]
        found = sorted({column.split(".")[0] for log in logs for column in log} - {"step", "gate"})
        for term in [*(t for t in TERMS if t in found), *(t for t in found if t not in TERMS)]:
            if discriminators == (term in JUDGES):
                yield _panel(shown, run, term, logs)


def _panel(shown: Shown, run: str, term: str, logs: Sequence[pd.DataFrame]) -> Panel:
    params, [first, *_] = shown.job.params, shown.runs[run]
    lines: dict[str, list[Line]] = {}
    for log in logs:
        for column in (c for c in log if c.split(".")[0] == term):
            source = column.partition(".")[2] or "all sources"
            lines.setdefault(source, []).append((log["step"].to_numpy(), log[column].to_numpy()))
    own, name = params.run(*run.split("/")), term.removeprefix("d_")
    gates, levels = [], []
    if isinstance(own, Translator) and getattr(own, name, False) is True:
        share = getattr(params.translating(own).gates, name)
        gates.append((share * settings.steps(first, params), "gate"))  # type: ignore[arg-type]
    if term in UNDECIDED:
        crops = 1
        if isinstance(own, Translator) and own.cag and term != "d_sad":  # a sum over crop sizes
            crops += len(params.translating(own).cag.crops)
        levels.append((crops * UNDECIDED[term], "cannot tell"))
    if term == "accuracy" and "gate" in logs[0]:
        levels.append((float(logs[0]["gate"].iloc[0]), "F learns above this gate"))
    return Panel(f"{shown.titles[run]}: {TERMS.get(term, term)}", lines, gates, levels)


def _features(shown: Shown) -> dict[str, dict[str, np.ndarray]]:
    """Of each run, by domain, the first two principal components of F's pooled features."""
    graph, params, found = shown.job.graph, shown.job.params, {}
    for run, [trained] in shown.segmenters.items():
        own = params.run(*run.split("/"))
        sets = params.sets(own)  # type: ignore[arg-type]
        net = inputs.segmenter(graph, trained)
        opened: dict[str, ImageSet] = {}
        for item in sets:
            if item in shown.stylised:
                source = shown.sources[item.rpartition("/")[2]]
                stylised = inputs.stylised_set(graph, item, shown.stylised[item][0], source)
                opened[item.rpartition("/")[2]] = stylised
                continue
            for name in params.members(item):  # A union is shown by its datasets.
                opened[name] = inputs.image_set(graph, name, _of_member(shown.sources, name))
        opened |= {name: inputs.image_set(graph, name, s) for name, s in shown.target.items()}
        pooled = {n: _pooled(net, images, shown.figure.images) for n, images in opened.items()}
        how = "stylised sources" if any("/" in item for item in sets) else "sources as they are"
        found[f"{shown.titles[run]}: {how}"] = _components(pooled)
    return found


def _pooled(net: Any, pictures: Any, wanted: int) -> np.ndarray:
    """Means over all positions of F's last hidden layer [N, channels], one image after another."""
    import torch

    from madan.data import batches
    from madan.engine import training

    rows = []
    with torch.inference_mode():
        for k in _spread(len(pictures), wanted):
            x = batches.scale(torch.from_numpy(np.array(pictures.image(k)))[None])
            _, hidden = net.eval().forward_features(batches.imagenet(x.to(training.device())))
            rows.append(hidden.float().mean((2, 3))[0].cpu().numpy())
    return np.stack(rows)


def _components(pooled: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    whole = np.concatenate(list(pooled.values()))
    centre = whole.mean(0)
    _, _, axes = np.linalg.svd(whole - centre, full_matrices=False)
    axes = axes[:2]
    # A component has no sign of its own: its largest part is positive.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
    return {name: (rows - centre) @ (axes * np.sign(largest)).T for name, rows in pooled.items()}


def _shares(shown: Shown) -> Iterator[tuple[str, np.ndarray]]:
    """Percent of each class [19] in the sources, and in the split on which the target is scored.

    A target without labels is left out.
    """
    graph, [[target, shards]] = shown.job.graph, shown.target.items()
    name, split = target.split("/")
    members = dict.fromkeys(m for each in shown.sources for m in shown.job.params.members(each))
    for source in [each for each in members if each != name]:
        shards_of = _of_member(shown.sources, source)
        yield source, _share(inputs.image_set(graph, source, shards_of, labelled=True))
    if inputs.labelled(graph, shards):
        yield f"{name} ({split})", _share(inputs.image_set(graph, name, shards, labelled=True))


def _share(pictures: Any) -> np.ndarray:
    pixels = pictures.pixels()
    return np.asarray(100 * pixels / max(1, pixels.sum()))
