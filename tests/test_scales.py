"""Scales are peers: what each says otherwise, what it stands on, and what belongs to one alone."""

import re

import pytest
from conftest import PROJECT, params_yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from madan import config
from madan.config import scales
from madan.errors import Refusal
from madan.pipeline import artefacts
from madan.pipeline.artefacts import parse
from madan.pipeline.checks import check
from madan.pipeline.graph import Graph
from madan.report import verdicts

FILE = YAML(typ="safe").load(PROJECT / "params.yaml")


def refused(raw, *words):
    with pytest.raises(Refusal) as caught:
        config.resolve(raw)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", FILE["scales"])
def test_every_scale_resolves_and_has_places_of_its_own(scale):
    graph = Graph(config.resolve(FILE | {"scale": scale}))
    found = [a for a in graph.everything() if not isinstance(a, artefacts.Table | artefacts.Drawn)]
    assert all(scale in graph.folder(artefact).parts for artefact in found)


@pytest.mark.parametrize("scale", FILE["scales"])
def test_the_tests_own_form_of_the_file_says_the_same(scale):
    mine = config.resolve(params_yaml() | {"scale": scale})
    theirs = config.resolve(FILE | {"scale": scale})
    assert mine.model_dump(exclude={"scales"}) == theirs.model_dump(exclude={"scales"})


def test_a_scale_stands_on_another(raw):
    raw["scales"]["mine"] = {"base": "small", "training": {"segmenter": {"steps": 77}}}
    mine, small = (config.resolve(raw | {"scale": scale}) for scale in ("mine", "small"))
    paper = config.resolve(raw | {"scale": "paper"})
    assert (mine.training.segmenter.steps, small.training.segmenter.steps) == (77, 20000)
    assert mine.training.translator == small.training.translator != paper.training.translator
    assert small.released == paper.released
    raw["tables"]["miou"]["rows"][0]["scale"] = "paper"
    raw["tables"]["miou"]["rows"][1]["scale"] = "small"
    shown = {
        scale: {row.row for row in config.resolve(raw | {"scale": scale}).tables["miou"].rows}
        for scale in ("miniature", "paper", "small", "mine")
    }
    assert "source-gta5" not in shown["miniature"] and "source-gta5" in shown["mine"]
    assert "source-synthia" not in shown["paper"] and "source-synthia" in shown["mine"]


def test_any_number_of_scales_under_any_names(raw):
    raw["scales"] = {f"scale-{k}": {"seeds": [k]} for k in range(5)}
    for row in (row for table in raw["tables"].values() for row in table["rows"]):
        row.pop("scale", None)
    raw["tables"]["ablation"]["rows"] = raw["tables"]["ablation"]["rows"][:3]
    assert config.resolve(raw | {"scale": "scale-3"}).seeds == [3]


def test_null_takes_tables_runs_and_figures_away(raw):
    raw["scales"]["miniature"] = {
        "tables": {"semantic": None}, "figures": {"features": None},
        "translators": {"madan-2": None},
        "segmenters": {"madan-pixel-2": None}, "adaptations": {"madan-2": None},
    }  # fmt: skip
    raw["tables"]["ablation"]["rows"] = raw["tables"]["ablation"]["rows"][:3]
    params = config.resolve(raw)
    assert "semantic" not in params.tables and "features" not in params.figures
    assert "madan-2" not in params.translators


REFUSED = [
    ({"paper": {}}, ["paper is a key of earlier versions", "scales.paper", "scales.miniature"]),
    ({"scale": "smal"}, ["scale is 'smal'", "did you mean small?"]),
    ({"scale": None}, ["scale is None"]),
    ({"scales": None}, ["scales is None", "must be a mapping"]),
    ({"scales": {}}, ["scales is {}"]),
    ({"scales": {"miniature": 3}}, ["scales.miniature is 3"]),
    ({"scales": {"miniature": {"base": "papr"}, "paper": {}}}, ["scales.miniature.base is 'papr'"]),
    (
        {"scales": {"miniature": {"base": "a"}, "a": {"base": "miniature"}}},
        ["stand on each other: miniature -> a -> miniature"],
    ),
    ({"scales": {"miniature": {"base": "miniature"}}}, ["stand on each other"]),
    ({"scales": {"miniature": {"scale": "x"}}}, ["scales.miniature.scale has no place there"]),
    ({"scales": {"miniature": {"trainin": {}}}}, ["unknown key trainin", "did you mean training?"]),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=lambda value: str(value)[:50])
def test_scale_that_cannot_be_is_refused(raw, changes, words):
    refused(raw | changes, *words)


@pytest.mark.parametrize("name", [1, None, 1.5, True])
@pytest.mark.parametrize("scale", [str, lambda name: name, lambda name: "miniature"])
def test_name_of_a_scale_that_is_no_text_is_refused(raw, name, scale):
    scales = raw["scales"] | {name: {}}
    refused(raw | {"scales": scales, "scale": scale(name)}, f"the name {name!r}, which is no text")


def test_row_at_a_scale_that_does_not_exist_is_refused(raw):
    raw["tables"]["miou"]["rows"][0]["scale"] = "miniatur"
    refused(raw, "tables.miou row source-gta5: scale", "did you mean miniature?")


def test_published_figures_belong_to_the_papers_scale_alone():
    for scale in FILE["scales"]:
        params = config.resolve(FILE | {"scale": scale})
        table = params.tables["comparison"]
        assert verdicts.applies(table, params) == (scale == "paper")
        own = Graph(params).settings(parse("tables/comparison"))
        assert ("published" in own) == (scale == "paper")


def test_no_code_asks_for_the_name_of_a_scale():
    for path in PROJECT.glob("madan/**/*.py"):
        assert not re.search(r'[!=]= "(paper|miniature|small)"', path.read_text()), path


def test_own_data_stands_beside_drawn_data(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = {"layout": "camvid", "root": "data/raw/mine", "size": [64, 128]}
    raw["domains"]["mine"] = place
    graph = Graph(config.resolve(raw))
    drawn, own = (graph.inputs(parse(f"verified/{name}/train")) for name in ("gta5", "mine"))
    assert [str(each) for each in drawn] == ["miniature/gta5"] and own == []
    with pytest.raises(Refusal, match="mine is not drawn"):
        check(parse("miniature/mine"), graph.params)


def test_a_scale_of_any_name_may_draw(raw):
    raw["scales"]["large"] = {"miniature": {"seed": 5}}
    graph = Graph(config.resolve(raw | {"scale": "large"}))
    assert graph.settings(parse("miniature/gta5"))["seed"] == 5
    assert graph.inputs(parse("verified/gta5/train")) == [parse("miniature/gta5")]


def test_small_differs_from_the_paper_in_size_and_not_in_runs():
    small, paper = (config.resolve(FILE | {"scale": scale}) for scale in ("small", "paper"))
    steps = {"segmenters": {"pooled-long"}}
    for kind in ("segmenters", "translators", "adaptations"):
        runs = getattr(small, kind)
        differing = {name for name in runs if runs[name] != getattr(paper, kind)[name]}
        assert differing == steps.get(kind, set())
    assert small.networks.generator.ngf * 2 == paper.networks.generator.ngf
    doubled = tuple(2 * width for width in small.networks.segmenter.widths)
    assert doubled == paper.networks.segmenter.widths


names = st.sampled_from(["miniature", "a", "b"])
sections = st.none() | st.dictionaries(
    st.sampled_from(["base", "seeds", "x"]), names | st.integers() | st.none(), max_size=2
)


@settings(max_examples=150, deadline=None)
@given(found=st.dictionaries(names, sections, max_size=3) | st.integers() | st.none())
def test_any_scales_give_one_mapping_or_a_sentence(found):
    try:
        mapping, lineage = scales.at_scale({"scale": "miniature", "scales": found})
        assert lineage[0] == "miniature" and "base" not in mapping
    except Refusal as refusal:
        assert "\n" not in str(refusal)
