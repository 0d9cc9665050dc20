"""Training steps against plain ones: several sources at once, and the segmenter."""

import copy
from collections.abc import Iterator

import torch.nn.functional as F
from pairs import Pair, Row, Size, apart, row, took
from plain import PlainFCN8s, PlainSources, adam

from madan import config
from madan.config import schema
from madan.config.schema import Params
from madan.data import batches
from madan.engine import training
from madan.methods import segmentation, translation
from madan.pipeline.trials import Noise

LATE = 998  # of 1000 steps: every gate is open, and F_A is due


def paper(narrow: int) -> Params:
    """The settings of the paper's scale, its networks' channels divided, without dropout."""
    import ruamel.yaml

    with open("params.yaml", encoding="utf-8") as file:
        raw = ruamel.yaml.YAML(typ="safe", pure=True).load(file)
    params = config.resolve({**raw, "scale": "paper"})
    networks = params.networks
    widths = tuple(width // narrow for width in networks.segmenter.widths)
    head = networks.segmenter.head // narrow
    segmenter = {"widths": widths, "head": head, "dropout": 0.0}
    sizes = {
        "segmenter": networks.segmenter.model_copy(update=segmenter),
        "generator": networks.generator.model_copy(
            update={"ngf": networks.generator.ngf // narrow}
        ),
        "discriminator": networks.discriminator.model_copy(
            update={"ndf": networks.discriminator.ndf // narrow}
        ),
    }
    return params.model_copy(update={"networks": networks.model_copy(update=sizes)})


def sources(params: Params, crop: int, names: list[str], pairs: int | str = "all") -> object:
    """A translator with SAD, CCD and DSC over these sources of noise, with fresh networks."""
    training.begin(0, 1)
    settings = params.training.translator.model_copy(
        update={"crop": (crop, crop), "batch": 1, "pairs": pairs}
    )
    run = schema.Translator(
        sources=names, target="target", sad=len(names) > 1, ccd=len(names) > 1, semantic="dsc",
        judges=dict.fromkeys(names, "judge"), task={"start": "judge", "update_every": 2},
    )  # fmt: skip
    pictures = {n: Noise(n, (crop, crop), (crop, crop), 8) for n in [*names, "target"]}
    judges = {n: segmentation.build(params.networks.segmenter) for n in names}
    return translation.Translator(
        run, settings, params.networks, {n: pictures[n] for n in names}, pictures["target"],
        steps=1000, seed=0, judges=judges, task=segmentation.build(params.networks.segmenter),
    )  # fmt: skip


def pairs(size: Size) -> Iterator[Pair]:
    """multi-source-step and segmenter-step."""
    yield _sources(size)
    yield _segmenter(size)


def _sources(size: Size) -> Pair:
    ours = sources(paper(size.narrow), size.crop, ["one", "two"])
    plain = PlainSources(ours)

    def check() -> float:
        expected, found = plain.update(LATE), ours.update(LATE)
        return max(abs(found[name] / value - 1) for name, value in expected.items())

    what = f"two sources, SAD, CCD, DSC, F_A, {size.crop}x{size.crop}, batch 1, fp32"
    return Pair(
        "multi-source-step",
        what,
        lambda: plain.update(LATE),
        lambda: ours.update(LATE),
        check,
        2e-3,
    )


def _segmenter(size: Size) -> Pair:
    params, (height, width) = paper(size.narrow), size.segmenter
    training.begin(0, 1)
    settings = params.training.segmenter.model_copy(
        update={"batch": 1, "crop": size.segmenter, "accumulate": 1}
    )
    noise = Noise("noise", (height, width), (height, width), 8)
    net = segmentation.build(params.networks.segmenter)
    ours = segmentation.Supervised(net, [noise], settings, 1000, 0)
    plain = PlainFCN8s(copy.deepcopy(net))
    optimizer = adam(plain.parameters(), settings.lr)

    def step() -> None:
        batch = batches.draw(noise, 0, 0, 1, size.segmenter, True, labelled=True)
        scores = plain(batches.imagenet(batch.images))
        optimizer.zero_grad()
        F.cross_entropy(scores, batch.truth(), ignore_index=255).backward()
        optimizer.step()

    def check() -> float:
        step()
        ours.update(0)
        return max(
            apart(p.grad, q.grad)
            for p, q in zip(plain.parameters(), net.parameters(), strict=True)
            if p.grad is not None and float(p.grad.norm()) > 1e-8
        )

    what = f"FCN-8s forward, backward, Adam, {height}x{width}, batch 1, fp32"
    return Pair("segmenter-step", what, step, lambda: ours.update(0), check, 2e-3)


def loader(size: Size, step: Row, rounds: int) -> Row:
    """Images that a multi-source step consumes, drawn, beside the time of the step."""
    noise = Noise("noise", size.prepared, size.prepared, 8)

    def three() -> None:
        for _ in range(3):
            batches.draw(noise, 0, 0, 1, (size.crop,) * 2, True, labelled=True)

    three()
    times = [(step.ours_ms / 1000, took(three)) for _ in range(rounds)]
    return row("loader", times, 0.0, "the three images of a multi-source step, beside that step")
