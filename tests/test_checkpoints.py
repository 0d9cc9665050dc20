"""Weights files: they come back whole, tell their story, and never run code."""

import contextlib
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from madan import __version__
from madan.errors import Refusal
from madan.models import checkpoints, headers
from madan.models.discriminators import PatchGAN
from madan.models.drn26 import DRN26
from madan.models.fcn8s import FCN8s

STORY = {"settings": {"training": {"lr": 1e-05}, "run": {"start": None}}, "seed": 3, "step": 600}


class Mixed(nn.Module):
    """Weights, a counter, a buffer of no dimension and a weight that is not contiguous."""

    def __init__(self, seed=0, width=4):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Conv2d(3, width, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(width)
        self.register_buffer("count", torch.tensor(seed + 5))


def same(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) and x.dtype == y.dtype for (a, x), (b, y) in pairs)


@contextlib.contextmanager
def refused(match):
    with pytest.raises(Refusal, match=match) as caught:
        yield caught
    assert "\n" not in str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


@pytest.fixture
def saved(path):
    checkpoints.save(path, {"F": Mixed(1), "FA": Mixed(2)}, STORY)
    return path


def test_weights_come_back_bit_for_bit_under_their_own_name(saved):
    for name, seed in (("F", 1), ("FA", 2)):
        net = Mixed(0)
        assert not same(net, Mixed(seed))
        checkpoints.load(saved, name, net)
        assert same(net, Mixed(seed))


def test_loading_keeps_the_layout_of_the_network(saved):
    net = Mixed(0)
    checkpoints.load(saved, "F", net)
    assert net.layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_same_weights_give_the_same_bytes(path, tmp_path):
    modules = {"F": Mixed(1), "FA": Mixed(2)}
    checkpoints.save(path, modules, STORY)
    turned = {name: modules[name] for name in reversed(modules)}
    checkpoints.save(tmp_path / "again", turned, {name: STORY[name] for name in reversed(STORY)})
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_saving_leaves_the_networks_as_they_were(path):
    net = Mixed(1)
    checkpoints.save(path, {"F": net}, STORY)
    assert same(net, Mixed(1))
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_story_holds_settings_seed_step_and_versions(saved):
    told = checkpoints.story(saved)
    assert {name: told[name] for name in STORY} == STORY
    assert told["version"] == __version__
    assert told["torch"] == torch.__version__


READS = (
    checkpoints.story,
    lambda path: checkpoints.load(path, "F", Mixed()),
    lambda path: checkpoints.holds(path, "F"),
)


@pytest.mark.parametrize("read", READS)
def test_missing_file_is_a_sentence_with_the_way_to_make_what_is_madans(read, path):
    made = Path("results/miniature/segmenters/pooled/seed0/weights.safetensors")
    with refused(f"{made} not found: make it with snakemake {made.parent}/certificate.json"):
        read(made)
    for other in (path, Path("weights.safetensors"), Path("results/../home/F.safetensors")):
        with refused(f"{other} not found\\.$"):
            read(other)


@pytest.mark.parametrize("part", [0, 0.1, 0.9])
@pytest.mark.parametrize("read", READS)
def test_only_what_madan_made_is_to_be_deleted(saved, part, read, tmp_path, monkeypatch):
    content = saved.read_bytes()[: int(saved.stat().st_size * part)]
    made = Path("results/miniature/segmenters/pooled/seed0/weights.safetensors")
    monkeypatch.chdir(tmp_path)
    made.parent.mkdir(parents=True)
    for path in (saved, made, Path("weights.safetensors")):
        path.write_bytes(content)
    if part == 0.9 and read is not READS[1]:
        return  # The header is whole; the tensors are not read.
    with refused(f"{made} is damaged .*: delete {made.parent} and run again"):
        read(made)
    for path in (saved, Path("weights.safetensors")):
        with refused(f"{path} is damaged.*: fetch or copy it again") as caught:
            read(path)
        assert "delete" not in str(caught)


def test_damaged_story_is_a_sentence(path):
    save_file({"F.count": torch.zeros(())}, path, {"madan": '{"seed": '})
    with refused(f"{path} is damaged"):
        checkpoints.story(path)


def test_weights_of_somebody_else_have_no_story(path):
    save_file({"F.count": torch.zeros(())}, path)
    with refused(f"{path} .*madan"):
        checkpoints.story(path)


def test_weights_of_another_kind_of_run_are_refused_by_name(saved):
    with refused(f"{saved} holds no weights of G_gta5; it was made by another kind of run"):
        checkpoints.load(saved, "G_gta5", Mixed())


def test_name_is_not_taken_for_the_beginning_of_another(path):
    checkpoints.save(path, {"FA": Mixed(1)}, STORY)
    with refused("holds no weights of F;"):
        checkpoints.load(path, "F", Mixed())


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (Mixed(width=5), "size mismatch for layer.weight"),
        (nn.Sequential(Mixed(), nn.Conv2d(1, 1, 1)), "Missing key"),
        (Mixed().norm, "Missing key"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_first_reason(saved, net, reason):
    with refused(rf"weights of F do not fit the network of params.yaml \({reason}.*train them"):
        checkpoints.load(saved, "F", net)


def test_weights_with_more_than_the_network_has_are_refused(path):
    checkpoints.save(path, {"F": nn.Linear(2, 2)}, STORY)
    with refused(r"do not fit .*Unexpected key.*\"bias\""):
        checkpoints.load(path, "F", nn.Linear(2, 2, bias=False))


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_pickle_called_safetensors_is_refused_and_never_run(path, tmp_path, write):
    with path.open("wb") as file:
        write(Evil(tmp_path / "owned"), file)
    for read in READS:
        with refused(f"{path} is damaged"):
            read(path)
    assert not (tmp_path / "owned").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "weights.safetensors"
    checkpoints.save(path, {"F": Mixed(1)}, STORY)
    return path


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_file_cut_anywhere_is_refused(whole, part):
    cut = whole.with_name("cut.safetensors")
    shutil.copy(whole, cut)
    cut.write_bytes(whole.read_bytes()[: int(part * whole.stat().st_size)])
    with refused("cut.safetensors is damaged"):
        checkpoints.load(cut, "F", Mixed())


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_header_with_a_wrong_byte_is_refused_or_read(whole, data):
    content = bytearray(whole.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    place = data.draw(st.one_of(st.integers(0, 7), st.integers(0, header - 1)))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    wrong = whole.with_name("wrong.safetensors")
    wrong.write_bytes(content)
    for read in READS:
        with contextlib.suppress(Refusal):
            read(wrong)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 7, b"\xff" * 8, b"\xff" * 7 + b"\x7f" + b"{}", (2).to_bytes(8, "little"),
        (10**9).to_bytes(8, "little") + b"{}", (1 << 62).to_bytes(8, "little") + b"{}" * 99,
        (3).to_bytes(8, "little") + b"[1]", (4).to_bytes(8, "little") + b"null",
        (2).to_bytes(8, "little") + b"\xff\xfe", (60000).to_bytes(8, "little") + b"[" * 60000,
        (20).to_bytes(8, "little") + b'{"__metadata__": 3}' + b" ",
        (24).to_bytes(8, "little") + b'{"__metadata__":{"a":3}}',
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_a_sentence(path, content):
    path.write_bytes(content)
    for read in READS:
        with refused(f"{path} is damaged"):
            read(path)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_any_bytes_are_a_header_or_a_value_error(whole, content, length):
    path = whole.with_name("any.safetensors")
    path.write_bytes((length.to_bytes(8, "little") if length is not None else b"") + content)
    for read in (headers.read, headers.metadata):
        with contextlib.suppress(ValueError):
            assert isinstance(read(path), dict)


def slim(width):
    return FCN8s(
        classes=19, widths=[width] * 5, convs=[1] * 5, pools=[1, 1, 0, 1, 1], head=8,
        head_kernel=3, norm="group", dropout=0.0, padding=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("is_there", "wanted", "words"),
    [
        (slim(8), slim(16), r"there it is fcn8s \(16 channels .*here fcn8s \(8 channels"),
        (slim(8), DRN26(classes=19, width=1 / 16), r"there it is drn26 .*here fcn8s"),
        (DRN26(classes=19, width=1 / 16), slim(8), r"there it is fcn8s .*here drn26 \(1 channels"),
        (PatchGAN(ndf=4, layers=2, norm="none"), slim(8), "there it is fcn8s .*here PatchGAN"),
    ],
)
def test_another_architecture_or_width_is_refused_with_both_and_the_file(
    path, is_there, wanted, words
):
    checkpoints.save(path, {"F": is_there}, STORY)
    with refused(rf"{path}: weights of F do not fit the network of params.yaml .*{words}"):
        checkpoints.load(path, "F", wanted)
