"""Predictions on photos of one's own: any size, upright as their camera says, tiled when large.

Nothing here is certified or part of the graph: photos come from anywhere and pictures go anywhere.
A photo that cannot be read is reported at the end, and the others have their turn.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from madan import labels
from madan.config.network_settings import (
    AnySegmenterNetwork,
    DeeplabV2Network,
    Drn26Network,
    SegmenterNetwork,
    TorchvisionNetwork,
)
from madan.config.schema import Export
from madan.data import batches, datasets
from madan.data.datasets import Array
from madan.engine import training
from madan.engine.progress import Meter
from madan.errors import Refusal
from madan.evaluation import export, tiling
from madan.inert import inert
from madan.inference import photos, video
from madan.inference.photos import Photos
from madan.methods import segmentation
from madan.models import checkpoints
from madan.models.drn26 import Net
from madan.outputs import Outputs
from madan.report import plots

IN_MOSAIC = 6
# F halves at most this often, so that tiles that begin on it are seen in the phase of the whole.
GRID = 32
# Where neither params.yaml nor the weights say more: the paper's sizes, as at `scale: paper`.
HEIGHT, TILES, THREADS = 600, Export(tile=(640, 1280), overlap=128, height=0), 4
LABELS, OVERLAYS, COLOURS = "labelIds/{}.png", "overlay/{}.jpg", "colour/{}.png"
OF_VIDEO = "overlay/{}" + video.SUFFIX
MOSAIC = ("mosaic.png", "mosaic.pdf")
Change = Callable[[Array], Array]


class Sight(NamedTuple):
    """How F sees photos: their height (0: their own), tiles, precision; and torch's threads."""

    height: int
    tiles: Export
    precision: str
    threads: int


def segmenter(weights: Path) -> Net:
    """Build F, or a translator's F_A, as a weights file describes it.

    Refusal when the file holds neither, or describes no network.
    """
    told = checkpoints.story(weights).get("settings")
    told = told.get("networks") if isinstance(told, Mapping) else None
    kinds = {
        "segmenter": SegmenterNetwork, "drn26": Drn26Network, "deeplabv2": DeeplabV2Network,
    }  # fmt: skip
    told = told if isinstance(told, Mapping) else {}
    held: dict[str, Any] = {name: told[name] for name in kinds if name in told}
    held |= {name: {} for name in told if str(name).startswith("torchvision/")}
    name = "F" if checkpoints.holds(weights, "F") else "FA"
    if not held or not checkpoints.holds(weights, name):
        raise Refusal(
            f"{weights} does not say what its segmenter is like, or holds none; weights that "
            "madan trained or imported do: madan import FILE."
        )
    try:
        first = next(iter(held))
        described: AnySegmenterNetwork = (
            kinds[first](**held[first])
            if first in kinds
            else TorchvisionNetwork(name=first.removeprefix("torchvision/"))
        )
        net = segmentation.build(described)
    except (ValidationError, TypeError, RuntimeError) as error:
        raise Refusal(
            f"{weights} does not describe its segmenter as madan does "
            f"({type(error).__name__}): it is damaged, or of another version."
        ) from None
    checkpoints.load(weights, name, net)
    return net.eval()


def as_trained(weights: Path) -> Sight:
    """Say how F saw images in training, as its weights file tells, for where no params.yaml is.

    What the file does not tell is as at `scale: paper`: 600 pixels high, tiles of 640x1280.
    """
    story = checkpoints.story(weights)
    settings = story.get("settings")
    told = settings.get("training") if isinstance(settings, Mapping) else None
    told = told if isinstance(told, Mapping) else {}
    crops = [
        told[kind]["crop"][0]
        for kind in ("segmenter", "adaptation")
        if isinstance(told.get(kind), Mapping) and isinstance(told[kind].get("crop"), list)
    ]
    height = crops[0] if crops and isinstance(crops[0], int) and crops[0] > 0 else HEIGHT
    threads = told.get("threads", THREADS)
    threads = threads if isinstance(threads, int) and 0 < threads <= 1024 else THREADS
    precision = story.get("precision")
    return Sight(height, TILES, precision if precision in ("fp32", "bf16") else "fp32", threads)


def predict(net: Net, found: Photos, out: Path, sight: Sight) -> dict[str, str]:
    """Write label ids, overlays and plain class colours in each photo's size, and a mosaic.

    Of a photo out/labelIds/<name>.png, out/overlay/<name>.jpg and out/colour/<name>.png; of a video
    out/overlay/<name>.mp4. Returns why photos were left out, by file. Refusal, before anything is
    written, where one of these names is taken by a file that madan did not write.
    """
    files = Outputs(out, "predict")
    files.require(_names(found, (LABELS, OVERLAYS, COLOURS), OF_VIDEO) + list(MOSAIC))
    shown: dict[str, list[Array]] = {}

    notice = _notices(sight.tiles, _TILED[_has_statistics(net)])

    def seen_in(image: Array) -> Array:
        if not _is_whole(net, tiling.at_size(image.shape, sight.height), sight.tiles):
            notice(image, sight.height)
        return train_ids(net, image, sight)

    def photo(name: str, path: Path) -> None:
        image, _ = datasets.read_image(path)
        seen = seen_in(image)
        over, colours = export.overlay(image, seen), labels.colour(seen)
        files.write(LABELS.format(name), export.png(labels.to_label_ids(seen)))
        files.write(OVERLAYS.format(name), _jpeg(over))
        files.write(COLOURS.format(name), export.png(colours))
        if len(shown) < IN_MOSAIC:
            shown[name] = [plots.reduced(picture) for picture in (image, over, colours)]

    def clip(name: str, path: Path, tick: Callable[[], None]) -> None:
        _clip(files, OF_VIDEO.format(name), path, lambda x: export.overlay(x, seen_in(x)), tick)

    unread = _each("predict", found, photo, clip)
    if shown:
        picture = plots.mosaic(shown)
        for name in MOSAIC:
            files.make(name, lambda path: plots.write(picture, path))
        plots.close(picture)
    return unread


def stylise(
    generator: torch.nn.Module, found: Photos, out: Path, tiles: Export, precision: str,
    height: int = 0,
) -> dict[str, str]:  # fmt: skip
    """Write what a generator makes of every photo, in its size, as out/<name>.png.

    Of a video out/<name>.mp4. The generator sees a photo `height` pixels high, or as it is if
    height is 0. Returns why photos were left out, by file; Refusal as of `predict`.
    """
    generator.eval()
    files = Outputs(out, "stylise")
    files.require(_names(found, ("{}.png",), "{}" + video.SUFFIX))

    notice = _notices(tiles, "with the statistics of the whole image.")

    def change(image: Array) -> Array:
        notice(image, height)
        return export.stylised(generator, image, precision, tiles, height)

    def photo(name: str, path: Path) -> None:
        files.write(f"{name}.png", export.png(change(datasets.read_image(path)[0])))

    def clip(name: str, path: Path, tick: Callable[[], None]) -> None:
        _clip(files, f"{name}{video.SUFFIX}", path, change, tick)

    return _each("stylise", found, photo, clip)


@torch.inference_mode()
def train_ids(net: Net, image: Array, sight: Sight) -> Array:
    """Predict train ids uint8 [H, W] of an image [H, W, 3], seen at the height of `sight`."""
    # A large photo stays in bytes until a piece of it is looked at.
    x = torch.from_numpy(tiling.at_height(image, sight.height).copy())[None].permute(0, 3, 1, 2)
    tile, overlap = sight.tiles.tile, sight.tiles.overlap
    size = (x.shape[2], x.shape[3])
    if _is_whole(net, size, sight.tiles):
        tile = size
    else:
        # F needs more memory than G does: half a tile at a time.
        tile = max(2 * GRID, tile[0]), max(2 * GRID, tile[1] // 2)
        overlap = min(overlap, min(tile) - GRID)
    with training.autocast(sight.precision):
        pieces = tiling.strips(_Scaled(net), x, tile, overlap, GRID)
        if x.shape[2:] == image.shape[:2]:
            return np.concatenate(
                [piece[0].max(0).indices.byte().cpu().numpy() for piece in pieces]
            )
        scores = torch.cat([piece[0].cpu() for piece in pieces], 1)
    return _enlarged(scores, image.shape[:2])


def _is_whole(net: torch.nn.Module, size: tuple[int, ...], tiles: Export) -> bool:
    """Whether F sees an image of (h, w) whole: if it is no larger than a tile, or if need be.

    A GroupNorm has the statistics of what it sees: in tiles F would find other classes, so it sees
    the whole image as long as that takes less than half of the memory that is free.
    """
    if not tiling.is_tiled(size, tiles.tile):
        return True
    free = tiling.free_memory(training.device())
    if free is None or not _has_statistics(net):
        return False
    widest = next(net.parameters()).shape[0]
    values = 4 * (widest + len(labels.CLASSES))  # at once, of a pixel, with room for work space
    return 6 * values * size[0] * size[1] < free / 2


def _has_statistics(net: torch.nn.Module) -> bool:
    return any(isinstance(module, torch.nn.GroupNorm) for module in net.modules())


_TILED = {
    False: "and labels near the edges of tiles may differ.",
    True: "each normalised by itself, so that labels differ from those of the whole photo, which "
    "needs more memory than is free: take it at a lower height (--height).",
}


class _Scaled(torch.nn.Module):
    """F for pieces of images in bytes, uint8 [B, 3, h, w]."""

    def __init__(self, net: Net):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled = batches.imagenet(batches.scale(x.permute(0, 2, 3, 1)))
        scores: torch.Tensor = self.net(scaled.to(training.device()))
        return scores


def _each(
    title: str, found: Photos, photo: Callable[[str, Path], None],
    clip: Callable[[str, Path, Callable[[], None]], None],
) -> dict[str, str]:  # fmt: skip
    """Treat every file, with a bar that counts photos and frames; return what went wrong."""
    unread = dict(found.unread)
    steps = {path: _frames(path) for path in found.files.values()}
    meter, done = Meter(title, sum(steps.values()), every=10), 0

    def tick() -> None:
        nonlocal done
        done += 1
        meter.show(done, {})

    try:
        for name, path in found.files.items():
            before = done
            try:
                if photos.is_video(path):
                    clip(name, path, tick)
                else:
                    photo(name, path)
            except (Refusal, ValueError, MemoryError, RuntimeError, cv2.error) as error:
                if type(error) is RuntimeError and "memory" not in str(error):
                    raise
                reason = inert(_reason(path, error))
                unread[str(path)] = reason
                print(f"{title}: left out: {reason}", flush=True)
            done = before + steps[path]
            meter.show(done, {})
    finally:
        meter.close()
    return unread


def _reason(path: Path, error: Exception) -> str:
    """Say in one sentence, which names the file, why it was left out."""
    if isinstance(error, Refusal) and str(path) in str(error):
        return str(error)
    if isinstance(error, MemoryError | RuntimeError):
        return f"{path} needs more memory than there is: take it at a lower height (--height)."
    return f"{path} cannot be treated: {error}"


def _frames(path: Path) -> int:
    """Count what a file adds to the bar; a video that cannot be read is reported in its turn."""
    try:
        return video.kind(path).length if photos.is_video(path) else 1
    except Refusal:
        return 1


def _clip(files: Outputs, name: str, path: Path, change: Change, tick: Callable[[], None]) -> None:
    """Write a video of what becomes of each frame; Refusal where frames are missing at the end."""
    found = video.kind(path)

    def changed() -> Iterator[Array]:
        for frame in video.frames(path):
            yield change(frame)
            tick()

    counts: list[int] = []
    files.make(name, lambda out: counts.append(video.write(out, changed(), found.rate)))
    # Containers state a few frames more than they hold; a file that was cut short lacks many.
    if counts[0] < 0.9 * found.length:
        raise Refusal(
            f"{inert(str(path))} ends after {counts[0]} of {found.length} frames: it is cut short; "
            "the frames that are there were written."
        )


def _names(found: Photos, of_photo: tuple[str, ...], of_video: str) -> list[str]:
    return [
        form.format(name)
        for name, path in found.files.items()
        for form in ((of_video,) if photos.is_video(path) else of_photo)
    ]


def _notices(tiles: Export, how: str) -> Callable[[Array, int], None]:
    """Return what prints, once for each size of image, that it goes through in tiles."""
    told: set[tuple[int, ...]] = set()

    def notice(image: Array, height: int) -> None:
        seen = tiling.at_size(image.shape, height)
        if tiling.is_tiled(seen, tiles.tile) and seen not in told:
            told.add(seen)
            print(f"{tiling.notice(seen, tiles.tile)} {how}", flush=True)

    return notice


def _enlarged(scores: torch.Tensor, size: tuple[int, ...]) -> Array:
    """Train ids of scores [19, h, w], enlarged bilinearly, one class after another for memory."""
    best = torch.full(size, -torch.inf)
    seen = torch.zeros(size, dtype=torch.uint8)
    for k, score in enumerate(scores):
        large = F.interpolate(score[None, None], size=size, mode="bilinear", align_corners=False)
        seen.masked_fill_(large[0, 0] > best, k)
        torch.maximum(best, large[0, 0], out=best)
    return seen.numpy()


def _jpeg(pixels: Array) -> bytes:
    blue_first = np.ascontiguousarray(pixels[..., ::-1])
    return cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
