"""The most memory that a translator's generator update holds at once, on tensors without data.

Every storage that an operation makes counts from then until it is freed, in the order in which
torch computes the step. The workspaces of a GPU's libraries and its context are not in it.
"""

import weakref
from typing import Any

import steps
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from madan.engine import training
from madan.methods.translation import Scale

GIB = 2**30


class Peak(TorchDispatchMode):
    """Bytes of the storages that are made inside: held now, and at most."""

    def __init__(self) -> None:
        """Start with nothing held."""
        super().__init__()
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        """Run an operation and count what it made."""
        made = function(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor.untyped_storage())
        return made

    def _hold(self, storage: torch.UntypedStorage) -> None:
        name = storage._cdata
        if name not in self._sizes:
            self._sizes[name] = storage.nbytes()
            self.now += self._sizes[name]
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._free, name)

    def _free(self, name: int) -> None:
        self.now -= self._sizes.pop(name, 0)


def generators(method: Any, crop: int, batch: int) -> float:
    """GiB at most: weights, Adam's moments, and all that the generators' update holds."""
    networks = [*method.networks().values(), *method.judges.values()]
    for network in networks:
        network.to("meta")
    x = {i: torch.zeros(batch, 3, crop, crop, device="meta") for i in method.sources}
    target = torch.zeros(batch, 3, crop, crop, device="meta")
    pairs = method._pairs(0)
    sad, ccd = (pairs if wanted else [] for wanted in (method.run.sad, method.run.ccd))
    with Peak() as peak:
        method._gradients(Scale(x, target, sad, ccd))
    weights = sum(4 * p.numel() for network in networks for p in network.parameters())
    moments = sum(8 * p.numel() for n in method.networks().values() for p in n.parameters())
    return (peak.most + weights + moments) / GIB


def main() -> None:
    """Print the peak of MADAN at the paper's scale, in one to four parts of the batch."""
    training.device = lambda: torch.device("meta")
    torch.set_default_device("meta")
    params = steps.paper(1)
    for parts in (1, 2, 4):
        method = steps.sources(params, 400, ["one", "two"])
        method.settings = method.settings.model_copy(update={"accumulate": parts})
        print(f"MADAN, accumulate {parts}: {generators(method, 400, 4):.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
