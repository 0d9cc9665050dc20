"""Released weights: what becomes of every key, what is refused, its place in the graph."""

import argparse
import contextlib
import json
import os
import pickle
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PROJECT, World, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from test_fcn8s import load as golden

from madan import cli, config
from madan.config import runs
from madan.errors import Refusal
from madan.inference import predict
from madan.models import checkpoints, pretrained, tensors
from madan.models.drn26 import DRN26
from madan.models.fcn8s import FCN8s
from madan.models.generator import Generator
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.pipeline.publishing import Job
from madan.pipeline.staleness import Staleness

NARROW = {"widths": [4, 8, 16, 32, 32], "head": 64}


@pytest.fixture
def raw_narrow(raw):
    """The paper's networks, key for key, with few channels."""
    raw["scale"] = "paper"
    networks = raw["scales"]["paper"]["networks"]
    networks["segmenter"] |= NARROW
    networks["generator"]["ngf"] = 4
    networks["drn26"] = {"width": 1 / 16}
    return raw


@pytest.fixture
def networks(raw_narrow):
    return config.resolve(raw_narrow).networks


def constants():
    """The three buffers that the released FCN-8s has and ours has not."""
    return {f"upscore{name}.w": torch.ones(19, 19, 4, 4) for name in ("2", "_pool4", "8")}


@pytest.fixture
def fcn8s():
    return golden("fcn8s_weights_vgg") | golden("fcn8s_weights_head") | constants()


def generator(dropout=False):
    torch.manual_seed(3)
    return Generator(
        ngf=4, blocks=9, end_kernel=7, upsample="transposed", dropout=dropout, colour=False
    ).state_dict()


@pytest.fixture
def bring(tmp_path, networks):
    """Import what is given as a file's content; return the weights, by name, and the report."""

    def bring(content, network=None, as_released=False, networks=networks):
        path = tmp_path / "released.pth"
        torch.save(content, path)
        out, report = tmp_path / "out.safetensors", tmp_path / "report.json"
        pretrained.bring(str(path), network, networks, as_released, out, report)
        return load_file(out), json.loads(report.read_text())

    return bring


def verdicts(report):
    return {line["key"] or line["became"]: line["verdict"] for line in report["keys"]}


def refused(act, *words):
    with pytest.raises(Refusal) as caught:
        act()
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_a_released_segmenter_gives_its_released_scores(bring, fcn8s, tmp_path, networks):
    weights, report = bring(fcn8s)
    found = verdicts(report)
    assert {key for key, verdict in found.items() if verdict == "ignored"} == set(constants())
    assert all(found[key] == "matched" for key in fcn8s if key not in constants())
    assert len(weights) == 36
    net = FCN8s(classes=19, **networks.segmenter.model_dump(exclude={"pretrained"})).eval()
    checkpoints.load(tmp_path / "out.safetensors", "F", net)
    expected = golden("fcn8s_outputs")
    assert (net(expected["x"]).argmax(1) == expected["argmax"]).all()
    assert report["sha256"] == pretrained.sha256(tmp_path / "released.pth")
    told = checkpoints.story(tmp_path / "out.safetensors")
    assert told["checkpoint"] == "released.pth" and not told["as_released"]


def test_as_released_is_without_the_skip_heads_and_says_so(bring, fcn8s, tmp_path, networks):
    weights, report = bring(fcn8s, as_released=True)
    skips = [key for key in weights if "score_pool" in key]
    skipped = [key.removeprefix("F.") for key in skips]
    assert len(skips) == 4 and not any(weights[key].any() for key in skips)
    net = FCN8s(classes=19, **networks.segmenter.model_dump(exclude={"pretrained"})).eval()
    checkpoints.load(tmp_path / "out.safetensors", "F", net)
    expected = golden("fcn8s_outputs") | golden("fcn8s_as_released")
    scores = net(expected["x"])
    assert (scores.argmax(1) == expected["as_released_argmax"]).all()
    assert (scores.argmax(1) != expected["argmax"]).any()
    mean = expected["as_released_mean"]
    assert (scores.mean((2, 3)) - mean).abs().max() < 1e-5 * mean.abs().max()
    right, _ = bring(fcn8s)
    assert all(right[key].any() for key in skips)
    assert all(torch.equal(right[key], weights[key]) for key in right if key not in skips)
    lines = [line for line in report["keys"] if line["became"] in skipped or line["key"] in skipped]
    assert sorted(line["verdict"] for line in lines) == ["filled"] * 4 + ["ignored"] * 4
    bring(fcn8s, as_released=True)
    assert "skip heads zero" in checkpoints.story(tmp_path / "out.safetensors")["checkpoint"]
    # A file that was saved after such loading may lack them altogether.
    without = {key: value for key, value in fcn8s.items() if "score_pool" not in key}
    again, _ = bring(without, as_released=True)
    assert all(torch.equal(again[key], weights[key]) for key in weights)
    refused(lambda: bring(without), "4 missing", "score_pool4.weight")


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"state_dict": d, "epoch": 3, "best": {}}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_prefix_and_wrapper_change_no_weight(bring, fcn8s, wrap, prefix):
    plain, _ = bring(fcn8s)
    weights, report = bring(wrap({prefix + key: value for key, value in fcn8s.items()}))
    assert all(torch.equal(plain[key], weights[key]) for key in plain)
    found = verdicts(report)
    assert found[f"{prefix}vgg.0.weight"] == ("renamed" if prefix else "matched")
    assert {key for key in found if "score" not in key and "vgg" not in key} <= {"epoch", "best"}


@pytest.mark.parametrize("theirs", [False, True])
@pytest.mark.parametrize("ours", [False, True])
def test_generators_are_numbered_with_or_without_dropout(bring, raw_narrow, theirs, ours):
    raw_narrow["networks"]["generator"]["dropout"] = ours
    content = generator(theirs)
    weights, report = bring(content, "generator", networks=config.resolve(raw_narrow).networks)
    key = "G.model.10.conv_block.{}.weight"
    here, there = key.format(6 if ours else 5), key.format(6 if theirs else 5)
    assert torch.equal(weights[here], content[there.removeprefix("G.")])
    renamed = [line for line in report["keys"] if line["verdict"] == "renamed"]
    assert len(renamed) == (0 if ours == theirs else 18)
    assert len(weights) == 48


def test_old_statistics_of_instance_norm_are_dropped(bring):
    content = generator()
    old = {f"model.2.{name}": torch.ones(4) for name in ("running_mean", "running_var")}
    weights, report = bring(content | old)
    assert len(weights) == 48
    assert {k for k, v in verdicts(report).items() if v == "ignored"} == set(old)


def test_a_judge_of_before_the_counters_is_whole_without_them(bring, tmp_path, networks):
    torch.manual_seed(0)
    theirs = DRN26(classes=19, width=1 / 16)
    old = {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    weights, report = bring(old)
    assert len(weights) == 182 and list(verdicts(report).values()).count("filled") == 30
    ours = DRN26(classes=19, width=1 / 16)
    checkpoints.load(tmp_path / "out.safetensors", "F", ours)
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    # Statistics are weights: without them it is not the same network.
    del old["layer5.0.bn1.running_var"]
    refused(lambda: bring(old), "1 missing", "layer5.0.bn1.running_var")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("vgg.5.bias"), ["not quite fcn8s", "1 missing (vgg.5.bias)"]),
        (lambda d: d.update(more=torch.ones(2)), ["1 surplus (more)"]),
        (lambda d: d.update({"module.vgg.0.bias": torch.ones(4)}), ["1 surplus", "vgg.0.bias"]),
        (lambda d: d.update({"vgg.0.bias": torch.ones(5)}), ["1 misshapen (vgg.0.bias)"]),
        (lambda d: d.update({"vgg.0.bias": torch.full((4,), torch.nan)}), ["not finite"]),
        (lambda d: d.pop("vgg.0.weight"), ["another network", "any of fcn8s, drn26, generator"]),
        (lambda d: d.clear(), ["holds no weights by name"]),
    ],
)
def test_a_file_that_is_not_quite_the_network_is_refused(bring, fcn8s, change, words):
    change(fcn8s)
    refused(lambda: bring(fcn8s), *words)


def test_another_number_of_classes_is_refused(bring, tmp_path):
    sixteen = FCN8s(
        classes=16, convs=(2, 2, 3, 3, 3), pools=(1,) * 5, head_kernel=7, norm="none",
        dropout=0.5, padding=100, **NARROW,
    )  # fmt: skip
    refused(lambda: bring(sixteen.state_dict()), "tells 16 classes apart", "have 19")
    refused(lambda: bring(DRN26(classes=1000, width=1 / 16).state_dict()), "1000 classes")
    assert (tmp_path / "report.json").exists() and not (tmp_path / "out.safetensors").exists()


def test_the_wrong_network_is_refused_with_both_names(bring, fcn8s):
    refused(lambda: bring(fcn8s, "drn26"), "holds fcn8s (4 channels", "drn26 was expected")
    refused(lambda: bring(generator(), "fcn8s"), "holds generator", "fcn8s was expected")
    refused(lambda: bring(generator(), as_released=True), "--as-released", "fcn8s")


def test_narrow_weights_are_refused_by_full_networks_and_the_way_round(bring, fcn8s, networks):
    full = config.load(PROJECT / "params.yaml", scale="paper").networks
    refused(
        lambda: bring(fcn8s, networks=full),
        "another width", "vgg.0.weight is 4x3x3x3 where the network has 64x3x3x3", "scale: paper",
    )  # fmt: skip
    with torch.device("meta"):
        shapes = DRN26(classes=19, width=1).state_dict()
    wide = {key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}
    _, lines = pretrained.match(wide, "drn26", networks, False)
    refused(lambda: pretrained.accept("x.pth", "drn26", lines), "drn26 of another width")


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_with_the_way_to_convert_it(bring, tmp_path, fcn8s, zipped):
    path = tmp_path / "evil.pth"
    content = {"state_dict": fcn8s, "more": Evil(tmp_path / "owned")}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    out = tmp_path / "out"
    act = lambda: pretrained.bring(str(path), None, None, False, out, out)  # noqa: E731
    refused(act, "posix.mkdir", "could run code", "evil-tensors.safetensors")
    with pytest.raises(Refusal) as caught:
        act()
    assert "weights_only=False" not in str(caught.value)
    advised(caught.value)
    assert not (tmp_path / "owned").exists()
    assert torch.equal(load_file(tmp_path / "evil-tensors.safetensors")["state_dict.vgg.0.bias"],
                       fcn8s["vgg.0.bias"])  # fmt: skip


def advised(refusal):
    """Do what a refusal advises."""
    exec(str(refusal).split('python -c "')[1].removesuffix('"'))


def nested(fcn8s, **more):
    return {"model": fcn8s, "args": argparse.Namespace(lr=0.1, names=["a"]), **more}


def prefixed(prefix, tensors):
    return {f"{prefix}{key}": value for key, value in tensors.items()}


PLAIN_WRAPPERS = {
    "parallel": lambda d: prefixed("module.", d),
    "compiled": lambda d: prefixed("_orig_mod.", d),
    "compiled and parallel": lambda d: prefixed("module._orig_mod.", d),
    "parallel and compiled": lambda d: prefixed("_orig_mod.module.", d),
    "state_dict": lambda d: {"state_dict": d, "epoch": 3},
    "model": lambda d: {"model": d, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}},
                                                  "param_groups": [{"lr": 1}]}},
    "model_state_dict": lambda d: {"model_state_dict": prefixed("module.", d), "loss": 0.5},
    "net": lambda d: {"net": d, "acc": 1.0},
    "deep": lambda d: {"checkpoint": {"state": {"F": d}}},
    "lightning": lambda d: {"state_dict": prefixed("model.", d) | {"criterion.w": torch.ones(19)},
                            "pytorch-lightning_version": "2.0", "callbacks": {}, "loops": {}},
    "averaged": lambda d: prefixed("module.", d) | {"n_averaged": torch.tensor(3)},
    "ema alone": lambda d: {"ema": {"shadow": d, "decay": 0.99}},
    "parameters": lambda d: {k: torch.nn.Parameter(v) if v.is_floating_point() else v
                             for k, v in d.items()},
}  # fmt: skip


@pytest.mark.parametrize("wrap", PLAIN_WRAPPERS.values(), ids=PLAIN_WRAPPERS)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_found_in_any_wrapper(bring, fcn8s, wrap, zipped):
    plain, _ = bring(fcn8s)
    weights, report = bring(wrap(fcn8s))
    assert plain.keys() == weights.keys()
    assert all(torch.equal(plain[key], weights[key]) for key in plain)
    assert all(line["reason"] for line in report["keys"] if line["verdict"] != "matched")


class Whole(torch.nn.Module):
    """A module that training code pickles whole."""

    def __init__(self, net):
        super().__init__()
        self.module = net


UNSAFE_WRAPPERS = {
    "arguments": lambda d, net: nested(d),
    "numpy": lambda d, net: {"state_dict": d, "epoch": np.float64(3)},
    "arrays": lambda d, net: {"state_dict": d, "confusion": np.ones((3, 3))},
    "paths": lambda d, net: {"model": prefixed("module.", d), "root": Path("x")},
    "whole module": lambda d, net: net,
    "whole wrapped module": lambda d, net: Whole(net),
    "module beside": lambda d, net: {"model": net, "epoch": 3},
}


@pytest.mark.parametrize("wrap", UNSAFE_WRAPPERS.values(), ids=UNSAFE_WRAPPERS)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_conversion_that_is_advised_works(tmp_path, fcn8s, networks, monkeypatch, wrap, zipped):
    monkeypatch.chdir(tmp_path)
    net = FCN8s(classes=19, **networks.segmenter.model_dump(exclude={"pretrained"}))
    net.load_state_dict({k: v for k, v in fcn8s.items() if k not in constants()})
    path = tmp_path / "it's whole.pth"
    torch.save(wrap(fcn8s, net), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(Refusal, match="could run code") as caught:
        pretrained.bring(str(path), None, networks, False, tmp_path / "o", tmp_path / "r")
    monkeypatch.setattr(
        FCN8s, "__setstate__", lambda *_: pytest.fail("it was unpickled"), raising=False
    )
    advised(caught.value)
    out = tmp_path / "out.safetensors"
    given = "it's whole-tensors.safetensors"
    pretrained.bring(given, "fcn8s", networks, False, out, tmp_path / "report.json")
    assert torch.equal(load_file(out)["F.vgg.0.bias"], fcn8s["vgg.0.bias"])
    assert len(load_file(out)) == 36


def test_several_sets_of_weights_are_listed_and_one_can_be_taken_out(
    bring, fcn8s, tmp_path, networks
):
    average = {key: value + 1 for key, value in fcn8s.items()}
    content = {"model": prefixed("module.", fcn8s), "model_ema": average, "epoch": 3}
    with pytest.raises(Refusal) as caught:
        bring(content)
    said = str(caught.value)
    assert "model.module (fcn8s, 39 tensors)" in said and "model_ema (fcn8s, 39 tensors)" in said
    advised(caught.value)
    taken = tmp_path / "released-model-module.safetensors"
    out, report = tmp_path / "out.safetensors", tmp_path / "report.json"
    pretrained.bring(str(taken), None, networks, False, out, report)
    assert torch.equal(load_file(out)["F.vgg.0.bias"], fcn8s["vgg.0.bias"])
    both = {"F": fcn8s, "G_A": generator(), "D_A": {"model.0.weight": torch.ones(1)}}
    refused(lambda: bring(both), "F (fcn8s, 39 tensors)", "G_A (generator")
    assert len(bring(both, "generator")[0]) == 48
    assert len(bring(both, "fcn8s")[0]) == 36


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"shadow_params": [torch.ones(2)], "decay": 0.9}, ["shadow_params (list)", "decay"]),
        ({"a": {"b": {"w": torch.ones(2)}}}, ["a.b (1 tensors)", "another network"]),
        ([torch.ones(2)], ["a list", "holds no weights by name"]),
        ({}, ["nothing", "holds no weights by name"]),
        ({"vgg0weight": torch.ones(2)}, ["the file itself (1 tensors)"]),
    ],
)
def test_what_is_in_a_file_of_no_network_is_listed(bring, content, words):
    refused(lambda: bring(content), *words)


def test_a_dictionary_that_holds_itself_is_read(bring, fcn8s, tmp_path):
    content = {"state_dict": fcn8s}
    content["self"] = content
    for _ in range(30):
        content = {"again": content, "and": content}
    torch.save(content, tmp_path / "deep.pth")
    refused(lambda: bring(content), "holds no weights by name")


def wide(tensor=None, **more):
    """One weight that claims 4 TB by a stride of 0."""
    return torch.zeros(()).expand(1 << 40)


def qint():
    return torch.quantize_per_tensor(torch.ones(4, 3, 3, 3), 0.1, 0, torch.qint8)


NOT_PLAIN = {
    "expanded": wide,
    "expanded to its shape": lambda: torch.zeros(()).expand(4, 3, 3, 3),
    "sparse": lambda: torch.ones(4, 27).to_sparse(),
    "compressed": lambda: torch.ones(4, 27).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "quantised": qint,
    "meta": lambda: torch.empty(1 << 40, device="meta"),
    "complex": lambda: torch.ones(4, 3, 3, 3, dtype=torch.complex64),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", NOT_PLAIN.values(), ids=NOT_PLAIN)
@pytest.mark.parametrize("key", ["vgg.0.weight", "vgg.2.bias", "more"])
def test_tensors_that_are_not_plain_are_refused_without_their_memory(bring, fcn8s, make, key):
    fcn8s[key] = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Refusal) as caught:
        bring(fcn8s)
    assert str(caught.value).isprintable()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_a_file_that_unpacks_to_more_than_it_has_is_refused(bring, fcn8s, tmp_path):
    path, bomb = tmp_path / "a.pth", tmp_path / "bomb.pth"
    torch.save({"vgg.0.weight": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert bomb.stat().st_size < 100_000
    out = tmp_path / "out"
    refused(lambda: pretrained.bring(str(bomb), None, None, False, out, out), "would unpack to")


HOSTILE = "\x1b[31mred\x1b[0m [bold]x[/bold]\nnew line\u202e"


def test_keys_of_a_file_are_shown_inert(bring, fcn8s, capsys):
    fcn8s[HOSTILE] = torch.ones(2)
    refused(lambda: bring(fcn8s), "1 surplus", "[bold]x[/bold]")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\u202e" not in shown and "[bold]x[/bold]" in shown
    for content in ({HOSTILE: {HOSTILE: torch.ones(2)}}, {HOSTILE: 3},
                    {HOSTILE: fcn8s, "b": fcn8s}):  # fmt: skip
        with pytest.raises(Refusal) as caught:
            bring(content)
        assert str(caught.value).isprintable()


def test_an_import_replaces_no_file_of_the_users(tmp_path, fcn8s, networks):
    path, out, report = (tmp_path / f"x.{suffix}" for suffix in ("pth", "safetensors", "json"))
    torch.save(fcn8s, path)
    for taken in (out, report):
        taken.write_bytes(b"mine")
        refused(lambda: pretrained.bring(str(path), None, networks, False, out, report),
                f"{taken} was not written by madan")  # fmt: skip
        assert taken.read_bytes() == b"mine"
        taken.unlink()
        assert not out.exists() and not report.exists()
    for _ in range(2):
        pretrained.bring(str(path), None, networks, False, out, report)
    save_file(fcn8s, tmp_path / "y.safetensors")
    before = (tmp_path / "y.safetensors").read_bytes()
    own = tmp_path / "y.safetensors"
    refused(
        lambda: pretrained.bring(str(own), None, networks, False, own, report), "not written by"
    )
    assert own.read_bytes() == before
    converted = tmp_path / "x-tensors.safetensors"
    converted.write_bytes(b"mine")
    refused(lambda: tensors.extract(str(path), str(converted)), "not written by madan")


def test_imported_weights_predict(bring, fcn8s, tmp_path):
    bring(fcn8s)
    net = predict.segmenter(tmp_path / "out.safetensors")
    assert torch.equal(net.vgg[0].bias, fcn8s["vgg.0.bias"])
    torch.manual_seed(0)
    bring(DRN26(classes=19, width=1 / 16).state_dict())
    image = np.zeros((32, 48, 3), np.uint8)
    sight = predict.as_trained(tmp_path / "out.safetensors")._replace(height=0)
    net = predict.segmenter(tmp_path / "out.safetensors")
    assert predict.train_ids(net, image, sight).shape == (32, 48)
    bring(generator())
    refused(lambda: predict.segmenter(tmp_path / "out.safetensors"), "holds none")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("torn") / "whole.pth"
    torch.save({"a": torch.arange(100.0)}, path)
    return path


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_a_torn_file_is_a_sentence(whole, part):
    torn = whole.with_name("torn.pth")
    torn.write_bytes(whole.read_bytes()[: int(part * whole.stat().st_size)])
    refused(lambda: pretrained.bring(str(torn), None, None, False, torn, torn), "is damaged, or no")


@pytest.fixture(scope="module")
def pickles(tmp_path_factory):
    """Small files of both formats: weights, settings beside them, a module."""
    folder, found = tmp_path_factory.mktemp("pickles"), []
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    weights = {"vgg.0.weight": torch.randn(4, 3), "vgg_head.0.weight": torch.ones(3)}
    for zipped in (True, False):
        for content in ({"a": weights}, {"b": argparse.Namespace(a=1), "a": weights}, module):
            path = folder / f"{len(found)}.pth"
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            found.append(path.read_bytes())
    return folder, found


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_damaged_pickle_is_read_or_refused_within_its_memory(pickles, data):
    folder, found = pickles
    content = bytearray(data.draw(st.sampled_from(found)))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path, out = folder / "damaged.pth", folder / "out.safetensors"
    path.write_bytes(content)
    out.unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for act in (lambda: tensors.parts(tensors.read(path)), lambda: tensors.extract(path, out)):
        with contextlib.suppress(Refusal):
            act()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", pickle.dumps([1, 2])])
def test_what_is_no_file_of_weights_is_a_sentence(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    refused(lambda: pretrained.bring(str(path), None, None, False, path, path), str(path))
    refused(
        lambda: pretrained.bring("nowhere.pth", None, None, False, path, path),
        "nowhere.pth not found", "docs/data.md",
    )  # fmt: skip


def test_safetensors_of_ours_need_no_import_and_those_of_others_get_one(tmp_path, fcn8s, networks):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    checkpoints.write(ours, {"F.x": torch.ones(1)}, {})
    out, report = tmp_path / "out", tmp_path / "report.json"
    refused(
        lambda: pretrained.bring(str(ours), None, networks, False, out, report), "needs no import"
    )
    save_file(fcn8s, theirs)
    pretrained.bring(str(theirs), "fcn8s", networks, False, out, report)
    assert len(load_file(out)) == 36


def vgg16(widths=(4, 8, 16, 32, 32), head=64):
    """A made-up state_dict in the layout of torchvision's VGG-16."""
    made, channels, position = {}, 3, 0
    rng = torch.Generator().manual_seed(0)
    for width, count in zip(widths, (2, 2, 3, 3, 3), strict=True):
        for _ in range(count):
            made[f"features.{position}.weight"] = torch.randn(width, channels, 3, 3, generator=rng)
            made[f"features.{position}.bias"] = torch.randn(width, generator=rng)
            channels, position = width, position + 2
        position += 1
    for layer, (into, of) in {0: (head, 49 * widths[4]), 3: (head, head), 6: (1000, head)}.items():
        made[f"classifier.{layer}.weight"] = torch.randn(into, of, generator=rng)
        made[f"classifier.{layer}.bias"] = torch.randn(into, generator=rng)
    return made


def test_the_layout_of_vgg16_is_torchvisions():
    from torchvision.models import vgg16 as theirs

    with torch.device("meta"):
        full = {key: value.shape for key, value in theirs(weights=None).state_dict().items()}
    narrow = {key: value.shape for key, value in vgg16().items()}
    assert list(narrow) == list(full)
    # A sixteenth of the channels, a sixty-fourth of the head, and the same windows and classes.
    for key, shape in narrow.items():
        if key.startswith("features."):
            assert [16 * side if side > 3 else side for side in shape] == list(full[key]), key
    assert full["classifier.0.weight"] == (4096, 49 * 512) and shape == full[key]


def test_every_tensor_of_vgg16_lands_where_it_should(bring, tmp_path, networks):
    content = vgg16()
    weights, report = bring(content, "vgg16")
    net = FCN8s(classes=19, **networks.segmenter.model_dump(exclude={"pretrained"})).eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    checkpoints.load(tmp_path / "out.safetensors", "VGG", net, but=("vgg_head", "score"))
    after = net.state_dict()
    for key, value in content.items():
        layer, _, kind = key.rpartition(".")
        if layer == "classifier.6":
            continue
        name = {"classifier.0": "vgg_head.0", "classifier.3": "vgg_head.3"}.get(layer)
        name = f"{name}.{kind}" if name else key.replace("features", "vgg")
        assert torch.equal(after[name].flatten(), value.flatten()), key
    own = {"vgg_head.6.weight", "vgg_head.6.bias"} | {k for k in before if k.startswith("score")}
    assert own == {key for key in before if torch.equal(before[key], after[key])}
    found = verdicts(report)
    assert {k for k, v in found.items() if v == "ignored"} == {
        "classifier.6.weight", "classifier.6.bias",
    }  # fmt: skip
    assert list(found.values()).count("renamed") == 30
    # As a convolution, the fully connected layer says the same of one window.
    window = torch.randn(1, 32, 7, 7)
    linear = content["classifier.0.weight"] @ window.flatten() + content["classifier.0.bias"]
    torch.testing.assert_close(net.vgg_head[0](window).flatten(), linear, rtol=1e-4, atol=1e-4)


def test_a_head_of_other_sizes_keeps_its_own_weights(bring, raw_narrow):
    raw_narrow["scales"]["paper"]["networks"]["segmenter"] |= {"head_kernel": 3, "padding": 1}
    weights, report = bring(vgg16(), "vgg16", networks=config.resolve(raw_narrow).networks)
    assert {key.split(".")[1] for key in weights} == {"vgg", "vgg_head"}
    assert "VGG.vgg_head.0.weight" not in weights
    assert "VGG.vgg_head.3.weight" in weights  # 1x1 as there, of the same 64 channels


def test_nothing_is_fetched_unless_torchvision_is_asked_for(networks, tmp_path, monkeypatch):
    asked = []

    def give(self, **_):
        asked.append(self)
        return vgg16()

    from torchvision.models import VGG16_Weights

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", give)
    out, report = tmp_path / "out.safetensors", tmp_path / "report.json"
    with pytest.raises(Refusal):
        pretrained.bring("data/raw/vgg16-397923af.pth", "vgg16", networks, False, out, report)
    assert not asked
    pretrained.bring("torchvision", "vgg16", networks, False, out, report)
    assert asked and len(load_file(out)) == 30


def with_released(raw, **entries):
    raw = tiny(raw)
    raw["released"] = entries
    return raw


ENTRY = {"file": "data/released/x.pth", "network": "fcn8s"}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"network": "vgg"}, ["released.x.network", "'vgg'"]),
        ({"network": "drn26", "as_released": True}, ["as_released", "only fcn8s"]),
        ({"file": "torchvision"}, ["torchvision", "fcn8s of 19 classes"]),
        ({"fil": "x"}, ["unknown key released.x.fil", "did you mean file"]),
        ({"network": "generator"}, ["tables.miou row source-gta5", "released.x is generator"]),
    ],
)
def test_an_impossible_entry_is_refused(raw, entry, words):
    raw = with_released(raw, x=ENTRY | entry)
    raw["tables"]["miou"]["rows"][0]["run"] = "released/x"
    refused(lambda: config.resolve(raw), *words)


def test_runs_that_stand_on_the_wrong_released_network_are_refused(raw):
    raw = with_released(
        raw,
        drn={"file": "d.pth", "network": "drn26"},
        gen={"file": "g.pth", "network": "generator"},
    )
    raw["segmenters"]["pooled"]["start"] = "released/drn"
    refused(
        lambda: config.resolve(raw), "segmenters.pooled.start is released/drn", "drn26", "fcn8s"
    )
    raw["segmenters"]["pooled"]["network"] = "drn26"
    raw["translators"]["madan"]["judges"]["gta5"] = "released/gen"
    refused(lambda: config.resolve(raw), "judges.gta5: released.gen is generator")
    raw["translators"]["madan"]["judges"]["gta5"] = "released/drn"
    raw["segmenters"]["source-gta5"]["train_on"] = ["drn/gta5"]
    refused(lambda: config.resolve(raw), "source-gta5.train_on: released.drn is drn26")
    raw["segmenters"]["source-gta5"]["train_on"] = ["gen/gta5"]
    graph = Graph(config.resolve(raw))
    judged = graph.settings(parse("translators/madan"))["networks"]
    assert {"segmenter", "drn26"} <= set(judged)
    stylised = graph.inputs(parse("stylised/gen/gta5", 0))
    assert stylised[0] == parse("released/gen")


def test_begun_from_imagenet_are_runs_without_a_start(raw):
    params = config.resolve(raw | {"scale": "paper"})
    assert params.networks.segmenter.pretrained == "vgg16"
    assert runs.needs(params, "segmenters/source-gta5") == ["released/vgg16"]
    assert "released/vgg16" not in runs.needs(params, "segmenters/madan-pixel")
    assert config.resolve(raw).networks.segmenter.pretrained is None
    raw["networks"]["segmenter"]["pretrained"] = "vgg16"
    raw["released"] = {"vgg16": {"file": "torchvision", "network": "vgg16"}}
    refused(lambda: config.resolve(raw), "pretrained", "norm none", "group")


def test_another_file_is_another_model_and_a_file_that_is_gone_is_the_imported_one(
    raw, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    params = config.resolve(with_released(raw, x=ENTRY | {"file": "x.pth"}))
    model = parse("released/x")

    def reason():
        return Staleness(Graph(params)).reason(model)

    (tmp_path / "x.pth").write_bytes(b"one")
    with Job(Graph(params), model).publish() as out:
        (out / "report.json").write_text("{}")
    assert reason() is None
    (tmp_path / "x.pth").write_bytes(b"two")
    assert reason().why == "settings" and "content was" in reason().text
    (tmp_path / "x.pth").unlink()
    assert reason() is None


@pytest.fixture
def held(tmp_path, raw):
    """A world with a released segmenter of its own size and a table that shows it."""
    raw = with_released(raw, holder={"file": "data/released/holder.pth", "network": "fcn8s"})
    row = {"row": "holder", "setting": "released", "run": "released/holder"}
    raw["tables"]["miou"]["rows"] = [row]
    raw["seeds"] = [0, 1]
    world = World(tmp_path, raw)
    sizes = config.resolve(raw).networks.segmenter.model_dump(exclude={"pretrained"})
    torch.manual_seed(0)
    net = FCN8s(classes=19, **sizes)
    torch.nn.init.normal_(net.score_pool4.weight)
    (tmp_path / "data/released").mkdir(parents=True)
    torch.save(net.state_dict() | constants(), tmp_path / "data/released/holder.pth")
    return world


@pytest.mark.slow
def test_a_released_segmenter_is_a_row_of_a_table_scored_once(held):
    said = held.snakemake("results/miou.csv")
    assert "rule import_weights" in said and said.count("rule evaluate") >= 1
    lines = (held.root / "results/miou.csv").read_text().splitlines()
    assert len(lines) == 2 and "holder" in lines[1]
    score = "results/miniature/scores/released/holder/cityscapes/test/seed0/score.json"
    told = json.loads((held.root / score).read_text())
    assert told["checkpoint"] == "holder.pth" and told["images"] == 8
    assert "Nothing to be done" in held.snakemake("results/miou.csv")
    held.change("released.holder.as_released", True)
    planned = held.planned("results/miou.csv")
    assert "results/miniature/released/holder" in planned
    held.snakemake("results/miou.csv")
    other = json.loads((held.root / score).read_text())
    assert other["checkpoint"] == "holder.pth, skip heads zero, as released"
    assert other["confusion"] != told["confusion"]
    (held.root / "data/released/holder.pth").unlink()
    assert "Nothing to be done" in held.snakemake("results/miou.csv")


def test_a_missing_file_is_told_by_the_command(held, monkeypatch):
    monkeypatch.chdir(held.root)
    (held.root / "data/released/holder.pth").unlink()
    refused(lambda: cli.data.import_("holder"), "data/released/holder.pth not found; docs/data.md")
    refused(lambda: cli.data.import_("hodler"), "did you mean holder")
    refused(lambda: cli.data.import_("data/hodler.pth"), "data/hodler.pth not found")


def test_a_released_segmenter_predicts(held, monkeypatch, tmp_path):
    monkeypatch.chdir(held.root)
    cli.data.import_("holder")
    folder = held.root / "results/miniature/released/holder"
    names = {"weights.safetensors", "report.json", "certificate.json"}
    assert {path.name for path in folder.rglob("*.*")} == names
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((40, 60, 3), 99, np.uint8)).save(tmp_path / "in/a.png")
    cli.training.predict([tmp_path / "in"], "released/holder", tmp_path / "out", None)
    with Image.open(tmp_path / "out/labelIds/a.png") as ids:
        assert ids.size == (60, 40)


def test_as_released_against_the_settings_is_refused(held, monkeypatch):
    monkeypatch.chdir(held.root)
    refused(
        lambda: cli.data.import_("holder", as_released=True),
        "--as-released", "released.holder", "as_released: true",
    )  # fmt: skip
    assert not (held.root / "results/miniature/released/holder").exists()
    held.change("released.holder.as_released", True)
    for option in (True, False):
        cli.data.import_("holder", as_released=option)
        report = held.root / "results/miniature/released/holder/report.json"
        assert json.loads(report.read_text())["as_released"]


def test_a_file_of_full_size_gets_safetensors_beside_itself_whatever_the_scale(
    tmp_path, raw_narrow, fcn8s, monkeypatch
):
    World(tmp_path, raw_narrow | {"scale": "miniature"})
    monkeypatch.chdir(tmp_path)
    torch.save(fcn8s, tmp_path / "holder.pth")
    cli.data.import_("holder.pth", as_released=True)
    assert not load_file(tmp_path / "holder.safetensors")["F.score_pool3.bias"].any()
    assert json.loads((tmp_path / "holder.json").read_text())["as_released"]
    left = {"holder.pth", "holder.safetensors", "holder.json"}
    assert left == {path.name for path in tmp_path.glob("*holder*")}
