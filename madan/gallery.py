"""What the figures of params.yaml show: read from artefacts, put into words, drawn by `figures`."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Picture

from madan import assembly, figures, labels, scores, stages
from madan.figures import Line, Panel
from madan.graph import Artefact, Graph
from madan.schema import Figure, Translator

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
    """Some of the pictures of a set, in the place of all."""

    def __init__(self, pictures: Any, rows: Sequence[int]):
        self.pictures, self.rows = pictures, rows

    def __len__(self) -> int:
        """Count those chosen."""
        return len(self.rows)

    def image(self, index: int) -> np.ndarray:
        """Image [h, w, 3] uint8."""
        return np.asarray(self.pictures.image(self.rows[index]))

    def label(self, index: int) -> np.ndarray:
        """Train ids [H, W] uint8."""
        return np.asarray(self.pictures.label(self.rows[index]))


def draw(graph: Graph, name: str) -> Picture:
    """The figure of that name."""
    figure = graph.params.figures[name]
    match figure.shows:
        case "translation":
            return figures.translation(list(_translation(graph, figure)))
        case "qualitative":
            return figures.qualitative(_qualitative(graph, figure))
        case "classes":
            rows = {title: _ious(each) for title, each in _confusions(graph, figure).items()}
            return figures.classes(rows)
        case "heatmap":
            return figures.heatmap(*_table(graph, figure))
        case "confusion":
            return figures.confusion(
                {
                    title: _percent(np.sum(each, axis=0))
                    for title, each in _confusions(graph, figure).items()
                }
            )
        case "features":
            return figures.features(_features(graph, figure))
        case "shares":
            return figures.shares(dict(_shares(graph, name)))
        case "graph":
            return stages.draw(*stages.boxes(graph, figure))
        case shown:
            return figures.curves(list(_panels(graph, figure, shown == "discriminators")))


def _titles(graph: Graph, figure: Figure) -> dict[str, str]:
    """Runs that are shown, and what they are called: their row, else their own name."""
    rows = {row.run: row.row for row in reversed(graph.params.tables[figure.table].rows)}
    return {run: rows.get(run, run.split("/")[1]) for run in graph.runs(figure)}


def _spread(count: int, wanted: int) -> list[int]:
    """So many of `count` indices, from the first on, evenly apart."""
    return [k * count // min(count, wanted) for k in range(min(count, wanted))]


def _translation(graph: Graph, figure: Figure) -> Iterator[dict[str, list[np.ndarray]]]:
    """For every dataset among the sources the same scenes in every style; then the target."""
    params, seed = graph.params, graph.params.seeds[0]
    runs = {run.split("/")[1]: params.translators[run.split("/")[1]] for run in graph.runs(figure)}
    sources = [source for settings in runs.values() for source in settings.sources]
    for name in dict.fromkeys(member for source in sources for member in params.members(source)):
        before = assembly.pictures(graph, name, labelled=True)
        scenes = _spread(len(before), figure.images)
        rows = {name: [before.image(k) for k in scenes]}
        for run, settings in runs.items():
            for source in settings.sources:
                if name in params.members(source):
                    after = assembly.pictures(graph, f"{run}/{source}", seed)
                    first = _first(graph, source, name)
                    rows[run] = [after.image(first + k) for k in scenes]
        yield rows | {"labels": [before.label(k) for k in scenes]}
    for name in dict.fromkeys(settings.target for settings in runs.values()):
        target = assembly.pictures(graph, name)
        scenes = _spread(len(target), figure.images)
        yield {f"{name} (target)": [target.image(k) for k in scenes]}


def _first(graph: Graph, source: str, member: str) -> int:
    """Where a dataset's images begin in a union."""
    members = graph.params.members(source)
    earlier = members[: members.index(member)]
    return sum(len(assembly.pictures(graph, name)) for name in earlier)


def _qualitative(graph: Graph, figure: Figure) -> dict[str, list[np.ndarray]]:
    """Scenes of the target, their labels, and what each run's F sees in them."""
    from madan import evaluation

    params = graph.params
    target, split = params.tables[figure.table].target, params.evaluation.split
    pictures = assembly.pictures(graph, target, split=split, labelled=True)
    shown: Any = Chosen(pictures, _spread(len(pictures), figure.images))
    truth = [figures.reduced(shown.label(k)) for k in range(len(shown))]
    columns = {"image": [shown.image(k) for k in range(len(shown))], "truth": truth}
    precision = params.training.segmenter.precision
    for run, title in _titles(graph, figure).items():
        net = assembly.segmenter(graph, run, params.seeds[0])
        scored = evaluation.scored(net, shown, params.evaluation.batch, precision)
        columns[title] = [
            evaluation.predict(score, shown.image(row).shape[:2]) for row, score in scored
        ]
    return columns


def _confusions(graph: Graph, figure: Figure) -> dict[str, list[np.ndarray]]:
    """Confusion matrices [19, 19] of every seed, by row."""
    found = {}
    for run, title in _titles(graph, figure).items():
        paths = [graph.folder(score) / "score.json" for score in graph.measured(figure, run)]
        found[title] = [np.array(json.loads(path.read_text())["confusion"]) for path in paths]
    return found


def _ious(confusions: list[np.ndarray]) -> np.ndarray:
    return 100 * np.stack([scores.iou(each) for each in confusions])


def _percent(confusion: np.ndarray) -> np.ndarray:
    """Percent of each label's pixels; NaN for classes without any."""
    pixels = confusion.sum(1, keepdims=True)
    return np.where(pixels > 0, 100 * confusion / np.maximum(pixels, 1), np.nan)


def _table(graph: Graph, figure: Figure) -> tuple[dict[str, np.ndarray], list[str]]:
    """Mean over seeds of IoU and mIoU in percent by row, and what the columns are called."""
    means = {"mIoU 19": range(19), "mIoU 16": labels.CLASSES_16, "mIoU 13": labels.CLASSES_13}
    rows = {}
    for title, confusions in _confusions(graph, figure).items():
        over = [
            100 * np.mean([scores.mean_iou(each, tuple(ids)) for each in confusions])
            for ids in means.values()
        ]
        rows[title] = np.concatenate([figures.over_seeds(_ious(confusions)), over])
    return rows, [*labels.CLASSES, *means]


def _panels(graph: Graph, figure: Figure, judges: bool) -> Iterator[Panel]:
    """Terms of the runs' logs, either of what is trained or of the discriminators against it."""
    for run, title in _titles(graph, figure).items():
        kind, name = run.split("/")
        folders = [graph.folder(Artefact(kind, name, seed)) for seed in graph.params.seeds]
        logs = [pd.read_csv(folder / "log.csv") for folder in folders]
        found = sorted({column.split(".")[0] for log in logs for column in log} - {"step", "gate"})
        for term in [*(t for t in TERMS if t in found), *(t for t in found if t not in TERMS)]:
            if judges == (term in JUDGES):
                yield _panel(graph, run, title, term, logs)


def _panel(graph: Graph, run: str, title: str, term: str, logs: Sequence[pd.DataFrame]) -> Panel:
    kind, name = run.split("/")
    lines: dict[str, list[Line]] = {}
    for log in logs:
        for column in (c for c in log if c.split(".")[0] == term):
            source = column.partition(".")[2] or "all sources"
            lines.setdefault(source, []).append((log["step"].to_numpy(), log[column].to_numpy()))
    settings, gates, levels = graph.params.run(kind, name), [], []
    if (
        isinstance(settings, Translator)
        and getattr(settings, term.removeprefix("d_"), False) is True
    ):
        share = getattr(graph.params.training.translator.gates, term.removeprefix("d_"))
        gates.append((share * graph.steps(Artefact(kind, name)), "gate"))
    if term in UNDECIDED:
        summed = getattr(settings, "cag", False) and term != "d_sad"  # over the crop sizes
        crops = 1 + len(graph.params.training.translator.cag.crops) if summed else 1
        levels.append((crops * UNDECIDED[term], "cannot tell"))
    if term == "accuracy" and "gate" in logs[0]:
        levels.append((float(logs[0]["gate"].iloc[0]), "F learns above this gate"))
    return Panel(f"{title}: {TERMS.get(term, term)}", lines, gates, levels)


def _features(graph: Graph, figure: Figure) -> dict[str, dict[str, np.ndarray]]:
    """Of each run, by domain, the first two principal components of F's pooled features."""
    params, found = graph.params, {}
    target = params.tables[figure.table].target
    for run, title in _titles(graph, figure).items():
        kind, name = run.split("/")
        sets = params.sets(
            params.segmenters[name] if kind == "segmenters" else params.adaptations[name]
        )
        net = assembly.segmenter(graph, run, params.seeds[0])
        # A union is shown by its datasets, as far as they have pictures of their own.
        items = [
            each for item in sets for each in (params.members(item) if "/" not in item else [item])
        ]
        pooled = {
            item.rpartition("/")[2]: _pooled(
                net, assembly.pictures(graph, item, params.seeds[0]), figure.images
            )
            for item in [*items, target]
        }
        how = "stylised sources" if any("/" in item for item in sets) else "sources as they are"
        found[f"{title}: {how}"] = _components(pooled)
    return found


def _pooled(net: Any, pictures: Any, wanted: int) -> np.ndarray:
    """Means over all positions of F's last hidden layer [N, channels], one image after another."""
    import torch

    from madan import batches, training

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


def _shares(graph: Graph, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Percent of each class [19] in the sources, and in the split on which the target is scored."""
    params = graph.params
    target, split = params.tables[params.figures[name].table].target, params.evaluation.split
    shards = graph.inputs(Artefact("figures", name))
    domains = dict.fromkeys(shard.name.split("/")[0] for shard in shards)
    for source in [each for each in domains if each != target]:
        yield source, _share(assembly.pictures(graph, source, labelled=True))
    pictures = assembly.pictures(graph, target, split=split, labelled=True)
    yield f"{target} ({split})", _share(pictures)


def _share(pictures: Any) -> np.ndarray:
    pixels = pictures.pixels()
    return np.asarray(100 * pixels / max(1, pixels.sum()))
