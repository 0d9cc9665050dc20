"""Seconds and multiplications of one training step at the paper's scale, batch 1, on this machine.

    python benchmarks/paper_size.py

A GPU's seconds follow from the count and from what it reaches; nothing else of it is known here.
"""

import time
from collections.abc import Callable

import steps
import torch
from torch.utils.flop_counter import FlopCounterMode

from madan import segmentation
from madan.plan import Noise
from madan.schema import Params

SEGMENTER, CROP = (600, 1080), 400  # of the paper's FCN-8s and of its generators


def supervised(params: Params, name: str) -> Callable[[], object]:
    """A step of L_task of this network of params.yaml's."""
    settings = params.training.segmenter.model_copy(
        update={"batch": 1, "crop": SEGMENTER, "accumulate": 1}
    )
    net = segmentation.build(getattr(params.networks, name))
    noise = Noise("noise", SEGMENTER, SEGMENTER, 4)
    method = segmentation.Supervised(net, [noise], settings, 1000, 0)
    return lambda: method.update(steps.LATE)


def translator(params: Params, names: list[str]) -> Callable[[], object]:
    """A late step of every generator and discriminator, and of F_A."""
    method = steps.sources(params, CROP, names)
    return lambda: method.update(steps.LATE)


def main() -> None:
    """Print a line for each kind of training."""
    params = steps.paper(1)
    kinds = {
        "FCN-8s 600x1080": supervised(params, "segmenter"),
        "DRN-26 600x1080": supervised(params, "drn26"),
        "DSC, one source, 400x400": translator(params, ["one"]),
        "MADAN, two sources, 400x400": translator(params, ["one", "two"]),
    }
    torch.set_num_threads(torch.get_num_threads() if torch.get_num_threads() > 1 else 2)
    for name, step in kinds.items():
        with FlopCounterMode(display=False) as counter:
            began = time.perf_counter()
            step()
            took = time.perf_counter() - began
        operations = counter.get_total_flops() / 1e12
        print(
            f"{name}: {took:.0f} s, {operations:.1f} TFLOP, {operations / took * 1e3:.0f} GFLOP/s"
        )


if __name__ == "__main__":
    main()
