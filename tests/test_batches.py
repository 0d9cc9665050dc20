"""Batches: which images a step sees, the same cut of image and label, values of the scalings."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from madan.data import batches
from madan.errors import Refusal


class Coded:
    """Images whose red and green say row and column, blue which image; labels say both places."""

    def __init__(self, count=40, name="coded", size=(16, 16)):
        self.count, self.name, self.size = count, name, size

    def __len__(self):
        return self.count

    def image(self, index):
        rows, columns = np.indices(self.size, dtype=np.uint8)
        return np.stack([rows, columns, np.full(self.size, index, np.uint8)], axis=2)

    def label(self, index):
        rows, columns = np.indices(self.size, dtype=np.uint8)
        return rows * 16 + columns


class Unlabelled(Coded):
    def label(self, index):
        raise AssertionError("nobody asked for labels")


def draw(pictures=None, seed=0, step=0, batch=4, crop=(8, 8), flip=True, labelled=False):
    return batches.draw(pictures or Coded(), seed, step, batch, crop, flip, labelled)


def decoded(batch):
    """Rows, columns and indices [B, h, w] that the images of a batch say."""
    return batch.images.add(1).mul(127.5).round().long().unbind(1)


def test_batch_is_the_same_whatever_was_drawn_before():
    first = draw(seed=3, step=5, labelled=True)
    draw(Coded(name="neighbour"), seed=3, step=5)
    draw(seed=4, step=6)
    np.random.seed(1)
    torch.manual_seed(1)
    again = draw(seed=3, step=5, labelled=True)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)


@pytest.mark.parametrize("other", [{"seed": 1}, {"step": 1}, {"pictures": Coded(name="other")}])
def test_seed_step_and_name_each_change_order_and_crop(other):
    rows, _, indices = decoded(draw(batch=8))
    other_rows, _, other_indices = decoded(draw(**other, batch=8))
    assert indices[:, 0, 0].tolist() != other_indices[:, 0, 0].tolist()
    assert rows[:, 0, 0].tolist() != other_rows[:, 0, 0].tolist()


def test_labels_do_not_change_the_images():
    assert torch.equal(draw(labelled=True).images, draw(labelled=False).images)


@pytest.mark.parametrize(("count", "batch"), [(5, 3), (4, 2), (3, 7), (1, 2)])
def test_every_epoch_sees_each_image_once(count, batch):
    steps = range(5 * count)
    seen = [index for step in steps for index in batches.order(0, "set", step, batch, count)]
    epochs = [seen[first : first + count] for first in range(0, len(seen), count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)


def test_epochs_have_orders_of_their_own():
    epochs = {tuple(batches.order(0, "set", step, 10, 10)) for step in range(20)}
    assert len(epochs) == 20


def test_batch_holds_the_images_of_its_order():
    pictures = Coded()
    _, _, indices = decoded(draw(pictures, seed=2, step=3))
    assert indices[:, 0, 0].tolist() == batches.order(2, "coded", 3, 4, 40)


@pytest.mark.parametrize("flip", [False, True])
def test_image_and_label_are_cut_and_mirrored_alike(flip):
    turned = []
    for step in range(8):
        batch = draw(step=step, crop=(6, 10), flip=flip, labelled=True)
        rows, columns, _ = decoded(batch)
        assert batch.images.shape == (4, 3, 6, 10)
        assert batch.truth().shape == (4, 6, 10)
        assert batch.truth().dtype == torch.int64
        assert torch.equal(batch.truth(), rows * 16 + columns)
        assert (rows.diff(dim=1) == 1).all()
        ways = columns.diff(dim=2)
        assert ((ways == ways[:, :1, :1]) & (ways.abs() == 1)).all()
        turned += (ways[:, 0, 0] < 0).tolist()
    assert (0 < sum(turned) < len(turned)) if flip else not any(turned)


def test_every_place_of_a_crop_occurs():
    drawn = [decoded(draw(step=step, crop=(15, 14), flip=False)) for step in range(20)]
    corners = {(int(r[b, 0, 0]), int(c[b, 0, 0])) for r, c, _ in drawn for b in range(4)}
    assert corners == {(top, left) for top in range(2) for left in range(3)}


def test_crop_of_the_whole_image_is_the_image():
    rows, columns, _ = decoded(draw(crop=(16, 16), flip=False))
    expected = torch.arange(16)
    assert torch.equal(rows[0, :, 0], expected)
    assert torch.equal(columns[0, 0], expected)


@pytest.mark.parametrize("crop", [(17, 8), (8, 17)])
def test_crop_too_large_is_a_sentence_with_both_sizes(crop):
    with pytest.raises(Refusal, match=rf"crop {crop[0]}x{crop[1]} does not fit .* coded, 16x16"):
        draw(crop=crop)


def test_unlabelled_sets_are_never_asked_for_labels():
    assert draw(Unlabelled()).labels is None


def test_scale_takes_bytes_to_minus_one_and_one_exactly():
    images = torch.arange(256, dtype=torch.uint8).repeat_interleave(3).view(1, 16, 16, 3)
    scaled = batches.scale(images)
    assert scaled.shape == (1, 3, 16, 16)
    assert scaled.is_contiguous()
    assert scaled.dtype == torch.float32
    assert scaled[0, :, 0, 0].tolist() == [-1, -1, -1]
    assert scaled[0, :, -1, -1].tolist() == [1, 1, 1]
    expected = np.linspace(-1, 1, 256)
    assert scaled[0, 1].flatten().numpy() == pytest.approx(expected, abs=1e-6)


def test_scale_keeps_the_channels_apart():
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).expand(1, 2, 5, 3)
    scaled = batches.scale(images)
    assert scaled[0, :, 1, 4].tolist() == pytest.approx([-1, 1, -0.6])


def test_imagenet_is_torchvisions_normalisation_of_zero_to_one():
    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    judge = v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    torch.testing.assert_close(batches.imagenet(images * 2 - 1), judge(images))


def noise(count=4, seed=0):
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_no_jitter_is_the_identity():
    images = noise()
    assert torch.equal(batches.jitter(images, 0, 0, 0), images)


@given(st.floats(0.01, 1), st.integers(0, 5), st.integers(0, 5))
def test_jitter_stays_in_range(amount, seed, step):
    jittered = batches.jitter(noise(seed=seed), amount, seed, step)
    assert jittered.shape == (4, 3, 6, 6)
    assert jittered.min() >= -1
    assert jittered.max() <= 1


def test_jitter_depends_on_seed_and_step_alone():
    images = noise()
    first = batches.jitter(images, 0.3, 1, 2)
    torch.manual_seed(5)
    assert torch.equal(batches.jitter(images, 0.3, 1, 2), first)
    assert not torch.equal(batches.jitter(images, 0.3, 2, 2), first)
    assert not torch.equal(batches.jitter(images, 0.3, 1, 3), first)
    assert torch.equal(images, noise())


def test_jitter_draws_factors_of_each_image_anew():
    images = noise(1).expand(3, -1, -1, -1)
    one, two, three = batches.jitter(images, 0.3, 0, 0)
    assert not torch.equal(one, two)
    assert not torch.equal(two, three)


def test_jitter_changes_brightness_contrast_and_saturation_by_up_to_its_amount():
    # One red and one cyan pixel, far from 0 and 1: each factor shows in a number of its own.
    images = torch.tensor([[0.5, 0.3], [0.3, 0.5], [0.3, 0.5]]).view(1, 3, 1, 2)
    amount, factors = 0.2, []
    for step in range(300):
        shown = (batches.jitter(images * 2 - 1, amount, 0, step)[0, :, 0] + 1) / 2
        grey = shown.mean(0)
        brightness = grey.mean() / images.mean()
        contrast = grey.diff() / grey.mean() / (images.mean(1).diff() / images.mean()).item()
        saturation = (shown[0] - shown[1]).abs().mean() / 0.2 / brightness / contrast
        factors.append([brightness.item(), contrast.item(), saturation.item()])
    factors = np.array(factors)
    assert factors.min() > 1 - amount - 1e-5
    assert factors.max() < 1 + amount + 1e-5
    assert factors.min(axis=0) == pytest.approx([0.8] * 3, abs=0.01)
    assert factors.max(axis=0) == pytest.approx([1.2] * 3, abs=0.01)
    assert abs(np.corrcoef(factors.T) - np.eye(3)).max() < 0.2


def counts(**pixels):
    found = np.zeros(19, np.int64)
    for name, number in pixels.items():
        found[int(name.removeprefix("class_"))] = number
    return found


def test_class_weights_by_hand():
    weights = batches.class_weights([counts(class_0=75, class_1=24, class_2=1)], 0.5, 8)
    assert weights.dtype == torch.float32
    assert weights[:3].tolist() == pytest.approx([0.75**-0.5, 0.24**-0.5, 8])


def test_absent_class_weighs_the_cap():
    weights = batches.class_weights([counts(class_4=10)], 0.5, 12)
    assert weights.tolist() == [12] * 4 + [1] + [12] * 14


def test_sets_count_alike_however_many_pixels_they_have():
    sets = [counts(class_0=1), counts(class_0=500, class_1=500)]
    weights = batches.class_weights(sets, 1, 100)
    assert weights[:2].tolist() == pytest.approx([1 / 0.75, 1 / 0.25])


def test_set_without_labelled_pixels_does_not_divide_by_nothing():
    assert batches.class_weights([counts()], 0.5, 12).tolist() == [12] * 19
