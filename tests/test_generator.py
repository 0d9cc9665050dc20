"""The generator against the released network's numbers, and what the slim one promises."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from madan.methods import losses
from madan.models.discriminators import PatchGAN
from madan.models.generator import Generator, NearestConvolution

GOLDEN = Path(__file__).parent / "golden"
PAPER = {
    "ngf": 64,
    "blocks": 9,
    "end_kernel": 7,
    "upsample": "transposed",
    "dropout": False,
    "colour": False,
}
SLIM = {
    "ngf": 4,
    "blocks": 2,
    "end_kernel": 5,
    "upsample": "nearest",
    "dropout": False,
    "colour": True,
}


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}


@pytest.mark.parametrize(("name", "dropout"), [("generator", False), ("generator_dropout", True)])
def test_keys_and_shapes_are_the_released_ones(name, dropout):
    with torch.device("meta"):
        net = Generator(**PAPER | {"dropout": dropout})
    ours = {key: list(value.shape) for key, value in net.state_dict().items()}
    assert ours == json.loads((GOLDEN / "keys.json").read_text())[name]


def test_pictures_are_the_released_ones():
    golden = load("gan_outputs")
    net = Generator(**PAPER | {"ngf": 4, "dropout": True}).eval()
    net.load_state_dict(load("generator_weights"))
    assert (net(golden["x"]) - golden["generator"]).abs().max() < 1e-5


def test_losses_and_gradients_against_the_discriminator_are_the_released_ones():
    x, golden = load("gan_outputs")["x"], dict(np.load(GOLDEN / "gan_losses.npz"))
    net = Generator(**PAPER | {"ngf": 4, "dropout": True}).eval()
    net.load_state_dict(load("generator_weights"))
    judge = PatchGAN(ndf=8, layers=3, norm="instance")
    judge.load_state_dict(load("patchgan_weights"))
    loss = losses.adversarial(judge(net(x)), real=True)
    assert loss.item() == pytest.approx(float(golden["generator_loss"]), rel=1e-5)
    loss.backward()
    gradients = {name: parameter.grad.double() for name, parameter in net.named_parameters()}
    assert set(gradients) == set(golden["generator_names"])
    digests = zip(golden["generator_names"], golden["generator_digests"], strict=True)
    for name, (total, size) in digests:
        # Biases before a normalisation have no gradient but rounding.
        if size > 1e-3:
            assert gradients[name].sum().item() == pytest.approx(total, abs=1e-5 * size), name
            assert gradients[name].abs().sum().item() == pytest.approx(size, rel=1e-5), name


@pytest.mark.parametrize("settings", [PAPER | {"ngf": 2, "blocks": 1}, SLIM], ids=["paper", "slim"])
@pytest.mark.parametrize("size", [(64, 48), (33, 957), (5, 6)])
def test_a_picture_keeps_its_size_and_range(settings, size):
    # The release gives back 960 columns for 957.
    picture = Generator(**settings)(torch.rand(1, 3, *size) * 2 - 1)
    assert picture.shape == (1, 3, *size)
    assert picture.abs().max() <= 1


def test_an_odd_picture_is_the_corner_of_its_reflected_continuation():
    net, x = Generator(**SLIM), torch.rand(1, 3, 30, 31) * 2 - 1
    larger = nn.functional.pad(x, (0, 1, 0, 2), mode="reflect")
    torch.testing.assert_close(net(x), net(larger)[:, :, :30, :31])


def test_a_picture_too_small_to_reflect_is_refused():
    with pytest.raises(ValueError, match="4x64 is too small"):
        Generator(**SLIM)(torch.zeros(1, 3, 4, 64))


def test_doubling_is_repeating_reflecting_and_convolving():
    net, x = NearestConvolution(5, 3), torch.randn(2, 5, 4, 7)
    repeated = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    reflected = nn.functional.pad(repeated, (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(net(x), net.conv(reflected))


def test_the_colour_matrix_starts_a_little_above_the_identity():
    net, x = Generator(**SLIM), torch.rand(2, 3, 16, 16) * 2 - 1
    nn.init.zeros_(net.model[-1].weight)
    torch.testing.assert_close(net(x), torch.tanh(1.2 * x))
    assert [name for name, _ in net.named_parameters() if name.startswith("colour")] == [
        "colour.weight"
    ]
    assert Generator(**SLIM | {"colour": False}).colour is None


def test_weights_begin_as_cyclegan_has_them():
    torch.manual_seed(0)
    net = Generator(**PAPER | {"ngf": 16})
    weights = torch.cat([p.flatten() for n, p in net.named_parameters() if n.endswith("weight")])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert not any(p.any() for n, p in net.named_parameters() if n.endswith("bias"))


def test_dropout_acts_between_the_convolutions_in_training_only():
    net, x = Generator(**SLIM | {"dropout": True}), torch.rand(1, 3, 16, 16)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("settings", [PAPER | {"ngf": 4, "blocks": 2}, SLIM], ids=["paper", "slim"])
def test_gradients_at_batch_1_are_right_in_any_layout(settings, layout):
    # torch's instance_norm has a wrong gradient at batch 1 when one in channels_last reaches it.
    # It is right in contiguous layout, where it serves as the judge.
    torch.manual_seed(0)
    net, judge = Generator(**settings), Generator(**settings)
    judge.load_state_dict(net.state_dict())
    with_torchs_instance_norm(judge)
    x, gradient = torch.rand(1, 3, 16, 24) * 2 - 1, torch.randn(1, 3, 16, 24)
    judge(x).backward(gradient)
    net.to(memory_format=layout)
    net(x.to(memory_format=layout)).backward(gradient.to(memory_format=layout))
    for ours, theirs in zip(weights(net), weights(judge), strict=True):
        size = theirs.grad.abs().max()
        assert (ours.grad - theirs.grad).abs().max() < 1e-4 * size


def weights(net):
    # Biases before a normalisation have no gradient but rounding.
    return [parameter for parameter in net.parameters() if parameter.dim() == 4]


def with_torchs_instance_norm(module):
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, nn.InstanceNorm2d(child.num_channels))
        with_torchs_instance_norm(child)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"upsample": "bilinear"}, "'transposed'"), ({"end_kernel": 4}, "odd")]
)
def test_arguments_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Generator(**SLIM | wrong)
