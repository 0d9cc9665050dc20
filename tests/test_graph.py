"""Addresses, certificates, code digests; folders that appear whole or not at all."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from conftest import PROJECT, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from madan import config, files
from madan.errors import Refusal
from madan.files import digest_files
from madan.pipeline import artefacts, certificates, checks, code
from madan.pipeline import settings as settings_of
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import JOBS, Graph
from madan.pipeline.publishing import Job

PACKAGE = PROJECT / "madan"
GTA5 = parse("miniature/gta5")


@pytest.fixture
def graph(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Graph(config.resolve(tiny(raw)))


def make(graph, artefact, text="x"):
    """Make an artefact, and whatever is behind it, of files that hold a text."""
    for other in graph.ancestry([artefact]):
        with Job(graph, other).publish() as out:
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
    before = certificates.read(graph.certificate(shard))
    assert (before.settings, before.code) == (graph.settings(shard), graph.code(shard))
    verified = certificates.read(graph.certificate(parse("verified/gta5/train")))
    by_role = {"verified": {"gta5/train": {"verified/gta5/train": verified.content}}}
    assert before.inputs == by_role
    make(graph, shard, "y")
    after = certificates.read(graph.certificate(shard))
    assert after.content != before.content and after.data == after.content


def test_settings_of_inputs_are_part_of_the_chain_of_an_artefact(raw, graph):
    raw["miniature"]["seed"] = 7
    other, run = Graph(config.resolve(raw)), parse("segmenters/source-gta5")
    for artefact in (GTA5, run):
        assert graph.chain(artefact)[0] != other.chain(artefact)[0]
        assert graph.chain(artefact)[1] == other.chain(artefact)[1]
    assert graph.settings(run) == other.settings(run)


@pytest.mark.parametrize(
    ("key", "value", "anew"),
    [
        ("size", [32, 64], {"prepared"}),
        ("shards", 2, {"prepared"}),
        ("exclude", {"00001": "a reason"}, {"verified"}),
        ("known_damage", "keep", {"verified"}),
        ("splits", "all", {"verified"}),
    ],
)
def test_what_decides_the_pairs_is_a_setting_of_verify_and_what_shapes_them_of_prepare(
    raw, graph, key, value, anew
):
    artefacts = [GTA5, parse("verified/gta5/train"), parse("prepared/gta5/train/0")]
    for section in ("segmenter", "translator", "adaptation"):
        raw["training"][section]["crop"] = [32, 64]
    before = [graph.settings(artefact) for artefact in artefacts]
    raw["domains"]["gta5"][key] = value
    now = Graph(config.resolve(raw))
    changed = {
        artefact.kind
        for artefact, settings in zip(artefacts, before, strict=True)
        if now.settings(artefact) != settings
    }
    assert changed == anew


def test_a_runs_own_steps_hide_those_of_its_kind(raw, graph):
    raw["segmenters"]["source-gta5"]["steps"] = 5
    first = Graph(config.resolve(raw))
    raw["training"]["segmenter"]["steps"] = 77
    second = Graph(config.resolve(raw))
    own, others = parse("segmenters/source-gta5"), parse("segmenters/source-synthia")
    assert first.settings(own) == second.settings(own) != graph.settings(own)
    assert first.settings(others) != second.settings(others)


def test_nothing_appears_when_the_work_fails(graph):
    with pytest.raises(RuntimeError), Job(graph, GTA5).publish() as out:
        (out / "half").write_text("written")
        raise RuntimeError
    assert list(Path("data/miniature").iterdir()) == []


def test_what_stood_there_stays_when_the_work_fails(graph):
    make(graph, GTA5, "before")
    with pytest.raises(RuntimeError), Job(graph, GTA5).publish():
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
    checks.check(score, graph.params)
    assert parse("prepared/my-own-city/test/0") in graph.inputs(score)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"content": 1}'])
def test_a_damaged_certificate_is_none(tmp_path, text):
    (tmp_path / "certificate.json").write_text(text)
    assert certificates.read(tmp_path / "certificate.json") is None


def test_a_certificate_is_read_as_it_was_written(graph, tmp_path):
    make(graph, GTA5)
    made = certificates.read(graph.certificate(GTA5))
    certificates.write(tmp_path / "again.json", made)
    assert certificates.read(tmp_path / "again.json") == made
    assert (tmp_path / "again.json").read_bytes() == graph.certificate(GTA5).read_bytes()


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
        checks.check(artefact, graph.params)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("pooled", "did you mean"),
        ("segmenters", "write segmenters/RUN"),
        ("segmenters/", "write segmenters/RUN"),
        ("segmenters/pooled/0", "write segmenters/RUN"),
        ("prepared/gta5/train", "write prepared/DOMAIN/SPLIT/SHARD"),
        ("prepared/gta5/train/one", "write prepared/DOMAIN/SPLIT/SHARD"),
        ("stylised/madan", "write stylised/TRANSLATOR/SOURCE"),
        ("scores/pooled/cityscapes/val", "write scores/KIND/RUN/DOMAIN/SPLIT"),
    ],
)
def test_an_address_of_another_form_is_refused_with_the_right_form(address, words):
    with pytest.raises(Refusal, match=words.replace("did you mean", "allowed: miniature")):
        parse(address)


def test_an_address_says_again_what_it_was_parsed_from(graph):
    for artefact in graph.everything():
        assert parse(artefact.address, artefact.seed) == artefact


def test_a_kept_step_is_stylised_by_itself_and_made_by_its_translator(raw, graph):
    raw["translators"]["madan"]["keep"] = [1, 2]
    raw["segmenters"]["early"] = {"train_on": ["madan@1/gta5", "madan/synthia"]}
    graph = Graph(config.resolve(raw))
    early, late, end = (parse(f"stylised/{run}/gta5") for run in ("madan@1", "madan@2", "madan"))
    assert len({graph.folder(each) for each in (early, late, end)}) == 3
    assert len({str(graph.settings(each)) for each in (early, late, end)}) == 3
    assert graph.inputs(early) == graph.inputs(end)
    assert early in graph.inputs(parse("segmenters/early"))
    checks.check(parse("releases/madan@1/gta5"), graph.params)


def test_a_translator_with_a_task_segmenter_is_scored_as_a_segmenter_is(graph):
    scored = parse("scores/translators/joint/cityscapes/val")
    checks.check(scored, graph.params)
    assert parse("translators/joint") in graph.inputs(scored)


# --- Code ------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path):
    return Path(shutil.copytree(PACKAGE, tmp_path / "madan"))


def kinds_changed(package, before):
    """The kinds of artefacts whose code is another than before."""
    return {kind.kind for kind, root in JOBS.items() if code.modules(package, root) != before[kind]}


def digests(package):
    return {kind: code.modules(package, root) for kind, root in JOBS.items()}


def test_what_was_found_in_files_is_found_anew_when_one_looks_changed(tmp_path):
    memory, file, asked = tmp_path / "memory", tmp_path / "file", []

    def find():
        asked.append(file.read_text())
        return asked[-1]

    for text in ("one", "two"):
        file.write_text(text)
        assert [files.remembered(memory, [file], find) for _ in range(2)] == [text] * 2
    assert asked == ["one", "two"]
    memory.write_text("torn {")
    assert files.remembered(memory, [file], find) == "two"
    assert asked == ["one", "two", "two"]


def test_comments_and_docstrings_are_not_code(package):
    before = digests(package)
    path = package / "methods/losses.py"
    path.write_text(path.read_text().replace('"""L_GAN', '"""Anything') + "\n# A comment\n")
    assert kinds_changed(package, before) == set()


def test_a_changed_formula_reaches_exactly_the_jobs_that_use_it(package):
    before = digests(package)
    path = package / "methods/losses.py"
    path.write_text(path.read_text().replace("output - 1", "output - 0.9"))
    changed = kinds_changed(package, before)
    assert {"translators", "segmenters", "adaptations"} <= changed
    assert not changed & {"miniature", "verified", "prepared", "tables", "released"}


def every_module():
    paths = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if name != "__init__"]


def behind_jobs():
    return {name for root in JOBS.values() for name in code.modules(PACKAGE, root)}


# These are behind no job, and each is a command's own: it parses, asks, or shows.
COMMANDS = {
    "engine.process", "data.drafting", "data.pairing", "inference", "inference.photos",
    "inference.predict", "inference.video", "pipeline.status", "pipeline.publication",
    "pipeline.acceptance", "pipeline.estimate", "pipeline.calibration", "pipeline.trials",
    "pipeline.shares", "pipeline.outs",
}  # fmt: skip


def test_every_module_is_behind_a_job_or_left_out_for_a_reason():
    left_out = set(filter(code.left_out, every_module()))
    assert {name.partition(".")[0] for name in left_out} | left_out >= set(code.LEFT_OUT)
    commands = COMMANDS | {name for name in every_module() if name.partition(".")[0] == "cli"}
    assert set(every_module()) == behind_jobs() | left_out | commands


def test_a_line_more_in_any_module_behind_a_job_changes_the_code_of_that_job(package):
    before = digests(package)
    for name in behind_jobs():
        path = code._file(package, name)
        text = path.read_text()
        path.write_text(text + "\nx = 1\n")
        kinds = {kind.kind for kind in JOBS if name in before[kind]}
        assert kinds_changed(package, before) == kinds != set(), name
        path.write_text(text)
        os.utime(path, ns=(1, 1))
        before = digests(package)


WIRINGS = {
    "a segmenter learns from its first set alone": (
        "pipeline/jobs/segment.py", "run.train_on,", "run.train_on[:1],", {"segmenters"},
    ),
    "a translator has no judges": (
        "pipeline/jobs/translate.py", "[judge] in judges.items()", "[judge] in ()", {"translators"},
    ),
    "F is loaded where F_A belongs": (
        "pipeline/jobs/inputs.py", '"FA" if', '"F" if',
        {"translators", "stylised", "segmenters", "adaptations", "scores", "figures", "releases",
         "predictions"},
    ),
    "a stylised set has the labels of nothing": (
        "pipeline/jobs/inputs.py", "[graph.folder(shard) for shard in source]", "[]",
        {"translators", "stylised", "segmenters", "adaptations", "scores", "figures", "releases",
         "predictions"},
    ),
    "the first scores of a table are missing": (
        "pipeline/jobs/table.py", "in scores[row.row]", "in scores[row.row][1:]",
        {"tables"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", WIRINGS)
def test_another_wiring_is_other_code_of_exactly_its_jobs(package, change):
    file, old, new, kinds = WIRINGS[change]
    before, path = digests(package), package / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert kinds_changed(package, before) == kinds


def test_other_edges_are_another_plan_of_exactly_what_they_concern(graph, monkeypatch):
    """`edges` is left out of the code digest, for the inputs themselves are in the plan."""
    from madan.pipeline import edges

    before = {each: graph.planned(each) for each in graph.everything()}
    monkeypatch.setitem(edges._sets.__globals__, "shards", lambda *_: [GTA5])
    now = Graph(graph.params)
    changed = {each.kind for each in before if now.planned(each) != before[each]}
    assert {"translators", "segmenters", "stylised", "adaptations"} <= changed
    assert not changed & {"miniature", "verified", "prepared"}


def test_a_file_that_is_not_python_is_a_sentence(package):
    (package / "methods/losses.py").write_text("def :\n")
    with pytest.raises(Refusal, match="losses.py line 1 is not valid Python"):
        digests(package)


def test_the_digest_of_syntax_does_not_know_pythons_version(package):
    """Fields that newer versions of Python add are empty where older code is read."""
    import ast

    tree = ast.parse("def f(x: int) -> int:\n    return x\nclass A: pass\n")
    before = code._syntax(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node._fields = (*node._fields, "type_params")
            node.type_params = []
    assert code._syntax(tree) == before


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=4), st.binary(max_size=8), max_size=4))
def test_content_is_names_and_bytes(files):
    def digest_of(pairs):
        with tempfile.TemporaryDirectory() as folder:
            for name, content in pairs:
                Path(folder, name).write_bytes(content)
            return digest_files(sorted(Path(folder).iterdir()), Path(folder))

    assert digest_of(files.items()) == digest_of(reversed(files.items()))
    assert digest_of(files.items()) != digest_of([*files.items(), ("zz", b"")])


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
    before = graph.chain(parse("segmenters/source-synthia"))
    raw["networks"]["drn26"]["width"] = 0.5
    wider = Graph(config.resolve(raw))
    assert wider.chain(parse("segmenters/source-synthia")) == before
    assert wider.chain(parse("segmenters/source-gta5")) != graph.chain(
        parse("segmenters/source-gta5")
    )


@pytest.mark.parametrize("scale", ["miniature", "paper"])
def test_no_run_is_trained_twice_under_two_names(raw, scale):
    graph = Graph(config.resolve(raw | {"scale": scale}))
    kinds = ("segmenters", "translators", "adaptations")
    trained = [artefact for artefact in graph.everything() if artefact.kind in kinds]
    promises = [(artefact.kind, *graph.chain(artefact)) for artefact in trained]
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
    assert graph.roles(feat)["start"] == {"translators/madan": [parse("translators/madan")]}
    assert parse("stylised/madan/gta5") in graph.inputs(feat)
    assert settings_of.steps(mdan, graph.params) == graph.params.training.segmenter.steps
    before = {each: graph.chain(each) for each in (mdan, feat)}
    for section, key, value, moved in (
        ("segmenter", "lr", 0.5, {mdan, feat}),
        ("mdan", "gamma", 3, {mdan}),
        ("adaptation", "lr_discriminator", 0.5, {feat}),
        ("adaptation", "gate", 0.5, set()),
    ):
        was, raw["training"][section][key] = raw["training"][section][key], value
        now = Graph(config.resolve(raw))
        assert {each for each in before if now.chain(each) != before[each]} == moved, key
        raw["training"][section][key] = was


def test_a_table_with_seeds_of_its_own_is_scored_with_those_and_others_as_before(raw):
    raw["seeds"] = [3]
    raw["tables"]["semantic"]["seeds"] = [3, 5]
    graph = Graph(config.resolve(raw))
    assert {score.seed for score in graph.inputs(parse("tables/semantic"))} == {3, 5}
    assert {score.seed for score in graph.inputs(parse("tables/miou"))} == {3}
    before = (
        graph.chain(parse("tables/miou")),
        graph.chain(parse("tables/semantic")),
    )
    checks.check(parse("segmenters/oracle", 5), graph.params)
    raw["tables"]["semantic"]["seeds"] = [3]
    graph = Graph(config.resolve(raw))
    after = graph.chain(parse("tables/miou")), graph.chain(parse("tables/semantic"))
    assert before[0] == after[0] and before[1] != after[1]


def test_a_weight_of_its_own_is_all_that_a_control_differs_in(graph):
    one, other = (graph.settings(parse(f"adaptations/{n}")) for n in ("madan", "madan-control"))
    assert other["training"]["adaptation"]["weight"] == 0
    del one["run"]["weight"], other["run"]["weight"]
    del one["training"]["adaptation"]["weight"], other["training"]["adaptation"]["weight"]
    assert one == other


def test_what_was_imported_is_what_counts_where_its_file_is_gone(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw["released"] = {"judge": {"file": "judge.pth", "network": "fcn8s"}}
    Path("judge.pth").write_text("weights")
    judge = parse("released/judge")
    graph = Graph(config.resolve(raw))
    make(graph, judge)
    Path("judge.pth").unlink()
    assert Graph(config.resolve(raw)).settings(judge) == graph.settings(judge)
    graph.certificate(judge).write_text("torn {")
    assert Graph(config.resolve(raw)).settings(judge)["content"] == "missing"


# --- Roles -----------------------------------------------------------------------------------


def test_the_inputs_of_every_rule_are_the_roles_of_what_it_makes(graph):
    """Rules, `edges.roles` and the functions in `jobs` name the inputs alike."""
    import importlib
    import inspect
    import re

    rules = {}
    for path in sorted((PROJECT / "workflow/rules").glob("*.smk")):
        for text in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            inputs = re.search(r"    input:\n(.*?)\n    output:", text, re.DOTALL)
            names = (
                set(re.findall(r"^        (\w+)=", inputs[1], re.MULTILINE)) if inputs else set()
            )
            rules[text.split(":")[0]] = names - {"rebuild", "absent"}
    by_kind = {each.kind: each for each in [*graph.everything(), parse("figures/classes")]}
    by_kind |= {each.kind: each for each in map(parse, (
        "releases/madan/gta5", "predictions/segmenters/pooled/cityscapes/val"))}  # fmt: skip
    for kind, module in JOBS.items():
        name = module.rpartition(".")[2]
        function = getattr(importlib.import_module(f"madan.{module}"), name)
        options = {"job", "jobs", "quick", "processes", "as_released", "height"}
        roles = set(inspect.signature(function).parameters) - options
        assert roles == rules[name], name
        if kind.kind in by_kind:
            assert roles == set(graph.roles(by_kind[kind.kind])), name
    assert rules["miou"] == rules["table"] == {"scores"}


def test_a_segmenter_is_made_from_images_and_not_from_the_translator_that_made_them(graph):
    made = graph.roles(parse("segmenters/cyclegan-gta5"))
    assert made["stylised"] == {"cyclegan-gta5/gta5": [parse("stylised/cyclegan-gta5/gta5")]}
    assert {each.kind for each in graph.inputs(parse("segmenters/cyclegan-gta5"))} == {
        "stylised", "prepared",
    }  # fmt: skip


def test_the_roles_of_a_translator_are_those_of_the_paper(graph):
    roles = graph.roles(parse("translators/madan"))
    assert list(roles) == ["sources", "target", "start", "judges", "task"]
    assert list(roles["sources"]) == ["gta5", "synthia"] and list(roles["target"]) == ["cityscapes"]
    assert roles["judges"] == {
        source: [parse(f"segmenters/source-{source}")] for source in ("gta5", "synthia")
    }
    assert roles["task"] == {"segmenters/stage-1": [parse("segmenters/stage-1")]}
    assert roles["start"]["cyclegan-gta5"] == [artefacts.Translator("cyclegan-gta5")]
