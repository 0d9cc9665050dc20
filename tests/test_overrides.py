"""A run's own `training` and `networks`: what they decide, and what is refused."""

import functools

import pytest
from conftest import params_yaml, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from madan import config
from madan.errors import Refusal
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph


def graph(raw) -> Graph:
    return Graph(config.resolve(raw))


def differing(before: Graph, after: Graph) -> set[str]:
    """Addresses whose own settings differ."""
    return {a.address for a in before.everything() if before.settings(a) != after.settings(a)}


def remade(before: Graph, after: Graph) -> set[str]:
    """Addresses that are made anew, except tables: own settings or those behind them differ."""
    return {
        a.address
        for a in before.everything()
        if a.kind != "tables" and before.chain(a)[0] != after.chain(a)[0]
    }


@functools.cache
def unchanged() -> Graph:
    """The graph of the project's own file."""
    return graph(params_yaml())


OWN = [
    ("segmenters/pooled", {"training": {"segmenter": {"lr": 0.5, "batch": 4}}}),
    ("segmenters/pooled", {"training": {"segmenter": {"class_weights": {"cap": 3}}}}),
    ("segmenters/source-gta5", {"networks": {"segmenter": {"dropout": 0.3}}}),
    ("translators/cyclegan-gta5", {"training": {"translator": {"weights": {"cycle": 7}}}}),
    ("translators/cycada-gta5", {"networks": {"generator": {"ngf": 8}}}),
    ("adaptations/madan", {"training": {"adaptation": {"gate": 0.1, "steps": 7}}}),
    ("adaptations/madan", {"networks": {"feature_discriminator": {"dropout": 0.2}}}),
    ("adaptations/mdan", {"training": {"mdan": {"gamma": 3}, "segmenter": {"lr": 0.1}}}),
    ("adaptations/madan-feat", {"training": {"adaptation": {"momentum": 0.5}}}),
]


@pytest.mark.parametrize(("address", "own"), OWN, ids=lambda value: str(value)[:60])
def test_an_override_reruns_exactly_its_run_and_what_depends_on_it(raw, address, own):
    before = unchanged()
    kind, name = address.split("/")
    raw[kind][name] |= own
    after = graph(raw)
    [run] = {a for a in before.everything() if a.address == address and a.seed == 0}
    follow = {
        a.address for a in before.everything() if a.kind != "tables" and run in before.ancestry([a])
    }
    assert remade(before, after) == follow
    if "networks" not in own:
        changed = {a for a in differing(before, after) if not a.startswith("tables/")}
        assert changed == {address}


@pytest.mark.parametrize(("address", "own"), OWN, ids=lambda value: str(value)[:60])
def test_an_override_that_says_what_the_section_says_changes_no_settings(raw, address, own):
    kind, name = address.split("/")
    before = unchanged()
    same = {
        top: {
            section: {key: raw[top][section][key] for key in keys}
            for section, keys in sections.items()
        }
        for top, sections in own.items()
    }
    raw[kind][name] |= same
    assert not {a for a in differing(before, graph(raw)) if not a.startswith("tables/")}


def test_settings_hold_the_resolved_values(raw):
    raw["segmenters"]["pooled"]["training"] = {"segmenter": {"lr": 0.5}}
    found = graph(raw).settings(parse("segmenters/pooled"))["training"]["segmenter"]
    assert found["lr"] == 0.5 and found["batch"] == raw["training"]["segmenter"]["batch"]


def test_a_sections_key_that_every_run_overrides_reruns_nothing(raw):
    for run in raw["translators"].values():
        run["training"] = {"translator": {"beta1": 0.4}}
    before = graph(raw)
    raw["training"]["translator"]["beta1"] = 0.6
    assert not differing(before, graph(raw))


def test_own_values_stand_before_those_of_the_network(raw):
    network = "deeplabv2-resnet101"
    own = {"segmenter": {"lr": 0.7, "head_lr": 3}}
    raw["segmenters"]["pooled"] |= {"network": network, "training": own}
    params = config.resolve(raw)
    section = params.learning(network, params.segmenters["pooled"])
    assert (section.lr, section.head_lr, section.optimizer) == (0.7, 3, "sgd")


def test_sizes_are_inherited_by_the_runs_that_go_on(raw):
    raw["segmenters"]["stage-1"]["networks"] = {"segmenter": {"head": 64}}
    for name in ("cyclegan-gta5", "cyclegan-synthia"):
        raw["translators"][name]["networks"] = {"generator": {"ngf": 6}}
    params = config.resolve(raw)
    for address in ("segmenters/sad", "translators/madan", "adaptations/madan"):
        assert params.network(address).head == 64
    assert params.network("segmenters/pooled").head != 64
    assert params.networks_of("translators/madan-2").generator.ngf == 6
    assert params.networks_of("translators/cycada-gta5").generator.ngf != 6


def test_precision_of_stylising_is_a_setting_of_what_is_stylised(raw):
    before = graph(raw)
    own = {"translator": {"stylise_precision": "bf16"}}
    raw["translators"]["cyclegan-gta5"]["training"] = own
    changed = {a for a in differing(before, graph(raw)) if not a.startswith("tables/")}
    assert changed == {"stylised/cyclegan-gta5/gta5"}


REFUSED = [
    ("segmenters.pooled.training", {"lr": 0.1}, ["segmenters.pooled.training.lr"]),
    ("segmenters.pooled.training", {"translator": {}}, ["training names translator", "segmenter"]),
    (
        "segmenters.pooled.training",
        {"segmenter": {"batchh": 8}},
        ["unknown key segmenters.pooled.training.segmenter.batchh", "did you mean batch?"],
    ),
    (
        "segmenters.pooled.training",
        {"segmenter": {"lr": -1}},
        ["segmenters.pooled.training.segmenter.lr is -1"],
    ),
    (
        "segmenters.pooled.training",
        {"segmenter": {"crop": [65, 128]}},
        ["segmenters.pooled.training.segmenter.crop is 65x128", "domains.gta5.size"],
    ),
    (
        "segmenters.pooled.training",
        {"segmenter": {"batch": 1}},
        ["segmenters.pooled.train_on has more sets", "segmenters.pooled.training.segmenter.batch"],
    ),
    (
        "segmenters.pooled.training",
        {"segmenter": {"accumulate": 9}},
        ["segmenters.pooled.training.segmenter.accumulate is 9"],
    ),
    (
        "segmenters.pooled.training",
        {"segmenter": {"head_lr": 4}},
        ["segmenters.pooled.training.segmenter.head_lr is 4"],
    ),
    (
        "segmenters.madan-pixel.training",
        {"segmenter": {"steps": 4}},
        ["segmenters.madan-pixel has both steps and training.segmenter.steps"],
    ),
    (
        "segmenters.madan-pixel.networks",
        {"segmenter": {"head": 64}},
        ["segmenters.madan-pixel.networks.segmenter", "change them there"],
    ),
    (
        "segmenters.pooled.networks",
        {"segmenter": {"head": 100}},
        ["segmenters.pooled.networks.segmenter: norm group", "multiples of 8"],
    ),
    (
        "segmenters.pooled.networks",
        {"segmenter": {"pretrained": "vgg"}},
        ["segmenters.pooled.networks.segmenter.pretrained names vgg"],
    ),
    ("segmenters.pooled.networks", {"generator": {"ngf": 3}}, ["networks names generator"]),
    ("segmenters.pooled.networks", {"backbones": {}}, ["networks names backbones", "segmenter"]),
    (
        "translators.madan.networks",
        {"generator": {"ngf": 3}},
        ["translators.madan.networks.generator", "change them there"],
    ),
    (
        "translators.cyclegan-gta5.training",
        {"translator": {"weights": {"cycle": -2}}},
        ["translators.cyclegan-gta5.training.translator.weights.cycle is -2"],
    ),
    (
        "translators.cyclegan-gta5.networks",
        {"generator": {"end_kernel": 4}},
        ["translators.cyclegan-gta5.networks.generator.end_kernel is 4"],
    ),
    (
        "adaptations.madan.training",
        {"segmenter": {"lr": 1}},
        ["adaptations.madan.training names segmenter", "adaptation"],
    ),
    (
        "adaptations.madan-feat.training",
        {"adaptation": {"gate": 0.5}},
        ["adaptations.madan-feat.training.adaptation.gate has no effect"],
    ),
    (
        "adaptations.madan-control.training",
        {"adaptation": {"weight": 0.5}},
        ["adaptations.madan-control has both weight and training.adaptation.weight"],
    ),
    (
        "adaptations.madan.training",
        {"adaptation": {"batch": 1}},
        ["more sets than adaptations.madan.training.adaptation.batch"],
    ),
]


@pytest.mark.parametrize(("key", "value", "words"), REFUSED, ids=[str(r[1])[:50] for r in REFUSED])
def test_wrong_override_is_refused_with_the_runs_key(raw, key, value, words):
    kind, name, top = key.split(".")
    raw[kind][name][top] = value
    with pytest.raises(Refusal) as caught:
        config.resolve(raw)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_generators_that_go_on_from_two_sizes_are_refused(raw):
    raw["translators"]["cyclegan-gta5"]["networks"] = {"generator": {"ngf": 6}}
    with pytest.raises(Refusal, match="translators..*start.*generator.*cyclegan-synthia"):
        config.resolve(raw)


def test_runs_that_wait_for_each_other_are_refused_with_own_sizes_too(raw):
    raw["segmenters"]["stage-1"]["start"] = "translators/madan"
    with pytest.raises(Refusal, match="wait for each other"):
        config.resolve(raw)


RAW = tiny(params_yaml())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["segmenter", "lr", "crop", "x"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(value=values, top=st.sampled_from(["training", "networks"]))
def test_any_override_resolves_or_is_one_sentence(value, top):
    run = RAW["segmenters"]["pooled"] | {top: value}
    try:
        config.resolve(RAW | {"segmenters": RAW["segmenters"] | {"pooled": run}})
    except Refusal as refusal:
        assert "\n" not in str(refusal)
