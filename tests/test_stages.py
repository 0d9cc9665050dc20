"""The picture of the graph: all that the graph says, and nothing that it does not say."""

import pytest
from conftest import tiny
from PIL import Image

from madan import cli, config
from madan.config.schema import Figure
from madan.pipeline import graph_figure
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.report import plots

PICTURE = Figure(shows="graph")
DRAWN = parse("figures/graph")


@pytest.fixture
def graph(raw):
    return Graph(config.resolve(tiny(raw)))


def leads(arrows, start, end):
    return any(b == end or leads(arrows, b, end) for a, b in arrows if a == start)


def places(graph, figure):
    """Arrows, and by address of an artefact the number of its box."""
    boxes, arrows, _ = graph_figure.boxes(graph, figure)
    kinds = {command: kind for kind, (_, command, _) in graph_figure.KINDS.items()}
    place = {(kinds[step.command], name): k for k, step in enumerate(boxes) for name in step.names}
    found = {}
    for address in graph.behind(figure):
        kind, name = address.split("/", 1)
        found[address] = place[kind, name.split("/")[1] if kind == "scores" else name]
    return arrows, found


@pytest.mark.parametrize("table", ["miou", "bdd100k", "ablation"])
@pytest.mark.parametrize("scale", ["miniature", "paper"])
def test_arrows_are_what_is_made_from_what(raw, table, scale):
    """None is left out that others do not imply, none is made up, and all scores have theirs."""
    graph, figure = (
        Graph(config.resolve(raw | {"scale": scale})),
        Figure(shows="graph", table=table),
    )
    arrows, place = places(graph, figure)
    made = set()
    for address, inputs in graph.behind(figure).items():
        for other in inputs:
            start, end = place[other], place[address]
            made.add((start, end))
            assert start == end or leads(arrows, start, end), (other, address)
            assert (start, end) in arrows or not address.startswith("scores/")
    assert set(arrows) <= made


def test_every_artefact_behind_the_table_is_in_the_picture(graph):
    behind = graph.behind(PICTURE)
    for artefact in graph.everything():
        address = f"{artefact.kind}/{artefact.name}"
        assert (address.rpartition("/")[0] if artefact.kind == "prepared" else address) in behind


def test_runs_stand_in_the_papers_stages(graph):
    boxes, arrows, _ = graph_figure.boxes(graph, PICTURE)
    stage = {
        (name, step.command.split()[1]): step.stage[:7] for step in boxes for name in step.names
    }
    assert stage["source-gta5", "segment"] == ""
    assert stage["cyclegan-gta5", "translate"] == stage["stage-1", "segment"] == "Stage 1"
    assert stage["madan", "translate"] == stage["madan/gta5", "stylise"] == "Stage 2"
    assert stage["madan-pixel", "segment"] == stage["madan", "adapt"] == "Stage 3"
    said = {
        (boxes[a].stage[:7], boxes[b].stage[:7], word) for (a, b), word in arrows.items() if word
    }
    assert said == {
        ("", "Stage 2", "$F_i$ judge"),
        ("Stage 1", "Stage 2", "$G_i$ go on"),
        ("Stage 1", "Stage 2", "$F$ becomes $F_A$"),
        ("Stage 2", "Stage 3", "$F_A$ goes on"),
        ("Stage 3", "Stage 3", "$F$ goes on"),
    }


def test_lanes_of_arrows_that_overlap_lie_apart():
    lanes = graph_figure._lanes([(0, 2), (1, 5), (3, 5), (2, 4), (5, 7)])
    assert lanes == {2: 0, 4: 0, 7: 0, 5: 1}


def test_picture_is_small_and_the_same_for_the_same_graph(graph, tmp_path):
    for name in ("one", "two"):
        plots.save(graph_figure.draw(*graph_figure.boxes(graph, PICTURE)), tmp_path / name)
    for suffix in (".png", ".pdf"):
        one, two = ((tmp_path / name).with_suffix(suffix).read_bytes() for name in ("one", "two"))
        assert one == two and len(one) < 100_000
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.width > 900


def test_commands_in_the_picture_are_those_of_the_command_line():
    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert {told[1].removeprefix("madan ") for told in graph_figure.KINDS.values()} <= known


def test_the_picture_needs_no_artefact_and_follows_the_runs_alone(raw, graph):
    assert graph.inputs(DRAWN) == []
    raw["training"]["segmenter"]["lr"] = 0.5
    assert Graph(config.resolve(raw)).planned(DRAWN) == graph.planned(DRAWN)
    raw["segmenters"]["madan-pixel"]["start"] = "segmenters/stage-1"
    assert Graph(config.resolve(raw)).planned(DRAWN) != graph.planned(DRAWN)
