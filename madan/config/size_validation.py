"""Checks of params.yaml for sizes: of networks, crops and batches, and of pretrained weights."""

from madan.config.schema import Params
from madan.errors import Refusal, known


def check_sizes(params: Params) -> None:
    """Refuse widths, crops and parts of a batch that no network, domain or batch has."""
    net, smallest = params.networks.segmenter, 16
    if net.norm == "group" and any(width % 8 for width in (*net.widths, net.head)):
        raise Refusal("networks.segmenter: norm group needs widths and head in multiples of 8.")
    for section in ("segmenter", "translator"):
        parts, batch = (
            getattr(getattr(params.training, section), k) for k in ("accumulate", "batch")
        )
        if parts > batch:
            raise Refusal(
                f"training.{section}.accumulate is {parts}, more parts than the batch "
                f"has images; it must be at most training.{section}.batch, {batch}."
            )
    if params.miniature and min(params.miniature.size) < smallest:
        raise Refusal(f"miniature.size is {params.miniature.size}; scenes need {smallest} pixels.")
    for section in ("segmenter", "translator", "adaptation"):
        height, width = getattr(params.training, section).crop
        for name, domain in params.domains.items():
            size = domain.size or (height, width)
            if min(height, width) < smallest or height > size[0] or width > size[1]:
                raise Refusal(
                    f"training.{section}.crop is {height}x{width}; it must be at least {smallest} "
                    f"pixels and at most domains.{name}.size, {size[0]}x{size[1]}."
                )


def check_pretrained(params: Params) -> None:
    """Refuse weights for `networks.segmenter.pretrained` that do not fit the network."""
    begun, net = params.networks.segmenter.pretrained, params.networks.segmenter
    if begun is None:
        return
    known("networks.segmenter.pretrained", begun, params.released)
    if params.released[begun].network != "vgg16":
        raise Refusal(
            f"networks.segmenter.pretrained is {begun}, which is {params.released[begun].network}; "
            "it must be vgg16. To go on from a segmenter, give runs a `start`."
        )
    if (net.convs, net.norm) != ((2, 2, 3, 3, 3), "none"):
        raise Refusal(
            "networks.segmenter.pretrained: VGG-16 has convs [2, 2, 3, 3, 3] and norm none, as at "
            f"scale: paper, but networks.segmenter has {list(net.convs)} and {net.norm}."
        )
