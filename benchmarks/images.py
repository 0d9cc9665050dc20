"""Images against plain ways: stylised, drawn into batches, written as PNGs."""

import copy
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import data
import numpy as np
import plain
import steps
import torch
import torchvision
from pairs import Pair, Size
from PIL import Image
from torchvision.transforms import v2

from madan import labels
from madan.data import batches, datasets, layouts, verify
from madan.data.datasets import Pictures
from madan.engine import training
from madan.evaluation import export
from madan.methods import stylisation
from madan.miniature import world
from madan.models.generator import Generator

IMAGES = 6


def pairs(size: Size, scratch: Path) -> Iterator[Pair]:
    """stylise, stylise-compiled, sample, loader-torch, png-export and png-export-pillow."""
    if shutil.which("c++"):
        yield _stylise(size, scratch / "compiled", compiled=True)
    yield _stylise(size, scratch / "stylise", compiled=False)
    yield from _samples(size, scratch / "samples")
    yield from _png(size)


def _stylise(size: Size, scratch: Path, compiled: bool) -> Pair:
    scratch.mkdir()
    height, width = size.stylised
    image, _ = world.draw("gta5", "train", 0, seed=0, size=size.stylised)
    Image.fromarray(image).save(scratch / "image.png")
    np.save(scratch / "images.npy", image[None])
    training.begin(0, 1)
    network = steps.paper(size.narrow).networks.generator
    net = Generator(**network.model_dump()).eval()
    released = plain.normalised(copy.deepcopy(net))
    training.compiled(net, compiled)
    source, numbers = Pictures("source", [scratch]), itertools.count()

    def by_hand() -> np.ndarray:
        with Image.open(scratch / "image.png") as opened:
            x = torch.from_numpy(np.array(opened)).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            made = released((x - 0.5) / 0.5)
        grey = ((made[0].permute(1, 2, 0) + 1) / 2 * 255).numpy().astype(np.uint8)
        Image.fromarray(grey).save(scratch / "made.png")
        return grey

    def ours() -> np.ndarray:
        out = scratch / str(next(numbers))
        out.mkdir()
        stylisation.stylise(net, source, out, "fp32")
        return np.load(out / "0" / "images.npy")[0]

    def check() -> float:
        return float(np.abs(by_hand().astype(int) - ours()).mean())

    name = "stylise-compiled" if compiled else "stylise"
    what = f"an image of {height}x{width} through G_i, fp32; error in grey levels, of 1 allowed"
    return Pair(name, what, by_hand, ours, check, 1.0)


class PlainSet(torchvision.datasets.VisionDataset):
    """Images and labels from PNGs, as torchvision's datasets are written."""

    def __init__(self, items: list, size: tuple[int, int], crop: tuple[int, int], table) -> None:
        super().__init__("")
        self.items, self.table = items * IMAGES, torch.from_numpy(table.copy())
        kept = v2.InterpolationMode.NEAREST
        self.image = v2.Compose(
            [v2.Resize(size, v2.InterpolationMode.BICUBIC), v2.CenterCrop(crop), v2.ToImage(),
             v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
        )  # fmt: skip
        self.label = v2.Compose([v2.Resize(size, kept), v2.CenterCrop(crop), v2.PILToTensor()])

    def __len__(self) -> int:  # noqa: D105
        return len(self.items)

    def __getitem__(self, index: int):  # noqa: D105
        item = self.items[index]
        truth = self.label(Image.open(item.label))
        return self.image(Image.open(item.image)), self.table[truth.long()]


def _samples(size: Size, scratch: Path) -> Iterator[Pair]:
    """One drawn sample; and a batch beside a DataLoader."""
    scratch.mkdir()
    dataset = data.draw(scratch / "raw", "gta5", 1, size.native, size.prepared)
    report = verify.verify("benchmark", dataset, "train")
    shard = scratch / "shard"
    shard.mkdir()
    verified = datasets.Verified(report.pairs, report.excluded)
    datasets.prepare(dataset, "train", 0, verified, shard)
    pictures = Pictures("gta5", [shard], [shard])
    item, table = layouts.items(dataset, "train")[0], labels.TABLES["gta5"]
    crop, whole = size.sample, size.prepared

    def by_hand(crop=crop):
        return plain.sample(str(item.image), str(item.label), whole, table, (0, 0), crop)

    def ours(crop=crop, batch=1):
        return batches.draw(pictures, 0, 0, batch, crop, False, labelled=True)

    def check() -> float:
        (x, truth), drawn = by_hand(whole), ours(whole)
        same = torch.equal(drawn.truth()[0], truth)
        return float((drawn.images[0] - x).abs().max()) if same else 1.0

    what = f"{size.native[0]}x{size.native[1]} to {crop[0]}x{crop[1]} tensors, image and label"
    yield Pair("sample", what, by_hand, ours, check, 1e-6)

    rows = PlainSet([item], whole, crop, table)
    loader = iter(torch.utils.data.DataLoader(rows, batch_size=IMAGES // 2, num_workers=0))
    batch = next(loader)

    def drawn_by_loader():
        return next(iter(torch.utils.data.DataLoader(rows, IMAGES // 2)))

    yield Pair(
        "loader-torch", f"{what}, {IMAGES // 2} at once, beside DataLoader",
        drawn_by_loader, lambda: ours(batch=len(batch[0])), lambda: 0.0, 0.0,
    )  # fmt: skip


def _png(size: Size) -> Iterator[Pair]:
    image, _ = world.draw("cityscapes", "train", 0, seed=0, size=size.scored)
    tensor = torch.from_numpy(image).permute(2, 0, 1).contiguous()

    def check() -> float:
        decoded = cv2.imdecode(np.frombuffer(export.png(image), np.uint8), cv2.IMREAD_COLOR)
        return float((decoded[..., ::-1] != image).mean())

    def pillow() -> None:
        import io

        Image.fromarray(image).save(io.BytesIO(), "png")

    what = f"a drawn picture of {size.scored[0]}x{size.scored[1]} to the bytes of a PNG, beside "
    yield Pair(
        "png-export", what + "torchvision's, at its quickest level",
        lambda: torchvision.io.encode_png(tensor, 1), lambda: export.png(image), check, 0.0,
    )  # fmt: skip
    yield Pair(
        "png-export-pillow", what + "Pillow's", pillow, lambda: export.png(image), check, 0.0
    )
