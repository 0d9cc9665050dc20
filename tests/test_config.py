"""params.yaml: what is wrong is said in one sentence with the key and what is allowed."""

import json

import pytest
from conftest import PROJECT
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from madan import config
from madan.config import runs, schema
from madan.errors import Refusal

SCALES = ("miniature", "paper")


def refused(raw, *words):
    with pytest.raises(Refusal) as caught:
        config.resolve(raw)
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said


@pytest.mark.parametrize("scale", SCALES)
def test_the_projects_own_file_resolves_at_every_scale(raw, scale):
    params = config.resolve(raw | {"scale": scale})
    for kind in ("segmenters", "translators", "adaptations"):
        for name in getattr(params, kind):
            runs.needs(params, f"{kind}/{name}")


def test_paper_scale_differs_only_where_it_says_so(raw):
    small, paper = (config.resolve(raw | {"scale": scale}) for scale in SCALES)
    assert paper.networks.generator.ngf == 64 and small.networks.generator.ngf != 64
    published = [r for r in small.tables["comparison"].rows if r.scale is None]
    assert list(paper.tables["comparison"].rows) == published
    assert len(published) == 9
    assert paper.adaptations["madan"] == small.adaptations["madan"]
    assert paper.networks.discriminator.norm == small.networks.discriminator.norm
    assert paper.domains["both"] == small.domains["both"]


def test_unknown_key_is_refused_with_its_path_and_the_nearest_name(raw):
    raw["training"]["segmenter"]["batchh"] = 8
    refused(raw, "training.segmenter.batchh", "did you mean batch?", "weight_decay")


def test_unknown_key_inside_a_run_is_refused(raw):
    raw["translators"]["madan"]["sadd"] = True
    refused(raw, "translators.madan.sadd", "did you mean sad?")


def test_missing_key_is_named(raw):
    del raw["training"]["translator"]["lr"]
    refused(raw, "training.translator.lr is missing")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("segmenter", "lr", -1), ("segmenter", "steps", 0), ("translator", "crop", [64]),
     ("segmenter", "schedule", "cosine"), ("adaptation", "gate", 1.5), ("translator", "pool", -1)],
)  # fmt: skip
def test_value_out_of_range_is_refused_with_what_stood_there(raw, section, key, value):
    raw["training"][section][key] = value
    refused(raw, f"training.{section}.{key}", repr(value) if key != "crop" else "crop")


def test_a_number_that_dvc_wrote_is_a_number(tmp_path, raw):
    text = (PROJECT / "params.yaml").read_text().replace("lr: 0.002", "lr: 1e-05", 1)
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert config.load(path).training.segmenter.lr == 1e-5


def test_the_first_rate_in_the_file_is_one_that_the_default_run_uses():
    text = (PROJECT / "params.yaml").read_text()
    first = next(line.split(":")[1] for line in text.splitlines() if line.strip().startswith("lr:"))
    assert config.load(PROJECT / "params.yaml").training.segmenter.lr == float(first)


def test_key_given_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("scale: miniature\nscale: paper\n")
    with pytest.raises(Refusal, match="params.yaml line 2 is not valid YAML.*duplicate key"):
        config.load(path)


def test_yaml_tags_are_not_obeyed(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("scale: !!python/object/apply:os.mkdir [owned]\n")
    with pytest.raises(Refusal):
        config.load(path)


def test_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(Refusal, match="not found: run in the project's folder"):
        config.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("kind", "run", "key", "value", "words"),
    [
        ("segmenters", "pooled", "train_on", ["cyclgan-gta5/gta5"], ["did you mean cyclegan-gta5"]),
        ("segmenters", "pooled", "train_on", ["madan/both"], ["both", "gta5, synthia"]),
        ("segmenters", "pooled", "train_on", ["cityscapes"], ["oracle: true"]),
        ("segmenters", "pooled", "train_on", ["gta"], ["did you mean gta5"]),
        ("segmenters", "pooled", "start", "translators/cyclegan-gta5", ["no task segmenter"]),
        ("segmenters", "pooled", "start", "segmenters/poled", ["did you mean pooled"]),
        ("segmenters", "pooled", "start", "pooled", ["segmenters.pooled.start", "'pooled'"]),
        ("segmenters", "pooled", "network", "fcn", ["segmenters.pooled.network", "'fcn'"]),
        (
            "segmenters",
            "madan-pixel",
            "network",
            "drn26",
            ["segmenters.madan-pixel.start", "translators/madan, whose network is fcn8s", "drn26"],
        ),
        ("translators", "cyclegan-gta5", "sad", True, ["there is one"]),
        ("translators", "cyclegan-gta5", "ccd", True, ["there is one"]),
        ("translators", "cyclegan-gta5", "target", "gta5", ["both source and target"]),
        ("translators", "cyclegan-gta5", "target", "both", ["gta5 is both source and target"]),
        ("translators", "cyclegan-gta5", "sources", ["gta5", "gta5"], ["twice"]),
        ("translators", "cyclegan-gta5", "semantic", "sc", ["judges must name one segmenter"]),
        ("translators", "madan", "semantic", "none", ["has judges but semantic: none"]),
        ("translators", "madan", "task", None, ["dsc needs task"]),
        ("translators", "madan", "start", ["cyclegan-gta5"], ["covers gta5"]),
        ("translators", "madan", "keep", [60, 60], ["keep names step 60 twice"]),
        ("translators", "madan", "keep", [60, 150], ["step 150 of 150", "the run itself"]),
        ("translators", "madan", "task", {"update_every": 0}, ["no start and never learns"]),
        ("segmenters", "pooled", "train_on", ["madan@60/gta5"], ["madan@60", "allowed: none"]),
        ("segmenters", "pooled", "train_on", ["madam@60/gta5"], ["did you mean madan"]),
        ("translators", "madan", "judges", {"gta5": "source-gta5", "synthia": "none"}, ["none"]),
        ("adaptations", "madan", "start", "madan", ["madan-pixel"]),
        ("adaptations", "madan", "method", "dann", ["'dann'"]),
        ("adaptations", "madan", "method", "mdan", ["train_on is missing", "labelled sets"]),
        ("adaptations", "madan", "train_on", ["gta5"], ["adda has the sets of its start"]),
        ("adaptations", "madan", "start", None, ["start"]),
        ("adaptations", "madan", "start", "translators/madan", ["start", "madan-pixel"]),
        ("adaptations", "madan-feat", "start", "translators/cyclegan-gta5", ["no task segmenter"]),
        ("adaptations", "madan-feat", "train_on", ["cityscapes"], ["a target, whose labels"]),
        ("adaptations", "mdan", "on", "scores", ["mdan sees features as a whole"]),
        ("adaptations", "mdan", "train_on", ["gta5"] * 9, ["more sets than"]),
        ("adaptations", "mdan", "cla", True, ["cla is true", "only method feat", "mdan stands"]),
        ("adaptations", "madan", "cla", True, ["cla is true", "adda stands there"]),
        ("adaptations", "madan-feat", "masked", True, ["masked is true", "self-training"]),
        ("adaptations", "madan-feat", "method", "self-training", ["on and classwise are of adda"]),
    ],
)
def test_impossible_run_is_refused(raw, kind, run, key, value, words):
    raw[kind][run][key] = value
    refused(raw, f"{kind}.{run}", *words)


@pytest.mark.parametrize("crop", [[65, 64], [32, 129], [8, 32]])
def test_crops_of_cag_that_do_not_fit_are_refused_where_a_run_needs_them(raw, crop):
    raw["training"]["translator"]["cag"]["crops"] = [[48, 96], crop]
    assert config.resolve(raw)
    raw["translators"]["cyclegan-gta5"]["cag"] = True
    size = f"{crop[0]}x{crop[1]}"
    refused(raw, "training.translator.cag has a crop of " + size, "translators.cyclegan-gta5")


def test_range_of_the_blur_is_refused_the_wrong_way_round(raw):
    raw["training"]["self_training"]["sigma"] = [2, 1]
    refused(raw, "training.self_training.sigma is [2, 1]", "smaller number first")


def test_parts_of_a_batch_are_refused_where_it_is_normalised_over(raw):
    raw["training"]["segmenter"]["accumulate"] = 2
    assert config.resolve(raw)
    raw["segmenters"]["source-gta5"]["network"] = "drn26"
    refused(raw, "segmenters.source-gta5", "drn26", "training.segmenter.accumulate is 2")
    raw["training"]["segmenter"]["accumulate"] = 1
    raw["segmenters"]["stage-1"]["network"] = "drn26"
    raw["training"]["translator"]["accumulate"] = 2
    refused(raw, "translators.madan", "drn26", "training.translator.accumulate is 2")


def test_a_runs_own_parts_are_checked_as_those_of_its_section(raw):
    raw["segmenters"]["source-gta5"]["accumulate"] = 8
    raw["translators"]["madan"]["accumulate"] = 2
    assert config.resolve(raw)
    raw["segmenters"]["source-gta5"]["accumulate"] = 9
    refused(raw, "segmenters.source-gta5.accumulate is 9", "training.segmenter.batch, 8")
    raw["segmenters"]["source-gta5"] |= {"accumulate": 2, "network": "drn26"}
    refused(raw, "segmenters.source-gta5.accumulate is 2", "drn26", "set it to 1")
    del raw["segmenters"]["source-gta5"]["accumulate"]
    raw["translators"]["madan"]["accumulate"] = 3
    refused(raw, "translators.madan.accumulate is 3", "training.translator.batch, 2")


def test_parts_of_adda_are_refused(raw):
    [name] = [n for n, run in raw["adaptations"].items() if run["method"] == "adda"][:1]
    raw["adaptations"][name]["accumulate"] = 1
    refused(raw, f"adaptations.{name}.accumulate is 1", "training.adaptation.batch")


def test_runs_that_wait_for_each_other_are_refused(raw):
    raw["segmenters"]["source-gta5"] = {"train_on": ["cyclegan-gta5/gta5"]}
    raw["translators"]["cyclegan-gta5"] |= {
        "semantic": "sc", "judges": {"gta5": "source-gta5"},
    }  # fmt: skip
    refused(raw, "wait for each other", "segmenters/source-gta5 -> translators/cyclegan-gta5")


def test_two_rows_of_one_name_are_refused(raw):
    raw["tables"]["miou"]["rows"][1]["row"] = "source-gta5"
    refused(raw, "two rows called source-gta5")


def test_row_compared_with_none_of_its_table_is_refused(raw):
    raw["tables"]["comparison"]["rows"][0]["against"] = "shared"
    refused(raw, "tables.comparison row source-gta5: against names shared", "cycada-gta5")
    raw["tables"]["comparison"]["against"] = "oracel"
    refused(raw, "tables.comparison.against", "did you mean oracle?")


def test_figure_that_the_paper_never_published_is_refused(raw):
    raw["tables"]["comparison"]["rows"][0]["published"] = "source-only/GTA"
    refused(raw, "tables.comparison row source-gta5: published", "did you mean source-only/GTA5?")


def test_row_of_a_missing_run_is_refused(raw):
    raw["tables"]["miou"]["rows"][0]["run"] = "segmenters/nobody"
    refused(raw, "tables.miou row source-gta5", "nobody")


def test_batch_smaller_than_the_sets_it_is_shared_by_is_refused(raw):
    raw["training"]["adaptation"]["batch"] = 1
    refused(raw, "adaptations.madan has more sets than training.adaptation.batch")
    raw["training"]["segmenter"]["batch"] = 1
    refused(raw, "segmenters.pooled.train_on has more sets")


def test_target_without_the_split_to_be_scored_is_refused(raw):
    del raw["miniature"]["images"]["cityscapes"]["test"]
    refused(raw, "evaluation.split is test", "miniature.images.cityscapes")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("networks.segmenter.widths", [10, 32, 64, 128, 128], ["multiples of 8"]),
        ("networks.segmenter.head", 100, ["multiples of 8"]),
        ("miniature.size", [8, 128], ["miniature.size", "16"]),
        ("miniature.images.synthia", {"train": 3, "val": 3}, ["miniature.images.synthia", "train"]),
        ("training.segmenter.crop", [128, 128], ["training.segmenter.crop", "64x128"]),
        ("training.translator.crop", [8, 8], ["training.translator.crop", "at least 16"]),
        ("training.segmenter.accumulate", 9, ["accumulate is 9", "training.segmenter.batch, 8"]),
        ("training.translator.accumulate", 3, ["accumulate is 3", "training.translator.batch, 2"]),
    ],
)
def test_sizes_that_no_network_or_scene_can_have_are_refused(raw, key, value, words):
    *sections, last = key.split(".")
    section = raw
    for name in sections:
        section = section[name]
    section[last] = value
    refused(raw, *words)


def test_a_seed_named_twice_is_refused(raw):
    raw["tables"]["ablation"]["seeds"] = [1, 1]
    refused(raw, "tables.ablation.seeds names a seed twice")
    raw["seeds"] = [0, 0]
    refused(raw, "seeds names a seed twice")


def test_file_that_is_not_text_is_a_sentence(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00scale")
    with pytest.raises(Refusal, match="cannot be read as text"):
        config.load(tmp_path / "params.yaml")
    with pytest.raises(Refusal, match="cannot be read as text"):
        config.load(tmp_path)


def test_root_where_nothing_is_drawn_is_refused(raw):
    raw["domains"]["gta5"]["root"] = "data/raw/gta5"
    refused(raw, "domains.gta5.root", "data/miniature/gta5")


def test_domain_without_images_to_draw_is_refused(raw):
    del raw["miniature"]["images"]["synthia"]
    refused(raw, "miniature.images lacks synthia")


MINE = {
    "images": "photos/{split}/{name}.jpg",
    "labels": "masks/{split}/{name}.png",
    "ids": {"road": [0], "person": [7, 8]},
    "ignore": [255],
}


def with_own(raw, changes=None, **domain):
    """params.yaml with a dataset of one's own at the paper's scale; None takes a key away."""
    own = {key: value for key, value in (MINE | (changes or {})).items() if value is not None}
    place = {"layout": "mine", "root": "data/raw/mine", "size": [600, 1080]}
    raw["scales"]["paper"]["domains"]["mine"] = place | domain
    return raw | {"scale": "paper", "layouts": {"mine": own}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"images": "{name}.jpg", "labels": "deep/er/{name}_mask.png"},
        {"images": "{split}/img/{name}.jpg", "labels": "{split}/seg/{name}.png"},
        {"images": "leftImg-{split}/{name}.jpg", "labels": "gt-{split}/{name}.png"},
        {"ids": "cityscapes", "ignore": []},
        {"ids": None, "colours": {"road": [[128, 64, 128]]}, "ignore": [[0, 0, 0]]},
        {"folders": {"train": "training", "val": "validation"}},
        {"images": "run/img_{name}.png", "labels": "run/seg_{name}.png"},
        {"otherwise": "ignore", "regions": [[0.9, 0, 1, 1]], "source": "here", "licence": "CC0"},
    ],
)
def test_a_dataset_of_ones_own_is_a_few_lines(raw, changes):
    data = config.resolve(with_own(raw, changes)).dataset("mine")
    assert data.own is not None and data.own.images == (MINE | changes)["images"]
    assert config.resolve(raw).dataset("gta5").own is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": "/photos/{split}/{name}.jpg"}, ["layouts.mine.images", "below the domain's"]),
        ({"labels": "../masks/{split}/{name}.png"}, ["layouts.mine.labels", "below the domain's"]),
        ({"images": "photos/{split}/../../{name}.jpg"}, ["below the domain's root"]),
        ({"images": "photos/{split}/all.jpg"}, ["layouts.mine.images", "{name}.png"]),
        ({"images": "photos/{name}/{split}.jpg"}, ["layouts.mine.images"]),
        ({"images": "photos/{name}/{name}.jpg"}, ["layouts.mine.images"]),
        ({"images": "photos/{split}{name}.jpg"}, ["layouts.mine.images"]),
        ({"images": "photos/{splt}/{name}.jpg"}, ["layouts.mine.images", "{splt}"]),
        ({"images": "photos/{name}.jpg"}, ["{split} in only one of images and labels"]),
        ({"ids": None, "ignore": []}, ["layouts.mine needs ids, or colours"]),
        ({"colours": {"road": [[1, 2, 3]]}}, ["layouts.mine needs ids, or colours"]),
        ({"ids": {"rode": [0]}}, ["layouts.mine", "rode", "did you mean road?"]),
        ({"ids": "cityscape"}, ["layouts.mine.ids", "did you mean cityscapes?"]),
        ({"ids": {"road": [0, 3], "car": [3]}}, ["gives 3 to two classes"]),
        ({"ids": {"road": [0, 255]}}, ["gives 255 to two classes"]),
        ({"ids": {"road": [256]}}, ["layouts.mine.ids", "256"]),
        ({"ids": {"road": [-1]}}, ["layouts.mine.ids", "-1"]),
        ({"ignore": [[0, 0, 0]]}, ["layouts.mine.ignore"]),
        ({"ids": None, "colours": {"road": [[0, 0, 256]]}, "ignore": []}, ["256"]),
        ({"folders": {"training": "x"}}, ["layouts.mine.folders", "did you mean train?"]),
        ({"folders": {"val": "../../elsewhere"}}, ["layouts.mine.folders", "below the domain's"]),
        ({"ids": {}}, ["layouts.mine"]),
        ({"ids": "cityscapes", "ignore": [[0, 0, 0]]}, ["layouts.mine.ignore"]),
        ({"otherwise": "refuse"}, ["layouts.mine.otherwise", "ignore"]),
        ({"regions": [[0.9, 0, 0.5, 1]]}, ["layouts.mine.regions", "top is less than bottom"]),
        ({"regions": [[0, 0, 2, 1]]}, ["layouts.mine.regions"]),
        ({"regions": [[0, 0, 1]]}, ["layouts.mine.regions"]),
        (
            {"images": "all/{name}.png", "labels": "all/seg_{name}.png"},
            ["layouts.mine cannot tell images from labels"],
        ),
        ({"image": "x"}, ["layouts.mine.image", "did you mean images?"]),
        ({"labels": None}, ["layouts.mine.labels is missing"]),
        ({"labels": MINE["images"]}, ["layouts.mine", "images", "labels"]),
    ],
)
def test_layout_of_ones_own_that_cannot_be_is_refused(raw, changes, words):
    refused(with_own(raw, changes), *words)


def test_layout_of_ones_own_is_not_drawn(raw):
    raw["domains"]["mine"] = {"layout": "mine", "root": "data/miniature/mine", "size": [64, 128]}
    raw["miniature"]["images"]["mine"] = {"train": 4}
    refused(raw | {"layouts": {"mine": MINE}}, "domains.mine.layout", "scales.paper.domains")


def test_layout_with_the_name_of_a_release_is_refused(raw):
    refused(raw | {"layouts": {"camvid": MINE}}, "layouts.camvid", "choose another")


def test_unknown_layout_is_refused_with_the_nearest(raw):
    refused(with_own(raw, layout="mein"), "domains.mine.layout", "did you mean mine?")
    raw = with_own(raw, layout="bdd10k")
    refused(raw, "domains.mine.layout", "did you mean bdd100k?", "gta5, synthia", "mine")


@pytest.mark.parametrize(
    ("layout", "splits", "words"),
    [
        ("synthia", {"train": 0.9, "val": 0.2}, ["domains.mine.splits", "1.1"]),
        ("gta5", {"train": 0.5}, ["domains.mine.splits", "0.5"]),
        ("gta5", {"train": 1.5, "val": -0.5}, ["domains.mine.splits"]),
        ("gta5", {"training": 1}, ["domains.mine.splits"]),
        ("gta5", "every", ["domains.mine.splits", "every"]),
        ("cityscapes", "all", ["domains.mine.splits", "folders of cityscapes are its splits"]),
        ("camvid", {"train": 1}, ["domains.mine.splits", "folders of camvid are its splits"]),
        ("mine", {"train": 1}, ["domains.mine.splits", "folders of mine are its splits"]),
    ],
)
def test_splits_that_a_dataset_cannot_have_are_refused(raw, layout, splits, words):
    refused(with_own(raw, layout=layout, splits=splits), *words)


@pytest.mark.parametrize("splits", ["all", {"train": 0.7, "val": 0.2, "test": 0.1}, "given"])
@pytest.mark.parametrize("layout", ["gta5", "synthia"])
def test_lists_of_splits_are_given_derived_by_shares_or_all_for_training(raw, layout, splits):
    data = config.resolve(with_own(raw, layout=layout, splits=splits)).dataset("mine")
    assert data.splits == splits


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        ({"exclude": {15188: "white"}}, ["domains.mine.exclude", "15188"]),
        ({"exclude": ["15188"]}, ["domains.mine.exclude"]),
        ({"exclude": {"15188": None}}, ["domains.mine.exclude"]),
        ({"known_damage": "repair"}, ["domains.mine.known_damage", "'exclude' or 'keep'"]),
        ({"root": None}, ["domains.mine needs layout, root and size"]),
    ],
)
def test_domain_that_says_nothing_clear_is_refused(raw, domain, words):
    refused(with_own(raw, **domain), *words)


def test_another_source_is_a_diff_of_params_only(raw):
    raw["domains"]["third"] = raw["domains"]["gta5"] | {"root": "data/miniature/third"}
    raw["miniature"]["images"]["third"] = {"train": 4}
    raw["translators"]["wide"] = {
        "sources": ["gta5", "synthia", "third"], "target": "cityscapes", "sad": True, "ccd": True,
    }  # fmt: skip
    assert config.resolve(raw).translators["wide"].sad


def test_another_target_is_a_diff_of_params_only(raw):
    raw["domains"]["camvid"] = raw["domains"]["bdd100k"] | {
        "layout": "camvid",
        "root": "data/miniature/camvid",
    }
    raw["miniature"]["images"]["camvid"] = {"train": 4, "test": 4}
    raw["translators"]["to-camvid"] = {"sources": ["gta5"], "target": "camvid"}
    raw["segmenters"]["on-camvid"] = {"train_on": ["to-camvid/gta5"]}
    row = {"row": "cyclegan-gta5", "setting": "single-source", "run": "segmenters/on-camvid"}
    raw["tables"]["camvid"] = {"target": "camvid", "rows": [row]}
    assert config.resolve(raw).tables["camvid"].target == "camvid"
    row["published"] = "single-source GTA5/CyCADA"
    refused(raw, "tables.camvid row cyclegan-gta5: published names", "allowed: none")


def test_looks_are_those_that_the_miniature_draws():
    from madan.miniature import appearance, world

    section = schema.Miniature.model_json_schema()["properties"]["looks"]
    [look] = section["patternProperties"].values()
    assert set(look["enum"]) == set(appearance.LOOKS) == set(world.CONTENTS)


def test_look_of_an_unknown_domain_is_refused(raw):
    raw["miniature"]["looks"] = {"gta-ceiling": "cityscapes"}
    refused(raw, "miniature.looks names gta-ceiling", "did you mean gta5-ceiling?")


def test_null_at_paper_scale_takes_a_domain_away(raw):
    raw["scales"]["paper"]["domains"]["gta5-ceiling"] = None
    assert "gta5-ceiling" in config.resolve(raw).domains
    assert "gta5-ceiling" not in config.resolve(raw | {"scale": "paper"}).domains


@pytest.mark.parametrize(("scale", "there"), [("miniature", True), ("paper", False)])
def test_a_row_may_stand_at_one_scale_alone(raw, scale, there):
    raw["tables"]["miou"]["rows"][-1]["scale"] = "miniature"
    rows = config.resolve(raw | {"scale": scale}).tables["miou"].rows
    assert ("oracle" in [row.row for row in rows]) == there


def test_digest_does_not_depend_on_the_order_of_keys():
    assert config.digest({"a": 1, "b": [2]}) == config.digest({"b": [2], "a": 1})
    assert config.digest({"a": 1}) != config.digest({"a": 2})


def test_schema_for_editors_is_the_models_own():
    written = json.loads((PROJECT / "workflow/schemas/params.schema.json").read_text())
    assert written == schema.Params.model_json_schema(), "write it anew: make schema"


FILE = YAML(typ="safe").load(PROJECT / "params.yaml")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(value=values, key=st.sampled_from(sorted(schema.Params.model_fields)))
def test_any_value_anywhere_resolves_or_is_one_sentence(value, key):
    try:
        config.resolve(FILE | {key: value})
    except Refusal as refusal:
        assert "\n" not in str(refusal)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [owned]", "!own {a: 1}"])
def test_tags_that_would_build_objects_are_refused_and_build_nothing(tmp_path, monkeypatch, tag):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(f"scale: {tag}\n")
    with pytest.raises(Refusal, match="is not valid YAML"):
        config.load()
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
