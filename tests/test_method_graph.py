"""MADAN+ and self-training as runs of params.yaml: what decides them, commands in a tiny world."""

import csv

import pytest
import torch
from conftest import World, params_yaml, tiny
from safetensors import safe_open

from madan import config
from madan.pipeline import settings
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph

SETS = ["stage-2/gta5", "stage-2/synthia"]


def with_runs(raw):
    """The three stages of MADAN+, and self-training after them, as a person would add them."""
    raw["translators"] |= {
        "stage-1": {"sources": ["gta5"], "target": "cityscapes", "cag": True},
        "stage-2": {
            "sources": ["gta5", "synthia"], "target": "cityscapes", "cag": True, "sad": True,
            "ccd": True, "semantic": "dsc",
            "judges": {"gta5": "source-gta5", "synthia": "source-gta5"},
            "task": {"start": "source-gta5", "update_every": 1},
        },
    }  # fmt: skip
    stage_3 = {"train_on": SETS, "start": "translators/stage-2", "target": "cityscapes"}
    raw["adaptations"] |= {
        "plus": {"method": "feat", "on": "features", "cla": True, **stage_3},
        "taught": {"method": "self-training", **stage_3},
        "masked": {"method": "self-training", "masked": True, **stage_3},
        "from-source": {
            "method": "self-training", "train_on": ["gta5"], "start": "source-gta5",
            "target": "cityscapes",
        },
    }  # fmt: skip
    return raw


def test_settings_decide_the_runs_that_use_them_and_no_others(raw):
    raw = with_runs(raw)
    graph = Graph(config.resolve(raw))
    kinds = ("segmenters", "translators", "adaptations")
    every = [parse(f"{kind}/{name}") for kind in kinds for name in raw[kind]]
    before = {each: graph.settings(each) for each in every}
    for section, value, expected in (
        (("translator", "cag", "crops"), [[16, 32]], {"stage-1", "stage-2"}),
        (("cla", "cell"), 2, {"plus"}),
        (("self_training", "alpha"), 0.5, {"taught", "masked", "from-source"}),
        (("self_training", "masking"), {"ratio": 0, "block": 1, "weight": 1}, {"masked"}),
    ):
        place = raw["training"]
        for key in section[:-1]:
            place = place[key]
        was, place[section[-1]] = place[section[-1]], value
        now = Graph(config.resolve(raw))
        changed = {each.name for each in every if now.settings(each) != before[each]}
        assert changed == expected, section
        place[section[-1]] = was


def test_self_training_stands_on_its_start_its_sets_and_the_target(raw):
    graph = Graph(config.resolve(with_runs(raw)))
    found = graph.inputs(parse("adaptations/taught"))
    assert parse("translators/stage-2") in found
    assert {each.kind for each in found} == {"translators", "stylised", "prepared"}
    domains = {each.name.split("/")[0] for each in found if each.kind == "prepared"}
    assert domains == {"gta5", "synthia", "cityscapes"}
    networks = graph.settings(parse("adaptations/taught"))["networks"]
    assert set(networks) == {"segmenter"}
    assert (
        settings.steps(parse("adaptations/taught"), graph.params)
        == raw["training"]["segmenter"]["steps"]
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny world with everything up to stage 2 of MADAN+ made by commands."""
    raw = with_runs(tiny(params_yaml()))
    world = World(tmp_path_factory.mktemp("methods"), raw)
    for domain in ("gta5", "synthia", "cityscapes"):
        world.run("madan", "miniature", domain)
        world.run("madan", "verify", f"{domain}/train")
        for shard in range(raw["domains"][domain].get("shards", 1)):
            world.run("madan", "prepare", f"{domain}/train/{shard}")
    world.run("madan", "segment", "source-gta5")
    world.run("madan", "translate", "stage-2")
    for source in ("gta5", "synthia"):
        world.run("madan", "stylise", "stage-2", source)
    return world


def made(world, kind, name):
    folder = world.root / "results/miniature" / kind / name / "seed0"
    with safe_open(folder / "weights.safetensors", "pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert all(value.isfinite().all() for value in weights.values())
    return weights, next(csv.DictReader((folder / "log.csv").open()))


@pytest.mark.slow
def test_a_translator_with_cag_is_trained_by_its_command(world):
    weights, log = made(world, "translators", "stage-2")
    assert {key.split(".")[0] for key in weights} >= {"G_gta5", "GT_synthia", "DA_gta5", "FA"}
    assert {"cycle.gta5", "semantic.synthia", "sad.gta5", "d_target"} <= set(log)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("plus", {"task", "feat", "cla", "d_feat", "d_cla", "cla_accuracy"}),
        ("taught", {"task", "mixed", "confident"}),
        ("masked", {"task", "mixed", "masked", "confident"}),
        ("from-source", {"task", "mixed", "confident"}),
    ],
)
def test_an_adaptation_is_trained_by_its_command_and_gives_out_f_alone(world, name, logged):
    world.run("madan", "adapt", name)
    weights, log = made(world, "adaptations", name)
    assert {key.split(".")[0] for key in weights} == {"F"}
    assert logged <= set(log)
    begun = "source-gta5" if name == "from-source" else "stage-2"
    kind, prefix = ("segmenters", "F") if name == "from-source" else ("translators", "FA")
    start, _ = made(world, kind, begun)
    same = [
        k for k, v in weights.items() if torch.equal(v, start[k.replace("F.", f"{prefix}.", 1)])
    ]
    assert not same
