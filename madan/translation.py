"""Pixel-level adaptation: generators G_i from each source to the target, trained together.

One source with every switch off is CycleGAN (Zhu et al. 2017); with `semantic: sc` it is CyCADA's
pixel level (Hoffman et al. 2018); several sources with SAD, CCD and DSC are MADAN (Zhao et al.
2019). Names of networks, for source i:

    G_i   G_{S_i->T}        D_i   is it an image of source i?
    GT_i  G_{T->S_i}        DT    is it an image of the target? (DT_i: one for each source)
    FA    task segmenter    DA_i  D_A^i: is it adapted from source i, or from another source?
"""

from collections.abc import Iterable, Mapping
from itertools import permutations
from pathlib import Path

import torch
from torch import Tensor, nn

from madan import batches, checkpoints, losses, parallel, training
from madan.datasets import Pictures
from madan.discriminators import ImagePool, PatchGAN
from madan.drn26 import Net
from madan.generator import Generator
from madan.schema import Networks, TranslatorTraining
from madan.schema import Translator as Run

Images = dict[str, Tensor]


class Translator:
    """The generators of a dict of sources, their discriminators and, for DSC, F_A."""

    def __init__(
        self,
        run: Run,
        settings: TranslatorTraining,
        networks: Networks,
        sources: Mapping[str, Pictures],
        target: Pictures,
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
        sad = self.run.sad and step >= settings.gates.sad * self.steps
        ccd = self.run.ccd and step >= settings.gates.ccd * self.steps

        drawn = self._draw(step)
        x = {i: drawn[i].images for i in self.sources}
        x_target = drawn[""].images
        adapted, back, crossed, figures = self._update_generators(x, x_target, sad, ccd)
        figures |= self._update_discriminators(x, x_target, adapted, back, crossed, sad)
        every = self.run.task.update_every if self.run.task else 0
        if self.task is not None and every and step % every == 0:
            truth = torch.cat([drawn[i].truth() for i in self.sources])
            figures["task"] = self._update_task(self.task, adapted, truth)
        return {name: value.item() for name, value in figures.items()}

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
        self, x: Images, x_target: Tensor, sad: bool, ccd: bool
    ) -> tuple[Images, Images, dict[tuple[str, str], Tensor], dict[str, Tensor]]:
        """Minimise the sum of the paper's terms over the generators; return their images."""
        weights, pairs = self.settings.weights, list(permutations(x, 2))
        _require_grad(self.discriminators.values(), False)
        adapted = {i: self.G(i)(x[i]) for i in x}
        back = {i: self.GT(i)(x_target) for i in x}
        crossed = {(i, j): self.GT(i)(adapted[j]) for i, j in pairs} if ccd else {}
        terms: dict[str, Tensor] = {}
        for i in x:
            terms[f"gan_target.{i}"] = losses.adversarial(self.DT(i)(adapted[i]), real=True)
            terms[f"gan_source.{i}"] = losses.adversarial(self.D(i)(back[i]), real=True)
            terms[f"cycle.{i}"] = losses.cycle(self.GT(i)(adapted[i]), x[i]) + losses.cycle(
                self.G(i)(back[i]), x_target
            )
            if weights.identity:
                terms[f"identity.{i}"] = losses.cycle(self.G(i)(x_target), x_target) + losses.cycle(
                    self.GT(i)(x[i]), x[i]
                )
            if self.run.semantic != "none":
                terms[f"semantic.{i}"] = self._semantic(i, x[i], adapted[i])
        for i, j in pairs:
            share = 1 / (len(x) - 1)
            if sad:
                fooled = losses.adversarial(self.DA(i)(adapted[j]), real=True)
                terms[f"sad.{i}"] = terms.get(f"sad.{i}", 0) + share * fooled
            if ccd:
                fooled = losses.adversarial(self.D(i)(crossed[i, j]), real=True)
                terms[f"ccd.{i}"] = terms.get(f"ccd.{i}", 0) + share * fooled
        weighed = [getattr(weights, name.split(".")[0]) * term for name, term in terms.items()]
        training.descend(self.optimizers["G"], torch.stack(weighed).sum())
        _require_grad(self.discriminators.values(), True)
        return _detach(adapted), _detach(back), _detach(crossed), _detach(terms)

    def _semantic(self, i: str, source: Tensor, adapted: Tensor) -> Tensor:
        """DSC: KL(F_A(x'_i) || F_i(x_i)); SC has F_i on both images."""
        judge = self.judges[i]
        current = judge
        if self.run.semantic == "dsc" and self.task is not None:
            current = self.task.eval().requires_grad_(False)
        with torch.no_grad():
            said = judge(batches.imagenet(source))
        return losses.semantic_consistency(current(batches.imagenet(adapted)), said)

    def _update_discriminators(
        self, x: Images, x_target: Tensor, adapted: Images, back: Images,
        crossed: Mapping[tuple[str, str], Tensor], sad: bool,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Teach every discriminator real from fake; fakes of D_T and D_i come from a history."""
        shown = {i: self.pools[f"pool_T_{i}"].query(adapted[i]) for i in x}
        terms: dict[str, Tensor] = {}
        for i in x:
            fakes = [self.pools[f"pool_{i}"].query(back[i])]
            fakes += [image for (into, _), image in crossed.items() if into == i]
            terms[f"d_source.{i}"] = _tell(self.D(i), [x[i]], fakes)
            if not self.run.shared:
                terms[f"d_target.{i}"] = _tell(self.DT(i), [x_target], [shown[i]])
            if sad:
                others = [shown[j] for j in x if j != i]
                terms[f"d_sad.{i}"] = _tell(self.DA(i), [shown[i]], others)
        if self.run.shared:
            terms["d_target"] = _tell(self.DT(""), [x_target], list(shown.values()))
        training.descend(self.optimizers["D"], torch.stack(list(terms.values())).sum())
        return _detach(terms)

    def _update_task(self, task: Net, adapted: Images, truth: Tensor) -> Tensor:
        """One step of F_A on the adapted images with their sources' labels."""
        task.train().requires_grad_(True)
        scores = task(batches.imagenet(torch.cat(list(adapted.values()))))
        total = parallel.mean(losses.task_total(truth, self.class_weights))
        loss = losses.task(scores, truth, self.class_weights, total)
        training.descend(self.optimizers["FA"], loss)
        return loss.detach()

    def _draw(self, step: int) -> dict[str, batches.Batch]:
        settings = self.settings
        labelled = self.task is not None
        return {
            name: batches.draw(
                pictures, self.seed, step, settings.batch, settings.crop, settings.flip,
                labelled=labelled and name != "",
            ).to(training.device())
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


def _tell(discriminator: nn.Module, real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Half the loss on real and half the loss on fake images, each a mean over its list."""
    on_real = [losses.adversarial(discriminator(image), real=True) for image in real]
    on_fake = [losses.adversarial(discriminator(image), real=False) for image in fake]
    return (torch.stack(on_real).mean() + torch.stack(on_fake).mean()) / 2


def _require_grad(modules: Iterable[nn.Module], needed: bool) -> None:
    for module in modules:
        module.requires_grad_(needed)


def _detach(tensors: Mapping) -> dict:
    return {name: tensor.detach() for name, tensor in tensors.items()}
