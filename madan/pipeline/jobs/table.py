"""Rule table: collect the scores of a table of params.yaml."""

import json

import pandas as pd

from madan.files import write_whole
from madan.pipeline import certificates, contents
from madan.pipeline.artefacts import Table
from madan.pipeline.edges import Role
from madan.pipeline.graph import Graph
from madan.pipeline.publishing import Job
from madan.pipeline.staleness import Staleness
from madan.report import markdown, tables


def table(job: Job[Table], scores: Role) -> pd.DataFrame:
    """Write the files of a table and its certificate; return its lines."""
    graph, artefact = job.graph, job.artefact
    found = collected(graph, artefact, scores)
    made = tables.lines(found)
    texts = markdown.files(made, artefact.table, job.params, members=tables.members(found))
    texts["metrics"] = json.dumps(tables.averages(found), indent=1) + "\n"
    paths = artefact.pages
    with job.alone(artefact.csv):
        for key, path in paths.items():
            write_whole(path, texts[key])
        certificate = job.certificate(paths.values(), job.folder(artefact))
        certificates.write(graph.certificate(artefact), certificate)
        contents.remember(artefact, job.params, certificate)
    return made


def partial(graph: Graph, artefact: Table) -> str:
    """Return the page of a table with the scores that are current by now."""
    current = Staleness(graph).is_current
    scores = {
        row: [score for score in named if current(score)]
        for row, named in graph.roles(artefact)["scores"].items()
    }
    found = collected(graph, artefact, scores)
    made, members = tables.lines(found), tables.members(found)
    return markdown.files(made, artefact.table, graph.params, members=members)["md"]


def collected(graph: Graph, artefact: Table, scores: Role) -> list[tables.Score]:
    """Return the scores of a table, rows in their order and seeds within a row."""
    found = []
    for row in graph.params.tables[artefact.table].rows:
        for score in scores[row.row]:
            settings, code = graph.chain(score)
            certificate = certificates.read(graph.certificate(score))
            data = certificate.data if certificate else ""
            about = {"settings": settings, "code": code, "data": data}
            path = graph.folder(score) / "score.json"
            found.append(tables.Score(row.row, row.setting, path, about))
    return found
