"""DeepLab v2 and torchvision's models: what they compute, how they begin, how they learn."""

import json
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import World, params_yaml, tiny, write_set
from safetensors.torch import load_file
from test_adaptation import moved, run, weights
from test_config import refused

from madan import config
from madan.config import runs
from madan.config.network_settings import BACKBONES, NetworkName, TorchvisionNetwork
from madan.config.schema import Adaptation
from madan.data.batches import imagenet
from madan.engine import training
from madan.errors import Refusal
from madan.methods import segmentation
from madan.methods.adaptation import build as build_run
from madan.models import backbones, checkpoints, pretrained
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph

SLIM = {"classes": 19, "layers": [1, 1, 1, 1], "width_per_group": 8}
FULL = {"classes": 19, "layers": [3, 4, 23, 3], "width_per_group": 64}
COLLECTION = [name.partition("/")[2] for name in get_args(NetworkName) if "/" in name]
MOBILE = ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")


def slim(norm="group"):
    torch.manual_seed(0)
    return backbones.deeplab_v2(**SLIM, norm=norm)


def test_full_size_is_torchvisions_resnet_101_with_four_convolutions():
    with torch.device("meta"):
        ours = backbones.deeplab_v2(**FULL, norm="batch").state_dict()
        theirs = torchvision.models.resnet101(weights=None).state_dict()
    expected = {f"backbone.{k}": v.shape for k, v in theirs.items() if not k.startswith("fc.")}
    for k in range(4):
        expected[f"classifier.convs.{k}.weight"] = (19, 2048, 3, 3)
        expected[f"classifier.convs.{k}.bias"] = (19,)
    assert {key: tuple(value.shape) for key, value in ours.items()} == {
        key: tuple(shape) for key, shape in expected.items()
    }


def test_the_last_two_stages_are_dilated_in_place_of_strides():
    with torch.device("meta"):
        net = backbones.deeplab_v2(**FULL, norm="frozen")
    for stage, strides, dilation in ((2, {1, 2}, 1), (3, {1}, 2), (4, {1}, 4)):
        blocks = list(net.backbone[f"layer{stage}"])
        assert {block.conv2.stride[0] for block in blocks} == strides
        assert {block.conv2.dilation[0] for block in blocks[1:]} == {dilation}
    assert [c.dilation[0] for c in net.classifier.convs] == [6, 12, 18, 24]


@pytest.mark.parametrize("size", [(64, 96), (33, 50)])
def test_scores_have_the_size_of_the_picture_and_features_an_eighth(size):
    net = slim().eval()
    scores, features = net.forward_features(torch.randn(2, 3, *size))
    assert scores.shape == (2, 19, *size)
    assert features.shape == (2, net.head, *(-(-side // 8) for side in size))
    assert net.head == 2048


def test_scores_are_the_sum_of_the_dilated_convolutions_enlarged():
    net = slim().double().eval()
    x = torch.randn(1, 3, 40, 56, dtype=torch.float64)
    scores, features = net.forward_features(x)
    h, w = features.shape[2:]
    coarse = torch.zeros(1, 19, h, w, dtype=torch.float64)
    for convolution, rate in zip(net.classifier.convs, (6, 12, 18, 24), strict=True):
        padded = F.pad(features, [rate] * 4)
        for i in range(3):
            for j in range(3):
                part = padded[:, :, i * rate : i * rate + h, j * rate : j * rate + w]
                coarse += torch.einsum("bchw,kc->bkhw", part, convolution.weight[:, :, i, j])
        coarse += convolution.bias[None, :, None, None]
    expected = F.interpolate(coarse, size=(40, 56), mode="bilinear", align_corners=False)
    torch.testing.assert_close(scores, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(net(x), scores)


def test_the_collection_is_torchvisions():
    names = torchvision.models.list_models(module=torchvision.models.segmentation)
    assert sorted(COLLECTION) == sorted(names)
    backbone = {name: runs.backbone(f"torchvision/{name}") for name in names}
    assert set(backbone.values()) == set(BACKBONES)
    assert runs.backbone("deeplabv2-resnet101") == "resnet101"
    assert runs.backbone("fcn8s") is runs.backbone("drn26") is None


@pytest.mark.parametrize("name", COLLECTION)
def test_keys_are_torchvisions_and_features_the_backbones_last(name):
    with torch.device("meta"):
        net = segmentation._fresh(TorchvisionNetwork(name=name)).eval()
        theirs = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=19
        )
        scores, features = net.forward_features(torch.randn(2, 3, 64, 96))
    assert list(net.state_dict()) == list(theirs.state_dict())
    assert scores.shape == (2, 19, 64, 96)
    assert features.shape[:2] == (2, net.head)
    assert net.head == (960 if "mobilenet" in name else 2048)


@pytest.mark.parametrize("name", MOBILE)
def test_scores_are_those_of_torchvisions_own_model(name):
    training.begin(0, 1)
    net = segmentation.build(TorchvisionNetwork(name=name)).eval()
    theirs = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=19)
    theirs.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(net(x), theirs.eval()(x)["out"])


@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
def test_only_batchnorm_depends_on_the_batch_and_refuses_several_processes(norm, monkeypatch):
    net, x = slim(norm), torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        apart = torch.cat([net.train()(image[None]) for image in x])
        together = net(x)
    assert torch.allclose(apart, together, atol=1e-4) == (norm != "batch")
    monkeypatch.setattr("madan.engine.distributed.size", lambda: 2)
    if norm == "batch":
        with pytest.raises(Refusal, match="--processes 1, or set norm: frozen or group"):
            net.train()
    net.eval()
    assert not net.training


def test_frozen_normalisation_has_nothing_to_learn():
    net = slim("frozen")
    names = {name for name, _ in net.named_parameters()}
    assert not any(".bn" in name for name in names)
    before = weights(net)
    net.train()(torch.randn(2, 3, 32, 48)).mean().backward()
    assert not moved(net, before)


@pytest.fixture
def raw():
    return tiny(params_yaml())


@pytest.fixture
def sets(tmp_path):
    names = ("one", "two", "target")
    return {n: write_set(tmp_path / n, n, size=(32, 64), seed=k) for k, n in enumerate(names)}


def learning(raw, **changed):
    """Settings of training for DeepLab v2 in a tiny world."""
    raw["training"]["segmenter"] |= {"crop": [32, 64], "batch": 2, "class_weights": None}
    raw["training"]["by_network"]["deeplabv2-resnet101"] |= changed
    return config.resolve(raw).learning("deeplabv2-resnet101")


def test_poly_falls_from_one_to_nothing():
    assert [training.poly(step, 4, 1) for step in range(4)] == [1, 0.75, 0.5, 0.25]
    assert training.poly(3, 4, 0.9) == pytest.approx(0.25**0.9)
    assert training.poly(0, 7, 0.9) == 1


@pytest.mark.parametrize("schedule", ["poly", "constant", "one-cycle"])
def test_the_classifier_learns_at_ten_times_the_rate_of_the_backbone(raw, sets, schedule):
    settings = learning(raw, lr=0.02, schedule=schedule)
    training.begin(0, 1)
    method = segmentation.Supervised(slim(), [sets["one"]], settings, 4, 0)
    optimizer = method.optimizers["F"]
    assert isinstance(optimizer, torch.optim.SGD)
    backbone, head = optimizer.param_groups
    assert [p is q for p, q in zip(head["params"], method.net.classifier.parameters(), strict=True)]
    assert len(backbone["params"]) == len(list(method.net.backbone.parameters()))
    assert (backbone["momentum"], backbone["weight_decay"]) == (0.9, 0.0005)
    factors = {
        "poly": [(1 - step / 4) ** 0.9 for step in range(2)],
        "constant": [1, 1],
        "one-cycle": [training.one_cycle(step, 4) for step in range(2)],
    }
    for step in range(2):
        method.update(step)
        rates = [group["lr"] for group in optimizer.param_groups]
        expected = 0.02 * factors[schedule][step]
        assert rates == pytest.approx([expected, 10 * expected])


def test_a_kind_of_network_has_its_own_training_and_others_keep_theirs(raw):
    params = config.resolve(raw)
    assert params.learning("fcn8s") == params.training.segmenter
    own = params.learning("deeplabv2-resnet101")
    changes = {"optimizer", "lr", "momentum", "weight_decay", "schedule", "power", "head_lr"}
    assert own.model_dump(exclude=changes) == params.training.segmenter.model_dump(exclude=changes)
    assert (own.optimizer, own.schedule, own.power, own.head_lr) == ("sgd", "poly", 0.9, 10)


def test_a_step_moves_every_weight_and_the_loss_falls_on_a_repeated_batch(raw, sets):
    settings = learning(raw, lr=0.001, schedule="constant", head_lr=1)
    training.begin(0, 1)
    method = segmentation.Supervised(slim(), [sets["one"]], settings, 100, 0)
    before = weights(method.net)
    figures = [run(method, 1)[0]["task"]]
    assert moved(method.net, before) == set(before)
    figures += [line["task"] for line in run(method, 14, first=1)]
    assert figures[-1] < 0.8 * figures[0]


@pytest.mark.parametrize("method", ["feat", "mdan", "self-training"])
def test_every_method_along_with_l_task_takes_it_with_its_own_training(raw, sets, method):
    learning(raw)
    raw["segmenters"]["source-gta5"]["network"] = "deeplabv2-resnet101"
    raw["segmenters"]["stage-1"]["start"] = None
    params = config.resolve(raw)
    start = Adaptation(method=method, start="source-gta5", train_on=["gta5"], target="cityscapes")
    made = build_run(params, start, slim(), [sets["one"]], sets["target"], 10, 0)
    assert made.task.settings == params.learning("deeplabv2-resnet101")
    assert isinstance(made.optimizers["F"], torch.optim.SGD)
    before = weights(made.net)
    run(made, 1)
    assert moved(made.net, before)


def constants(network):
    """A state_dict of full size in little memory: every tensor repeats a number of its own."""
    with torch.device("meta"):
        shapes = torchvision.models.get_model(network, weights=None).state_dict()
    return {
        key: torch.full((), k + 1, dtype=value.dtype).expand(value.shape)
        for k, (key, value) in enumerate(shapes.items())
    }


@pytest.mark.parametrize(("network", "norm"), [("resnet101", "frozen"), ("resnet101", "batch")])
def test_every_tensor_of_resnet_101_lands_where_it_should(raw, network, norm):
    content = constants(network)
    found, lines = pretrained.match(content, network, config.resolve(raw).networks, False)
    assert {line.key for line in lines if line.verdict == "ignored"} == {"fc.weight", "fc.bias"}
    assert {line.verdict for line in lines} == {"matched", "ignored"}
    with torch.device("meta"):
        net = backbones.deeplab_v2(**FULL, norm=norm)
    net.backbone.load_state_dict(found, assign=True)
    for key, value in net.backbone.state_dict().items():
        assert value.flatten()[0] == content[key].flatten()[0], key
        assert value.shape == content[key].shape


def test_a_file_of_mobilenet_is_imported_and_begun_with(raw, tmp_path):
    """Through the report and the safetensors file, in torchvision's layout of the whole network."""
    network, out, report = "mobilenet_v3_large", tmp_path / "out.safetensors", tmp_path / "r.json"
    torch.manual_seed(0)
    content = torchvision.models.get_model(network, weights=None).state_dict()
    torch.save(content, tmp_path / "weights.pth")
    networks = config.resolve(raw).networks
    pretrained.bring(str(tmp_path / "weights.pth"), network, networks, False, out, report)
    said = json.loads(report.read_text())
    ignored = {line["key"] for line in said["keys"] if line["verdict"] == "ignored"}
    assert ignored == {key for key in content if key.startswith("classifier.")}
    net = segmentation.build(TorchvisionNetwork(name="lraspp_mobilenet_v3_large"))
    own = weights(net.classifier)
    segmentation.pretrain(net, out)
    assert not moved(net.classifier, own)
    for key, value in net.backbone.state_dict().items():
        assert torch.equal(value, content[f"features.{key}"]), key


def test_torchvision_is_asked_through_its_enum_for_the_network_that_is_named(
    raw, tmp_path, monkeypatch
):
    from torchvision.models import MobileNet_V3_Large_Weights, ResNet101_Weights

    asked = []

    def give(self, **how):
        asked.append((self, how))
        return torchvision.models.mobilenet_v3_large(weights=None).state_dict()

    for kind in (MobileNet_V3_Large_Weights, ResNet101_Weights):
        monkeypatch.setattr(kind, "get_state_dict", give)
    networks, report = config.resolve(raw).networks, tmp_path / "r.json"
    where = networks, False, tmp_path / "out.safetensors", report
    pretrained.bring("torchvision", "mobilenet_v3_large", *where)
    assert asked == [(MobileNet_V3_Large_Weights.IMAGENET1K_V1,
                      {"progress": False, "check_hash": True})]  # fmt: skip
    assert {key.split(".")[0] for key in load_file(where[2])} == {"backbone"}
    with pytest.raises(Refusal, match="holds mobilenet_v3_large .*where resnet101 was expected"):
        pretrained.bring("torchvision", "resnet101", *where)
    assert asked[1][0] is ResNet101_Weights.IMAGENET1K_V1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("layer3.22.bn3.weight"), ["not quite resnet101", "1 missing"]),
        (lambda d: d.update({"layer5.weight": torch.zeros(1)}), ["1 surplus (layer5.weight)"]),
        (lambda d: d.update({"conv1.weight": torch.zeros(32, 3, 7, 7)}), ["1 misshapen"]),
    ],
)
def test_a_file_that_is_not_quite_the_backbone_is_refused(raw, change, words):
    content = constants("resnet101")
    change(content)
    _, lines = pretrained.match(content, "resnet101", config.resolve(raw).networks, False)
    with pytest.raises(Refusal) as caught:
        pretrained.accept("x.pth", "resnet101", lines)
    assert all(word in str(caught.value) for word in words), caught.value


def test_old_files_without_counters_are_filled(raw):
    content = {k: v for k, v in constants("resnet101").items() if "num_batches" not in k}
    found, lines = pretrained.match(content, "resnet101", config.resolve(raw).networks, False)
    pretrained.accept("x.pth", "resnet101", lines)
    filled = [line for line in lines if line.verdict == "filled"]
    assert len(filled) == 104 and all(found[line.became] == 0 for line in filled)


def test_networks_are_known_by_their_keys():
    with torch.device("meta"):
        for name in BACKBONES:
            made = torchvision.models.get_model(name, weights=None).state_dict()
            assert checkpoints.architecture(made) == name
        assert checkpoints.architecture(slim_meta()) == "deeplabv2-resnet101"
        for name in COLLECTION:
            net = backbones.of_torchvision(classes=19, name=name).state_dict()
            kind = "MobileNet" if "mobilenet" in name else "ResNet"
            assert checkpoints.architecture(net) == f"a {kind} segmenter of torchvision"


def slim_meta():
    with torch.device("meta"):
        return backbones.deeplab_v2(**SLIM, norm="group").state_dict()


ENTRY = {"file": "data/raw/x.pth", "network": "resnet101"}


def of_deeplab(raw):
    raw["segmenters"]["lonely"] = {"train_on": ["gta5"], "network": "deeplabv2-resnet101"}
    return raw


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["networks"]["deeplabv2"].update(width_per_group=12), ["multiple of 8"]),
        (lambda r: r["networks"]["deeplabv2"].update(norm="frozen"),
         ["segmenters.lonely", "norm is frozen", "networks.backbones.resnet101"]),
        (lambda r: r["networks"].update(backbones={"resnet101": "x"}),
         ["segmenters.lonely", "is not ResNet-101", "[3, 4, 23, 3]"]),
        (lambda r: r["networks"].update(backbones={"resnet50": "x"}),
         ["networks.backbones.resnet50 is x", "must be resnet50"]),
        (lambda r: r["networks"].update(backbones={"resnet101": "y"}), ["names y", "allowed: x"]),
        (lambda r: r["networks"].update(backbones={"resnet18": "x"}), ["networks.backbones"]),
        (lambda r: r["training"]["segmenter"].update(head_lr=3), ["training.by_network.NETWORK"]),
        (lambda r: r["training"]["by_network"].update(fcn8s={"head_lr": 3}),
         ["training.by_network.fcn8s.head_lr", "drop the key"]),
        (lambda r: r["training"]["by_network"].update(fcn9s={}), ["training.by_network.fcn9s"]),
        (lambda r: r["segmenters"]["lonely"].update(network="torchvision/unet"), ["'torchvision/"]),
        (lambda r: r["segmenters"]["lonely"].update(start="segmenters/source-gta5"),
         ["whose network is fcn8s", "deeplabv2-resnet101"]),
        (lambda r: (r["networks"]["deeplabv2"].update(norm="batch"),
                    r["training"]["segmenter"].update(accumulate=2)),
         ["a deeplabv2-resnet101", "accumulate is 2"]),
        (lambda r: (r["segmenters"]["lonely"].update(network="torchvision/fcn_resnet50"),
                    r["training"]["segmenter"].update(accumulate=2)),
         ["a torchvision/fcn_resnet50", "accumulate is 2"]),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_are_refused(raw, change, words):
    raw = of_deeplab(raw)
    raw["released"] = {"x": ENTRY}
    assert config.resolve(raw)
    change(raw)
    refused(raw, *words)


def test_a_batch_of_one_is_refused_where_a_pooled_value_is_normalised(raw):
    raw = of_deeplab(raw)
    raw["segmenters"] = {"lonely": raw["segmenters"]["lonely"]}
    raw["translators"], raw["adaptations"] = {}, {}
    raw["tables"]["miou"]["rows"] = [
        {"row": "lonely", "setting": "x", "run": "segmenters/lonely"}
    ]  # fmt: skip
    raw["training"]["segmenter"]["batch"] = 1
    raw.pop("figures", None)
    assert config.resolve(raw)
    raw["segmenters"]["lonely"]["network"] = "torchvision/deeplabv3_resnet50"
    refused(raw, "segmenters.lonely", "training.segmenter.batch is 1")


def test_weights_of_a_backbone_are_an_input_of_what_begins_with_them(raw):
    raw = of_deeplab(raw | {"scale": "paper"})
    graph = Graph(config.resolve(raw))
    fresh = parse("segmenters/lonely")
    assert parse("released/resnet101") in graph.inputs(fresh)
    assert parse("released/vgg16") not in graph.inputs(fresh)
    assert set(graph.settings(fresh)["networks"]) == {"deeplabv2"}
    assert graph.settings(fresh)["training"]["segmenter"]["optimizer"] == "sgd"
    raw["segmenters"]["lonely"]["network"] = "torchvision/lraspp_mobilenet_v3_large"
    graph = Graph(config.resolve(raw))
    assert {each.kind for each in graph.inputs(fresh)} == {"prepared"}
    assert set(graph.settings(fresh)["networks"]) == {"torchvision/lraspp_mobilenet_v3_large"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", ["deeplabv2-resnet101", "torchvision/lraspp_mobilenet_v3_large"]
)
def test_a_segmenter_is_trained_adapted_scored_and_predicts(raw, tmp_path, network):
    raw["segmenters"]["lonely"] = {"train_on": ["gta5"], "network": network}
    raw["adaptations"]["taught"] = {
        "method": "self-training", "masked": True, "train_on": ["gta5"], "start": "lonely",
        "target": "cityscapes",
    }  # fmt: skip
    world = World(tmp_path, raw)
    for domain, splits in {"gta5": ["train"], "cityscapes": ["train", "test"]}.items():
        world.run("madan", "miniature", domain)
        for split in splits:
            world.run("madan", "verify", f"{domain}/{split}")
            world.run("madan", "prepare", f"{domain}/{split}/0")
    world.run("madan", "segment", "lonely")
    world.run("madan", "adapt", "taught")
    world.run("madan", "evaluate", "adaptations/taught", "cityscapes/test")
    score = tmp_path / "results/miniature/scores/adaptations/taught/cityscapes/test/seed0"
    assert json.loads((score / "score.json").read_text())["images"] == 8
    photo = next((tmp_path / "data/miniature/gta5").rglob("images/*.png"))
    world.run("madan", "predict", photo, "--model", "adaptations/taught")
    assert list((tmp_path / "predictions/overlay").iterdir())


def test_what_predicts_builds_the_network_of_the_story(raw, tmp_path):
    from madan.inference import predict

    raw = of_deeplab(raw)
    for network in ("deeplabv2-resnet101", "torchvision/lraspp_mobilenet_v3_large"):
        raw["segmenters"]["lonely"]["network"] = network
        params = config.resolve(raw)
        net = segmentation.build(params.network("segmenters/lonely"))
        settings = Graph(params).settings(parse("segmenters/lonely"))
        path = tmp_path / "weights.safetensors"
        checkpoints.save(path, {"F": net}, {"settings": settings})
        found = predict.segmenter(path)
        x = imagenet(torch.rand(1, 3, 32, 64))
        with torch.no_grad():
            assert torch.equal(found(x), net.eval()(x))
