"""Stylised datasets: every image of a source through its generator, at the size of its label."""

from pathlib import Path

import numpy as np
import torch

from madan.data import batches
from madan.data.datasets import TrainingSet, array
from madan.engine import training
from madan.engine.progress import Meter

BATCH = 8


@torch.inference_mode()
def stylise(generator: torch.nn.Module, source: TrainingSet, out: Path, precision: str) -> None:
    """Write x'_i = G_i(x_i) of every shard as out/<k>/images.npy [N, h, w, 3] uint8, rounded."""
    generator.eval()
    meter, done = Meter("stylise", len(source), every=60), 0
    for k, images in enumerate(source.shards):
        (out / str(k)).mkdir()
        with array(out / str(k) / "images.npy", images.shape) as add:
            for first in range(0, len(images), BATCH):
                pixels = np.array(images[first : first + BATCH])
                x = batches.scale(batches.on(training.device(), pixels))
                with training.autocast(precision):
                    adapted = generator(x)
                add(to_bytes(adapted))
                done += len(x)
                meter.show(done, {})
    meter.close()


def to_bytes(images: torch.Tensor) -> np.ndarray:
    """Images [B, 3, h, w] in [-1, 1] as uint8 [B, h, w, 3], rounded to the nearest level."""
    grey = (images.float() + 1).mul(127.5).round().clamp(0, 255).byte()
    return grey.permute(0, 2, 3, 1).cpu().numpy()
