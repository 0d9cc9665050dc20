"""Pixel-level adaptation: generators G_i from each source to the target, trained together.

One source with every switch off is CycleGAN (Zhu et al. 2017); with `semantic: sc` it is CyCADA's
pixel level (Hoffman et al. 2018); several sources with SAD, CCD and DSC are MADAN (Zhao et al.
2019). Names of networks, for source i:

    G_i   G_{S_i->T}        D_i   is it an image of source i?
    GT_i  G_{T->S_i}        DT    is it an image of the target? (DT_i: one for each source)
    FA    task segmenter    DA_i  D_A^i: is it adapted from source i, or from another source?
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from madan import batches, checkpoints, losses, parallel, training
from madan.datasets import TrainingSet
from madan.discriminators import ImagePool, PatchGAN
from madan.drn26 import Net
from madan.generator import Generator
from madan.schema import Networks, TranslatorTraining
from madan.schema import Translator as Run

Images = dict[str, Tensor]
Pairs = list[tuple[str, str]]


class Made(NamedTuple):
    """What the generators made in a step."""

    adapted: Images  # x'_i = G_i(x_i)
    back: Images  # G_{T->i}(x_T)
    crossed: dict[tuple[str, str], Tensor]  # G_{T->i}(x'_j) by (i, j)

    def into(self, i: str) -> list[Tensor]:
        """The images of other sources that were sent to T and back as source i."""
        return [image for (into, _), image in self.crossed.items() if into == i]


class Translator:
    """The generators of a dict of sources, their discriminators and, for DSC, F_A."""

    def __init__(
        self,
        run: Run,
        settings: TranslatorTraining,
        networks: Networks,
        sources: Mapping[str, TrainingSet],
        target: TrainingSet,
        *,
        steps: int,
        seed: int,
        judges: Mapping[str, Net] = {},
        task: Net | None = None,
        class_weights: Tensor | None = None,
    ):
        self.run, self.settings, self.steps, self.seed = run, settings, steps, seed
        self.sources, self.target = sources, target
        self.judges = {name: judge.eval().requires_grad_(False) for name, judge in judges.items()}
        self.class_weights = class_weights
        self.generators, self.discriminators = _build(run, networks)
        self.task = task
        shape = (3, *settings.crop)
        self.pools = {
            f"pool_{side}{i}": ImagePool(size=settings.pool, shape=shape).to(training.device())
            for i in run.sources
            for side in ("T_", "")
        }
        self.modules = self.networks() | self.pools
        self.optimizers = self._optimizers()

    def networks(self) -> dict[str, nn.Module]:
        """All networks by name: what is given out."""
        task = {"FA": self.task} if self.task is not None else {}
        return {**self.generators, **self.discriminators, **task}

    def start(self, made: Iterable[tuple[Run, Path]]) -> None:
        """Go on from other translators' weights; a shared D_T goes on from the first one's."""
        for number, (run, path) in enumerate(made):
            for i in run.sources:
                for network in (f"G_{i}", f"GT_{i}", f"D_{i}"):
                    checkpoints.load(path, network, self.networks()[network])
                given = "DT" if run.shared else f"DT_{i}"
                if not self.run.shared or number == 0:
                    checkpoints.load(path, given, self.DT(i))

    def update(self, step: int) -> dict[str, float]:
        """One step: the generators against fixed discriminators, then those, then F_A."""
        settings = self.settings
        factor = training.linear_decay(step, self.steps, settings.decay_from)
        training.set_rate(self.optimizers["G"], settings.lr * factor)
        training.set_rate(self.optimizers["D"], settings.lr_discriminator * factor)
        pairs = self._pairs(step)
        sad = pairs if self.run.sad and step >= settings.gates.sad * self.steps else []
        ccd = pairs if self.run.ccd and step >= settings.gates.ccd * self.steps else []

        drawn = self._draw(step)
        x = {i: drawn[i].images for i in self.sources}
        x_target = drawn[""].images
        made, figures = self._update_generators(x, x_target, sad, ccd)
        figures |= self._update_discriminators(x, x_target, made, sad, ccd)
        every = self.run.task.update_every if self.run.task else 0
        if self.task is not None and every and step % every == 0:
            truth = torch.cat([drawn[i].truth() for i in self.sources])
            training.set_rate(self.optimizers["FA"], self._task_rate(step))
            figures["task"] = self._update_task(self.task, made.adapted, truth)
        return dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))

    def _task_rate(self, step: int) -> float:
        """F_A's learning rate in a step, as its schedule says."""
        assert self.run.task is not None
        rate, schedule = self.run.task.lr or self.settings.task_lr, self.run.task.schedule
        if schedule == "one-cycle":
            return rate * training.one_cycle(step, self.steps)
        decay_from = self.settings.decay_from if schedule == "linear" else 1.0
        return rate * training.linear_decay(step, self.steps, decay_from)

    def _pairs(self, step: int) -> Pairs:
        """Ordered pairs (i, j) of two sources that SAD and CCD take: all, or so many drawn."""
        pairs = list(permutations(self.sources, 2))
        wanted = self.settings.pairs
        if wanted == "all" or wanted >= len(pairs):
            return pairs
        drawn = batches.stream(self.seed, "pairs", step).choice(len(pairs), wanted, replace=False)
        return [pairs[k] for k in sorted(drawn)]

    def look(self) -> dict[str, Tensor]:
        """The first image of every source [3, h, w], and beside it what G_i makes of it now."""
        shown = {}
        for i, pictures in self.sources.items():
            image = torch.from_numpy(pictures.image(0).copy())[None]
            x = batches.scale(image).to(training.device())
            with torch.no_grad():
                made = self.G(i).eval()(x)
            self.G(i).train()
            shown[f"G_{i}"] = torch.cat([x[0], made[0]], dim=2)
        return shown

    def _update_generators(
        self, x: Images, x_target: Tensor, sad: Pairs, ccd: Pairs
    ) -> tuple[Made, dict[str, Tensor]]:
        """Minimise the sum of the paper's terms over the generators; return their images.

        Terms are means over a batch: those of its parts, weighed by their images, add up to them.
        """
        _require_grad(self.discriminators.values(), False)
        self.optimizers["G"].zero_grad()
        made, terms = [], []
        for part in _parts({**x, "": x_target}, self.settings.accumulate):
            share = len(part[""]) / len(x_target)
            images, found = self._terms(part, part.pop(""), sad, ccd)
            weights = [getattr(self.settings.weights, name.split(".")[0]) for name in found]
            weighed = [share * w * term for w, term in zip(weights, found.values(), strict=True)]
            torch.stack(weighed).sum().backward()
            made.append(Made(*(_detach(kind) for kind in images)))
            terms.append({name: share * term.detach() for name, term in found.items()})
        training.take_step(self.optimizers["G"])
        _require_grad(self.discriminators.values(), True)
        whole = Made(*(_join(torch.cat, kind) for kind in zip(*made, strict=True)))
        return whole, _join(sum, terms)

    def _terms(
        self, x: Images, x_target: Tensor, sad: Pairs, ccd: Pairs
    ) -> tuple[Made, dict[str, Tensor]]:
        """The generators' images, and every term that they are to minimise."""
        made, terms = self._generate(x, x_target, ccd)
        terms |= self._fool(made, sad, ccd)
        if self.run.semantic != "none":
            terms |= self._semantic(x, made.adapted)
        return made, terms

    def _generate(self, x: Images, x_target: Tensor, ccd: Pairs) -> tuple[Made, dict[str, Tensor]]:
        """All images of a step, and the terms that compare them: cycle and identity."""
        made, terms = Made({}, {}, {}), {}
        same = bool(self.settings.weights.identity)
        for i in x:
            made.back[i], *own = _through(self.GT(i), [x_target, *([x[i]] * same)])
            made.adapted[i], again, *target = _through(
                self.G(i), [x[i], made.back[i], *([x_target] * same)]
            )
            terms[f"cycle.{i}"] = losses.cycle(again, x_target)
            if same:
                kept = losses.cycle(target[0], x_target) + losses.cycle(own[0], x[i])
                terms[f"identity.{i}"] = kept
        for i in x:
            others = [j for into, j in ccd if into == i]
            again, *crossed = _through(self.GT(i), [made.adapted[j] for j in (i, *others)])
            terms[f"cycle.{i}"] = terms[f"cycle.{i}"] + losses.cycle(again, x[i])
            made.crossed.update({(i, j): image for j, image in zip(others, crossed, strict=True)})
        return made, terms

    def _fool(self, made: Made, sad: Pairs, ccd: Pairs) -> dict[str, Tensor]:
        """The terms of the generators that discriminators set: GAN both ways, SAD and CCD."""
        terms: dict[str, Tensor] = {}
        for names in self._target_groups():
            said = _through(self.DT(names[0]), [made.adapted[i] for i in names])
            for i, output in zip(names, said, strict=True):
                terms[f"gan_target.{i}"] = losses.adversarial(output, real=True)
        for i in made.adapted:
            own, *others = _through(self.D(i), [made.back[i], *made.into(i)])
            terms[f"gan_source.{i}"] = losses.adversarial(own, real=True)
            if ccd:
                terms[f"ccd.{i}"] = _share(made.adapted, ccd) * _fooled(others, like=own)
            if sad:
                rivals = [made.adapted[j] for of, j in sad if of == i]
                said = _through(self.DA(i), rivals)
                terms[f"sad.{i}"] = _share(made.adapted, sad) * _fooled(said, like=own)
        return terms

    def _semantic(self, x: Images, adapted: Images) -> dict[str, Tensor]:
        """DSC: KL(F_A(x'_i) || F_i(x_i)); SC has F_i on both images."""
        seen = {i: batches.imagenet(image) for i, image in adapted.items()}
        if self.run.semantic == "dsc" and self.task is not None:
            current = self.task.eval().requires_grad_(False)
            now = dict(zip(seen, _through(current, list(seen.values())), strict=True))
        else:
            now = {i: self.judges[i](image) for i, image in seen.items()}
        terms = {}
        for i, judge in self.judges.items():
            with torch.no_grad():
                said = judge(batches.imagenet(x[i]))
            terms[f"semantic.{i}"] = losses.semantic_consistency(now[i], said)
        return terms

    def _update_discriminators(
        self, x: Images, x_target: Tensor, made: Made, sad: Pairs, ccd: Pairs
    ) -> dict[str, Tensor]:
        """Teach every discriminator real from fake; fakes of D_T and D_i come from a history."""
        shown = {i: self.pools[f"pool_T_{i}"].query(made.adapted[i]) for i in x}
        terms: dict[str, Tensor] = {}
        for i in x:
            fakes = [(self.pools[f"pool_{i}"].query(made.back[i]), 1.0)]
            if ccd:
                # The mean over it and one from each other source, where all pairs are taken.
                crossing = _share(x, ccd) * (len(x) - 1) / len(x)
                fakes = [(fakes[0][0], 1 / len(x)), *((c, crossing) for c in made.into(i))]
            terms[f"d_source.{i}"] = _tell(self.D(i), x[i], fakes)
            if sad:
                rivals = [(shown[j], _share(x, sad)) for of, j in sad if of == i]
                terms[f"d_sad.{i}"] = _tell(self.DA(i), shown[i], rivals)
        for names in self._target_groups():
            fakes = [(shown[i], 1 / len(names)) for i in names]
            name = "d_target" if self.run.shared else f"d_target.{names[0]}"
            terms[name] = _tell(self.DT(names[0]), x_target, fakes)
        training.descend(self.optimizers["D"], torch.stack(list(terms.values())).sum())
        return _detach(terms)

    def _update_task(self, task: Net, adapted: Images, truth: Tensor) -> Tensor:
        """One step of F_A on the adapted images with their sources' labels."""
        task.train().requires_grad_(True)
        total = parallel.mean(losses.task_total(truth, self.class_weights))
        images = torch.cat(list(adapted.values()))
        self.optimizers["FA"].zero_grad()
        found = []
        for part in _parts({"x": images, "truth": truth}, self.settings.accumulate):
            scores = task(batches.imagenet(part["x"]))
            found.append(losses.task(scores, part["truth"], self.class_weights, total))
            found[-1].backward()
        training.take_step(self.optimizers["FA"])
        return torch.stack(found).detach().sum()

    def _draw(self, step: int) -> dict[str, batches.Batch]:
        settings = self.settings
        labelled = self.task is not None
        return {
            name: batches.draw(
                pictures, self.seed, step, settings.batch, settings.crop, settings.flip,
                labelled=labelled and name != "", device=training.device(),
            )
            for name, pictures in {**self.sources, "": self.target}.items()
        }  # fmt: skip

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        settings = self.settings
        named = [item for net in self.generators.values() for item in net.named_parameters()]
        groups = [
            {"params": [p for name, p in named if not name.startswith("colour")], "factor": 1.0},
            {
                "params": [p for name, p in named if name.startswith("colour")],
                "factor": settings.colour_lr,
            },
        ]
        betas = (settings.beta1, 0.999)
        judged = [p for net in self.discriminators.values() for p in net.parameters()]
        optimizers: dict[str, torch.optim.Optimizer] = {
            "G": torch.optim.Adam(
                [g for g in groups if g["params"]], settings.lr, betas, fused=True
            ),
            "D": torch.optim.Adam(judged, settings.lr_discriminator, betas, fused=True),
        }
        if self.task is not None:
            optimizers["FA"] = torch.optim.AdamW(
                self.task.parameters(), settings.task_lr, weight_decay=0.0, fused=True
            )
        return optimizers

    def G(self, i: str) -> nn.Module:
        """G_i: source i to target."""
        return self.generators[f"G_{i}"]

    def GT(self, i: str) -> nn.Module:
        """G_{T->i}: target to source i."""
        return self.generators[f"GT_{i}"]

    def D(self, i: str) -> nn.Module:
        """D_i, for images of source i."""
        return self.discriminators[f"D_{i}"]

    def DT(self, i: str) -> nn.Module:
        """D_T, for images of the target; shared by all sources or one for each."""
        return self.discriminators["DT" if self.run.shared else f"DT_{i}"]

    def _target_groups(self) -> list[list[str]]:
        """Sources by their D_T: all of them, or each alone."""
        return [list(self.sources)] if self.run.shared else [[i] for i in self.sources]

    def DA(self, i: str) -> nn.Module:
        """D_A^i, for images adapted from source i."""
        return self.discriminators[f"DA_{i}"]


def _build(run: Run, networks: Networks) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    generators = [f"{side}_{i}" for i in run.sources for side in ("G", "GT")]
    discriminators = [f"D_{i}" for i in run.sources]
    discriminators += ["DT"] if run.shared else [f"DT_{i}" for i in run.sources]
    discriminators += [f"DA_{i}" for i in run.sources] if run.sad else []
    made = {name: Generator(**networks.generator.model_dump()) for name in generators}
    told = {name: PatchGAN(**networks.discriminator.model_dump()) for name in discriminators}
    place = training.device()
    return {n: g.to(place) for n, g in made.items()}, {n: d.to(place) for n, d in told.items()}


def _through(network: nn.Module, images: list[Tensor]) -> list[Tensor]:
    """Outputs of a network for several batches, seen at once: normalised one image at a time,
    they are those of separate calls, and faster."""
    if not images:
        return []
    return list(network(torch.cat(images)).split([len(batch) for batch in images]))


def _parts(whole: Images, parts: int) -> Iterator[Images]:
    """The batches in that many parts, all of them cut alike."""
    for pieces in zip(*(images.chunk(parts) for images in whole.values()), strict=True):
        yield dict(zip(whole, pieces, strict=True))


def _join(how: Callable, parts: Sequence[Mapping]) -> dict:
    """What the parts have under each name, put together."""
    return {name: how([part[name] for part in parts]) for name in parts[0]}


def _share(sources: Images, pairs: Pairs) -> float:
    """Weight of a pair: 1/(M-1) of all M(M-1), and more where only some were drawn."""
    return len(sources) / len(pairs)


def _fooled(said: list[Tensor], like: Tensor) -> Tensor:
    """Sum over outputs of a discriminator that ought to take them for real; 0 of none."""
    return sum((losses.adversarial(o, real=True) for o in said), like.new_zeros(()))


def _tell(discriminator: nn.Module, real: Tensor, fakes: list[tuple[Tensor, float]]) -> Tensor:
    """Half the loss on real images and half the loss on fake ones, which have these weights."""
    on_real, *on_fake = _through(discriminator, [real, *(image for image, _ in fakes)])
    loss = losses.adversarial(on_real, real=True)
    for said, (_, weight) in zip(on_fake, fakes, strict=True):
        loss = loss + weight * losses.adversarial(said, real=False)
    return loss / 2


def _require_grad(modules: Iterable[nn.Module], needed: bool) -> None:
    for module in modules:
        module.requires_grad_(needed)


def _detach(tensors: Mapping) -> dict:
    return {name: tensor.detach() for name, tensor in tensors.items()}
