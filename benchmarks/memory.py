"""What a training step keeps and multiplies at the paper's scale, without computing anything.

Networks and images are torch's `meta` tensors, which have sizes and no content: what the graph
saves for the backward pass is added up, each storage once, and with it weights, gradients and
Adam's two moments. Temporary memory of kernels and of the library is not in it. Operations are
those of the forward pass three times, since a backward pass is two products for each of its own;
of a translator those of the generators' update, and of frozen judges that is once too many.
"""

import contextlib
from collections.abc import Iterator

import steps
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from madan.data import batches
from madan.engine import training
from madan.methods import segmentation

GIB = 2**30


@contextlib.contextmanager
def saved(weights: set[int]) -> Iterator[dict[int, torch.UntypedStorage]]:
    """Storages that graphs made inside save, but for weights."""
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def storages(modules: list[nn.Module]) -> set[int]:
    """Names of the storages of all their weights."""
    return {p.untyped_storage()._cdata for module in modules for p in module.parameters()}


def trained(modules: list[nn.Module], frozen: list[nn.Module]) -> float:
    """GiB of weights, and of gradients and two moments of those that are trained."""
    learn, rest = (sum(p.numel() for m in ms for p in m.parameters()) for ms in (modules, frozen))
    return (16 * learn + 4 * rest) / GIB


def segmenter(net: nn.Module, shape: tuple[int, int], batch: int) -> tuple[float, float, float]:
    """GiB that stay and that a step on such a batch saves in fp32, and its TFLOP."""
    net = net.to("meta").train()
    x, truth = meta(batch, 3, *shape), torch.zeros(batch, *shape, dtype=torch.long, device="meta")
    with saved(storages([net])) as kept, FlopCounterMode(display=False) as counter:
        loss = nn.functional.cross_entropy(net(batches.imagenet(x)).float(), truth)
    assert loss.requires_grad
    return trained([net], []), size(kept), tera(counter)


def translator(method: object, crop: int, batch: int) -> tuple[float, float, float]:
    """The same of the generators' update: the largest part of a step."""
    own, frozen = list(method.networks().values()), list(method.judges.values())
    for module in (*own, *frozen):
        module.to("meta")
    x = {i: meta(batch, 3, crop, crop) for i in method.sources}
    pairs = method._pairs(0)
    ccd = pairs if method.run.ccd else []
    weights = storages(own + frozen)
    with saved(weights) as kept, FlopCounterMode(display=False) as counter:
        made, terms = method._generate(x, meta(batch, 3, crop, crop), ccd)
        terms |= method._fool(made, pairs if method.run.sad else [], ccd)
        if method.run.semantic != "none":
            terms |= method._semantic(x, made.adapted)
    return trained(own, frozen), size(kept), tera(counter)


def size(kept: dict[int, torch.UntypedStorage]) -> float:
    """GiB of these storages."""
    return sum(storage.nbytes() for storage in kept.values()) / GIB


def tera(forward: FlopCounterMode) -> float:
    """TFLOP of a step whose forward pass was counted."""
    return 3 * forward.get_total_flops() / 1e12


def meta(*shape: int) -> torch.Tensor:
    """An image tensor without content."""
    return torch.zeros(*shape, device="meta")


def main() -> None:
    """Print what stays and what a step saves, for every kind of training."""
    training.device = lambda: torch.device("meta")
    torch.set_default_device("meta")
    params = steps.paper(1)
    for name in ("segmenter", "drn26"):
        for batch in (8, 4, 2, 1):
            net = segmentation.build(getattr(params.networks, name))
            print(
                name,
                batch,
                "{:.1f} + {:.1f} GiB, {:.1f} TFLOP".format(*segmenter(net, (600, 1080), batch)),
            )
    for names in (["one"], ["one", "two"]):
        for batch in (4, 2, 1):
            method = steps.sources(params, 400, names)
            print(
                len(names),
                batch,
                "{:.1f} + {:.1f} GiB, {:.1f} TFLOP".format(*translator(method, 400, batch)),
            )


if __name__ == "__main__":
    main()
