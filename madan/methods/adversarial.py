"""A step of networks that play against each other: what they see at once, and sums of terms."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from madan.methods import losses

Images = dict[str, Tensor]
Pairs = list[tuple[str, str]]


def through(network: nn.Module, images: list[Tensor]) -> list[Tensor]:
    """Outputs of a network for several batches, seen at once: normalised one image at a time,
    they are those of separate calls, and faster."""
    if not images:
        return []
    return list(network(torch.cat(images)).split([len(batch) for batch in images]))


def parts(whole: Images, count: int) -> Iterator[Images]:
    """The batches in that many parts, all of them cut alike."""
    for pieces in zip(*(images.chunk(count) for images in whole.values()), strict=True):
        yield dict(zip(whole, pieces, strict=True))


def join(how: Callable, parts: Sequence[Mapping]) -> dict:
    """What the parts have under each name, put together."""
    return {name: how([part[name] for part in parts]) for name in parts[0]}


def summed(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The sum of the parts' terms by name; a part may lack some."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {n: torch.stack([part[n] for part in parts if n in part]).sum(0) for n in names}


def pair_weight(sources: Images, pairs: Pairs) -> float:
    """Weight of a pair: 1/(M-1) of all M(M-1), and more where only some were drawn."""
    return len(sources) / len(pairs)


def fooled(said: list[Tensor], like: Tensor) -> Tensor:
    """Sum over outputs of a discriminator that ought to take them for real; 0 of none."""
    return sum((losses.adversarial(o, real=True) for o in said), like.new_zeros(()))


def tell(discriminator: nn.Module, real: Tensor, fakes: list[tuple[Tensor, float]]) -> Tensor:
    """Half the loss on real images and half the loss on fake ones, which have these weights."""
    on_real, *on_fake = through(discriminator, [real, *(image for image, _ in fakes)])
    loss = losses.adversarial(on_real, real=True)
    for said, (_, weight) in zip(on_fake, fakes, strict=True):
        loss = loss + weight * losses.adversarial(said, real=False)
    return loss / 2


def require_grad(modules: Iterable[nn.Module], needed: bool) -> None:
    """Let the weights of these networks collect gradients, or not."""
    for module in modules:
        module.requires_grad_(needed)


def detach(tensors: Mapping) -> dict:
    """The same tensors without a way back."""
    return {name: tensor.detach() for name, tensor in tensors.items()}
