"""A training step of two sources as the released code arranges it.

The reference for its recorded numbers, and the baseline of the benchmark: every network is called
on one image at a time, frozen segmenters and discriminators keep their graphs, Adam is not fused.
Where MADAN is done right, translation.py differs (docs/deviations.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEMANTIC = 20.0 * 10.0  # of the divergence, which is divided by classes and pixels
CCD = 0.2
LR, BETAS = 2e-4, (0.5, 0.999)


class Released:
    """Its networks by name, their optimisers, and `step`.

    Networks: G_i and R_i (source i to target and back), DT (or DT_1 and DT_2) and D_i; if given,
    SAD, CCD_1 and CCD_2 (one discriminator of its own for each direction) and the judges F_i.
    With `gates` closed, SAD's and CCD's discriminators learn and pull nobody.
    """

    def __init__(
        self, networks: dict[str, nn.Module], *, cycle: float, identity: float, gates: bool
    ):
        self.net, self.cycle, self.identity, self.gates = networks, cycle, identity, gates
        sides = {"G": ("G", "R"), "D": ("D", "S", "C")}
        self.optimizers = {
            side: torch.optim.Adam(
                [p for n, net in networks.items() if n[0] in first for p in net.parameters()],
                LR, BETAS, foreach=False,
            )
            for side, first in sides.items()
        }  # fmt: skip

    def step(self, x: dict[int, Tensor], x_target: Tensor) -> dict[str, Tensor]:
        """One step on images of source 1 and 2 and of the target; every loss by its name."""
        adapted = {i: self.net[f"G_{i}"](x[i]) for i in x}
        back = {i: self.net[f"R_{i}"](x_target) for i in x}
        crossed = {}
        said: dict[str, Tensor] = {}
        for i in x:
            said |= self._generators(i, x[i], x_target, adapted[i], back[i])
        if "SAD" in self.net and self.gates:
            said["sad"] = _real(self.net["SAD"](adapted[1]))  # pulls source 1 alone
        for i, j in ((1, 2), (2, 1)):
            if "CCD_1" in self.net:
                crossed[i] = self.net[f"R_{i}"](adapted[j])
                if self.gates:
                    said[f"ccd_{i}"] = _real(self.net[f"CCD_{i}"](crossed[i]))
        weights = {"ccd": CCD, "semantic": SEMANTIC}
        said["total"] = sum(weights.get(n.split("_")[0], 1.0) * said[n] for n in said)
        self._descend("G", said["total"])
        total = 0
        for i in x:
            judge = self.net.get("DT") or self.net[f"DT_{i}"]
            # The history holds fewer images than it may: it gives back what it is asked for.
            said[f"d_target_{i}"] = _tell(judge, x_target, adapted[i])
            said[f"d_source_{i}"] = _tell(self.net[f"D_{i}"], x[i], back[i])
            if crossed:
                said[f"d_ccd_{i}"] = _tell(self.net[f"CCD_{i}"], x[i], crossed[i])
        if "SAD" in self.net:
            said["d_sad"] = _tell(self.net["SAD"], adapted[2], adapted[1])
        total = sum(loss for name, loss in said.items() if name.startswith("d_"))
        self._descend("D", total)
        return {name: loss.detach() for name, loss in said.items()}

    def _generators(
        self, i: int, x: Tensor, x_target: Tensor, adapted: Tensor, back: Tensor
    ) -> dict[str, Tensor]:
        """The terms of source i alone."""
        to, fro = self.net[f"G_{i}"], self.net[f"R_{i}"]
        judge = self.net.get("DT") or self.net[f"DT_{i}"]
        said = {f"target_{i}": 2 * _real(judge(adapted))}
        said[f"source_{i}"] = _real(self.net[f"D_{i}"](back))
        said[f"cycle_source_{i}"] = self.cycle * (fro(adapted) - x).abs().mean()
        said[f"cycle_target_{i}"] = self.cycle * (to(back) - x_target).abs().mean()
        if self.identity:
            weight = self.cycle * self.identity
            said[f"identity_target_{i}"] = weight * (to(x_target) - x_target).abs().mean()
            said[f"identity_source_{i}"] = weight * (fro(x) - x).abs().mean()
        if f"F_{i}" in self.net:
            # From the source's view to the adapted one's, of images that are not normalised.
            judge = self.net[f"F_{i}"]
            now, then = judge(adapted).log_softmax(1), judge(x).softmax(1)
            said[f"semantic_{i}"] = F.kl_div(now, then, reduction="sum") / now.numel()
        return said

    def _descend(self, side: str, loss: Tensor) -> None:
        self.optimizers[side].zero_grad()
        loss.backward()
        self.optimizers[side].step()


def _real(output: Tensor) -> Tensor:
    return F.mse_loss(output, torch.ones_like(output))


def _tell(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    on_fake = discriminator(fake.detach())
    on_fake = F.mse_loss(on_fake, torch.zeros_like(on_fake))
    return (_real(discriminator(real.detach())) + on_fake) / 2
