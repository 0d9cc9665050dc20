"""Weights that others published: every key of a file accounted for, before any is used.

Released files are pickles. Only their tensors are read, never an object, and what becomes of each
key is a line of the report. Nothing is dropped without a reason, and nothing may be left over.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from madan import labels
from madan.config.network_settings import BACKBONES, Networks
from madan.errors import Refusal
from madan.inert import inert
from madan.models import checkpoints, tensors
from madan.models.checkpoints import describe
from madan.models.drn26 import DRN26
from madan.models.fcn8s import FCN8s
from madan.models.generator import Generator
from madan.outputs import Outputs, sha256

Verdict = Literal["matched", "renamed", "ignored", "filled", "missing", "surplus", "misshapen"]
WRONG = ("missing", "surplus", "misshapen")
TORCHVISION = "torchvision"
NAMES = {  # in the file written
    "fcn8s": "F", "drn26": "F", "generator": "G", "vgg16": "VGG",
    **dict.fromkeys(BACKBONES, "backbone"),
}  # fmt: skip
_SHOWN = 6  # keys of one verdict and reason in the printed report; the JSON has all
_SKIPS = ("score_pool3.weight", "score_pool3.bias", "score_pool4.weight", "score_pool4.bias")
_SCORES = ("vgg_head.6.weight", "score_pool3.weight", "score_pool4.weight", "fc.weight")
# VGG-16's fully connected layers, as convolutions of these kernels.
_HEAD = {"classifier.0": ("vgg_head.0", 7), "classifier.3": ("vgg_head.3", 1)}


class Line(NamedTuple):
    """What became of one key: of the file, of the network, or of both."""

    key: str
    became: str
    verdict: Verdict
    reason: str = ""


def bring(
    file: str, network: str | None, networks: Networks, as_released: bool, out: Path, report: Path,
    own: bool = False,
) -> None:  # fmt: skip
    """Write the weights in a file to `out`, as safetensors, and a JSON report of every key.

    file is a path, or `torchvision`, which fetches its own; network is what it is said to hold,
    or None. With as_released the skip heads of FCN-8s are zero, as the release's loader leaves
    them. Refusal where the file cannot be read or used, and then there is the report alone; where
    a file that madan did not write lies at `out` or `report`, and then there is neither. `own` is
    of a folder that is madan's own, in which no list is kept of what was written.
    """
    if file == TORCHVISION:
        content: Any = _fetched(network or "vgg16")
    elif not Path(file).is_file():
        raise Refusal(f"{file} not found; docs/data.md says where released weights are to be had.")
    else:
        content = tensors.read(Path(file))
    files = Outputs(out.parent, "import", keep=not own)
    files.require([out.name, report.name])
    chosen, lines = _chosen(file, content, network)
    kind, found = chosen.kind, chosen.part.tensors
    if as_released and kind != "fcn8s":
        raise Refusal(f"{file} holds {kind}; --as-released is about the skip heads of fcn8s.")
    weights, accounted = match(found, kind, networks, as_released, chosen.prefix)
    lines += accounted
    story = {
        "file": Path(file).name,
        "sha256": TORCHVISION if file == TORCHVISION else sha256(Path(file)),
        "network": kind,
        "as_released": as_released,
        "checkpoint": Path(file).name + (", skip heads zero, as released" if as_released else ""),
        "step": None,
        # By this `madan predict` builds the network.
        "settings": {"networks": {_section(kind): _sizes(kind, networks)}},
    }
    show(lines)
    files.write(report.name, as_json(story, lines).encode())
    accept(file, kind, lines)
    for key, value in weights.items():
        if not value.isfinite().all():
            raise Refusal(f"{file}: {inert(key)} is not finite; fetch the file again.")
    named = {f"{NAMES[kind]}.{key}": value for key, value in weights.items()}
    files.make(out.name, lambda path: checkpoints.write(path, named, story))


def _chosen(file: str, content: Any, network: str | None) -> tuple[tensors.Network, list[Line]]:
    """The one network in a file that is meant, and a line for each key that lies beside it.

    Refusal, with a list of what is inside, where there is none, or more than one.
    """
    parts = tensors.parts(content)
    known = tensors.networks(parts, NAMES)
    meant = [each for each in known if network in (None, each.kind)]
    told = tensors.inside(content, parts, known)
    if not parts:
        raise Refusal(
            f"{file} holds no weights by name; a state_dict is expected, inside is {told}."
        )
    if not meant:
        said = network or f"any of {', '.join(NAMES)}"
        largest = max(parts, key=lambda part: len(part.tensors))
        kind = known[0].part.tensors if known else largest.tensors
        plain = {key.removeprefix(known[0].prefix if known else ""): kind[key] for key in kind}
        raise Refusal(
            f"{file} holds {describe(plain)}, where {said} was expected; inside are: {told}."
        )
    if len(meant) > 1:
        raise Refusal(
            f"{file} holds several sets of weights: {told}. Take out the one that is meant and "
            f"import the new file, for instance: {tensors.command(Path(file), meant[0])}"
        )
    chosen = meant[0]
    for key, value in chosen.part.tensors.items():
        reason = tensors.not_plain(value) if key.startswith(chosen.prefix) else ""
        if reason:
            raise Refusal(
                f"{file}: {inert(key, 80)} is {reason}; weights are plain tensors: write it as one."
            )
    return chosen, [Line(key, "", "ignored", why) for key, why in _beside(content, chosen)]


def _beside(content: Any, chosen: tensors.Network) -> Iterator[tuple[str, str]]:
    """Keys that lie beside the weights on the way to them, and what is no tensor among them."""
    for step in chosen.part.where:
        yield from ((str(key), "beside the weights") for key in content if str(key) != step)
        content = next(value for key, value in content.items() if str(key) == step)
    for key, value in content.items():
        if not isinstance(value, Tensor):
            yield str(key), "no tensor"
        elif not str(key).startswith(chosen.prefix):
            yield str(key), f"beside the keys that begin with {chosen.prefix}"


def match(
    found: Mapping[str, Tensor], network: str, networks: Networks, as_released: bool,
    prefix: str = "",
) -> tuple[dict[str, Tensor], list[Line]]:  # fmt: skip
    """The weights that were found, by the keys of the network of params.yaml, and the report.

    Only keys that begin with `prefix` are looked at.
    """
    wanted = skeleton(network, networks)
    found = {key: value for key, value in found.items() if key.startswith(prefix)}
    if network == "vgg16":
        plain = {key.removeprefix(prefix): value for key, value in found.items()}
        return _as_fcn8s(plain, wanted)
    if network in BACKBONES:
        plain = {key.removeprefix(prefix): value for key, value in found.items()}
        return _as_backbone(plain, wanted, network)
    return account(found, wanted, network, as_released, prefix)


def skeleton(network: str, networks: Networks) -> dict[str, Tensor]:
    """Keys of a network of params.yaml, with tensors of their shapes and no content."""
    classes = len(labels.CLASSES)
    with torch.device("meta"):
        if network in BACKBONES:
            from torchvision.models import get_model

            return get_model(network, weights=None).state_dict()
        sizes = _sizes(network, networks)
        if network == "drn26":
            return DRN26(classes=classes, **sizes).state_dict()
        if network == "generator":
            return Generator(**sizes).state_dict()
        return FCN8s(classes=classes, **sizes).state_dict()


def _section(network: str) -> str:
    """The section of `networks` in params.yaml that a network is built from."""
    return network if network in ("drn26", "generator") else "segmenter"


def _sizes(network: str, networks: Networks) -> dict[str, Any]:
    sizes: dict[str, Any] = networks.model_dump(mode="json")[_section(network)]
    return {key: value for key, value in sizes.items() if key != "pretrained"}


def account(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], network: str, as_released: bool,
    prefix: str = "",
) -> tuple[dict[str, Tensor], list[Line]]:  # fmt: skip
    """Give every key that was found its place among those wanted, and say what became of it."""
    weights: dict[str, Tensor] = {}
    lines = []
    for key, value in found.items():
        name, how = _name(key, wanted, prefix)
        reason = _needless(name, network, wanted)
        if as_released and name in _SKIPS:
            reason = "the release's loader drops it"
        if reason:
            lines.append(Line(key, "", "ignored", reason))
        elif name not in wanted:
            lines.append(Line(key, "", "surplus", f"{network} has no such key"))
        elif name in weights:
            lines.append(Line(key, name, "surplus", "the file has it under another key, too"))
        elif value.shape != wanted[name].shape:
            shapes = f"{_shape(value)} where the network has {_shape(wanted[name])}"
            lines.append(Line(key, name, "misshapen", shapes))
        else:
            weights[name] = value.to(wanted[name].dtype, copy=True).contiguous()
            lines.append(Line(key, name, "renamed" if how else "matched", how))
    return weights, lines + _fill(weights, wanted, lines, network, as_released)


def accept(file: str, network: str, lines: Sequence[Line]) -> None:
    """Refusal, in the most telling words, where keys are missing, left over or of other shapes."""
    wrong = [line for line in lines if line.verdict in WRONG]
    if not wrong:
        return
    for line in wrong:
        if line.verdict == "misshapen" and line.became in _SCORES:
            classes = line.reason.split("x")[0]
            if int(classes) != len(labels.CLASSES):
                raise Refusal(
                    f"{file} tells {classes} classes apart, but segmenters have "
                    f"{len(labels.CLASSES)}."
                )
    if sum(line.verdict == "misshapen" for line in wrong) > 1:
        first = next(line for line in wrong if line.verdict == "misshapen")
        raise Refusal(
            f"{file} is {network} of another width than networks in params.yaml: {first.became} is "
            f"{first.reason}; released weights are of full size, as networks are at scale: paper."
        )
    counts = Counter(line.verdict for line in wrong)
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    names = ", ".join(inert(line.became or line.key, 80) for line in wrong[:4])
    more = ", …" if len(wrong) > 4 else ""
    raise Refusal(f"{file} is not quite {network}: {said} ({names}{more}); the report has all.")


def as_json(story: Mapping[str, Any], lines: Iterable[Line]) -> str:
    """The report: where the weights are from, and a line for every key."""
    return json.dumps({**story, "keys": [line._asdict() for line in lines]}, indent=1) + "\n"


def show(lines: Sequence[Line]) -> None:
    """Print how many keys were matched, and the others with their reasons, of each the first."""
    counts = Counter(line.verdict for line in lines)
    table = Table("key", "became", "verdict", "reason")
    alike: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line.verdict != "matched":
            alike.setdefault((line.verdict, line.reason), []).append(line)
    for (verdict, reason), group in alike.items():
        for line in group[:_SHOWN]:
            # As plain text: keys of a file may look like markup, or move the cursor.
            table.add_row(*(Text(inert(each, 120)) for each in (*line[:2], verdict, reason)))
        if len(group) > _SHOWN:
            more = f"… and {len(group) - _SHOWN} more"
            table.add_row(*(Text(inert(each, 120)) for each in (more, "", verdict, reason)))
    console = Console(highlight=False)
    if table.rows:
        console.print(table)
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


def _fetched(network: str) -> Mapping[str, Any]:
    """A network trained on ImageNet, by torchvision's own loader, which keeps it in its cache."""
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(network)
    found: Mapping[str, Any] = weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    return found


def _as_backbone(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], network: str
) -> tuple[dict[str, Tensor], list[Line]]:
    """The weights below the classifier of a network of torchvision, by the keys of a backbone."""

    def inside(key: str) -> str:
        return key.removeprefix("module.").removeprefix("features.")

    def outside(key: str) -> bool:
        return key.removeprefix("module.").startswith(("fc.", "classifier."))

    old = {inside(key): key for key in found if not outside(key)}
    needed = {inside(key): value for key, value in wanted.items() if not outside(key)}
    weights, lines = account({new: found[key] for new, key in old.items()}, needed, network, False)
    ignored = [Line(k, "", "ignored", "F has another head") for k in found if outside(k)]
    return weights, ignored + [line._replace(key=old.get(line.key, "")) for line in lines]


def _as_fcn8s(
    found: Mapping[str, Tensor], wanted: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[Line]]:
    """VGG-16's weights by the keys of FCN-8s: its convolutions, and its head where sizes agree."""
    names = {key: _in_fcn8s(key, value, wanted) for key, value in found.items()}
    old = {new: key for key, new in names.items() if new}
    given = {}
    for new, key in old.items():
        head = new.startswith("vgg_head")
        given[new] = found[key].reshape(wanted[new].shape) if head else found[key]
    # The score layers are F's own, and so is a head of other sizes.
    for key in [key for key in wanted if not key.startswith("vgg.") and key not in old]:
        del wanted[key]
    weights, lines = account(given, wanted, "vgg16", False)
    unused = [Line(k, "", "ignored", "F has another head") for k, new in names.items() if not new]
    return weights, unused + [
        line._replace(
            key=old.get(line.key, ""),
            verdict="renamed" if line.verdict == "matched" else line.verdict,
        )
        for line in lines
    ]


def _in_fcn8s(key: str, value: Tensor, wanted: Mapping[str, Tensor]) -> str:
    """What FCN-8s calls a key of VGG-16, or nothing where it has no use for it."""
    layer, _, kind = key.rpartition(".")
    if layer in _HEAD:
        into, kernel = _HEAD[layer]
        shape = wanted[f"{into}.{kind}"].shape
        fits = value.numel() == shape.numel() and len(value) == shape[0]
        return f"{into}.{kind}" if fits and shape[2:] in ((), (kernel, kernel)) else ""
    return "" if layer == "classifier.6" else re.sub(r"^features\.", "vgg.", key)


def _name(key: str, wanted: Mapping[str, Tensor], prefix: str) -> tuple[str, str]:
    """What the network calls a key of the file, and how it was renamed."""
    how = []
    name = key
    if prefix not in ("", "module."):
        name = name.removeprefix(prefix)
        how.append(f"without {prefix}")
    if name.startswith("module."):
        name = name.removeprefix("module.")
        how.append("of a parallel copy")
    other = re.sub(r"(conv_block)\.([56])\b", lambda m: f"{m[1]}.{11 - int(m[2])}", name)
    if name not in wanted and other in wanted:
        name = other
        how.append("numbered with dropout" if ".6." in key else "numbered without dropout")
    return name, ", ".join(how)


def _needless(name: str, network: str, wanted: Mapping[str, Tensor]) -> str:
    """Why a key that the network has not may be left away, or nothing."""
    if network == "fcn8s" and re.fullmatch(r"upscore(2|_pool4|8)\.w", name):
        return "constants of the upsampling"
    statistics = r".*\.(running_mean|running_var|num_batches_tracked)"
    if network == "generator" and name not in wanted and re.fullmatch(statistics, name):
        return "statistics of InstanceNorm from before torch 0.4, which never used them"
    return ""


def _fill(
    weights: dict[str, Tensor], wanted: Mapping[str, Tensor], lines: Iterable[Line], network: str,
    as_released: bool,
) -> list[Line]:  # fmt: skip
    """Fill in what the file lacks and may lack; the rest is missing."""
    named = {line.became for line in lines}
    more = []
    for key, value in wanted.items():
        if as_released and key in _SKIPS:
            weights[key] = torch.zeros(value.shape)
            more.append(Line("", key, "filled", "zero, as the release's loader leaves it"))
        elif key in named:
            continue
        elif network in ("drn26", *BACKBONES) and key.endswith("num_batches_tracked"):
            weights[key] = torch.zeros((), dtype=value.dtype)
            more.append(Line("", key, "filled", "a counter that files before torch 0.4.1 lack"))
        else:
            more.append(Line("", key, "missing", "the file has no such key"))
    return more


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"
