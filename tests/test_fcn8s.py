"""FCN-8s against the released network's numbers, and what the slim one promises."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from madan.models.fcn8s import Bilinear, FCN8s, Halving

GOLDEN = Path(__file__).parent / "golden"
PAPER = {
    "classes": 19,
    "widths": (64, 128, 256, 512, 512),
    "convs": (2, 2, 3, 3, 3),
    "pools": (1, 1, 1, 1, 1),
    "head": 4096,
    "head_kernel": 7,
    "norm": "none",
    "dropout": 0.5,
    "padding": 100,
}
NARROW = PAPER | {"widths": (4, 8, 16, 32, 32), "head": 64}
SLIM = {
    "classes": 19,
    "widths": (8, 8, 16, 16, 16),
    "convs": (1, 1, 2, 2, 2),
    "pools": (0, 1, 1, 1, 1),
    "head": 16,
    "head_kernel": 3,
    "norm": "group",
    "dropout": 0.1,
    "padding": 1,
}


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind != "U"}


def narrow():
    net = FCN8s(**NARROW)
    net.load_state_dict(load("fcn8s_weights_vgg") | load("fcn8s_weights_head"))
    return net.eval()


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_keys_and_shapes_are_the_released_ones():
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in FCN8s(**PAPER).state_dict().items()}
    theirs = json.loads((GOLDEN / "keys.json").read_text())["fcn8s"]
    assert ours == {key: shape for key, shape in theirs.items() if not key.endswith(".w")}
    assert len(theirs) - len(ours) == 3


def test_scores_features_loss_and_gradients_are_the_released_ones():
    golden = load("fcn8s_outputs")
    net = narrow()
    scores, features = net.forward_features(golden["x"])
    assert relative(scores[:, :, ::4, ::4], golden["scores"]) < 1e-5
    assert (scores.argmax(1) == golden["argmax"]).all()
    assert relative(features, golden["features"]) < 1e-5
    loss = F.cross_entropy(scores, golden["label"].long(), ignore_index=255)
    assert loss.item() == pytest.approx(golden["loss"].item(), rel=1e-5)
    loss.backward()
    assert relative(net.vgg[0].weight.grad, golden["gradient_conv1"]) < 1e-5
    assert relative(net.score_pool3.weight.grad, golden["gradient_score_pool3"]) < 1e-5


def test_every_gradient_has_the_released_sums():
    golden = load("fcn8s_outputs")
    with np.load(GOLDEN / "fcn8s_outputs.npz") as file:
        names = file["gradient_names"].tolist()
    net = narrow()
    F.cross_entropy(net(golden["x"]), golden["label"].long(), ignore_index=255).backward()
    gradients = {name: parameter.grad.double() for name, parameter in net.named_parameters()}
    assert sorted(gradients) == sorted(names)
    for name, (total, size) in zip(names, golden["gradient_digests"].tolist(), strict=True):
        assert gradients[name].sum().item() == pytest.approx(total, abs=1e-5 * size)
        assert gradients[name].abs().sum().item() == pytest.approx(size, rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_three_steps_have_the_released_losses(name):
    golden = load("fcn8s_steps")
    net = narrow()
    optimizer = (
        torch.optim.Adam(net.parameters(), 1e-4)
        if name == "adam"
        else torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)
    )
    losses = []
    for x, label in zip(golden["x"], golden["label"], strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), label.long(), ignore_index=255)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(golden[name].tolist(), rel=1e-5)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_is_the_papers_transposed_convolution(factor):
    ramp = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    x = torch.randn(2, 3, 5, 6)
    theirs = F.conv_transpose2d(
        x, (ramp[:, None] * ramp).expand(3, 1, -1, -1), None, factor, 0, 0, 3
    )
    up = Bilinear(factor=factor, start=0, origin=-(factor // 2), edge=False)
    torch.testing.assert_close(up(x, *theirs.shape[2:]), theirs)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_upsampling_with_an_edge_is_interpolation(factor):
    x = torch.randn(2, 3, 5, 6)
    theirs = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    up = Bilinear(factor=factor, start=0, origin=0, edge=True)
    torch.testing.assert_close(up(x, *theirs.shape[2:]), theirs)


@pytest.mark.parametrize("settings", [NARROW, SLIM], ids=["paper", "slim"])
@pytest.mark.parametrize("size", [(32, 64), (37, 51), (1, 1)])
def test_scores_have_the_size_of_the_picture(settings, size):
    scores, features = FCN8s(**settings).eval().forward_features(torch.randn(2, 3, *size))
    assert scores.shape == (2, 19, *size)
    assert features.shape[:2] == (2, settings["head"])


@pytest.mark.parametrize("pools", [(0, 1, 1, 1, 1), (1, 1, 0, 1, 1), (1, 1, 1, 0, 0)])
def test_scores_stay_in_place_when_the_picture_moves(pools):
    torch.manual_seed(0)
    net = FCN8s(**SLIM | {"pools": pools, "norm": "none"}).double().eval()
    torch.nn.init.normal_(net.score_pool3.weight)
    torch.nn.init.normal_(net.score_pool4.weight)
    x = torch.randn(1, 3, 256, 256, dtype=torch.float64)
    stride = 2 ** sum(pools)
    moved = net(x.roll((stride, stride), (2, 3)))[..., 128:144, 128:144]
    still = net(x)[..., 128 - stride : 144 - stride, 128 - stride : 144 - stride]
    torch.testing.assert_close(moved, still)


def test_a_mirrored_picture_has_mirrored_scores_when_its_filters_are_symmetric():
    # A net whose map is shifted by a fraction of a pixel would fail here.
    net = FCN8s(**SLIM).double().eval()
    for name, parameter in net.named_parameters():
        if parameter.dim() == 4:
            torch.nn.init.normal_(parameter) if "score" in name else None
            parameter.data = (parameter + parameter.flip(3)) / 2
    x = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    torch.testing.assert_close(net(x.flip(3)), net(x).flip(3))


def test_layouts_give_the_same_scores_and_gradients():
    torch.manual_seed(0)
    net, x = FCN8s(**SLIM).eval(), torch.randn(2, 3, 32, 64)
    grads = []
    for layout in (torch.contiguous_format, torch.channels_last):
        net.zero_grad()
        net.to(memory_format=layout)
        scores = net(x.to(memory_format=layout))
        scores.square().mean().backward()
        grads.append((scores.detach(), net.vgg[0].weight.grad.clone()))
    torch.testing.assert_close(grads[0], grads[1])


def test_the_skips_have_no_say_at_the_start():
    net = FCN8s(**SLIM)
    assert not net.score_pool3.weight.any()
    assert not net.score_pool4.weight.any()
    assert net.vgg_head[-1].weight.abs().max() < 0.1


def test_dropout_is_only_for_training():
    net, x = FCN8s(**SLIM | {"dropout": 0.5}), torch.randn(1, 3, 32, 32)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": (8, 8, 8)}, "five entries"),
        ({"pools": (1, 1, 2, 1, 1)}, "0 or 1"),
        ({"head_kernel": 4}, "odd"),
        ({"norm": "batch"}, "'none' or 'group'"),
        ({"widths": (4, 8, 8, 8, 8)}, "multiples of 8"),
        ({"padding": 0}, "at least"),
        ({"padding": 50, "head_kernel": 7, "pools": (1, 1, 1, 1, 1)}, "at least 81"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        FCN8s(**SLIM | wrong)


@pytest.mark.parametrize("size", [(8, 6), (7, 6), (8, 5), (7, 5)])
def test_pooling_without_gradients_has_the_bits_of_that_with_them(size):
    x = torch.randn(2, 3, *size, generator=torch.manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(Halving()(x), F.max_pool2d(x, 2, ceil_mode=True))
    assert torch.equal(Halving()(x.requires_grad_()), F.max_pool2d(x, 2, ceil_mode=True))
