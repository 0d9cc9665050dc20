"""Share of the machine's fp32 peak that networks reach, beside a bare convolution.

The peak is that of a matrix product. Of these rows the baseline is the time that all
multiplications would take at the peak, ours the time they took; what else a network does is loss.
"""

from collections.abc import Callable, Iterator

import steps
import torch
import torch.nn.functional as F
from pairs import Row, Size, row, took
from torch.utils.flop_counter import FlopCounterMode

from madan.engine import training
from madan.methods import segmentation
from madan.models.generator import Generator


@torch.inference_mode()
def rows(size: Size, rounds: int) -> Iterator[Row]:
    """share-matmul in GFLOP/s, and share-conv, share-generator, share-fcn8s."""
    training.begin(0, 1)
    a, b = torch.randn(2, size.matrix, size.matrix)
    flop = 2 * size.matrix**3
    times = [took(lambda: a @ b) for _ in range(2 + 3 * rounds)][2:]
    peak = flop / min(times)
    what = f"the peak: {peak / 1e9:.1f} GFLOP/s in a product of {size.matrix}x{size.matrix}"
    yield row("share-matmul", [(min(times), t) for t in times], 0.0, what)
    params = steps.paper(size.narrow)
    generator = Generator(**params.networks.generator.model_dump()).eval()
    fcn8s = segmentation.build(params.networks.segmenter).eval()
    height, width = size.stylised
    channels = 4 * params.networks.generator.ngf
    inner = torch.randn(1, channels, height // 4, width // 4)
    kernel = torch.randn(channels, channels, 3, 3)
    picture = torch.randn(1, 3, height, width)
    scene = torch.randn(1, 3, *size.segmenter)
    jobs: list[tuple[str, str, Callable[[], object]]] = [
        ("share-conv", f"a bare 3x3 convolution of G_i's inner size, {tuple(inner.shape)}",
         lambda: F.conv2d(inner, kernel, padding=1)),
        ("share-generator", f"G_i, {height}x{width}", lambda: generator(picture)),
        ("share-fcn8s", f"FCN-8s, {size.segmenter[0]}x{size.segmenter[1]}", lambda: fcn8s(scene)),
    ]  # fmt: skip
    for name, what, job in jobs:
        with FlopCounterMode(display=False) as counter:
            job()
        ideal = counter.get_total_flops() / peak
        yield row(name, [(ideal, took(job)) for _ in range(rounds)], 0.0, f"{what} over the peak")
