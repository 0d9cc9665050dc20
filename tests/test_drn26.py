"""DRN-26 against the released network's numbers, and what it is where F may be either network."""

import copy
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny, write_set

from madan import config
from madan.config.network_settings import Drn26Network
from madan.engine import distributed, training
from madan.errors import Refusal
from madan.evaluation import evaluate
from madan.methods import segmentation
from madan.models.drn26 import DRN26

GOLDEN = Path(__file__).parent / "golden"
NARROW = {"classes": 19, "width": 1 / 16}


def filled(net):
    """The network with the weights that the golden numbers were computed from."""
    made = {}
    for key, value in net.state_dict().items():
        drawn = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(value.shape)
        if value.dim() == 4:
            drawn = drawn * (2 / value[0].numel()) ** 0.5
        elif key.endswith("running_var"):
            drawn = np.exp(drawn * 0.3)
        elif key.endswith(("bn1.weight", "bn2.weight", "downsample.1.weight")):
            drawn = 1 + drawn * 0.5 * 0.2
        elif key.endswith(("weight", "bias")):
            drawn = drawn * 0.5
        made[key] = torch.from_numpy(np.asarray(drawn)).to(value.dtype)
    net.load_state_dict(made)
    return net.eval()


def drawn():
    """The image and the labels that the golden numbers were computed from."""
    rng = np.random.default_rng(26)
    x = torch.from_numpy(rng.standard_normal((1, 3, 45, 70)).astype(np.float32))
    truth = torch.from_numpy(rng.integers(0, 19, (1, 45, 70)))
    truth[:, :5] = 255
    return x, truth


def relative(ours, theirs):
    theirs = torch.from_numpy(theirs)
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "drn26_outputs.npz") as file:
        return dict(file)


def test_keys_and_shapes_are_the_released_ones():
    with torch.device("meta"):
        ours = {k: list(v.shape) for k, v in DRN26(classes=19, width=1).state_dict().items()}
    theirs = json.loads((GOLDEN / "keys.json").read_text())["drn26"]
    assert ours == theirs and len(theirs) == 182


def test_scores_features_loss_and_gradients_are_the_released_ones(golden):
    net, (x, truth) = filled(DRN26(**NARROW)), drawn()
    scores, features = net.forward_features(x)
    assert relative(scores[:, :, ::5, ::5], golden["scores"]) < 1e-5
    assert (scores.argmax(1).numpy() == golden["argmax"]).all()
    assert relative(features, golden["features"]) < 1e-5
    loss = F.cross_entropy(scores, truth, ignore_index=255)
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    loss.backward()
    found = {name: parameter.grad.double() for name, parameter in net.named_parameters()}
    assert set(found) == set(golden["gradient_names"])
    digests = zip(golden["gradient_names"], golden["gradient_digests"], strict=True)
    for name, (total, size) in digests:
        assert found[name].sum().item() == pytest.approx(total, abs=1e-5 * size), name
        assert found[name].abs().sum().item() == pytest.approx(size, rel=1e-5), name


def test_three_steps_in_training_have_the_released_losses_and_statistics(golden):
    net, (x, truth) = filled(DRN26(**NARROW)).train(), drawn()
    optimizer = torch.optim.SGD(net.parameters(), 1e-2, momentum=0.9, weight_decay=5e-4)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), truth, ignore_index=255)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(golden["sgd"].tolist(), rel=1e-5)
    assert relative(net.layer8[0].bn2.running_mean, golden["running_mean"]) < 1e-5
    assert relative(net.layer8[0].bn2.running_var, golden["running_var"]) < 1e-5


@pytest.mark.parametrize("size", [(32, 64), (37, 51), (8, 8)])
def test_scores_have_the_size_of_the_picture_and_features_an_eighth(size):
    net = DRN26(classes=19, width=1 / 8).eval()
    scores, features = net.forward_features(torch.randn(2, 3, *size))
    assert scores.shape == (2, 19, *size)
    assert features.shape == (2, net.head, *(-(-side // 8) for side in size))
    assert net.head == 64


def test_evaluation_reads_running_statistics_whatever_shares_the_batch():
    net, x = filled(DRN26(**NARROW)), torch.randn(3, 3, 32, 40)
    before = copy.deepcopy(net.state_dict())
    torch.testing.assert_close(net(x)[:1], net(x[:1]), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_width_that_leaves_no_channel_is_refused():
    with pytest.raises(ValueError, match="leaves none of 16"):
        DRN26(classes=19, width=0.05)


def test_several_processes_may_read_it_and_are_refused_to_train_it(monkeypatch):
    net = DRN26(**NARROW)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    assert not net.eval().training
    with pytest.raises(Refusal, match=r"several processes.*--processes 1") as caught:
        net.train()
    assert "\n" not in str(caught.value)


def test_it_is_trained_and_scored_as_any_segmenter(raw, tmp_path):
    params = config.resolve(tiny(raw))
    training.begin(0, 1)
    net = segmentation.build(Drn26Network(width=1 / 8))
    settings = params.training.segmenter.model_copy(update={"crop": (16, 32), "batch": 2})
    pictures = write_set(tmp_path / "set", "set")
    method = segmentation.Supervised(net, [pictures], settings, 20, 0)
    before = copy.deepcopy(net.state_dict())
    figures = [method.update(step)["task"] for step in range(20)]
    assert figures[-1] < figures[0]
    after = net.state_dict()
    assert not [key for key in before if torch.equal(before[key], after[key])]
    assert evaluate.evaluate(net, pictures, 2, "fp32").sum() == 4 * 16 * 32
