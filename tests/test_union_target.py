"""A union as a target: its datasets are trained on and scored as one."""

import csv
import json

import pytest
from conftest import World, params_yaml, tiny

from madan import config
from madan.errors import Refusal
from madan.pipeline import artefacts, checks, edges

UNION = "streets"
MEMBERS = ["cityscapes", "bdd100k"]


def with_union() -> dict:
    """A tiny world whose target is the union of both real domains."""
    params = tiny(params_yaml(), ("cyclegan-gta5",))
    params["domains"][UNION] = {"union": MEMBERS}
    params["miniature"]["images"]["bdd100k"] = {"train": 8, "val": 8, "test": 4}
    params["translators"] = {"style": {"sources": ["gta5"], "target": UNION}}
    params["segmenters"] = {"pixel": {"train_on": ["style/gta5"]}}
    adapted = {"method": "adda", "start": "pixel", "target": UNION}
    params["adaptations"] = {"adapted": adapted}
    row = {"row": "adapted", "setting": "single source", "run": "adaptations/adapted"}
    params["tables"] = {"miou": {"target": UNION, "rows": [row]}}
    params["figures"] = {
        "seen": {"shows": "qualitative", "images": 2}, "domains": {"shows": "shares"},
    }  # fmt: skip
    return params


@pytest.mark.slow
def test_a_union_is_trained_on_and_scored_as_one(tmp_path):
    world = World(tmp_path, with_union())
    world.snakemake("results/miou.csv", "figures")
    [line] = csv.DictReader((tmp_path / "results/miou.csv").open())
    assert (line["target"], line["images"]) == (UNION, "12")
    root = tmp_path / "results/miniature"
    made = root / "adaptations/adapted/seed0/certificate.json"
    [[name, inputs]] = json.loads(made.read_text())["inputs"]["target"].items()
    assert name == UNION
    assert list(inputs) == [f"prepared/{member}/train/0" for member in MEMBERS]
    score = f"scores/adaptations/adapted/{UNION}/test/seed0/score.json"
    whole = json.loads((root / score).read_text())
    for member in MEMBERS:
        world.run("madan", "evaluate", "adaptations/adapted", f"{member}/test")
    parts = [
        json.loads((root / score.replace(UNION, member)).read_text())["confusion"]
        for member in MEMBERS
    ]
    summed = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)]
    assert whole["confusion"] == summed
    assert whole["members"] == dict(zip(MEMBERS, parts, strict=True))
    assert "Nothing to be done" in world.snakemake("results/miou.csv")
    world.run("madan", "predict", "data/miniature/bdd100k/images/10k/test", "--model", "adapted")
    refused = world.run(
        "madan", "export", "predictions", "adaptations/adapted", f"{UNION}/test", expect=1
    ).stdout
    assert f"{UNION}, a union" in refused and "cityscapes, bdd100k" in refused
    world.run("madan", "export", "stylised", "style", "gta5")
    terms = (root / "releases/style/gta5/seed0/README.md").read_text()
    assert "Target cityscapes, which" in terms and "Target bdd100k, which" in terms


def test_images_of_a_union_are_those_of_its_datasets_one_after_the_other():
    params = config.resolve(with_union())
    for artefact in (artefacts.Translator("style"), artefacts.Adaptation("adapted")):
        [shards] = edges.roles(artefact, params)["target"].values()
        assert [each.address for each in shards] == [f"prepared/{m}/train/0" for m in MEMBERS]
    score = artefacts.parse(f"scores/adaptations/adapted/{UNION}/test")
    [shards] = edges.roles(score, params)["images"].values()
    assert [each.address for each in shards] == [f"prepared/{m}/test/0" for m in MEMBERS]
    checks.check(score, params)


def test_datasets_of_a_target_have_one_size():
    raw = with_union()
    raw["domains"]["bdd100k"]["size"] = [64, 144]
    with pytest.raises(Refusal, match=r"streets, a union whose datasets have different sizes"):
        config.resolve(raw)


def test_a_dataset_of_the_target_is_no_source_and_no_labelled_set():
    raw = with_union()
    raw["translators"]["style"]["sources"] = ["bdd100k"]
    raw["segmenters"]["pixel"]["train_on"] = ["style/bdd100k"]
    with pytest.raises(Refusal, match="bdd100k is both source and target"):
        config.resolve(raw)
    raw = with_union()
    raw["segmenters"]["more"] = {"train_on": ["bdd100k"]}
    with pytest.raises(Refusal, match="segmenters.more.train_on names bdd100k, a target"):
        config.resolve(raw)


def test_every_dataset_of_the_target_is_drawn_for_the_split_that_is_scored():
    raw = with_union()
    del raw["miniature"]["images"]["bdd100k"]["test"]
    with pytest.raises(Refusal, match=r"miniature.images.bdd100k has none"):
        config.resolve(raw)
