"""Weights in safetensors files that explain themselves: settings, seed, step and code inside."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from madan import __version__, shortages
from madan.errors import Refusal
from madan.inert import inert
from madan.models import headers

KEY = "madan"
# First and last weights, by which a network is known whatever its width.
MARKS = {
    "fcn8s": ("vgg.0.weight", "vgg_head.0.weight"),
    "drn26": ("conv1.weight", "layer8.0.conv1.weight"),
    "deeplabv2-resnet101": ("backbone.conv1.weight", "classifier.convs.0.weight"),
    "a ResNet segmenter of torchvision": ("backbone.conv1.weight", "classifier.4.weight"),
    "a MobileNet segmenter of torchvision": ("backbone.0.0.weight", "backbone.16.0.weight"),
    "generator": ("model.1.weight", "model.4.weight"),
    "PatchGAN": ("model.0.weight", "model.2.weight"),
    "vgg16": ("features.0.weight", "features.28.weight"),
    "resnet101": ("conv1.weight", "layer3.22.conv3.weight"),
    "resnet50": ("conv1.weight", "layer3.5.conv3.weight"),  # after those with more blocks
    "mobilenet_v3_large": ("features.0.0.weight", "features.16.0.weight"),
}


def save(path: Path, modules: Mapping[str, nn.Module], story: Mapping[str, Any]) -> None:
    """Write the weights of named modules as `<module>.<key>`, with their story as JSON."""
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    write(path, tensors, story)


def write(path: Path, tensors: Mapping[str, Tensor], story: Mapping[str, Any]) -> None:
    """Write tensors, named `<module>.<key>`, with their story as JSON."""
    about = {"version": __version__, "torch": torch.__version__, **story}
    put(path, tensors, {KEY: json.dumps(about, sort_keys=True)})


def put(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; OSError, as of other files, where the disk is full."""
    with shortages.of_libraries(path):
        save_file(dict(tensors), path, metadata)


def story(path: Path) -> dict[str, Any]:
    """What a weights file says of itself; Refusal when it is missing, damaged or not ours."""
    told = _headers(path).get("__metadata__", {}).get(KEY)
    if told is None:
        raise Refusal(f"{path} was not written by madan: it does not say how it was trained.")
    try:
        return dict(json.loads(told))
    except (ValueError, TypeError, RecursionError) as error:
        raise Refusal(_damaged(path, error)) from None


def holds(path: Path, name: str) -> bool:
    """Whether a weights file has tensors of that network."""
    return any(key.startswith(f"{name}.") for key in _headers(path))


def load(path: Path, name: str, module: nn.Module, but: Sequence[str] = ()) -> None:
    """Fill a module with the weights saved under `name`; Refusal when they do not fit it.

    The file need not have the keys that begin with one of `but`: they stay as they are.
    """
    prefix = f"{name}."
    try:
        with shortages.of_libraries(path), _opened(path) as file:
            tensors: dict[str, Tensor] = {
                key.removeprefix(prefix): file.get_tensor(key)
                for key in file.keys()  # noqa: SIM118
                if key.startswith(prefix)
            }
    except (SafetensorError, ValueError, TypeError, RuntimeError, LookupError) as error:
        raise Refusal(_damaged(path, error)) from None
    if not tensors:
        raise Refusal(f"{path} holds no weights of {name}; it was made by another kind of run.")
    kept = {k: v for k, v in module.state_dict().items() if k.startswith(tuple(but))}
    try:
        module.load_state_dict(kept | tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise Refusal(
            f"{path}: weights of {name} do not fit the network of params.yaml ({reason}); there it "
            f"is {describe(module.state_dict())}, here {describe(tensors)}: make networks the same "
            "as when they were trained, or train them again."
        ) from None


def architecture(tensors: Mapping[str, Tensor]) -> str:
    """Which network weights are of: one of `MARKS`, or another network."""
    if any(".conv_block." in key for key in tensors):
        return "generator"
    found = [kind for kind, (first, last) in MARKS.items() if first in tensors and last in tensors]
    return (*found, "another network")[0]


def describe(tensors: Mapping[str, Tensor]) -> str:
    """Architecture and first width of weights, such as: fcn8s (64 channels at first)."""
    kind = architecture(tensors)
    first = tensors.get(MARKS[kind][0]) if kind in MARKS else None
    if first is None or not first.ndim:
        return kind
    return f"{kind} ({len(first)} channels at first)"


def _opened(path: Path) -> safe_open:
    _headers(path)
    return safe_open(path, "pt")


def _headers(path: Path) -> dict[str, Any]:
    """The header of a file, checked so far that it can be walked."""
    if not path.exists():
        hint = (
            f": make it with snakemake {path.parent}/certificate.json"
            if _made_by_madan(path)
            else "."
        )
        raise Refusal(f"{path} not found{hint}")
    try:
        headers.metadata(path)
        return headers.read(path)
    except ValueError as error:
        raise Refusal(_damaged(path, error)) from None


def _damaged(path: Path, error: Exception) -> str:
    """Say that a file is damaged, and how to mend it without the loss of anything."""
    reason = inert(str(error), 120)
    if _made_by_madan(path):
        return f"{path} is damaged ({reason}): delete {path.parent} and run again."
    return f"{path} is damaged, or no file of weights ({reason}): fetch or copy it again."


def _made_by_madan(path: Path) -> bool:
    """Whether a file lies where madan's results do, so that it can be made again."""
    return path.parts[:1] == ("results",) and ".." not in path.parts
