"""Stylised datasets: every image once, rounded, in its place, whatever the batch and the shard."""

import numpy as np
import pytest
import torch
from torch import nn

from madan.data import batches
from madan.data.datasets import Pictures
from madan.engine import training
from madan.methods.stylisation import stylise, to_bytes
from madan.models.generator import Generator


def write(folder, count, size=(8, 12), seed=0):
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    np.save(folder / "images.npy", drawn)
    return drawn


@pytest.fixture
def source(tmp_path):
    """A set in three shards, of which one is longer than a batch."""
    folders = [tmp_path / "source" / str(k) for k in range(3)]
    for k, count in enumerate((10, 1, 8)):
        write(folders[k], count, seed=k)
    return Pictures("source", folders)


@pytest.fixture
def run(tmp_path, source):
    """Stylise a set and give back the arrays of its shards."""

    def run(generator, pictures=source, precision="fp32", name="out"):
        out = tmp_path / name
        out.mkdir()
        stylise(generator, pictures, out, precision)
        return [np.load(out / str(k) / "images.npy") for k in range(len(pictures.shards))]

    return run


def generator(dropout=False, seed=0):
    training.begin(seed, 1)
    sizes = {"ngf": 4, "blocks": 1, "end_kernel": 3, "upsample": "nearest", "colour": True}
    made = Generator(dropout=dropout, **sizes)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.mul_(20)
    return made


class Inverse(nn.Module):
    def forward(self, x):
        return -x


class Constant(nn.Module):
    """Says the same everywhere, in levels of 0..255."""

    def __init__(self, level):
        super().__init__()
        self.value = level / 127.5 - 1

    def forward(self, x):
        return torch.full_like(x, self.value)


def test_every_level_comes_back_as_itself():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert np.array_equal(to_bytes(batches.scale(levels)), levels.numpy())


@pytest.mark.parametrize(("level", "expected"), [(10.4, 10), (10.6, 11), (254.7, 255), (0.3, 0)])
def test_levels_are_rounded_not_truncated(level, expected):
    made = to_bytes(torch.full((1, 3, 2, 2), level / 127.5 - 1))
    assert made.dtype == np.uint8
    assert (made == expected).all()


def test_levels_of_half_precision_are_found_in_full_precision():
    half = torch.linspace(-1, 1, 300).bfloat16().view(1, 3, 10, 10)
    assert np.array_equal(to_bytes(half), to_bytes(half.float()))


def test_values_beyond_the_range_do_not_wrap_round():
    made = to_bytes(torch.tensor([-1.5, 1.5]).view(1, 1, 1, 2).expand(1, 3, 1, 2))
    assert made[0, 0].tolist() == [[0] * 3, [255] * 3]


def test_rounding_reaches_the_file(run):
    assert all((shard == 100).all() for shard in run(Constant(99.7)))


def test_shards_keep_the_shape_place_and_colours_of_their_images(run, source):
    made = run(Inverse())
    for images, shard in zip(source.shards, made, strict=True):
        assert shard.dtype == np.uint8
        assert np.array_equal(shard, 255 - images)


def test_image_is_what_the_generator_makes_of_it_alone(run, source):
    net = generator()
    made = run(net)
    for shard, row in ((0, 0), (0, 9), (1, 0), (2, 7)):
        image = torch.from_numpy(source.shards[shard][row : row + 1].copy())
        with torch.no_grad():
            alone = to_bytes(net(batches.scale(image)))[0]
        assert np.abs(made[shard][row].astype(int) - alone).max() <= 1
        assert np.ptp(alone) > 50


def test_generator_with_dropout_makes_the_same_twice(run):
    net = generator(dropout=True).train()
    first, second = run(net), run(net, name="again")
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_size_that_the_generator_must_pad_is_kept(run, tmp_path):
    folder = tmp_path / "odd"
    drawn = write(folder, 2, size=(9, 14))
    [made] = run(generator(), Pictures("odd", [folder]))
    assert made.shape == drawn.shape


def test_bf16_is_within_a_few_levels_of_fp32(run):
    net = generator()
    half, whole = run(net, precision="bf16"), run(net, name="whole")
    differences = [np.abs(a.astype(int) - b) for a, b in zip(half, whole, strict=True)]
    assert 0 < max(difference.max() for difference in differences)
    assert np.mean(np.concatenate([d.ravel() for d in differences])) < 3


def test_stylised_shards_open_as_pictures(run, source, tmp_path):
    run(Inverse())
    pictures = Pictures("madan/source", [tmp_path / "out" / str(k) for k in range(3)])
    assert len(pictures) == len(source)
    for index in range(len(source)):
        assert np.array_equal(pictures.image(index), 255 - source.image(index))
