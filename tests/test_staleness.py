"""What is refused, what can be vouched for, what is whole: certificates alone, no Snakemake."""

import json

import pytest
from conftest import tiny
from test_graph import make

from madan import config, guard
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.schema import Refusal

RUN = parse("segmenters/source-gta5")
SHARD = parse("prepared/gta5/train/0")


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


def by_other_code(graph, artefact):
    path = graph.certificate(artefact)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "0" * 16}) + "\n")


def test_everything_that_can_be_made_can_be_found_on_disk(graph):
    for artefact in graph.everything():
        path = graph.certificate(artefact)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert set(guard.on_disk(graph)) == set(graph.everything())


@pytest.mark.parametrize("kind", ["split", "figure", "unneeded run"])
def test_what_no_table_needs_is_refused_too(kind, raw, graph):
    artefact = {
        "split": parse("scores/segmenters/source-gta5/cityscapes/val"),
        "figure": parse("figures/generators"),
        "unneeded run": parse("segmenters/oracle"),
    }[kind]
    make(graph, artefact)
    raw["training"]["segmenter"]["lr"] = raw["training"]["translator"]["lr"] = 0.5
    later = Graph(config.resolve(tiny(raw)))
    guard.refuse_strangers(later, lambda path: ["other"])
    with pytest.raises(Refusal, match=str(graph.certificate(artefact))):
        guard.refuse_strangers(later, lambda path: None)


def test_a_record_of_todays_settings_for_a_result_of_others_is_refused(changed):
    guard.refuse_strangers(changed, lambda path: ["'other'"])
    with pytest.raises(
        Refusal, match="rm results/miniature/segmenters/source-gta5/seed0/certificate.json"
    ):
        guard.refuse_strangers(changed, lambda path: [repr(changed.planned(RUN))])


def test_other_code_alone_can_be_vouched_for_and_the_refusal_says_so(graph):
    by_other_code(graph, RUN)
    with pytest.raises(Refusal, match="madan vouch --code results/miniature/segmenters"):
        guard.refuse_strangers(graph, lambda path: None)
    with pytest.raises(Refusal, match="made by other code"):
        guard.vouch(graph, [RUN], other_code=False)
    guard.vouch(graph, [RUN], other_code=True)
    assert json.loads(graph.certificate(RUN).read_text())["vouched"] == "0" * 16
    assert guard.sound(graph, RUN)


@pytest.mark.parametrize("other_code", [False, True])
def test_other_settings_other_bytes_and_other_inputs_cannot_be_vouched_for(
    other_code, graph, changed
):
    with pytest.raises(Refusal, match="nobody can vouch"):
        guard.vouch(changed, [RUN], other_code)
    guard.vouch(graph, [RUN], other_code)
    (graph.folder(RUN) / "file").write_text("y")
    with pytest.raises(Refusal, match="its files hold"):
        guard.vouch(graph, [RUN], other_code)
    make(graph, RUN)
    with graph.publish(SHARD) as out:
        (out / "file").write_text("y")
    with pytest.raises(Refusal, match="other inputs"):
        guard.vouch(graph, [RUN], other_code)


def test_vouching_for_what_stands_on_something_unsound_is_refused(graph):
    by_other_code(graph, parse("miniature/gta5"))
    with pytest.raises(Refusal, match="data/miniature/gta5/certificate.json"):
        guard.vouch(graph, [RUN], other_code=True)


def test_sound_is_whole_promised_and_made_from_what_is_there(graph, changed):
    assert guard.sound(graph, RUN) and not guard.sound(changed, RUN)
    (graph.folder(RUN) / "file").unlink()
    assert not guard.sound(graph, RUN)


def test_a_table_misses_its_certificate_and_files_behind_it(graph):
    table = graph.table("miou")
    assert guard.gone(graph, "miou") == []
    for artefact in graph.scores("miou"):
        make(graph, artefact)
    table.write_text("row\n")
    assert guard.gone(graph, "miou") == ["results/miou.certificate.json"]
    miou = parse("tables/miou")
    line = graph.certify(miou, table.parent, [table])
    graph.certificate(miou).write_text(line)
    assert guard.gone(graph, "miou") == []
    guard.check(graph)
    (graph.folder(RUN) / "file").unlink()
    assert guard.gone(graph, "miou") == [str(graph.certificate(RUN))]
    with pytest.raises(Refusal, match=str(graph.certificate(RUN))):
        guard.check(graph)


def test_a_path_without_artefacts_is_refused(graph, tmp_path):
    with pytest.raises(Refusal, match="holds no artefact"):
        guard.below(graph, [tmp_path / "docs"])
    assert guard.below(graph, [graph.certificate(RUN)]) == [RUN]
    assert guard.below(graph, [tmp_path / "results"]) == [RUN]


def test_two_processes_never_make_one_artefact(graph):
    with graph.publish(RUN):
        with pytest.raises(Refusal, match="is being made by another process"):
            with graph.publish(RUN):
                pass
    assert guard.sound(graph, RUN)
