"""Pixel-level adaptation: generators G_i from each source to the target, trained together.

One source with every switch off is CycleGAN (Zhu et al. 2017); with `semantic: sc` it is CyCADA's
pixel level (Hoffman et al. 2018); several sources with SAD, CCD and DSC are MADAN (Zhao et al.
2019), and with CAG the pixel level of MADAN+. Names of networks, for source i:

    G_i   G_{S_i->T}        D_i   is it an image of source i?
    GT_i  G_{T->S_i}        DT    is it an image of the target? (DT_i: one for each source)
    FA    task segmenter    DA_i  D_A^i: is it adapted from source i, or from another source?
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from madan.config.network_settings import Networks
from madan.config.schema import Translator as Run
from madan.config.training_settings import TranslatorTraining
from madan.data import batches
from madan.data.datasets import TrainingSet
from madan.engine import distributed, training
from madan.methods import context, losses
from madan.methods.adversarial import (
    Images,
    Pairs,
    detach,
    fooled,
    join,
    pair_weight,
    parts,
    require_grad,
    summed,
    tell,
    through,
)
from madan.models import checkpoints
from madan.models.discriminators import ImagePool, PatchGAN
from madan.models.drn26 import Net
from madan.models.generator import Generator


class Scale(NamedTuple):
    """What a step sees at one crop size, and the ordered pairs that SAD and CCD take there."""

    x: Images  # by source
    target: Tensor
    sad: Pairs
    ccd: Pairs


class Made(NamedTuple):
    """What the generators made in a step at one crop size."""

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
        self.crops = [settings.crop, *(settings.cag.crops if run.cag else [])]
        shape = (3, *settings.crop)
        self.pools = {
            _pool(side, i, k): ImagePool(size=settings.pool, shape=shape).to(training.device())
            for k in range(len(self.crops))
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
        scales = [self._scale(drawn, sad, ccd)]
        # CAG: SAD, CCD and L_task see the first crop size alone.
        scales += [self._scale(self._draw(step, k), [], []) for k in range(1, len(self.crops))]
        made, figures = self._update_generators(scales)
        figures |= self._update_discriminators(scales, made)
        every = self.run.task.update_every if self.run.task else 0
        if self.task is not None and every and step % every == 0:
            truth = torch.cat([drawn[i].truth() for i in self.sources])
            training.set_rate(self.optimizers["FA"], self._task_rate(step))
            figures["task"] = self._update_task(self.task, made[0].adapted, truth)
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

    def _scale(self, drawn: Mapping[str, batches.Batch], sad: Pairs, ccd: Pairs) -> Scale:
        return Scale({i: drawn[i].images for i in self.sources}, drawn[""].images, sad, ccd)

    def _update_generators(self, scales: Sequence[Scale]) -> tuple[list[Made], dict[str, Tensor]]:
        """Minimise the sum of the paper's terms over the generators and over the crop sizes.

        Returns the images of every crop size, and the terms.
        """
        require_grad(self.discriminators.values(), False)
        self.optimizers["G"].zero_grad()
        found = [self._gradients(scale) for scale in scales]
        training.take_step(self.optimizers["G"])
        require_grad(self.discriminators.values(), True)
        return [made for made, _ in found], summed([terms for _, terms in found])

    def _gradients(self, scale: Scale) -> tuple[Made, dict[str, Tensor]]:
        """Add up the gradients of the generators' terms; return their images and the terms.

        Terms are means over a batch: those of its parts, weighed by their images, add up to them.
        """
        made, terms = [], []
        for part in parts({**scale.x, "": scale.target}, self.settings.accumulate):
            share = len(part[""]) / len(scale.target)
            images, found = self._terms(part, part.pop(""), scale.sad, scale.ccd)
            weights = [getattr(self.settings.weights, name.split(".")[0]) for name in found]
            weighed = [share * w * term for w, term in zip(weights, found.values(), strict=True)]
            torch.stack(weighed).sum().backward()
            made.append(Made(*(detach(kind) for kind in images)))
            terms.append({name: share * term.detach() for name, term in found.items()})
        return Made(*(join(torch.cat, kind) for kind in zip(*made, strict=True))), summed(terms)

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
            made.back[i], *own = through(self.GT(i), [x_target, *([x[i]] * same)])
            made.adapted[i], again, *target = through(
                self.G(i), [x[i], made.back[i], *([x_target] * same)]
            )
            terms[f"cycle.{i}"] = losses.cycle(again, x_target)
            if same:
                kept = losses.cycle(target[0], x_target) + losses.cycle(own[0], x[i])
                terms[f"identity.{i}"] = kept
        for i in x:
            others = [j for into, j in ccd if into == i]
            again, *crossed = through(self.GT(i), [made.adapted[j] for j in (i, *others)])
            terms[f"cycle.{i}"] = terms[f"cycle.{i}"] + losses.cycle(again, x[i])
            made.crossed.update({(i, j): image for j, image in zip(others, crossed, strict=True)})
        return made, terms

    def _fool(self, made: Made, sad: Pairs, ccd: Pairs) -> dict[str, Tensor]:
        """The terms of the generators that discriminators set: GAN both ways, SAD and CCD."""
        terms: dict[str, Tensor] = {}
        for names in self._target_groups():
            said = through(self.DT(names[0]), [made.adapted[i] for i in names])
            for i, output in zip(names, said, strict=True):
                terms[f"gan_target.{i}"] = losses.adversarial(output, real=True)
        for i in made.adapted:
            own, *others = through(self.D(i), [made.back[i], *made.into(i)])
            terms[f"gan_source.{i}"] = losses.adversarial(own, real=True)
            if ccd:
                terms[f"ccd.{i}"] = pair_weight(made.adapted, ccd) * fooled(others, like=own)
            if sad:
                rivals = [made.adapted[j] for of, j in sad if of == i]
                said = through(self.DA(i), rivals)
                terms[f"sad.{i}"] = pair_weight(made.adapted, sad) * fooled(said, like=own)
        return terms

    def _semantic(self, x: Images, adapted: Images) -> dict[str, Tensor]:
        """DSC: KL(F_A(x'_i) || F_i(x_i)); SC has F_i on both images."""
        seen = {i: batches.imagenet(image) for i, image in adapted.items()}
        if self.run.semantic == "dsc" and self.task is not None:
            current = self.task.eval().requires_grad_(False)
            now = dict(zip(seen, through(current, list(seen.values())), strict=True))
        else:
            now = {i: self.judges[i](image) for i, image in seen.items()}
        terms = {}
        for i, judge in self.judges.items():
            with torch.no_grad():
                said = judge(batches.imagenet(x[i]))
            terms[f"semantic.{i}"] = losses.semantic_consistency(now[i], said)
        return terms

    def _update_discriminators(
        self, scales: Sequence[Scale], made: Sequence[Made]
    ) -> dict[str, Tensor]:
        """Teach every discriminator real from fake, in the sum over the crop sizes."""
        seen = enumerate(zip(scales, made, strict=True))
        terms = summed([self._discriminate(k, scale, images) for k, (scale, images) in seen])
        training.descend(self.optimizers["D"], torch.stack(list(terms.values())).sum())
        return detach(terms)

    def _discriminate(self, k: int, scale: Scale, made: Made) -> dict[str, Tensor]:
        """The discriminators' terms; fakes of D_T and D_i come from the crop size's history."""
        x, _, sad, ccd = scale
        shown = {i: self.pools[_pool("T_", i, k)].query(made.adapted[i]) for i in x}
        terms: dict[str, Tensor] = {}
        for i in x:
            fakes = [(self.pools[_pool("", i, k)].query(made.back[i]), 1.0)]
            if ccd:
                # The mean over it and one from each other source, where all pairs are taken.
                crossing = pair_weight(x, ccd) * (len(x) - 1) / len(x)
                fakes = [(fakes[0][0], 1 / len(x)), *((c, crossing) for c in made.into(i))]
            terms[f"d_source.{i}"] = tell(self.D(i), x[i], fakes)
            if sad:
                rivals = [(shown[j], pair_weight(x, sad)) for of, j in sad if of == i]
                terms[f"d_sad.{i}"] = tell(self.DA(i), shown[i], rivals)
        for names in self._target_groups():
            fakes = [(shown[i], 1 / len(names)) for i in names]
            name = "d_target" if self.run.shared else f"d_target.{names[0]}"
            terms[name] = tell(self.DT(names[0]), scale.target, fakes)
        return terms

    def _update_task(self, task: Net, adapted: Images, truth: Tensor) -> Tensor:
        """One step of F_A on the adapted images with their sources' labels."""
        task.train().requires_grad_(True)
        total = distributed.mean(losses.task_total(truth, self.class_weights))
        images = torch.cat(list(adapted.values()))
        self.optimizers["FA"].zero_grad()
        found = []
        for part in parts({"x": images, "truth": truth}, self.settings.accumulate):
            scores = task(batches.imagenet(part["x"]))
            found.append(losses.task(scores, part["truth"], self.class_weights, total))
            found[-1].backward()
        training.take_step(self.optimizers["FA"])
        return torch.stack(found).detach().sum()

    def _draw(self, step: int, number: int = 0) -> dict[str, batches.Batch]:
        """Batches of the sources and the target at a crop size, labelled where F_A learns."""
        settings, found = self.settings, {}
        for name, pictures in {**self.sources, "": self.target}.items():
            more: Any = {
                "flip": settings.flip,
                "labelled": self.task is not None and name != "" and number == 0,
                "device": training.device(),
            }
            which = pictures, self.seed, step, settings.batch
            if self.run.cag:
                found[name] = context.draw(*which, self.crops, number, **more)
            else:
                found[name] = batches.draw(*which, settings.crop, **more)
        return found

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


def _pool(side: str, i: str, k: int) -> str:
    """Name of a history of fakes: of D_T ("T_") or of D_i (""), at the k-th crop size."""
    return f"pool_{side}{i}" + (f"@{k}" if k else "")
