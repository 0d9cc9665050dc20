"""What is published replaces what was published before, and nothing of the user's."""

import pytest
from conftest import PROJECT, params_yaml

from madan import config, outputs
from madan.errors import Refusal
from madan.pipeline import publication
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.pipeline.publishing import Job
from madan.pipeline.staleness import Staleness


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """A table and figures that stand for finished ones."""
    monkeypatch.chdir(tmp_path)
    graph = Graph(config.resolve(params_yaml()))
    monkeypatch.setattr(Staleness, "reason", lambda self, artefact: None)
    for name in graph.params.figures:
        folder = graph.folder(parse(f"figures/{name}"))
        folder.mkdir(parents=True)
        (folder / "figure.png").write_bytes(name.encode())
    for name in graph.params.tables:
        for page in parse(f"tables/{name}").pages.values():
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(name)
    parse("tables/miou").csv.with_name("metrics.json").write_text("{}")
    return graph


def test_what_was_published_is_published_again(graph, tmp_path):
    first = publication.publish(graph, tmp_path / "shown")
    assert tmp_path / "shown/miou.csv" in first and all(path.is_file() for path in first)
    parse("tables/miou").csv.write_text("another")
    assert publication.publish(graph, tmp_path / "shown") == first
    assert (tmp_path / "shown/miou.csv").read_text() == "another"


@pytest.mark.parametrize("name", ["miou.csv", "translation.png", "tables/ablation.csv"])
def test_a_file_of_the_users_is_not_replaced_and_nothing_is_written(graph, tmp_path, name):
    path = tmp_path / "shown" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(Refusal, match=f"{name} was not written by madan"):
        publication.publish(graph, tmp_path / "shown")
    assert [p for p in (tmp_path / "shown").rglob("*") if p.is_file()] == [path]
    assert path.read_text() == "mine"


@pytest.mark.parametrize("kind", ["figures", "releases", "predictions"])
def test_an_artefact_with_a_file_of_the_users_is_not_replaced(graph, kind):
    name = {"figures": "table", "releases": "madan/gta5",
            "predictions": "adaptations/madan/cityscapes/test"}[kind]  # fmt: skip
    folder = graph.folder(parse(f"{kind}/{name}"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(Refusal, match=r"notes.txt was not written by madan"):
        with Job(graph, parse(f"{kind}/{name}")).publish(("figure.png",)):
            raise AssertionError("nothing is made")
    assert (folder / "notes.txt").read_text() == "mine"


def test_what_git_has_of_the_miniature_is_listed():
    listed = outputs.listed(PROJECT / "docs/miniature", ["publish"])
    assert {"miou.csv", "metrics.json", "translation.png", "tables/ablation.md"} <= set(listed)
