"""Predictions on photos of one's own: any size, upright as their camera says, tiled when large.

Nothing here is certified or part of the graph: photos come from anywhere and pictures go anywhere.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from madan import (
    batches,
    checkpoints,
    datasets,
    export,
    figures,
    labels,
    segmentation,
    stylisation,
    training,
)
from madan.datasets import Array
from madan.drn26 import Net
from madan.network_settings import (
    AnySegmenterNetwork,
    DeeplabV2Network,
    Drn26Network,
    SegmenterNetwork,
    TorchvisionNetwork,
)
from madan.progress import Meter
from madan.schema import Export, Refusal

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
IN_MOSAIC = 6
# F halves at most this often, so that tiles that begin on it are seen in the phase of the whole.
GRID = 32


def photos(paths: Iterable[Path]) -> dict[str, Path]:
    """Image files, and those in folders and below, by the name that their results will have.

    Refusal where there are none, or where two would have one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise Refusal(f"{path} not found: name an image, or a folder of images.")
        each = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        for file in each if path.is_dir() else [path]:
            inside = file.relative_to(path) if path.is_dir() else Path(file.name)
            name = inside.with_suffix("").as_posix()
            if name in found:
                raise Refusal(f"{found[name]} and {file} would both be {name}: rename one of them.")
            found[name] = file
        if path.is_dir() and not each:
            raise Refusal(f"{path} holds no images: they end in {', '.join(SUFFIXES)}.")
    return found


def segmenter(weights: Path) -> Net:
    """F, or a translator's F_A, as a weights file describes it; Refusal when it holds neither."""
    story = checkpoints.story(weights)
    told = story.get("settings", {}).get("networks", {})
    kinds = {
        "segmenter": SegmenterNetwork, "drn26": Drn26Network, "deeplabv2": DeeplabV2Network,
    }  # fmt: skip
    found: list[AnySegmenterNetwork] = [
        kind(**told[name]) for name, kind in kinds.items() if name in told
    ]
    of_torchvision = [name.partition("/") for name in told if name.startswith("torchvision/")]
    found += [TorchvisionNetwork(name=name) for _, _, name in of_torchvision]
    if not found:
        raise Refusal(f"{weights} does not say what its segmenter is like, or holds none.")
    net = segmentation.build(found[0])
    checkpoints.load(weights, "F" if checkpoints.holds(weights, "F") else "FA", net)
    return net.eval()


def predict(
    net: Net, found: Mapping[str, Path], out: Path, height: int, tiles: Export, precision: str
) -> None:
    """Write out/labelIds/<name>.png, out/overlay/<name>.jpg in each photo's size, and a mosaic.

    F sees a photo `height` pixels high, as it was trained, or as it is if height is 0.
    """
    meter, shown = Meter("predict", len(found), every=10), dict[str, list[Array]]()
    for done, (name, path) in enumerate(found.items(), 1):
        image, _ = datasets.read_image(path)
        seen = train_ids(net, image, height, tiles, precision)
        covered = export.overlay(image, seen)
        _write(out / "labelIds" / f"{name}.png", labels.to_label_ids(seen))
        _write(out / "overlay" / f"{name}.jpg", covered)
        if len(shown) < IN_MOSAIC:
            shown[name] = [figures.reduced(image), figures.reduced(covered)]
        meter.show(done, {})
    meter.close()
    figures.save(figures.mosaic(shown), out / "mosaic.png")


@torch.inference_mode()
def train_ids(net: Net, image: Array, height: int, tiles: Export, precision: str) -> Array:
    """Train ids uint8 [H, W] of an image [H, W, 3], seen `height` pixels high (0: as it is)."""
    # A large photo stays in bytes until a piece of it is looked at.
    x = torch.from_numpy(_seen(image, height).copy())[None].permute(0, 3, 1, 2)
    tile, overlap = tiles.tile, tiles.overlap
    if x.shape[2] * x.shape[3] > tile[0] * tile[1]:
        # F needs more memory than G does: half a tile at a time.
        tile = max(2 * GRID, tile[0]), max(2 * GRID, tile[1] // 2)
        overlap = min(overlap, min(tile) - GRID)
    with training.autocast(precision):
        pieces = stylisation.strips(_Scaled(net), x, tile, overlap, GRID)
        if x.shape[2:] == image.shape[:2]:
            return np.concatenate(
                [piece[0].max(0).indices.byte().cpu().numpy() for piece in pieces]
            )
        scores = torch.cat([piece[0].cpu() for piece in pieces], 1)
    return _enlarged(scores, image.shape[:2])


@torch.inference_mode()
def stylise(
    generator: torch.nn.Module, found: Mapping[str, Path], out: Path, tiles: Export, precision: str
) -> None:
    """Write what a generator makes of every photo, in its size, as out/<name>.png."""
    generator.eval()
    meter = Meter("stylise", len(found), every=10)
    for done, (name, path) in enumerate(found.items(), 1):
        image, _ = datasets.read_image(path)
        _write(out / f"{name}.png", export.stylised(generator, image, precision, tiles))
        meter.show(done, {})
    meter.close()


class _Scaled(torch.nn.Module):
    """F for pieces of images in bytes, uint8 [B, 3, h, w]."""

    def __init__(self, net: Net):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled = batches.imagenet(batches.scale(x.permute(0, 2, 3, 1)))
        scores: torch.Tensor = self.net(scaled.to(training.device()))
        return scores


def _seen(image: Array, height: int) -> Array:
    """The image at that height, its sides in proportion."""
    h, w = image.shape[:2]
    if height in (0, h):
        return image
    size = max(1, round(w * height / h)), height
    # Area means when it becomes smaller, so that nothing fine turns into stripes.
    how = cv2.INTER_AREA if height < h else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how))


def _enlarged(scores: torch.Tensor, size: tuple[int, ...]) -> Array:
    """Train ids of scores [19, h, w], enlarged bilinearly, one class after another for memory."""
    best = torch.full(size, -torch.inf)
    seen = torch.zeros(size, dtype=torch.uint8)
    for k, score in enumerate(scores):
        large = F.interpolate(score[None, None], size=size, mode="bilinear", align_corners=False)
        seen.masked_fill_(large[0, 0] > best, k)
        torch.maximum(best, large[0, 0], out=best)
    return seen.numpy()


def _write(path: Path, pixels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, 90]
    whole = np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    content = (
        cv2.imencode(".jpg", whole, jpeg)[1].tobytes()
        if path.suffix == ".jpg"
        else export.png(pixels)
    )
    fresh.write_bytes(content)
    fresh.replace(path)


def _jpeg(pixels: Array) -> bytes:
    blue_first = np.ascontiguousarray(pixels[..., ::-1])
    return cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
