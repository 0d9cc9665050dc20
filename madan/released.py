"""Weights that others published: every key of a file accounted for, before any is used.

Released files are pickles. Only their tensors are read, never an object, and what becomes of each
key is a line of the report. Nothing is dropped without a reason, and nothing may be left over.
"""

import hashlib
import json
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError, safe_open
from torch import Tensor

from madan import certificates, checkpoints, labels
from madan.checkpoints import KEY, architecture, describe
from madan.drn26 import DRN26
from madan.fcn8s import FCN8s
from madan.generator import Generator
from madan.network_settings import BACKBONES, Networks
from madan.schema import Refusal

Verdict = Literal["matched", "renamed", "ignored", "filled", "missing", "surplus", "misshapen"]
WRONG = ("missing", "surplus", "misshapen")
TORCHVISION = "torchvision"
NAMES = {  # in the file written
    "fcn8s": "F", "drn26": "F", "generator": "G", "vgg16": "VGG",
    **dict.fromkeys(BACKBONES, "backbone"),
}  # fmt: skip
# Where a file with more than weights keeps them.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
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
    file: str, network: str | None, networks: Networks, as_released: bool, out: Path, report: Path
) -> None:
    """Write the weights in a file to `out`, as safetensors, and a JSON report of every key.

    file is a path, or `torchvision`, which fetches its own; network is what it is said to hold,
    or None. With as_released the skip heads of FCN-8s are zero, as the release's loader leaves
    them. Refusal where the file cannot be read or used; then there is the report alone.
    """
    found, lines = _fetched(network or "vgg16") if file == TORCHVISION else _read(Path(file))
    plain = {key.removeprefix("module."): value for key, value in found.items()}
    kind = architecture(plain)
    if kind != (network or kind) or kind not in NAMES:
        said = network or f"any of {', '.join(NAMES)}"
        raise Refusal(f"{file} holds {describe(plain)}, where {said} was expected.")
    if as_released and kind != "fcn8s":
        raise Refusal(f"{file} holds {kind}; --as-released is about the skip heads of fcn8s.")
    weights, accounted = match(found, kind, networks, as_released)
    lines += accounted
    story = {
        "file": Path(file).name,
        "sha256": TORCHVISION if file == TORCHVISION else sha256(Path(file)),
        "network": kind,
        "as_released": as_released,
        "checkpoint": Path(file).name + (", skip heads zero, as released" if as_released else ""),
        "step": None,
    }
    show(lines)
    certificates.write_whole(report, as_json(story, lines))
    accept(file, kind, lines)
    fresh = out.with_name(f".{out.name}.new")
    named = {f"{NAMES[kind]}.{key}": value for key, value in weights.items()}
    checkpoints.write(fresh, named, story)
    fresh.replace(out)


def match(
    found: Mapping[str, Tensor], network: str, networks: Networks, as_released: bool
) -> tuple[dict[str, Tensor], list[Line]]:
    """The weights that were found, by the keys of the network of params.yaml, and the report."""
    wanted = skeleton(network, networks)
    if network == "vgg16":
        plain = {key.removeprefix("module."): value for key, value in found.items()}
        return _as_fcn8s(plain, wanted)
    if network in BACKBONES:
        return _as_backbone(found, wanted, network)
    return account(found, wanted, network, as_released)


def skeleton(network: str, networks: Networks) -> dict[str, Tensor]:
    """Keys of a network of params.yaml, with tensors of their shapes and no content."""
    classes = len(labels.CLASSES)
    with torch.device("meta"):
        if network in BACKBONES:
            from torchvision.models import get_model

            return get_model(network, weights=None).state_dict()
        if network == "drn26":
            return DRN26(classes=classes, **networks.drn26.model_dump()).state_dict()
        if network == "generator":
            return Generator(**networks.generator.model_dump()).state_dict()
        sizes = networks.segmenter.model_dump(exclude={"pretrained"})
        return FCN8s(classes=classes, **sizes).state_dict()


def account(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], network: str, as_released: bool
) -> tuple[dict[str, Tensor], list[Line]]:
    """Give every key that was found its place among those wanted, and say what became of it."""
    weights: dict[str, Tensor] = {}
    lines = []
    for key, value in found.items():
        name, how = _name(key, wanted)
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
    names = ", ".join(line.became or line.key for line in wrong[:4])
    more = ", …" if len(wrong) > 4 else ""
    raise Refusal(f"{file} is not quite {network}: {said} ({names}{more}); the report has all.")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
            table.add_row(line.key, line.became, verdict, reason)
        if len(group) > _SHOWN:
            table.add_row(f"… and {len(group) - _SHOWN} more", "", verdict, reason)
    console = Console(highlight=False)
    if table.rows:
        console.print(table)
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


def _read(path: Path) -> tuple[dict[str, Tensor], list[Line]]:
    """The tensors in a file by their keys there, and what else was in it."""
    if not path.exists():
        raise Refusal(f"{path} not found; docs/data.md says where released weights are to be had.")
    content = _safetensors(path) or _unpickled(path)
    lines = []
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                beside = [str(key) for key in content if key != wrapper]
                lines = [Line(key, "", "ignored", "beside the weights") for key in beside]
                content = content[wrapper]
                break
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(key): value for key, value in items if isinstance(value, Tensor)}
    lines += [
        Line(str(key), "", "ignored", "no tensor")
        for key, value in items
        if not isinstance(value, Tensor)
    ]
    if not tensors:
        raise Refusal(f"{path} holds no weights by name; a state_dict is expected.")
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise Refusal(f"{path}: {key} is not finite; fetch the file again.")
    return tensors, lines


def _safetensors(path: Path) -> dict[str, Tensor] | None:
    try:
        with safe_open(path, "pt") as file:
            if KEY in (file.metadata() or {}):
                raise Refusal(f"{path} was written by madan: it needs no import.")
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError:
        return None


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
    if unsafe:
        raise Refusal(
            f"{path} holds more than tensors ({unsafe[1]}), and reading it could run code of "
            "whoever wrote it; if you trust them, write its tensors alone and import that: "
            f"python -c \"import torch; d = torch.load('{path}', weights_only=False); d = "
            "d.state_dict() if hasattr(d, 'state_dict') else d.get('state_dict', d); torch.save("
            "{k: v for k, v in d.items() if torch.is_tensor(v)}, 'tensors.pth')\""
        )
    raise Refusal(f"{path} is damaged, or no file of weights: fetch it again.")


def _fetched(network: str) -> tuple[dict[str, Tensor], list[Line]]:
    """A network trained on ImageNet, by torchvision's own loader, which keeps it in its cache."""
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(network)
    return weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True), []


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


def _name(key: str, wanted: Mapping[str, Tensor]) -> tuple[str, str]:
    """What the network calls a key of the file, and how it was renamed."""
    how = []
    name = key
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
