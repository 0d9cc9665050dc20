"""Exports: stylised datasets as releases in their source's native layout, predictions as images.

A release holds x'_i = G_i(x_i) of the raw images, at their size, beside copies of their labels.
Predictions are label ids, as the Cityscapes server and scripts want them, and colour overlays.
"""

import hashlib
import io
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from isal import isal_zlib
from ruamel.yaml import YAML

from madan import __version__, labels, outputs
from madan.config.data_settings import Dataset
from madan.config.schema import Export
from madan.data import batches, datasets, layouts
from madan.data.datasets import Array, Pictures, Verified
from madan.data.layouts import Form
from madan.engine import training
from madan.engine.progress import Meter
from madan.errors import Refusal
from madan.evaluation import evaluate, tiling
from madan.folders import alike, place
from madan.methods import stylisation
from madan.models.drn26 import Net

NONE, UP = 0, 2  # filters of a PNG's rows
SPLIT = "train"  # what translators stylise
DRAWN = (
    "- These images are of the drawn miniature world: in the layouts of the datasets named here, "
    "but with nothing of them in it, so that their terms do not apply."
)
README = """# {source} in the style of {target}, by {run}

{count} images of the {split} split of {source}, translated by the generator of the run {run} with
madan, a pipeline for MADAN (Multi-source Domain Adaptation for Semantic Segmentation, Zhao et al.,
2019); `translator` below lists the loss terms that the run used. The images are 8-bit RGB PNGs with
the sizes and the names of the source images. The labels are the source's own files, byte for byte.
Images with more pixels than `tile` (height, width) were generated in tiles that share the
statistics of the whole image, so there are no seams. The generator saw images `height` pixels high,
or in their own size if `height` is 0.

## How it was made

| | |
|---|---|
{made}

`settings` and `code` are digests of params.yaml and of the package, with everything upstream.
manifest.json holds this table, and for every image its size [height, width] and the SHA-256 (16
digits) of the source image, the stylised image and the label.

## How to read it

The files have the source's layout. In params.yaml, where FOLDER is the folder of this file:

```yaml
{snippet}```

Check the files with `sha256sum --check SHA256SUMS`. A list of splits, if the source has one, is
copied whole; only the {split} images are here. `certificate.json` is the pipeline's certificate.

## Terms

{terms}

## Left out

{left_out}
"""


class Member(NamedTuple):
    """A dataset of a source (a union has several), and what verify lets through of it."""

    name: str
    dataset: Dataset
    verified: Verified
    drawn: bool = False


@torch.inference_mode()
def release(
    generator: torch.nn.Module, members: Sequence[Member], targets: Mapping[str, Dataset],
    out: Path, precision: str, tiles: Export, story: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a source's train images, stylised in native size, beside their labels as they are.

    Below `out`, of a union below a folder for each member, lie RGB PNGs [H, W, 3] and labels in the
    source's layout; in `out` manifest.json, README.md and SHA256SUMS. `targets` are the datasets of
    the target. `story` says what made them: run, source, target, seed, scale and more, all of which
    the two texts hold.
    Refusal when a raw file is not what was verified.
    """
    generator.eval()
    files = _Files(out)
    meter = Meter("export", sum(len(member.verified.pairs) for member in members), every=60)
    done, told, parts = 0, False, {}
    for member in members:
        folder = _folder(member, members)
        form, images = _form(member.dataset), {}
        for name, (of_image, _) in member.verified.pairs.items():
            image, label = _raw(member, name)
            if not told and tiling.is_tiled(tiling.at_size(image.shape, tiles.height), tiles.tile):
                told = True
                print(tiling.notice(image.shape, tiles.tile), "with the statistics of the whole.")
            adapted = stylised(generator, image, precision, tiles, tiles.height)
            images[name] = {
                "source": of_image,
                "stylised": files.add(folder + place(form.images, name), png(adapted)),
                "label": files.add(folder + place(form.labels, name), label),
                "size": list(image.shape[:2]),
            }
            done += 1
            meter.show(done, {})
        split_file = member.dataset.root / layouts.of(member.dataset).split_file
        if split_file.is_file():
            files.add(folder + split_file.name, split_file.read_bytes())
        lies = layouts.of(member.dataset)
        parts[member.name] = {
            "source": lies.source,
            "licence": lies.licence,
            "images": images,
            "excluded": member.verified.excluded,
        }
    meter.close()
    story = {**story, "split": SPLIT, "version": __version__}
    files.add("manifest.json", _json({**story, "members": parts}))
    files.add("README.md", _readme(members, targets, story).encode())
    files.sum()


def predictions(
    net: Net, pictures: Pictures, batch: int, precision: str, out: Path,
    protocol: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write F's predictions of listed pictures as out/labelIds/ and out/overlay/<name>.png.

    labelIds: Cityscapes label ids uint8 [H, W] in the native size of the label or, without one, of
    the image. overlay: the prepared
    image [h, w, 3], half covered with the classes' colours. manifest.json holds the protocol,
    SHA256SUMS names every file.
    """
    files, said = _Files(out), {}
    for row, score in evaluate.scored(net, pictures, batch, precision):
        name, image, size = pictures.called(row), pictures.image(row), pictures.size(row)
        seen = evaluate.predict(score, image.shape[:2])
        files.add(f"overlay/{name}.png", png(overlay(image, seen)))
        ids = labels.to_label_ids(evaluate.predict(score, size))
        said[name] = {"labelIds": files.add(f"labelIds/{name}.png", png(ids)), "size": size}
    files.add("manifest.json", _json({**protocol, "version": __version__, "files": said}))
    files.sum()


def overlay(image: Array, train_ids: Array) -> Array:
    """Blend an image [h, w, 3] with the colours of its train ids [h, w], and draw their contours.

    Half of each, uint8 [h, w, 3]; contours are white where that is dark and black where it is
    bright, so that classes are told apart on photos of any brightness. Pixels without a class stay.
    """
    mixed = ((image.astype(np.uint16) + labels.colour(train_ids)) // 2).astype(np.uint8)
    mixed = np.where((train_ids == labels.IGNORE)[..., None], image, mixed)
    edges = contours(train_ids, max(1, round(min(train_ids.shape) / 400)))
    edges &= train_ids != labels.IGNORE
    # Of the surroundings, so that a line does not change its colour from pixel to pixel.
    around = max(3, min(train_ids.shape) // 8)
    bright = cv2.blur(cv2.cvtColor(mixed, cv2.COLOR_RGB2GRAY), (around, around)) > 127
    mixed[edges] = np.where(bright[edges], 0, 255)[:, None]
    return mixed


def contours(train_ids: Array, width: int) -> Array:
    """Find the pixels, bool [h, w], at which another class begins, `width` pixels to each side."""
    edges = np.zeros(train_ids.shape, bool)
    edges[1:] |= train_ids[1:] != train_ids[:-1]
    edges[:, 1:] |= train_ids[:, 1:] != train_ids[:, :-1]
    if width == 1:
        return edges
    wider = cv2.dilate(edges.astype(np.uint8), np.ones((width, width), np.uint8))
    return np.asarray(wider, bool)


def png(pixels: Array) -> bytes:
    """RGB [H, W, 3] or grey [H, W] uint8 as the bytes of a PNG.

    Written by hand since what takes time is deflate, and ISA-L's takes a fifth of zlib's.
    """
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    # Ids repeat themselves, colours resemble those above: each row less the one before it.
    kind = UP if pixels.ndim == 3 else NONE
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0], filtered[:, 1:] = kind, rows
    if kind == UP:
        filtered[1:, 1:] -= rows[:-1]
    shape = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = (b"IHDR", shape), (b"IDAT", isal_zlib.compress(filtered.data, 1)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body
        + struct.pack(">I", isal_zlib.crc32(body, isal_zlib.crc32(name)))
        for name, body in chunks
    )  # fmt: skip


class _Files:
    """The files of an export, and their checksums."""

    def __init__(self, out: Path):
        self.out = out
        self.sums: dict[str, str] = {}

    def add(self, name: str, content: bytes) -> str:
        """Write a file, and give the first 16 digits of its SHA-256, as manifests have it."""
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.sums[name] = hashlib.sha256(content).hexdigest()
        return self.sums[name][:16]

    def sum(self) -> None:
        """Write SHA256SUMS, for `sha256sum --check`."""
        lines = (outputs.line(name, self.sums[name]) for name in sorted(self.sums))
        (self.out / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def _raw(member: Member, name: str) -> tuple[Array, bytes]:
    """Image [H, W, 3] and the bytes of its label, both as they were verified."""
    item = layouts.item(member.dataset, SPLIT, name)
    image, of_image = datasets.image_as_labelled(item)
    label = item.label.read_bytes()
    if (of_image, hashlib.sha256(label).hexdigest()[:16]) != member.verified.pairs[name]:
        raise Refusal(
            f"{item.image} or {item.label} changed since it was verified: "
            f"madan verify {member.name}/{SPLIT} and run snakemake again."
        )
    return image, label


@torch.inference_mode()
def stylised(
    generator: torch.nn.Module, image: Array, precision: str, tiles: Export, height: int = 0
) -> Array:
    """Translate an image [H, W, 3] to one of the same size.

    The generator sees it `height` pixels high, or as it is if height is 0.
    """
    seen = tiling.at_height(image, height)
    x = batches.scale(torch.from_numpy(seen.copy())[None]).to(training.device())
    with training.autocast(precision):
        made = tiling.whole_or_tiled(generator, x, tiles.tile, tiles.overlap)
    return tiling.resized(stylisation.to_bytes(made)[0], image.shape[:2])


def _form(dataset: Dataset) -> Form:
    """The source's layout with PNGs for images, whatever they were.

    Refusal where that would give an image the name of its label.
    """
    form = layouts.form(dataset, SPLIT)
    images = PurePosixPath(form.images).with_suffix(".png").as_posix()
    if alike(images, form.labels):
        raise Refusal(
            f"layouts.{dataset.layout} has images and labels in one folder, where a stylised PNG "
            "would have the name of its label; move labels to a folder of their own."
        )
    return form._replace(images=images)


def _folder(member: Member, members: Sequence[Member]) -> str:
    return f"{member.name}/" if len(members) > 1 else ""


def _readme(
    members: Sequence[Member], targets: Mapping[str, Dataset], story: Mapping[str, Any]
) -> str:
    """Provenance, terms, how to read it and what was left out, in Markdown."""
    run, source = story["run"], story["source"]
    count = sum(len(member.verified.pairs) for member in members)
    made = "\n".join(f"| {key} | {_plain(story[key])} |" for key in story)
    learned = [
        _terms(f"Target {name}, which the generator has learned from", dataset)
        for name, dataset in targets.items()
    ]
    terms = [_terms(f"Source {member.name}", member.dataset) for member in members]
    if any(member.drawn for member in members):
        terms.insert(0, DRAWN)
    gone = [
        f"- {member.name}/{name}: {reason}"
        for member in members for name, reason in sorted(member.verified.excluded.items())
    ]  # fmt: skip
    return README.format(
        source=source, target=story["target"], run=run, count=count, split=SPLIT, made=made,
        snippet=_snippet(members, run), terms="\n".join([*terms, *learned]),
        left_out="\n".join(gone) or "Nothing.",
    )  # fmt: skip


def _terms(what: str, dataset: Dataset) -> str:
    layout = layouts.of(dataset)
    source = layout.source or "a dataset of one's own"
    return f"- {what} (layout {dataset.layout}): {source}. Terms: {layout.licence or 'not known'}."


def _snippet(members: Sequence[Member], run: str) -> str:
    """What params.yaml says to read a release: its domains, and layouts that no release has."""
    domains, own = {}, {}
    for member in members:
        dataset, form = member.dataset, _form(member.dataset)
        layout, splits = dataset.layout, {} if layouts.by_folder(dataset) else {"splits": "all"}
        if dataset.own or form != layouts.form(dataset, SPLIT):
            known = {"ids": layout}
            if dataset.own:
                known = dataset.own.model_dump(mode="json", exclude={"folders"}, exclude_unset=True)
            layout, splits = f"{layout}-stylised", {"splits": "all"}
            own[layout] = {**known, "images": form.images, "labels": form.labels}
        domains[f"{run}-{member.name}"] = {
            "layout": layout,
            "root": f"FOLDER/{_folder(member, members)}".rstrip("/"),
            "size": list(dataset.size),
            "known_damage": "keep",
            **splits,
        }
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = None  # lists of numbers on one line
    yaml.dump({"layouts": own, "domains": domains} if own else {"domains": domains}, text)
    return text.getvalue()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
