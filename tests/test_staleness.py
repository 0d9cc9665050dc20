"""What is current and why the rest is not: certificates alone, without Snakemake."""

import json
import os
import shutil

import pytest
from conftest import tiny
from test_graph import make

from madan import config
from madan.errors import Refusal
from madan.pipeline import acceptance, artefacts, certificates, staleness
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.pipeline.publishing import Job, open_job, read_rebuild, verify, write_rebuild
from madan.pipeline.staleness import Staleness

RUN = parse("segmenters/source-gta5")
SHARD = parse("prepared/gta5/train/0")
MIOU = parse("tables/miou")


@pytest.fixture
def graph(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Graph(config.resolve(tiny(raw)))
    make(made, RUN)
    return made


@pytest.fixture
def changed(raw, graph):
    """The graph after its segmenters' rate was changed."""
    raw["training"]["segmenter"]["lr"] = 0.5
    return Graph(config.resolve(tiny(raw)))


def edit(graph, which, **more):
    path = graph.certificate(which)
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def by_other_code(graph, artefact):
    edit(graph, artefact, code=graph.code(artefact) | {"losses": "0" * 16})


def reason(graph, artefact):
    return Staleness(graph).reason(artefact)


def test_everything_that_can_be_made_can_be_found_on_disk(graph):
    for artefact in graph.everything():
        path = graph.certificate(artefact)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert set(staleness.on_disk(graph)) == set(graph.everything())


def test_files_without_a_certificate_are_out_of_date_and_say_so(graph):
    for artefact in graph.everything():
        path = graph.certificate(artefact)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = isinstance(artefact, artefacts.Table)
        path.unlink(missing_ok=True)
        (artefact.csv if table else path.with_name("file")).touch()
    found = staleness.outdated(Staleness(graph))
    assert set(found) == set(graph.everything())
    for artefact in found:
        own = Staleness(graph).own_reason(artefact)
        assert own.text == f"{graph.certificate(artefact)} is missing"


def test_what_was_just_made_is_current_whatever_its_times(graph):
    for number, artefact in enumerate(graph.ancestry([RUN])):
        os.utime(graph.certificate(artefact), (2e9 - number, 2e9 - number))
    assert Staleness(graph).is_current(RUN)


@pytest.mark.parametrize(
    ("change", "why", "text"),
    [
        (lambda g: g.certificate(RUN).unlink(), "missing", "is missing"),
        (lambda g: g.certificate(RUN).write_text("torn {"), "missing", "cannot be read"),
        (lambda g: (g.folder(RUN) / "file").unlink(), "files", "0 files are in .*1 were made"),
        (lambda g: (g.folder(RUN) / "more").touch(), "files", "2 files are in .*1 were made"),
        (lambda g: edit(g, RUN, artefact="segmenters/x seed 0"), "files", "of segmenters/x"),
        (lambda g: by_other_code(g, RUN), "code", "losses.py changed"),
        (lambda g: make(g, SHARD, "y"), "inputs", "another content of prepared/gta5/train/0"),
        (lambda g: g.certificate(SHARD).unlink(), "follows", "train/0 is missing"),
        (lambda g: by_other_code(g, SHARD), "follows", "train/0 is out of date: losses.py changed"),
        (
            lambda g: shutil.rmtree(g.folder(parse("miniature/gta5"))),
            "follows", "miniature/gta5 is missing",
        ),
    ],
)  # fmt: skip
def test_each_way_of_being_out_of_date_has_its_reason(graph, change, why, text):
    change(graph)
    found = reason(graph, RUN)
    assert found.why == why
    import re

    assert re.search(text, found.text), found.text


def test_a_changed_setting_is_named_with_what_it_was_and_is(changed):
    assert reason(changed, RUN) == ("settings", "training.segmenter.lr was 0.002, is 0.5")
    assert reason(changed, SHARD) is None


def test_the_summary_counts_and_names_the_first_of_each_reason(graph, changed):
    by_other_code(graph, SHARD)
    text = staleness.summary(staleness.outdated(Staleness(changed)))
    assert text.startswith("madan: 2 results are out of date")
    assert (
        "1 because training.segmenter.lr was 0.002, is 0.5 (segmenters/source-gta5 seed 0)" in text
    )
    assert "1 because losses.py changed (prepared/gta5/train/0)" in text


@pytest.mark.parametrize("address", ["scores/segmenters/source-gta5/cityscapes/val",
                                     "figures/generators", "segmenters/oracle"])  # fmt: skip
def test_what_no_table_needs_is_looked_at_too(address, raw, graph):
    artefact = parse(address)
    make(graph, artefact)
    raw["training"]["segmenter"]["lr"] = raw["training"]["translator"]["lr"] = 0.5
    later = Graph(config.resolve(tiny(raw)))
    assert artefact in staleness.outdated(Staleness(later))


@pytest.mark.parametrize("page", ["results/miou.csv", "results/metrics.json"])
def test_a_table_whose_bytes_were_changed_is_out_of_date(graph, page):
    make_table(graph)
    assert Staleness(graph).is_current(MIOU)
    staleness.check(graph)
    with open(page, "a") as file:
        file.write("edited by hand\n")
    assert reason(graph, MIOU).why == "files"
    with pytest.raises(Refusal, match="results/m.* changed since"):
        staleness.check(graph)


def test_a_score_whose_bytes_were_changed_is_out_of_date(graph):
    score = parse("scores/segmenters/source-gta5/cityscapes/test")
    make(graph, score)
    (graph.folder(score) / "file").write_text("y")
    assert reason(graph, score).why == "files"


def make_table(graph):
    for artefact in graph.inputs(MIOU):
        make(graph, artefact)
    job = Job(graph, MIOU)
    for page in MIOU.pages.values():
        page.write_text("row\n")
    made = job.certificate(MIOU.files(graph.params), job.folder(MIOU))
    certificates.write(graph.certificate(MIOU), made)


def test_a_table_follows_what_is_missing_far_behind_it(graph):
    make_table(graph)
    (graph.folder(RUN) / "file").unlink()
    assert reason(graph, MIOU).why == "follows"
    with pytest.raises(Refusal, match="segmenters/source-gta5"):
        staleness.check(graph)


# --- Jobs ------------------------------------------------------------------------------------


def job(graph, raw, artefact, planned=None):
    from ruamel.yaml import YAML

    with open("params.yaml", "w") as file:
        YAML().dump(raw, file)
    return open_job(artefact.address, artefact.seed, planned)


def test_a_job_whose_plan_is_another_is_refused(graph, raw):
    with pytest.raises(Refusal, match="changed since segmenters/source-gta5 seed 0 was planned"):
        job(graph, raw, RUN, "0" * 16)


def test_a_job_whose_inputs_are_missing_is_refused_with_the_command_that_makes_them(graph, raw):
    graph.certificate(SHARD).unlink()
    with pytest.raises(Refusal, match="is missing. Make it: snakemake data/prepared"):
        job(graph, raw, RUN)


def test_a_job_whose_inputs_have_other_bytes_is_refused(graph, raw):
    (graph.folder(SHARD) / "file").write_text("y")
    shutil.rmtree("state")
    with pytest.raises(Refusal, match="train-64x128/0-of-1 is damaged"):
        job(graph, raw, RUN)


def test_a_job_that_was_out_of_date_and_is_current_by_now_has_nothing_to_do(graph, raw, capsys):
    """An input that was made anew with the same content makes nothing else anew."""
    by_other_code(graph, SHARD)
    found = write_rebuild(Staleness(graph))
    assert list(found) == [SHARD, RUN] and read_rebuild() == [str(SHARD), str(RUN)]
    make(graph, SHARD)
    assert job(graph, raw, RUN, graph.planned(RUN)) is None
    assert "is current" in capsys.readouterr().out
    make(graph, SHARD, "y")
    assert job(graph, raw, RUN, graph.planned(RUN)).artefact == RUN


def test_a_job_that_was_current_and_is_forced_is_done(graph, raw):
    write_rebuild(Staleness(graph))
    assert job(graph, raw, RUN, graph.planned(RUN)).artefact == RUN


def test_two_processes_never_make_one_artefact(graph):
    with Job(graph, RUN).publish():
        with pytest.raises(Refusal, match="is being made by another process"):
            with Job(graph, RUN).publish():
                pass
    assert Staleness(graph).is_current(RUN)


def test_files_that_were_read_before_are_read_again_only_if_they_look_changed(graph, monkeypatch):
    from madan.pipeline import contents

    shutil.rmtree("state")
    verify(graph, SHARD)
    monkeypatch.setattr(contents, "digest_files", None)
    verify(graph, SHARD)


def test_files_that_were_changed_in_place_since_they_were_made_are_noticed(graph):
    path = graph.folder(RUN) / "file"
    path.write_text("y")
    assert reason(graph, RUN).why == "files"
    path.write_text("x")
    assert Staleness(graph).is_current(RUN)


def test_large_files_that_this_machine_never_saw_are_left_to_the_job_that_reads_them(graph):
    (graph.folder(SHARD) / "file").write_text("y")
    shutil.rmtree("state")
    assert Staleness(graph).is_current(SHARD)
    with pytest.raises(Refusal, match="is damaged"):
        verify(graph, SHARD)


# --- Acceptance ------------------------------------------------------------------------------


def test_other_code_alone_can_be_accepted_and_leaves_a_trace(graph):
    by_other_code(graph, RUN)
    with pytest.raises(Refusal, match="made by other code: losses.py changed"):
        acceptance.accept(graph, [RUN], other_code=False)
    acceptance.accept(graph, [RUN], other_code=True)
    accepted = certificates.read(graph.certificate(RUN)).accepted
    assert accepted["losses"] == "0" * 16
    assert Staleness(graph).is_current(RUN)


@pytest.mark.parametrize("other_code", [False, True])
def test_other_settings_other_bytes_and_other_inputs_cannot_be_accepted(other_code, graph, changed):
    with pytest.raises(Refusal, match="cannot be accepted, because training.segmenter.lr"):
        acceptance.accept(changed, [RUN], other_code)
    acceptance.accept(graph, [RUN], other_code)
    (graph.folder(RUN) / "file").write_text("y")
    with pytest.raises(Refusal, match="its files have"):
        acceptance.accept(graph, [RUN], other_code)
    make(graph, RUN)
    make(graph, SHARD, "y")
    with pytest.raises(Refusal, match="another content of prepared"):
        acceptance.accept(graph, [RUN], other_code)


def test_accepting_what_is_made_from_something_out_of_date_is_refused(graph):
    by_other_code(graph, parse("miniature/gta5"))
    with pytest.raises(Refusal, match="miniature/gta5 is not current"):
        acceptance.accept(graph, [RUN], other_code=True)


def test_a_path_without_artefacts_is_refused(graph, tmp_path):
    with pytest.raises(Refusal, match="holds no artefact"):
        acceptance.below(graph, [tmp_path / "docs"])
    assert acceptance.below(graph, [graph.certificate(RUN)]) == [RUN]
    assert acceptance.below(graph, [tmp_path / "results"]) == [RUN]


# --- Raw data --------------------------------------------------------------------------------


@pytest.fixture
def real(raw, tmp_path, monkeypatch):
    """A verified split of a real dataset of two pairs."""
    monkeypatch.chdir(tmp_path)
    raw["scale"] = "paper"
    raw["scales"]["paper"]["domains"]["cityscapes"]["root"] = str(tmp_path / "raw")
    for name in "ab":
        for path in (f"leftImg8bit/val/x/{name}_leftImg8bit.png",
                     f"gtFine/val/x/{name}_gtFine_labelIds.png"):  # fmt: skip
            (tmp_path / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "raw" / path).write_text(name)
    graph = Graph(config.resolve(raw))
    make(graph, parse("verified/cityscapes/val"))
    return graph, tmp_path / "raw"


def rename(root):
    """Exchange the labels of the two pairs: the same number, the same bytes in sum."""
    labels = sorted((root / "gtFine").rglob("*.png"))
    texts = [label.read_text() for label in labels]
    for label, text in zip(labels, reversed(texts), strict=True):
        label.write_text(text)


@pytest.mark.parametrize(
    "change",
    [
        rename,
        lambda root: next(root.rglob("a_leftImg8bit.png")).write_text("c"),
        lambda root: next(root.rglob("a_leftImg8bit.png")).unlink(),
        lambda root: next(root.rglob("a_left*")).with_name("c_leftImg8bit.png").write_text(""),
        lambda root: (p := next(root.rglob("a_left*"))).rename(p.with_name("c_leftImg8bit.png")),
    ],
    ids=["labels exchanged", "rewritten in place", "gone", "added", "renamed"],
)
def test_changed_raw_files_are_noticed(real, change):
    graph, root = real
    split = parse("verified/cityscapes/val")
    assert Staleness(graph).is_current(split)
    change(root)
    assert reason(graph, split).why == "inputs"


def test_raw_files_that_were_touched_or_moved_to_another_machine_are_the_same(real, tmp_path):
    graph, root = real
    split = parse("verified/cityscapes/val")
    for path in root.rglob("*.png"):
        os.utime(path, (1e9, 1e9))
    assert Staleness(graph).is_current(split)
    shutil.rmtree("state")
    assert Staleness(graph).is_current(split)


def test_raw_files_are_read_once(real, monkeypatch):
    from madan.pipeline import raw

    graph, root = real
    asked = []
    monkeypatch.setattr(raw, "_sha256", lambda path: asked.append(path) or "0")
    Staleness(graph).is_current(parse("verified/cityscapes/val"))
    assert asked == []
    changed = next(root.rglob("a_leftImg8bit.png"))
    changed.write_text("c")
    Staleness(graph).is_current(parse("verified/cityscapes/val"))
    assert asked == [changed]


def test_what_was_verified_counts_where_the_raw_files_are_gone(real):
    graph, root = real
    shutil.rmtree(root)
    assert Staleness(graph).is_current(parse("verified/cityscapes/val"))
