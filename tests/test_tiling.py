"""Images of any size through a network: tiles cover it, fade, and show what the whole shows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from madan.data import batches
from madan.errors import Refusal
from madan.evaluation import tiling
from madan.evaluation.tiling import spans, whole_or_tiled
from madan.methods.stylisation import to_bytes
from madan.models.generator import Generator

SLIM = {"ngf": 6, "blocks": 2, "end_kernel": 5, "upsample": "nearest", "colour": True}
PAPER = {"ngf": 4, "blocks": 9, "end_kernel": 7, "upsample": "transposed", "colour": False}


class Inverse(nn.Module):
    def forward(self, x):
        return -x


def generator(seed=0, **sizes):
    """A generator whose pictures have contrast, as those of a trained one."""
    torch.manual_seed(seed)
    made = Generator(dropout=False, **(sizes or SLIM)).eval()
    with torch.no_grad():
        made.model[-1].weight.mul_(8)
    return made


def picture(*size):
    levels = np.random.default_rng(5).integers(0, 256, (1, *size, 3)).astype(np.uint8)
    return batches.scale(torch.from_numpy(levels))


class Watched(nn.Module):
    """Keeps the sizes of what it is given."""

    def __init__(self, net):
        super().__init__()
        self.net, self.sizes = net, []

    def forward(self, x):
        self.sizes.append(tuple(x.shape[2:]))
        return self.net(x)


@pytest.mark.parametrize("size", [(40, 64), (20, 128), (61, 95), (41, 64), (200, 30), (97, 301)])
@pytest.mark.parametrize("overlap", [8, 13, 20])
def test_pointwise_generator_gives_in_tiles_exactly_what_it_gives_whole(size, overlap):
    net, x = Watched(Inverse()), picture(*size)
    made = whole_or_tiled(net, x, (40, 64), overlap)
    assert torch.equal(made, -x)
    assert all(h * w <= 40 * 64 for h, w in net.sizes)
    assert (len(net.sizes) == 1) == (size[0] * size[1] <= 40 * 64)


@given(st.integers(1, 3000), st.integers(32, 900), st.integers(8, 16))
def test_spans_cover_everything_and_overlap_by_what_was_asked(extent, tile, overlap):
    found = spans(extent, tile, overlap)
    assert found[0].start == 0 and found[-1].stop == extent
    assert all(span.stop - span.start <= tile and span.start % 4 == 0 for span in found)
    for one, other in zip(found, found[1:], strict=False):
        assert one.stop - other.start == overlap or other is found[-1]
        assert one.stop - other.start >= overlap and one.stop < other.stop
    assert len(found) == 1 or min(span.stop - span.start for span in found) > overlap


def test_tiles_of_a_net_that_looks_around_show_no_seams():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.Tanh(),
        nn.Conv2d(8, 3, 3, padding=1, padding_mode="reflect"), nn.Tanh(),
    )  # fmt: skip
    x = picture(61, 150)
    with torch.no_grad():
        whole, tiled = net(x), whole_or_tiled(net, x, (40, 64), 16)
        wrong = (whole - tiled).abs().amax((0, 1))
        cut = (whole[..., 48:112] - net(x[..., 48:112])).abs().max()
    # The net looks two pixels far: only there, where a tile ends, and where it has all but faded.
    rows, columns = ((wrong > 1e-5).float().mean(axis) > 0.5 for axis in (1, 0))
    assert rows.nonzero().ravel().tolist() == [24, 25, 38, 39]
    assert columns.nonzero().ravel().tolist() == [48, 49, 62, 63, 96, 97, 110, 111]
    assert not wrong[~rows][:, ~columns].gt(1e-5).any()
    assert wrong.max() < 0.25 * cut


def test_tiles_of_a_network_without_norm_are_those_of_the_whole():
    net = nn.Sequential(generator(**SLIM | {"ngf": 4, "blocks": 1, "end_kernel": 3}))
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        net[0].model[-1].weight.div_(8)
        for parameter in net[0].model.parameters():
            parameter.mul_(5)
        x = picture(96, 128)
        whole, tiled = net(x), whole_or_tiled(net, x, (80, 80), 40)
    wrong = (whole - tiled).abs().amax((0, 1))
    assert wrong[:, 60:68].max() < 0.02 and whole.std() > 0.1


def test_tiles_fade_linearly_into_each_other():
    levels = iter([0.0, 1.0])

    class Next(nn.Module):
        def forward(self, x):
            return torch.full_like(x, next(levels))

    made = whole_or_tiled(Next(), picture(8, 24), (8, 16), 8)
    first, last = torch.zeros(8), torch.ones(8)
    expected = torch.cat([first, torch.arange(1, 9) / 9, last])
    torch.testing.assert_close(made[0, 0], expected.expand(8, 24))


def scene(height, width, seed=0):
    """A picture whose parts differ, as sky and street do: a ramp of colours, noise and a block."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 60, (height, width, 3)) + np.linspace(0, 190, width)[None, :, None]
    levels[: height // 3] = levels[: height // 3] / 4 + 150
    levels[height // 2 :, width // 2 : width // 2 + 20] = (200, 30, 30)
    return batches.scale(torch.from_numpy(levels.clip(0, 255).astype(np.uint8))[None])


@torch.inference_mode()
@pytest.mark.parametrize(
    "sizes", [SLIM, PAPER, SLIM | {"blocks": 0}], ids=["slim", "paper", "none"]
)
@pytest.mark.parametrize(
    ("size", "tile"), [((96, 160), (48, 64)), ((61, 157), (64, 64)), ((50, 83), (8, 8))]
)
def test_tiles_of_a_generator_are_those_of_the_whole_image_within_a_level(sizes, size, tile):
    net, x = generator(**sizes), scene(*size)
    whole = to_bytes(net(x)).astype(int)
    tiled = to_bytes(whole_or_tiled(net, x, tile, 8)).astype(int)
    assert np.abs(whole - tiled).max() <= 1 and whole.std() > 20
    if min(tile) > 16:  # Tiles by themselves are other pictures.
        alone = to_bytes(torch.cat(list(tiling.strips(net, x, tile, 8)), 2)).astype(int)
        assert np.abs(whole - alone).mean() > 5


@settings(max_examples=12, deadline=None)
@given(st.integers(8, 70), st.integers(8, 70), st.integers(9, 60), st.integers(9, 60))
@torch.inference_mode()
def test_any_tile_of_any_image_gives_the_whole_within_a_level(height, width, high, wide):
    net, x = generator(), scene(height, width)
    whole, tiled = net(x), whole_or_tiled(net, x, (high, wide), 8)
    assert tiled.shape == whole.shape
    # Where a map is nearly constant, its normalisation enlarges rounding.
    assert (whole - tiled).abs().max() * 127.5 <= 1


@torch.inference_mode()
def test_a_generator_sees_no_more_pixels_at_once_than_a_tile_but_in_its_innermost_map():
    net, seen = generator(), []
    for layer in net.model:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[2] * x[0].shape[3]))
    whole_or_tiled(net, scene(120, 200), (64, 64), 8)
    assert max(seen) <= (64 + 4) * (64 + 4)  # the padding of the first and last convolution


@torch.inference_mode()
def test_an_image_that_memory_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr(tiling, "free_memory", lambda device: 1000)
    with pytest.raises(Refusal, match=r"120x200 pixels needs .* GB are free: .* lower height"):
        whole_or_tiled(generator(), scene(120, 200), (64, 64), 8)


@torch.inference_mode()
def test_half_precision_in_tiles_is_within_some_levels_of_the_whole():
    net, x = generator(), scene(96, 160)
    with torch.autocast("cpu", torch.bfloat16):
        whole, tiled = net(x).float(), whole_or_tiled(net, x, (48, 64), 8)
    assert (whole - tiled).abs().mean() * 127.5 < 1


@pytest.mark.parametrize("height", [0, 20, 40, 80])
def test_another_height_keeps_proportions(height):
    image = np.zeros((40, 60, 3), np.uint8)
    made = tiling.at_height(image, height)
    assert made.shape == (height or 40, (height or 40) * 60 // 40, 3)
    assert made.shape[:2] == tiling.at_size(image.shape, height)
    assert tiling.resized(made, (40, 60)).shape == image.shape
