"""Addresses, certificates, code digests; folders that appear whole or not at all."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from conftest import PROJECT, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from madan import certificates, config
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.schema import Refusal

PACKAGE = PROJECT / "madan"
GTA5 = parse("miniature/gta5")


@pytest.fixture
def graph(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Graph(config.resolve(tiny(raw)))


def make(graph, artefact, text="x"):
    for other in graph.ancestry([artefact]):
        with graph.publish(other) as out:
            (out / "file").write_text(text if other == artefact else "x")


def test_every_artefact_has_a_folder_of_its_own(graph):
    made = [graph.certificate(artefact) for artefact in graph.everything()]
    assert len(made) == len(set(made))


def test_upstream_comes_first_and_only_what_tables_need(graph):
    order = graph.everything()
    for artefact in order:
        assert all(order.index(other) < order.index(artefact) for other in graph.inputs(artefact))
    runs = {artefact.name for artefact in order if artefact.kind == "segmenters"}
    assert "oracle" not in runs and "source-synthia" in runs


def test_only_the_oracle_and_evaluation_stand_on_labels_of_the_target(raw, graph):
    """A prepared set of the target reaches the others only through translators and adaptations."""
    for name, run in graph.params.segmenters.items():
        inputs = graph.inputs(parse(f"segmenters/{name}"))
        of_target = [
            other for other in inputs if other.name.startswith(("cityscapes/", "bdd100k/"))
        ]
        assert bool(of_target) == run.oracle


def test_certificate_knows_content_settings_code_inputs_and_data(graph):
    shard = parse("prepared/gta5/train/0")
    make(graph, shard)
    said = certificates.read(graph.certificate(shard))
    assert (said["settings"], said["code"]) == graph.promise(shard)
    before = said["content"]
    make(graph, shard, "y")
    said = certificates.read(graph.certificate(shard))
    assert said["content"] != before and said["data"] == said["content"]


def test_settings_of_upstream_are_part_of_an_artefacts_promise(raw, graph):
    raw["miniature"]["seed"] = 7
    other = Graph(config.resolve(raw))
    for artefact in (GTA5, parse("segmenters/source-gta5")):
        assert graph.promise(artefact)[0] != other.promise(artefact)[0]
        assert graph.promise(artefact)[1] == other.promise(artefact)[1]


@pytest.mark.parametrize(
    ("key", "value", "anew"),
    [
        ("size", [32, 64], {"prepared"}),
        ("shards", 2, {"prepared"}),
        ("exclude", {"00001": "a reason"}, {"verified", "prepared"}),
        ("known_damage", "keep", {"verified", "prepared"}),
        ("splits", "all", {"verified", "prepared"}),
    ],
)
def test_what_decides_the_pairs_is_verified_anew_and_what_only_shapes_them_is_not(
    raw, graph, key, value, anew
):
    artefacts = [GTA5, parse("verified/gta5/train"), parse("prepared/gta5/train/0")]
    for section in ("segmenter", "translator", "adaptation"):
        raw["training"][section]["crop"] = [32, 64]
    before = [graph.promise(artefact) for artefact in artefacts]
    raw["domains"]["gta5"][key] = value
    now = Graph(config.resolve(raw))
    changed = {
        artefact.kind
        for artefact, promise in zip(artefacts, before, strict=True)
        if now.promise(artefact) != promise
    }
    assert changed == anew


def test_changed_raw_files_are_planned_anew(raw, tmp_path, graph):
    raw["scale"] = "paper"
    raw["paper"]["domains"]["cityscapes"]["root"] = str(tmp_path / "raw")
    val, train = (parse(f"verified/cityscapes/{split}") for split in ("val", "train"))
    plans = []
    for path in ("leftImg8bit/val/a/a_leftImg8bit.png", "gtFine/val/a/a_gtFine_labelIds.png"):
        plans.append(Graph(config.resolve(raw)).planned(val))
        (tmp_path / "raw" / path).parent.mkdir(parents=True)
        (tmp_path / "raw" / path).touch()
    of_train = Graph(config.resolve(raw)).planned(train)
    plans.append(Graph(config.resolve(raw)).planned(val))
    (tmp_path / "raw" / path).write_text("more")
    plans.append(Graph(config.resolve(raw)).planned(val))
    assert len(set(plans)) == 4
    assert Graph(config.resolve(raw)).planned(train) == of_train


def test_a_runs_own_steps_hide_those_of_its_kind(raw, graph):
    raw["segmenters"]["source-gta5"]["steps"] = 5
    first = Graph(config.resolve(raw))
    raw["training"]["segmenter"]["steps"] = 77
    second = Graph(config.resolve(raw))
    own, others = parse("segmenters/source-gta5"), parse("segmenters/source-synthia")
    assert first.promise(own) == second.promise(own) != graph.promise(own)
    assert first.promise(others) != second.promise(others)


def test_upstream_made_with_other_settings_is_refused(raw, graph):
    make(graph, GTA5)
    raw["miniature"]["seed"] = 7
    other = Graph(config.resolve(raw))
    with (
        pytest.raises(Refusal, match="data/miniature/gta5 was made with other settings"),
        other.publish(parse("verified/gta5/train")),
    ):
        pass


def test_missing_upstream_is_refused_with_the_command_that_makes_it(graph):
    with (
        pytest.raises(Refusal, match="snakemake data/miniature/gta5/certificate.json"),
        graph.publish(parse("verified/gta5/train")),
    ):
        pass


def test_nothing_appears_when_the_work_fails(graph):
    with pytest.raises(RuntimeError), graph.publish(GTA5) as out:
        (out / "half").write_text("written")
        raise RuntimeError
    assert list(Path("data/miniature").iterdir()) == []


def test_what_stood_there_stays_when_the_work_fails(graph):
    make(graph, GTA5, "before")
    with pytest.raises(RuntimeError), graph.publish(GTA5):
        raise RuntimeError
    assert (graph.folder(GTA5) / "file").read_text() == "before"


def test_remains_of_a_killed_job_are_swept_away(graph):
    remains = Path("data/miniature/.gta5.new")
    remains.mkdir(parents=True)
    (remains / "half").touch()
    make(graph, GTA5)
    assert not (graph.folder(GTA5) / "half").exists() and not remains.exists()


def test_a_domain_may_have_hyphens_in_its_name(raw, tmp_path):
    raw["domains"]["my-own-city"] = raw["domains"]["cityscapes"] | {
        "root": "data/miniature/my-own-city"
    }
    raw["miniature"]["images"]["my-own-city"] = {"train": 2, "test": 2}
    score = parse("scores/segmenters/pooled/my-own-city/test")
    graph = Graph(config.resolve(raw))
    graph.check(score)
    assert parse("prepared/my-own-city/test/0") in graph.inputs(score)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"content": 1}'])
def test_damaged_certificate_is_refused(tmp_path, text):
    (tmp_path / "certificate.json").write_text(text)
    with pytest.raises(Refusal, match="is damaged"):
        certificates.read(tmp_path / "certificate.json")


@pytest.mark.parametrize(
    ("artefact", "words"),
    [
        (parse("segmenters/pooledd"), "did you mean pooled"),
        (parse("stylised/madan/cityscapes"), "gta5, synthia"),
        (parse("prepared/both/train/0"), "gta5, synthia, cityscapes"),
        (parse("prepared/gta5/training/0"), "train, val, test"),
        (parse("prepared/gta5/train/9"), "allowed: 0"),
        (parse("scores/translators/cyclegan-gta5/cityscapes/val"), "has no task"),
        (parse("scores/stylised/madan/cityscapes/val"), "segmenters, adaptations"),
        (parse("stylised/madan@2/gta5"), "madan@2.*translators.madan.keep.*allowed: none"),
        (parse("figures/madan@2"), "madan@2"),
        (parse("tables/miuo"), "did you mean miou"),
        (parse("miniature/kitti"), "gta5"),
    ],
)
def test_unknown_artefact_is_refused_with_what_is_allowed(graph, artefact, words):
    with pytest.raises(Refusal, match=words):
        graph.check(artefact)


def test_a_kept_step_is_stylised_by_itself_and_made_by_its_translator(raw, graph):
    raw["translators"]["madan"]["keep"] = [1, 2]
    raw["segmenters"]["early"] = {"train_on": ["madan@1/gta5", "madan/synthia"]}
    graph = Graph(config.resolve(raw))
    early, late, end = (parse(f"stylised/{run}/gta5") for run in ("madan@1", "madan@2", "madan"))
    assert len({graph.folder(each) for each in (early, late, end)}) == 3
    assert len({graph.promise(each) for each in (early, late, end)}) == 3
    assert graph.inputs(early) == graph.inputs(end)
    assert early in graph.inputs(parse("segmenters/early"))
    graph.check(parse("releases/madan@1/gta5"))


def test_a_translator_with_a_task_segmenter_is_scored_as_a_segmenter_is(graph):
    scored = parse("scores/translators/joint/cityscapes/val")
    graph.check(scored)
    assert parse("translators/joint") in graph.inputs(scored)


# --- Code ------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path):
    return Path(shutil.copytree(PACKAGE, tmp_path / "madan"))


def digest(package, *modules):
    for remembered in (certificates.code_digest, certificates._imports, certificates._syntax):
        remembered.cache_clear()
    return certificates.code_digest(package, *modules)


def test_what_was_found_in_files_is_found_anew_when_one_looks_changed(tmp_path):
    memory, file, asked = tmp_path / "memory", tmp_path / "file", []

    def find():
        asked.append(file.read_text())
        return asked[-1]

    for text in ("one", "two"):
        file.write_text(text)
        assert [certificates.remembered(memory, [file], find) for _ in range(2)] == [text] * 2
    assert asked == ["one", "two"]
    memory.write_text("torn {")
    assert certificates.remembered(memory, [file], find) == "two"
    assert asked == ["one", "two", "two"]


def test_comments_and_docstrings_are_not_code(package):
    before = digest(package, "translation")
    path = package / "losses.py"
    path.write_text(path.read_text().replace('"""L_GAN', '"""Anything') + "\n# A comment\n")
    assert digest(package, "translation") == before


def test_a_changed_formula_reaches_exactly_the_commands_that_use_it(package):
    before = {kind: digest(package, *modules) for kind, modules in MODULES.items()}
    path = package / "losses.py"
    path.write_text(path.read_text().replace("output - 1", "output - 0.9"))
    changed = {kind for kind in before if digest(package, *MODULES[kind]) != before[kind]}
    assert changed == {"translators", "segmenters", "adaptations", "scores", "predictions"}


def test_a_better_verify_makes_nothing_anew_but_another_layout_does(package):
    before = {kind: digest(package, *modules) for kind, modules in MODULES.items()}
    changes = {}
    for name in ("verify", "layouts"):
        with (package / f"{name}.py").open("a") as file:
            file.write("\nx = 1\n")
        now = {kind: digest(package, *modules) for kind, modules in MODULES.items()}
        changes[name] = {kind for kind in now if now[kind] != before[kind]}
    assert changes["verify"] == set()
    assert {"verified", "prepared"} <= changes["layouts"]


def test_the_shell_around_the_science_is_not_code(package):
    before = digest(package, "translation")
    for name in certificates.UNCERTIFIED:
        with (package / f"{name}.py").open("a") as file:
            file.write("\nx = 1\n")
    assert digest(package, "translation") == before


def test_a_file_that_is_not_python_is_a_sentence(package):
    (package / "losses.py").write_text("def :\n")
    with pytest.raises(Refusal, match="losses.py line 1 is not valid Python"):
        digest(package, "translation")


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=4), st.binary(max_size=8), max_size=4))
def test_content_is_names_and_bytes(files):
    def digest_of(pairs):
        with tempfile.TemporaryDirectory() as folder:
            for name, content in pairs:
                Path(folder, name).write_bytes(content)
            return certificates.digest_files(sorted(Path(folder).iterdir()), Path(folder))

    assert digest_of(files.items()) == digest_of(reversed(files.items()))
    assert digest_of(files.items()) != digest_of([*files.items(), ("zz", b"")])


def test_certificate_is_one_line(graph):
    make(graph, GTA5)
    text = graph.certificate(GTA5).read_text()
    assert text.count("\n") == 1 and set(json.loads(text)) == {
        "content", "settings", "code", "inputs", "data", "files",
    }  # fmt: skip


def test_the_network_of_a_segmenter_is_a_setting_of_what_is_made_of_it(raw):
    def of(kind, name):
        return set(graph.settings(parse(f"{kind}/{name}"))["networks"])

    raw = tiny(raw)
    raw["segmenters"]["source-gta5"]["network"] = "drn26"
    graph = Graph(config.resolve(raw))
    assert of("segmenters", "source-gta5") == {"drn26"}
    assert of("segmenters", "source-synthia") == {"segmenter"}
    # One judge is the DRN, the other and F_A are not.
    assert of("translators", "madan") == {"generator", "discriminator", "segmenter", "drn26"}
    assert of("translators", "cyclegan-gta5") == {"generator", "discriminator"}
    assert of("adaptations", "madan") == {"feature_discriminator", "segmenter"}
    before = graph.promise(parse("segmenters/source-synthia"))
    raw["networks"]["drn26"]["width"] = 0.5
    wider = Graph(config.resolve(raw))
    assert wider.promise(parse("segmenters/source-synthia")) == before
    assert wider.promise(parse("segmenters/source-gta5")) != graph.promise(
        parse("segmenters/source-gta5")
    )


@pytest.mark.parametrize("scale", ["miniature", "paper"])
def test_no_run_is_trained_twice_under_two_names(raw, scale):
    graph = Graph(config.resolve(raw | {"scale": scale}))
    kinds = ("segmenters", "translators", "adaptations")
    trained = [artefact for artefact in graph.everything() if artefact.kind in kinds]
    promises = [(artefact.kind, *graph.promise(artefact)) for artefact in trained]
    twice = [a.name for a, p in zip(trained, promises, strict=True) if promises.count(p) > 1]
    assert not twice


def test_every_run_of_the_settings_is_needed_by_a_table(raw):
    params = config.resolve(raw)
    needed = {(a.kind, a.name) for a in Graph(params).everything()}
    for kind in ("segmenters", "translators", "adaptations"):
        assert {(kind, name) for name in getattr(params, kind)} <= needed


def test_what_learns_along_with_l_task_stands_on_its_own_sets_and_on_both_sections(raw, graph):
    mdan, feat = (parse(f"adaptations/{name}") for name in ("mdan", "madan-feat"))
    assert {each.kind for each in graph.inputs(mdan)} == {"prepared"}
    assert graph.inputs(feat)[0] == parse("translators/madan")
    assert parse("stylised/madan/gta5") in graph.inputs(feat)
    assert graph.steps(mdan) == graph.params.training.segmenter.steps
    before = {each: graph.promise(each) for each in (mdan, feat)}
    for section, key, value, moved in (
        ("segmenter", "lr", 0.5, {mdan, feat}),
        ("mdan", "gamma", 3, {mdan}),
        ("adaptation", "lr_discriminator", 0.5, {feat}),
        ("adaptation", "gate", 0.5, set()),
    ):
        was, raw["training"][section][key] = raw["training"][section][key], value
        now = Graph(config.resolve(raw))
        assert {each for each in before if now.promise(each) != before[each]} == moved, key
        raw["training"][section][key] = was


def test_a_table_with_seeds_of_its_own_is_scored_with_those_and_others_as_before(raw):
    raw["seeds"] = [3]
    raw["tables"]["semantic"]["seeds"] = [3, 5]
    graph = Graph(config.resolve(raw))
    assert {score.seed for score in graph.scores("semantic")} == {3, 5}
    assert {score.seed for score in graph.scores("miou")} == {3}
    before = (
        graph.promise(parse("tables/miou")),
        graph.promise(parse("tables/semantic")),
    )
    graph.check(parse("segmenters/oracle", 5))
    raw["tables"]["semantic"]["seeds"] = [3]
    graph = Graph(config.resolve(raw))
    after = graph.promise(parse("tables/miou")), graph.promise(parse("tables/semantic"))
    assert before[0] == after[0] and before[1] != after[1]


def test_a_weight_of_its_own_is_all_that_a_control_differs_in(graph):
    one, other = (graph.settings(parse(f"adaptations/{n}")) for n in ("madan", "madan-control"))
    assert other["training"]["adaptation"]["weight"] == 0
    del one["run"]["weight"], other["run"]["weight"]
    del one["training"]["adaptation"]["weight"], other["training"]["adaptation"]["weight"]
    assert one == other


def test_a_torn_report_of_an_import_whose_file_is_gone_is_a_sentence(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw["released"] = {"judge": {"file": "gone.pth", "network": "fcn8s"}}
    report = tmp_path / "results/miniature/released/judge/report.json"
    report.parent.mkdir(parents=True)
    report.write_text('{"sha')
    with pytest.raises(Refusal, match=r"report.json is damaged, and gone.pth"):
        Graph(config.resolve(raw)).promise(parse("released/judge"))
