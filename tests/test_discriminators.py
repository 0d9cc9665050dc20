"""Discriminators and image pool against the released code's numbers."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from madan.methods import losses
from madan.models.discriminators import FeatureDiscriminator, ImagePool, PatchGAN

GOLDEN = Path(__file__).parent / "golden"


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def built(name):
    if name == "patchgan":
        return PatchGAN(ndf=64, layers=3, norm="instance")
    channels, hidden = (19, (512, 256)) if name == "adda_scores" else (4096, (1024, 512))
    return FeatureDiscriminator(channels=channels, hidden=hidden, dropout=0.5)


@pytest.mark.parametrize("name", ["patchgan", "adda_scores", "adda_features"])
def test_keys_and_shapes_are_the_released_ones(name):
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in built(name).state_dict().items()}
    assert ours == json.loads((GOLDEN / "keys.json").read_text())[name]


def test_patch_logits_are_the_released_ones():
    golden = load("gan_outputs")
    net = PatchGAN(ndf=8, layers=3, norm="instance")
    net.load_state_dict(load("patchgan_weights"))
    logits = net(golden["x"])
    scale = golden["patchgan"].abs().max()
    assert (logits - golden["patchgan"]).abs().max() < 1e-5 * scale


def test_losses_and_gradients_are_the_released_ones():
    golden = dict(np.load(GOLDEN / "gan_losses.npz"))
    net = PatchGAN(ndf=8, layers=3, norm="instance")
    net.load_state_dict(load("patchgan_weights"))
    logits = net(load("gan_outputs")["x"])
    # The log loss of the paper's minimax is no setting; from these logits it is the released one.
    log = nn.functional.binary_cross_entropy_with_logits
    found = {
        "lsgan_real": losses.adversarial(logits, real=True),
        "lsgan_fake": losses.adversarial(logits, real=False),
        "vanilla_real": log(logits, torch.ones_like(logits)),
        "vanilla_fake": log(logits, torch.zeros_like(logits)),
    }
    for name, loss in found.items():
        assert loss.item() == pytest.approx(float(golden[name]), rel=1e-5), name
    ((found["lsgan_real"] + found["lsgan_fake"]) / 2).backward()
    gradients = {name: parameter.grad.double() for name, parameter in net.named_parameters()}
    assert set(gradients) == set(golden["patchgan_names"])
    for name, (total, size) in zip(
        golden["patchgan_names"], golden["patchgan_digests"], strict=True
    ):
        if size > 1e-4:  # Else a bias before a normalisation, which has none but rounding.
            assert gradients[name].sum().item() == pytest.approx(total, abs=1e-5 * size), name
            assert gradients[name].abs().sum().item() == pytest.approx(size, rel=1e-5), name


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch(layers, side):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 160, 160, requires_grad=True)
    logits = PatchGAN(ndf=4, layers=layers, norm="none")(x)
    middle = logits.shape[2] // 2
    logits[0, 0, middle, middle].backward()
    seen = x.grad.abs().sum((0, 1)) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == side


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_at_batch_1_are_right_in_any_layout(layout):
    torch.manual_seed(0)
    net = PatchGAN(ndf=4, layers=2, norm="instance")
    judge = PatchGAN(ndf=4, layers=2, norm="instance")
    judge.load_state_dict(net.state_dict())
    for position, module in enumerate(judge.model):
        if isinstance(module, nn.GroupNorm):
            judge.model[position] = nn.InstanceNorm2d(module.num_channels)
    picture = torch.randn(1, 3, 32, 48)
    gradients = []
    for each, its in ((net, layout), (judge, torch.contiguous_format)):
        x = picture.to(memory_format=its).requires_grad_()
        each.to(memory_format=its)(x).square().sum().backward()
        gradients.append((x.grad, [p.grad for p in each.parameters() if p.dim() == 4]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="'instance' or 'none'"):
        PatchGAN(ndf=4, layers=2, norm="batch")


def test_feature_logits_are_judged_position_by_position():
    net = FeatureDiscriminator(channels=5, hidden=(8, 4), dropout=0.5).eval()
    features = torch.randn(2, 5, 3, 4)
    logits = net(features)
    assert logits.shape == (2, 2, 3, 4)
    torch.testing.assert_close(net(features[:, :, 1:2, 2:3]), logits[:, :, 1:2, 2:3])


def ids(values):
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


def test_the_pool_deals_as_the_release_does(monkeypatch):
    # The same algorithm, shown by letting it draw from the release's source of randomness.
    source = random.Random(11)
    monkeypatch.setattr(torch, "rand", lambda _: 1 - source.uniform(0, 1))
    monkeypatch.setattr(torch, "randint", lambda size, _: source.randint(0, size - 1))
    pool = ImagePool(size=3, shape=(1, 1, 1))
    dealt = [pool.query(ids([2 * i, 2 * i + 1])).flatten().tolist() for i in range(12)]
    assert dealt == load("gan_outputs")["pool"].tolist()


def test_the_pool_keeps_the_first_and_then_swaps_half():
    torch.manual_seed(0)
    pool = ImagePool(size=20, shape=(1, 1, 1))
    first = ids(range(20))
    assert torch.equal(pool.query(first), first)
    ages = []
    for i in range(20, 4020, 4):
        images = ids(range(i, i + 4))
        ages += (images - pool.query(images)).flatten().tolist()
    old = [age for age in ages if age > 0]
    assert len(old) / len(ages) == pytest.approx(0.5, abs=0.03)
    # An image stays until one of 20 is swapped, which every second query does: 40 queries.
    assert sum(old) / len(old) == pytest.approx(40, rel=0.1)
    assert min(ages) >= 0


def test_the_pool_is_part_of_the_saved_state():
    torch.manual_seed(0)
    pool, resumed = (ImagePool(size=4, shape=(3, 2, 2)) for _ in range(2))
    batches = torch.randn(9, 2, 3, 2, 2)
    for batch in batches[:5]:
        pool.query(batch)
    resumed.load_state_dict(pool.state_dict())
    state = torch.get_rng_state()
    expected = [pool.query(batch) for batch in batches[5:]]
    torch.set_rng_state(state)
    for batch, images in zip(batches[5:], expected, strict=True):
        assert torch.equal(resumed.query(batch), images)


@pytest.mark.parametrize("size", [0, 3])
def test_the_pool_detaches_and_leaves_its_input_alone(size):
    pool = ImagePool(size=size, shape=(3, 2, 2))
    for _ in range(4):
        images = torch.randn(2, 3, 2, 2, requires_grad=True)
        before = images.detach().clone()
        returned = pool.query(images)
        assert not returned.requires_grad
        assert torch.equal(images, before)
        assert size or torch.equal(returned, before)
