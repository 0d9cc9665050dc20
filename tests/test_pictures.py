"""What the figures say: every loss that a method logs has a name in the paper's words."""

import pytest
from conftest import tiny, write_set

from madan import config
from madan.config import schema
from madan.engine import training
from madan.methods import adaptation, segmentation
from madan.methods.translation import Translator
from madan.pipeline.jobs import pictures


@pytest.fixture
def params(raw):
    raw = tiny(raw)
    for section in ("segmenter", "translator", "adaptation"):
        raw["training"][section] |= {"crop": [16, 32], "batch": 2}
    raw["training"]["translator"]["weights"]["identity"] = 1
    raw["training"]["translator"]["gates"] = {"sad": 0, "ccd": 0}
    return config.resolve(raw)


@pytest.fixture
def sets(tmp_path):
    return {name: write_set(tmp_path / name, name) for name in ("gta5", "synthia", "target")}


def logged(params, sets, name):
    """Terms of one step of an adaptation, of a segmenter, or of a translator with all switches."""
    training.begin(0, 1)
    *sources, target = sets.values()
    net = segmentation.build(params.networks.segmenter)
    if name in params.adaptations:
        run = params.adaptations[name]
        method = adaptation.build(params, run, net, sources, target, 3, 0)
    elif name == "F":
        method = segmentation.Supervised(net, sources, params.training.segmenter, 3, 0)
    else:
        names = ["gta5", "synthia"]
        run = schema.Translator(
            sources=names, target="target", sad=True, ccd=True, semantic="dsc",
            judges=dict.fromkeys(names, "judge"), task={"update_every": 1},
        )  # fmt: skip
        method = Translator(
            run, params.training.translator, params.networks,
            dict(zip(names, sources, strict=True)),
            target, steps=3, seed=0, judges=dict.fromkeys(names, net.eval()), task=net,
        )  # fmt: skip
    return {term.split(".")[0] for term in method.update(1)} - {"gate"}


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("F", {"task"}),
        ("G", {"gan_target", "identity", "semantic", "sad", "ccd", "task", "d_sad"}),
        ("madan", {"feat", "d_feat", "accuracy"}),
        ("madan-feat", {"task", "feat", "d_feat", "accuracy"}),
        ("mdan", {"task", "domain", "loss"}),
    ],
)
def test_every_term_of_a_log_has_a_name_in_words(params, sets, name, some):
    terms = logged(params, sets, name)
    assert some <= terms <= set(pictures.TERMS)
